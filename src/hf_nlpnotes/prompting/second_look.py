"""`rerank` of a trained prompt: the labels that came out best are looked at again, as the pipeline does it.

The second scores are pseudo-log-likelihoods of the label words (see `reranking`). Training has not seen them, so that
their bias is not the trained one: it is measured on texts without content, or the prompt's `calibration_texts`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from hf_nlpnotes.model_inputs import accepted_inputs

from .calibration import CONTENT_FREE_TEXTS, mean_bias
from .collating import DataCollatorForPrompts
from .reranking import best, rerank
from .soft_prompts import SOFT_INDEX
from .word_scorer import PSEUDO_LOG_LIKELIHOOD, WordScorer

if TYPE_CHECKING:
    from .model import PromptForSequenceClassification


def second_look(
    model: PromptForSequenceClassification,
    collator: DataCollatorForPrompts,
    encoded: Sequence[Mapping[str, Any]],
    first: torch.Tensor,
    k: int,
    batch_size: int,
) -> torch.Tensor:
    """Scores of which the k best are by the pseudo-log-likelihood of their words, and the others below them.

    Args:
        model (`PromptForSequenceClassification`):
            The model, in eval mode.
        collator (`DataCollatorForPrompts`):
            Its collator.
        encoded (`Sequence[Mapping[str, Any]]`):
            Examples, as `collator.encode` makes them.
        first (`torch.Tensor` of shape `(examples, labels)`):
            Their scores at the first look.
        k (`int`):
            How many labels to look at again.
        batch_size (`int`):
            Examples at a time.

    Returns:
        `torch.Tensor` of shape `(examples, labels)`.
    """
    texts = model.prompt.calibration_texts or CONTENT_FREE_TEXTS
    blank = [
        collator.encode(dict.fromkeys(model.prompt.columns, text) if isinstance(text, str) else text) for text in texts
    ]
    everything = torch.ones(len(blank), first.shape[1], dtype=torch.bool)
    bias = mean_bias(_scores(model, collator, blank, everything))
    chosen = best(first, k)
    second = torch.cat(
        [
            _scores(model, collator, encoded[at : at + batch_size], chosen[at : at + batch_size])
            for at in range(0, len(encoded), batch_size)
        ]
    )
    return rerank(first, second - bias, chosen)


def _scores(
    model: PromptForSequenceClassification,
    collator: DataCollatorForPrompts,
    encoded: Sequence[Mapping[str, Any]],
    chosen: torch.Tensor,
) -> torch.Tensor:
    """Pseudo-log-likelihood of the chosen labels, (examples, labels) on the CPU; of the others anything."""
    batch = {name: value.to(model.device) for name, value in collator(encoded).items()}
    positions = batch.pop("mask_positions")  # (examples, rows, masks)
    weights = model.word_weights  # (words, labels)
    asked: list[Collection[int]] = [
        set(weights[:, own].any(dim=1).nonzero().flatten().tolist()) for own in chosen.to(weights.device)
    ]
    scores, first = torch.zeros(len(encoded), weights.shape[1], device=model.device), 0
    for one in model.templates:
        rows = slice(first, first + len(one.groups))
        flat = {name: value[:, rows].flatten(0, 1) for name, value in batch.items()}
        inputs = accepted_inputs(model.masked_lm, flat)
        context: AbstractContextManager[None] = nullcontext()
        if model.soft_prompt is not None:
            inputs[SOFT_INDEX], context = flat[SOFT_INDEX], model.soft_prompt.in_place(model.masked_lm)
        places = positions[:, rows].flatten(0, 1)
        scorer = WordScorer(model.masked_lm, one.groups, len(weights), PSEUDO_LOG_LIKELIHOOD)
        with context:
            words = scorer.centred(
                inputs,
                places.clamp(min=0),
                (places >= 0).sum(dim=1),
                [words for words in asked for _ in one.groups],
            )
        own = words.to(weights.dtype) @ weights  # (examples · groups, labels)
        scores += one.weight * own.view(len(encoded), len(one.groups), -1).sum(dim=1)
        first += len(one.groups)
    return scores.cpu()
