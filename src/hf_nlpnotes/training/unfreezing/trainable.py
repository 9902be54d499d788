"""Which parameters of a model train: set in one place, also where FSDP2 has sharded them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule


def set_trainable(model: nn.Module, names: Collection[str]) -> None:
    """Let the parameters with these names train, and freeze all others.

    A frozen parameter has no gradient: optimizers pass it by, so neither weight decay nor momentum moves it, and it
    has no part in the norm that clipping measures.

    Args:
        model: as it is, or sharded by `torch.distributed.fsdp.fully_shard`; not wrapped in DDP.
        names: as in `model.named_parameters()`.

    Raises:
        ValueError: the model has no parameter of a name.
    """
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.reshard()  # after a forward without backward the root holds whole weights, which are not the parameters
    parameters = dict(model.named_parameters())
    unknown = sorted(set(names) - parameters.keys())
    if unknown:
        raise ValueError(f"the model has no parameters {unknown[:3]}{'…' if len(unknown) > 3 else ''}")
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
        if name not in names:
            parameter.grad = None
    for module in sharded:
        _renew_gradient_dtypes(module)


def trainable_count(model: nn.Module) -> tuple[int, int]:
    """Return the numbers of values that train and of all values; those of sharded parameters as a whole."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(count for count, trains in counts if trains), sum(count for count, _ in counts)


def _renew_gradient_dtypes(module: FSDPModule) -> None:
    """Let FSDP2 look again at what trains.

    It takes the dtype of the gradients that it reduces from the parameters that train at the first forward pass, and
    has none for a module that was frozen then: the first backward after unfreezing it fails.
    """
    state: Any = module._get_fsdp_state()
    groups = getattr(state, "_fsdp_param_groups", None) or [getattr(state, "_fsdp_param_group", None)]
    for group in groups:
        if group is not None and hasattr(group, "_init_mp_dtypes"):
            group._init_mp_dtypes()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor's values, gathered from all processes where it is sharded; all of them call this together."""
    full = getattr(tensor, "full_tensor", None)
    return tensor.detach() if full is None else full().detach()
