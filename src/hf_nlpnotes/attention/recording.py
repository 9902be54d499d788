"""Attention calls as they are recorded: tensors with a batch, and which module made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from .interface import AttentionCall, observed


@dataclass(frozen=True, eq=False)
class Recorded:
    """One attention call. Shapes as in `LayerAttention`, with a batch in front; heads of keys are not yet repeated."""

    name: str
    weights: torch.Tensor
    query: torch.Tensor | None = None
    key: torch.Tensor | None = None
    value: torch.Tensor | None = None
    scaling: float | None = None
    mask: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch `model` to evaluation for the block, then every module back to its own mode."""
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True


def record_through_interface(model: nn.Module, forward: Callable[[], object]) -> list[Recorded]:
    """Run `forward` and return the attention calls that went through transformers' `AttentionInterface`, in order."""
    names = {id(module): name for name, module in model.named_modules()}
    records: list[Recorded] = []

    def keep(call: AttentionCall) -> torch.Tensor:
        records.append(_from_call(call, names.get(id(call.module), type(call.module).__name__)))
        return call.output

    with observed(model, keep):
        forward()
    return records


def _from_call(call: AttentionCall, name: str) -> Recorded:
    # Nothing is copied here: a forward that is recorded does no more work than an eager one.
    weights = call.weights.detach()
    return Recorded(
        name=name,
        weights=weights,
        query=call.query.detach(),
        key=call.key.detach(),
        value=call.value.detach(),
        scaling=call.scaling,
        mask=None if call.mask is None else call.mask.detach(),
        bias=None if "position_bias" not in call.options else call.options["position_bias"].detach(),
        softcap=call.options.get("softcap"),
        sinks=_sinks(call, weights),
    )


def _sinks(call: AttentionCall, weights: torch.Tensor) -> torch.Tensor | None:
    """Return the scores of the sink, `(batch, heads, queries)`, where the weights show that it took part.

    Some models use sinks outside the softmax, as a gate on the output: there the weights sum to 1.
    """
    sinks = call.options.get("sinks")
    if not isinstance(sinks, torch.Tensor):
        return None
    if bool(torch.allclose(weights.float().sum(-1), torch.ones((), device=weights.device), atol=1e-4)):
        return None
    shape = weights.shape[:-1]
    sinks = sinks.detach()
    return (sinks.reshape(1, -1, 1) if sinks.numel() == shape[1] else sinks.squeeze(-1)).expand(shape)
