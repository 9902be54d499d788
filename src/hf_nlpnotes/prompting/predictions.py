"""What a masked language model predicts at its masks, without scores for words that nobody asks about.

A prediction head is a transform (dense layer, activation, norm) and a product with the output embedding, a matrix
with a row for every vocabulary entry. Label words need a few of its rows only: their logits are h·Eᵤ + bᵤ, where h is
the transformed hidden state of a mask. The mean logit over the vocabulary needs one vector, since

    mean over v of (h·Eᵥ + bᵥ) = h·mean(E) + mean(b),

and only the normaliser log Σᵥ exp(h·Eᵥ + bᵥ) reads the whole matrix; it is made from a few masks at a time. There
are three ways, and the fastest that gives the model's own logits is found by comparing them once a model:

- `rows`: head transform at the masks, chosen rows of the output embedding. It needs the output embedding to be a
  plain `nn.Linear` that the model calls last, with nothing after it but vectors of biases.
- `masks`: the whole head at the masks only, (masks, vocabulary): for example MobileBERT, which multiplies with two
  matrices, or an output embedding with an adapter or of 8 bits.
- `full`: the model as it is, where the head wants the whole sequence: for example Perceiver.

Without gradients the first two also run the end of the last layer at the masks only, see `narrowing`.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from .mask_predictions import (
    HeadStates,
    MaskPredictions,
    OutputEmbedding,
    encoder_of,
    full_logits,
    score_dtype,
)
from .narrowing import Narrowing, candidates, take

logger = logging.getLogger(__name__)

Path: TypeAlias = Literal["rows", "masks", "full"]
"""How the logits at the masks are computed."""

_TOLERANCE = {torch.float16: 0.05, torch.bfloat16: 0.05}
"""Largest difference of logits, relative to their spread, that rounding may cause between two ways (else 1e-3)."""

_SAME = 1e-5
"""The same for the same products of other shapes."""

_ways: weakref.WeakKeyDictionary[nn.Module, _Way] = weakref.WeakKeyDictionary()


def predict_masks(model: nn.Module, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor) -> MaskPredictions:
    """Run a masked language model for what it predicts at some positions.

    The first call with a model runs it once more, in full and on one row, to find the fastest way that gives the
    stock logits; see `scoring_path`.

    Args:
        model (`nn.Module`):
            A masked language model of transformers.
        inputs (`Mapping[str, torch.Tensor]`):
            Its inputs, of shape (batch, length).
        positions (`torch.Tensor` of shape `(batch, K)`):
            Indices into the length.

    Raises:
        `ValueError`: the model has no language modelling head.
    """
    way = _way(model, inputs, positions)
    if way.head is not None:
        return HeadStates(_head_states(model, inputs, positions, way.head.linear, way.narrowing), way.head)
    return full_logits(_logits_at(model, inputs, positions, way))


def mask_logits(model: nn.Module, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor) -> torch.Tensor:
    """Logits of a masked language model at some positions only, over the whole vocabulary.

    The encoder runs as always; the prediction head is given the hidden states at `positions` instead of all of them,
    so that no (batch, length, vocabulary) tensor is made, wherever the head treats positions one by one.

    Args:
        model, inputs, positions:
            As for `predict_masks`.

    Returns:
        `torch.Tensor` of shape `(batch, K, vocabulary)`, float32 (float64 if the model is).

    Raises:
        `ValueError`: the model has no language modelling head.
    """
    return _logits_at(model, inputs, positions, _way(model, inputs, positions))


def scoring_path(model: nn.Module, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor) -> Path:
    """The fastest of the three ways that gives this model's own logits, found on the first row of these inputs.

    It is remembered, and looked for again when the output embedding is replaced (by an adapter, by a new vocabulary).

    Args:
        model (`nn.Module`):
            A masked language model.
        inputs (`Mapping[str, torch.Tensor]`):
            Its inputs, of shape (batch, length).
        positions (`torch.Tensor`):
            Of the masks, as `mask_positions` gives them.
    """
    return _way(model, inputs, positions).path


@dataclass(frozen=True)
class _Way:
    """The path of a model, its output embedding if that is used, where it is narrowed, and what it was found for."""

    path: Path
    head: OutputEmbedding | None
    narrowing: Narrowing | None
    found_for: tuple[int, ...]

    def holds(self, found_for: tuple[int, ...]) -> bool:
        return self.found_for == found_for and (self.narrowing is None or self.narrowing.holds())


def _way(model: Any, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor) -> _Way:
    linear = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    parts = (linear, getattr(linear, "weight", None), getattr(linear, "bias", None))
    found_for = tuple(id(part) for part in parts)
    known = _ways.get(model)
    if known is None or not known.holds(found_for):
        row = {name: value[:1] for name, value in inputs.items()}
        path, head = _find_path(model, row, positions[:1])
        narrowing = None if path == "full" else _find_narrowing(model, row, positions[:1])
        _ways[model] = known = _Way(path, head, narrowing, found_for)
        if path != "rows":
            logger.info("%s takes the slower path %r to the scores", type(model).__name__, path)
    return known


def _logits_at(model: Any, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor, way: _Way) -> torch.Tensor:
    if way.path == "full":
        logits = _full(model, inputs, positions)
    else:
        logits = _gathered_logits(model, inputs, positions, way.narrowing)
    return logits.to(score_dtype(logits))


_NO_SUCH_HEAD = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)
"""What a head may raise that wants the whole sequence."""


def _find_path(
    model: Any, row: Mapping[str, torch.Tensor], positions: torch.Tensor
) -> tuple[Path, OutputEmbedding | None]:
    with torch.no_grad(), without_dropout(model):
        expected = _full(model, row, positions)
        if encoder_of(model) is model:
            return "full", None
        try:
            if not _agree(_gathered_logits(model, row, positions), expected):
                return "full", None
        except _NO_SUCH_HEAD:
            return "full", None
        try:
            for head in OutputEmbedding.candidates(model):
                states = _head_states(model, row, positions, head.linear)
                if _agree(F.linear(states, head.linear.weight, head.bias(states.dtype)), expected):
                    return "rows", head
        except _NO_SUCH_HEAD:
            pass  # the output embedding is not called
        return "masks", None


@torch.no_grad()
def _find_narrowing(model: Any, row: Mapping[str, torch.Tensor], positions: torch.Tensor) -> Narrowing | None:
    """The first place with which the model says the same; none in half precision, where one cannot be sure."""
    length = positions.new_tensor(next(iter(row.values())).shape[1])
    if model.dtype in _TOLERANCE or getattr(model.config, "chunk_size_feed_forward", None) or length < 4:
        return None
    # Two rows, one of them padded, with two masks: one alone would let wrong shapes pass, as they are broadcast.
    rows = {name: value.expand(2, *value.shape[1:]).clone() for name, value in row.items()}
    if "attention_mask" in rows:
        rows["attention_mask"][1, -1] = 0
    first = positions[:, :1] % (length - 1)
    asked = torch.cat([first, (first + 1) % (length - 1)], dim=1).expand(2, 2)
    trials = [(row, positions), (rows, asked)]
    with without_dropout(model):
        expected = [_gathered_logits(model, inputs, places) for inputs, places in trials]

        def says_the_same(narrowing: Narrowing) -> bool:
            try:
                return all(
                    _agree(_gathered_logits(model, inputs, places, narrowing), logits, _SAME)
                    for (inputs, places), logits in zip(trials, expected, strict=True)
                )
            except _NO_SUCH_HEAD:
                return False

        return next(filter(says_the_same, candidates(encoder_of(model), lambda: model(**row))), None)


def _agree(found: torch.Tensor, expected: torch.Tensor, tolerance: float | None = None) -> bool:
    """Whether two ways to the same logits differ by rounding only."""
    if found.shape != expected.shape:
        return False
    tolerance = _TOLERANCE.get(expected.dtype, 1e-3) if tolerance is None else tolerance
    difference, spread = (found - expected).float().abs().max(), expected.float().std()
    return bool(difference <= tolerance * spread.clamp_min(1e-6))


def _head_states(
    model: Any,
    inputs: Mapping[str, torch.Tensor],
    positions: torch.Tensor,
    linear: nn.Linear,
    narrowing: Narrowing | None = None,
) -> torch.Tensor:
    """What the output embedding is given at `positions`, (batch, K, hidden); it is itself run on nothing."""
    owner = threading.get_ident()
    caught: list[torch.Tensor] = []

    def catch(_module: nn.Module, args: Any) -> Any:
        if threading.get_ident() != owner:
            return None
        caught.append(args[0])
        return (args[0][:, :0], *args[1:])

    handle = linear.register_forward_pre_hook(catch)
    try:
        with _gathering(model, inputs, positions, narrowing):
            model(**inputs)
    finally:
        handle.remove()
    if len(caught) != 1 or caught[0].shape[:2] != positions.shape:
        raise ValueError("The output embedding is not called once, with one vector a mask.")
    return caught[0]


def _gathered_logits(
    model: Any, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor, narrowing: Narrowing | None = None
) -> torch.Tensor:
    """All logits at `positions`, from a head that sees these positions only."""
    with _gathering(model, inputs, positions, narrowing):
        return _logits(model(**inputs))


@contextmanager
def _gathering(
    model: Any, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor, narrowing: Narrowing | None
) -> Iterator[None]:
    """The encoder's last hidden states are replaced by those at `positions`, for the calls of this thread."""
    owner = threading.get_ident()  # another thread may run the same model meanwhile
    length = next(inputs[name].shape[1] for name in ("input_ids", "inputs_embeds") if name in inputs)
    # With gradients a layer may be run again, at a time when nothing is narrowed any more (gradient checkpointing).
    narrowed: AbstractContextManager[list[int]] = nullcontext([])
    if narrowing is not None and not torch.is_grad_enabled():
        narrowed = narrowing.applied(positions, length)

    def gathered(states: torch.Tensor) -> torch.Tensor:
        return states if times else take(states, positions)

    def gather(_module: nn.Module, _args: Any, output: Any) -> Any:
        if threading.get_ident() != owner:
            return output
        if isinstance(output, tuple):
            return (gathered(output[0]), *output[1:])
        output.last_hidden_state = gathered(output.last_hidden_state)
        return output

    handle = encoder_of(model).register_forward_hook(gather)
    try:
        with narrowed as times:
            yield
    finally:
        handle.remove()


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Inside the `with` block no module is in training; each is what it was afterwards.

    With dropout any two runs differ.

    Args:
        model (`nn.Module`):
            The model.
    """
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _full(model: nn.Module, inputs: Mapping[str, torch.Tensor], positions: torch.Tensor) -> torch.Tensor:
    return take(_logits(model(**inputs)), positions)


def _logits(output: Any) -> torch.Tensor:
    logits = output.logits if hasattr(output, "logits") else output[0]
    if not isinstance(logits, torch.Tensor) or logits.dim() != 3:
        raise ValueError(
            f"The model gives {type(output).__name__} instead of one score for each position and vocabulary entry:"
            " load it with AutoModelForMaskedLM."
        )
    return logits
