"""Training for a given time: a schedule over the clock, several processes in step, checkpoints written whole.

On a shared machine the number of steps that fit into an evening is not known beforehand. Here the learning rate
follows the share of the time that is gone, so that it reaches zero when the time ends, however busy the machine was.
The price: two runs do not take the same steps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import distributed


@dataclass
class TimeBudget:
    """Options of `train_for`.

    Attributes:
        minutes: training time, over all resumptions.
        checkpoint: file for the state in the middle; removed at the end by whoever no longer needs it.
        warmup: steps over which the learning rate rises.
        max_norm: gradients are clipped to this norm.
        report_every, save_every: seconds.
    """

    minutes: float
    checkpoint: Path
    warmup: int = 40
    max_norm: float = 1.0
    report_every: float = 30.0
    save_every: float = 180.0
    history: list[dict[str, Any]] = field(default_factory=list)


def save_whole(path: Path, content: Any) -> None:
    """`torch.save` to a sibling, then rename: a killed process leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


def average_gradients(parameters: Sequence[torch.nn.Parameter], number: float) -> float:
    """Average the gradients of all processes in one message, and with them a number, which is then equal on all."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([torch.tensor([number]), *(gradient.flatten() for gradient in gradients)])
    if distributed.is_initialized():
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, flat[1:].split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
    return float(flat[0])


def train_for(
    budget: TimeBudget,
    model: torch.nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    loss_of: Callable[[int, float], torch.Tensor],
    *,
    report: Callable[[dict[str, Any]], None] = lambda _: None,
    evaluate: Callable[[], dict[str, float]] = dict,
    after_backward: Callable[[], None] = lambda: None,
) -> int:
    """Train until the time is over; a run that was killed goes on from its last checkpoint.

    The learning rate is the optimizer's own × min(1, step / warmup) × (1 − share of the time).

    Args:
        loss_of: from step and share of the time to the loss of this process's batch.
        report: called on the first process with step, minutes and loss, and with `evaluate`'s result at checkpoints.
        after_backward: may change gradients before they are averaged.

    Returns:
        Steps taken, over all resumptions.
    """
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    step, elapsed = 0, 0.0
    if budget.checkpoint.exists():
        state = torch.load(budget.checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, elapsed, budget.history[:] = state["step"], state["elapsed"], state["history"]
    began, reported, saved_at = time.monotonic() - elapsed, elapsed, elapsed
    loss_sum, loss_count = 0.0, 0
    while (share := elapsed / (60 * budget.minutes)) < 1:
        factor = min(1.0, (step + 1) / budget.warmup) * (1 - share)
        for optimizer, own in zip(optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, own, strict=True):
                group["lr"] = rate * factor
            optimizer.zero_grad(set_to_none=True)
        loss = loss_of(step, share)
        loss.backward()
        after_backward()
        elapsed = average_gradients(parameters, time.monotonic() - began)
        torch.nn.utils.clip_grad_norm_(parameters, budget.max_norm)
        for optimizer in optimizers:
            optimizer.step()
        step, loss_sum, loss_count = step + 1, loss_sum + loss.item(), loss_count + 1
        saving = elapsed - saved_at > budget.save_every
        if rank == 0 and (saving or elapsed - reported > budget.report_every):
            entry = {"step": step, "minutes": round(elapsed / 60, 2), "loss": round(loss_sum / loss_count, 4)}
            if saving:
                entry.update(evaluate())
                budget.history.append(entry)
            report(entry)
            reported, loss_sum, loss_count = elapsed, 0.0, 0
        if saving:
            saved_at = elapsed
            if rank == 0:
                save_whole(
                    budget.checkpoint,
                    {
                        "model": model.state_dict(),
                        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                        "step": step,
                        "elapsed": elapsed,
                        "history": budget.history,
                    },
                )
    return step
