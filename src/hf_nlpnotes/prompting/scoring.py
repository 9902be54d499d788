"""Scores of label words under a masked language model.

A word of K tokens is asked for with K masks, all at once. Its score is the mean log-probability of its tokens,

    s(w | x) = 1/K Σₖ log P(mask k = wₖ | x with K masks),

the parallel approximation of Schick & Schütze (NAACL 2021, https://arxiv.org/abs/2009.07118, equation 4), divided by
the length as one does for answers of unequal length (Brown et al. 2020, https://arxiv.org/abs/2005.14165, section
2.4). Words of one length share one forward pass; the encoder reads every text once a length, and the prediction head
sees the masks only.
"""

from __future__ import annotations

import inspect
import logging
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .verbalizer import WordGroup

logger = logging.getLogger(__name__)

_TOLERANCE = {torch.float16: 0.05, torch.bfloat16: 0.05}
"""Largest difference of logits, relative to their spread, that rounding may cause between two paths (else 1e-3)."""

_head_takes_positions: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class WordScores:
    """What the model says about the words, for N texts and W words.

    Args:
        log_probs (`torch.Tensor` of shape `(N, W)`):
            Mean log-probability of the word's tokens, over the whole vocabulary.
        centred (`torch.Tensor` of shape `(N, W)`):
            Mean logit of the word's tokens minus the mean logit of the whole vocabulary at the same masks. The two
            differ by a constant for each text and word length; this one changes by the same amount for every text when
            a token's output bias changes, which is what calibration needs (see `hf_nlpnotes.prompting.calibration`).
    """

    log_probs: torch.Tensor
    centred: torch.Tensor


def mask_logits(model: nn.Module, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor) -> torch.Tensor:
    """Logits of a masked language model at some positions only.

    The encoder runs as always; the prediction head is given the hidden states at `positions` instead of all of them,
    so that no (batch, length, vocabulary) tensor is made. That is right where the head treats positions one by one,
    as it does in nearly every architecture; the first call with a model compares both ways on one input, and a model
    whose head does otherwise is run in full from then on.

    Args:
        model (`nn.Module`):
            A masked language model of transformers.
        inputs (`Mapping[str, torch.Tensor]`):
            Its inputs, of shape (batch, length).
        positions (`torch.Tensor` of shape `(batch, K)`):
            Indices into the length.

    Returns:
        `torch.Tensor` of shape `(batch, K, vocabulary)`, float32 (float64 if the model is).

    Raises:
        `ValueError`: the model has no language modelling head.
    """
    if _can_gather(model, inputs, positions):
        logits = _gathered_logits(model, inputs, positions)
    else:
        logits = _take(_logits(model(**inputs)), positions)
    return logits if logits.dtype == torch.float64 else logits.float()


def word_scores(
    logits: torch.Tensor, mask_counts: torch.Tensor, groups: Sequence[WordGroup], num_words: int
) -> WordScores:
    """Scores of all words whose length is the number of masks of the row.

    Args:
        logits (`torch.Tensor` of shape `(batch, K, vocabulary)`):
            Logits at the masks. A row with fewer masks than K has anything after them.
        mask_counts (`torch.Tensor` of shape `(batch,)`):
            Number of masks of each row.
        groups (`Sequence[WordGroup]`):
            Words by length.
        num_words (`int`):
            Number of words, W.

    Returns:
        `WordScores` of shape `(batch, W)`; words of other lengths than the row's are 0, so that the scores of the rows
        of one text add up to those of all words.
    """
    batch = logits.shape[0]
    log_probs = torch.zeros(batch, num_words, dtype=logits.dtype, device=logits.device)
    centred = torch.zeros_like(log_probs)
    for group in groups:
        rows = (mask_counts == group.num_masks).nonzero().squeeze(1)
        if not len(rows):
            continue
        ids = torch.tensor(group.token_ids, device=logits.device).T  # (K, words)
        words = torch.tensor(group.positions, device=logits.device)
        at_masks = logits[rows, : group.num_masks]  # (rows, K, vocabulary)
        chosen = at_masks.gather(2, ids.expand(len(rows), *ids.shape))  # (rows, K, words)
        norm = at_masks.logsumexp(dim=2, keepdim=True)
        centre = at_masks.mean(dim=2, keepdim=True)
        log_probs[rows[:, None], words] = (chosen - norm).mean(dim=1)
        centred[rows[:, None], words] = (chosen - centre).mean(dim=1)
    return WordScores(log_probs, centred)


