"""What would go wrong in silence, found before the first step."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from .reducer import STATIC_GRAPH


def process_count() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def check_arguments(args: TrainingArguments, model: nn.Module | None = None) -> None:
    """See that nothing in the set-up fixes what trains.

    Raises:
        ValueError: DeepSpeed, a static graph or FSDP 1; the message says what to do instead.
    """
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]  # accelerate is not typed
    from accelerate.utils import DistributedType  # type: ignore[import-untyped]  # accelerate is not typed

    kind = AcceleratorState._shared_state.get("distributed_type")
    if getattr(args, "deepspeed", None) or kind == DistributedType.DEEPSPEED:
        raise ValueError(
            "DeepSpeed copies the parameters that train into flat buffers of its own when it starts, so that they "
            "cannot be frozen or unfrozen later: train with FSDP2 (fsdp_version 2) or DDP instead"
        )
    if getattr(args, "ddp_static_graph", None):
        raise ValueError(STATIC_GRAPH)
    if model is not None:
        from torch.distributed.fsdp import FullyShardedDataParallel

        if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
            raise ValueError(
                "FSDP 1 keeps several parameters in one flat one, which trains as a whole: take FSDP2, "
                'fsdp_config={"version": 2}'
            )


def check_whole(model: nn.Module, names: Collection[str]) -> None:
    """See that the parameters of a schedule require gradients, save those that the model itself fixes.

    Raises:
        ValueError: some were frozen before.
    """
    frozen = [name for name, parameter in model.named_parameters() if name in names and not parameter.requires_grad]
    if not frozen or hasattr(model, "peft_config"):  # PEFT freezes the base on purpose: it never trains
        return
    frozen = [name for name in frozen if name not in _fixed_by_design(model)]
    if frozen:
        raise ValueError(
            f"{frozen[0]} and {len(frozen) - 1} more parameters of the schedule were frozen before the training: the "
            "optimizer and DDP are made from what requires a gradient, and would never learn of them. Leave the model "
            "as it is, this callback freezes it when training begins; what must never train goes into keep_frozen"
        )


def check_optimizer(model: nn.Module, names: Collection[str], optimizer: Any) -> None:
    """See that the optimizer has every parameter of a schedule.

    Raises:
        ValueError: it lacks some.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    lacking = [
        name
        for name, parameter in model.named_parameters()
        if name in names and parameter.requires_grad and id(parameter) not in held
    ]
    if lacking:
        raise ValueError(
            f"the optimizer lacks {lacking[0]} and {len(lacking) - 1} more parameters that the schedule trains: make "
            "it with all of them, since a group added later has no place in the learning-rate scheduler; or name them "
            "in keep_frozen"
        )


def steps_per_epoch(dataloader: Any, accumulation: int) -> int | None:
    """Optimizer steps of an epoch, as the Trainer counts them; None for data without a length."""
    try:
        batches = len(dataloader)
    except (TypeError, NotImplementedError):
        return None
    return max(1, math.ceil(batches / accumulation))


def _fixed_by_design(model: nn.Module) -> frozenset[str]:
    """Parameters that a new model of this kind has frozen: sinusoidal positions."""
    if not isinstance(model, PreTrainedModel):
        return frozenset()
    with torch.device("meta"):
        fresh = type(model)(model.config)
    return frozenset(name for name, parameter in fresh.named_parameters() if not parameter.requires_grad)
