"""Logits of chosen tokens at masks, their mean and their normaliser: from all logits, or from the output embedding.

The logit of a token u is h·Eᵤ + bᵤ, with h the head's last vector at the mask. The mean over the vocabulary needs the
mean row of E only, and the normaliser reads the matrix for a few masks at a time; see `predictions`.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .weight_state import sampled_values, tensor_state

_LOGITS_AT_ONCE = 1 << 23
"""Most logits that exist at a time while a normaliser is computed: 32 MB of float32."""

_means: weakref.WeakKeyDictionary[nn.Module, tuple[Any, torch.Tensor]] = weakref.WeakKeyDictionary()


class MaskPredictions:
    """Predictions at K masks of each of N rows: logits of chosen tokens, their mean and normaliser.

    `predict_masks` makes them.
    """

    def logits_of(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Logits of the U tokens `token_ids` at every mask, of shape `(N, K, U)`.

        Args:
            token_ids (`torch.Tensor` of shape `(U,)`):
                The tokens.
        """
        raise NotImplementedError

    def centre(self) -> torch.Tensor:
        """Mean logit of the whole vocabulary at every mask, of shape `(N, K)`."""
        raise NotImplementedError

    def log_normaliser(self) -> torch.Tensor:
        """Logarithm of the sum of all exponentiated logits at every mask, of shape `(N, K)`."""
        raise NotImplementedError

    def select(self, rows: torch.Tensor, num_masks: int) -> MaskPredictions:
        """The first `num_masks` masks of some rows.

        Args:
            rows (`torch.Tensor`):
                Numbers of the rows.
            num_masks (`int`):
                How many masks to keep.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class FullLogits(MaskPredictions):
    """All logits are there already."""

    logits: torch.Tensor  # (N, K, vocabulary)

    def logits_of(self, token_ids: torch.Tensor) -> torch.Tensor:
        """As of every `MaskPredictions`."""
        return self.logits[..., token_ids]

    def centre(self) -> torch.Tensor:
        """As of every `MaskPredictions`."""
        return self.logits.mean(dim=-1)

    def log_normaliser(self) -> torch.Tensor:
        """As of every `MaskPredictions`."""
        return self.logits.logsumexp(dim=-1)

    def select(self, rows: torch.Tensor, num_masks: int) -> MaskPredictions:
        """As of every `MaskPredictions`."""
        return FullLogits(self.logits[rows, :num_masks])


@dataclass(frozen=True)
class HeadStates(MaskPredictions):
    """The head's last vectors at the masks, beside the output embedding that they are multiplied with."""

    states: torch.Tensor  # (N, K, hidden)
    head: OutputEmbedding

    def logits_of(self, token_ids: torch.Tensor) -> torch.Tensor:
        """As of every `MaskPredictions`."""
        # A few rows: in float32 also where the model is in half precision, which then costs nothing.
        dtype = score_dtype(self.states)
        bias = self.head.bias_of(token_ids, dtype)
        return F.linear(self.states.to(dtype), self.head.linear.weight[token_ids].to(dtype), bias)

    def centre(self) -> torch.Tensor:
        """As of every `MaskPredictions`."""
        mean, bias = self.head.mean()
        return self.states.to(mean.dtype) @ mean + bias

    def log_normaliser(self) -> torch.Tensor:
        """As of every `MaskPredictions`."""
        dtype = score_dtype(self.states)
        weight, bias = self.head.linear.weight, self.head.bias(self.states.dtype)
        flat = self.states.flatten(0, 1)
        chunk = max(1, _LOGITS_AT_ONCE // len(weight))
        parts = [F.linear(part, weight, bias).to(dtype).logsumexp(dim=1) for part in flat.split(chunk)]
        return torch.cat(parts).view(self.states.shape[:2]) if parts else flat.new_zeros(self.states.shape[:2])

    def select(self, rows: torch.Tensor, num_masks: int) -> MaskPredictions:
        """As of every `MaskPredictions`."""
        return HeadStates(self.states[rows, :num_masks], self.head)


@dataclass(frozen=True)
class OutputEmbedding:
    """The last matrix of a model and every bias that is added after it (BART and ESM keep theirs beside it)."""

    linear: nn.Linear
    biases: tuple[torch.Tensor, ...]  # the model's own tensors, each with one value a vocabulary entry

    @classmethod
    def candidates(cls, model: Any) -> list[OutputEmbedding]:
        """What the last step of a model may be; nothing where its output embedding is no plain matrix."""
        linear = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
        # A subclass or a wrapper (an adapter, 8 bits, a parametrization) computes something else than its weight says.
        if type(linear) is not nn.Linear:
            return []
        encoder = encoder_of(model)
        inside = {id(tensor) for tensor in (*encoder.parameters(), *encoder.buffers())}
        outside = (t for t in (*model.parameters(), *model.buffers()) if id(t) not in inside)
        everything = tuple(t for t in outside if t.numel() == t.shape[-1] == linear.out_features)
        # Reformer has a bias that it never adds.
        bias: Any = linear.bias
        own = () if bias is None else (bias,)
        return [cls(linear, everything), cls(linear, own)]

    def bias(self, dtype: torch.dtype) -> torch.Tensor | None:
        """The sum of all biases, of shape (vocabulary,)."""
        return sum(bias.view(-1).to(dtype) for bias in self.biases) if self.biases else None  # type: ignore[return-value]

    def bias_of(self, token_ids: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
        """The same for some tokens."""
        return sum(bias.view(-1)[token_ids].to(dtype) for bias in self.biases) if self.biases else None  # type: ignore[return-value]

    def mean(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean row and mean bias; the row is kept until the matrix changes."""
        weight = self.linear.weight
        dtype = score_dtype(weight)
        bias = sum((b.to(dtype).mean() for b in self.biases), torch.zeros((), dtype=dtype, device=weight.device))
        if torch.is_grad_enabled() and weight.requires_grad:
            return weight.mean(dim=0, dtype=dtype), bias
        sample = tuple(sampled_values(weight).tolist()) if weight.device.type == "cpu" else ()
        state = (*tensor_state(weight), sample)
        kept = _means.get(self.linear)
        if kept is None or kept[0] != state:
            kept = (state, weight.detach().mean(dim=0, dtype=dtype))
            _means[self.linear] = kept
        return kept[1], bias


def full_logits(logits: torch.Tensor) -> MaskPredictions:
    """Predictions from all logits at the masks, of shape `(N, K, vocabulary)`."""
    return FullLogits(logits)


def encoder_of(model: Any) -> nn.Module:
    """The model below the prediction head, also under an adapter of peft."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.base_model


def score_dtype(tensor: torch.Tensor) -> torch.dtype:
    """Scores are float32, or float64 where the model is."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
