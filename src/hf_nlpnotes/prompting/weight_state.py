"""Whether a model still is what it was: a digest of its weights that is cheap enough to take at every call."""

from __future__ import annotations

import hashlib
import itertools
import sys
from typing import Any

import torch
from torch import nn

_VALUES = 64
"""Values of a tensor that stand for writes that no version counts: through `.data`, or by fused optimizers."""


def tensor_state(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Where a tensor is and how often it has been written to; without its values."""
    return (tensor.data_ptr(), tensor._version, tensor.dtype, tuple(tensor.shape), str(tensor.device))


def sampled_values(tensor: torch.Tensor) -> torch.Tensor:
    """Some values of a tensor, evenly spread, float64."""
    flat = tensor.detach().flatten()
    return flat[:: 1 + len(flat) // _VALUES].double()


def weight_state(*models: nn.Module) -> bytes:
    """A digest that changes when a weight or buffer of a model does, or an adapter is switched.

    It holds what torch counts of every tensor (its place and its writes) and some of its values. What it does not see
    is a write that torch does not count, through `.data`, to a few entries of a large tensor.
    """
    everything = itertools.chain.from_iterable((*model.parameters(), *model.buffers()) for model in models)
    tensors = [tensor for tensor in everything if tensor.device.type != "meta"]
    who = [(id(model), _adapters(model)) for model in models]
    digest = hashlib.blake2b(repr((who, [*map(tensor_state, tensors)])).encode())
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors:
        by_device.setdefault(tensor.device, []).append(sampled_values(tensor))
    for values in by_device.values():
        digest.update(torch.cat(values).cpu().numpy().tobytes())  # one transfer a device
    return digest.digest()


def _adapters(model: nn.Module) -> list[tuple[Any, ...]]:
    """Which adapters of peft are on, layer by layer."""
    tuners = sys.modules.get("peft.tuners.tuners_utils")
    if tuners is None:
        return []
    layers = (module for module in model.modules() if isinstance(module, tuners.BaseTunerLayer))
    return [(*one.active_adapters, one.disable_adapters, *one.merged_adapters) for one in layers]