def mask_positions(label_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the masks of each row, and how many there are.

    Args:
        label_mask (`torch.Tensor` of shape `(batch, length)`):
            1 where the label word goes.

    Returns:
        Positions of shape `(batch, K)` for the largest number K of masks (a row with fewer is filled with 0), and
        counts of shape `(batch,)`.
    """
    counts = label_mask.sum(dim=1)
    width = int(counts.max())
    # A stable sort of the negated mask brings the masks to the front in their order.
    positions = torch.argsort(1 - label_mask, dim=1, stable=True)[:, :width]
    valid = torch.arange(width, device=counts.device) < counts[:, None]
    return positions.where(valid, 0), counts


def longest_input(model: Any, tokenizer: Any) -> int | None:
    """Most tokens that model and tokenizer take, or `None` where neither sets a limit.

    RoBERTa's kin count positions from `padding_idx + 1`, so that a table of 514 rows serves 512 tokens.
    """
    limits = []
    if tokenizer.model_max_length < 1_000_000:  # the stock "no limit" is 1e30
        limits.append(int(tokenizer.model_max_length))
    rows = getattr(model.config, "max_position_embeddings", None)
    if isinstance(rows, int) and rows > 0:
        for name, module in model.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding) and module.padding_idx:
                rows -= module.padding_idx + 1
                break
        limits.append(rows)
    return min(limits, default=None)


def accepted_inputs(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inputs that the model's `forward` names (DistilBERT has no `token_type_ids`, …)."""
    names = inspect.signature(model.forward).parameters
    return {name: value for name, value in inputs.items() if name in names}


def _take(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows of (batch, length, size) at (batch, K): (batch, K, size)."""
    return values.gather(1, positions[:, :, None].expand(-1, -1, values.shape[2]))


def _logits(output: Any) -> torch.Tensor:
    logits = output.logits if hasattr(output, "logits") else output[0]
    if not isinstance(logits, torch.Tensor) or logits.dim() != 3:
        raise ValueError(
            f"The model gives {type(output).__name__} instead of one score for each position and vocabulary entry:"
            " load it with AutoModelForMaskedLM."
        )
    return logits


def _gathered_logits(model: Any, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor) -> torch.Tensor:
    """Run the model with its encoder's last hidden state replaced by the hidden states at `positions`."""
    owner = threading.get_ident()  # another thread may run the same model meanwhile

    def gather(_module: nn.Module, _args: Any, output: Any) -> Any:
        if threading.get_ident() != owner:
            return output
        if isinstance(output, tuple):
            return (_take(output[0], positions), *output[1:])
        output.last_hidden_state = _take(output.last_hidden_state, positions)
        return output

    handle = model.base_model.register_forward_hook(gather)
    try:
        return _logits(model(**inputs))
    finally:
        handle.remove()


def _can_gather(model: Any, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor) -> bool:
    """Whether `_gathered_logits` gives this model's logits, tried once a model on one input."""
    if model not in _head_takes_positions:
        row = {name: value[:1] for name, value in inputs.items()}
        _head_takes_positions[model] = _gather_agrees(model, row, positions[:1])
        if not _head_takes_positions[model]:
            logger.info("%s is run in full: its head does not take positions one by one", type(model).__name__)
    return _head_takes_positions[model]


def _gather_agrees(model: Any, row: Mapping[str, torch.Tensor], positions: torch.Tensor) -> bool:
    training = [module for module in model.modules() if module.training]
    for module in training:  # dropout would make any two runs differ
        module.training = False
    try:
        with torch.no_grad():
            expected = _take(_logits(model(**row)), positions)
            tolerance = _TOLERANCE.get(expected.dtype, 1e-3)
            if model.base_model is model:
                return False
            try:
                found = _gathered_logits(model, row, positions)
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
                return False  # the head wants the whole sequence
            if found.shape != expected.shape:
                return False
            difference, spread = (found - expected).float().abs().max(), expected.float().std()
            return bool(difference <= tolerance * spread.clamp_min(1e-6))
    finally:
        for module in training:
            module.training = True
