"""Slanted triangular learning rates (Howard and Ruder 2018, "Universal Language Model Fine-tuning", equation 3).

The rate rises linearly from η/ratio to η during the first `cut_frac` of the training and falls linearly back to
η/ratio: short, so that the model finds its region of the parameters before much is forgotten, then slow. It multiplies
whatever rate each parameter group has, so it goes together with discriminative rates.

`SlantedTriangular` is a callback: the Trainer has counted its steps when it begins, so nobody has to count them
before. `slanted_triangular_schedule` is the plain scheduler for those who hold an optimizer and a number of steps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def slanted_triangular_factor(step: int, num_steps: int, cut_frac: float = 0.1, ratio: float = 32.0) -> float:
    """Return η_t / η_max at `step` = t of `num_steps` = T, between 1 / ratio and 1.

    Equation 3, with cut = ⌊T · cut_frac⌋ steps of rise:

        p = t / cut                      while t < cut
        p = 1 - (t - cut) / (T - cut)    afterwards
        η_t = η_max · (1 + p (ratio - 1)) / ratio

    The paper divides the fall by cut · (1 / cut_frac - 1). That is T - cut where T · cut_frac is whole; elsewhere it
    is less, and p would become negative before the end. Steps beyond T have the last rate.

    Args:
        step: t, optimizer steps done.
        num_steps: T, steps of the whole training.
        cut_frac: Fraction of the steps during which the rate rises.
        ratio: How many times smaller than the peak the lowest rate is.

    Raises:
        ValueError: `num_steps` < 1, `step` < 0, `cut_frac` outside [0, 1] or `ratio` < 1.
    """
    _check(cut_frac, ratio)
    if num_steps < 1 or step < 0:
        raise ValueError(f"expected num_steps >= 1 and step >= 0, got num_steps {num_steps} and step {step}")
    cut = math.floor(num_steps * cut_frac)
    if step < cut:
        part = step / cut
    elif step >= num_steps:
        part = 0.0
    else:
        part = 1 - (step - cut) / (num_steps - cut)
    return (1 + part * (ratio - 1)) / ratio


def slanted_triangular_schedule(
    optimizer: Optimizer, num_steps: int, cut_frac: float = 0.1, ratio: float = 32.0
) -> LambdaLR:
    """Return the schedule for `optimizer`, whose groups' rates are the peaks; for Trainer's `optimizers`.

    Args:
        optimizer: The optimizer.
        num_steps: T, steps of the whole training.
        cut_frac: As of `slanted_triangular_factor`.
        ratio: As of `slanted_triangular_factor`.
    """
    factor = _Factor(num_steps, cut_frac, ratio)
    factor(0)  # bad values are named here, not at the first step
    return LambdaLR(optimizer, factor)


class SlantedTriangular(TrainerCallback):
    """Make the Trainer's learning rates slanted triangular, over as many steps as it trains.

    The rates of `TrainingArguments`, or of the optimizer's groups, are the peaks. `lr_scheduler_type` and
    `warmup_steps` have no effect beside it.

    Args:
        cut_frac: Fraction of the steps during which the rate rises.
        ratio: How many times smaller than the peak the lowest rate is.
    """

    def __init__(self, cut_frac: float = 0.1, ratio: float = 32.0) -> None:
        _check(cut_frac, ratio)
        self.cut_frac = cut_frac
        self.ratio = ratio

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Put the factors into the scheduler that the Trainer made (and, on resuming, loaded)."""
        replace_factors(lr_scheduler, _Factor(state.max_steps, self.cut_frac, self.ratio))


def replace_factors(lr_scheduler: Any, factor: Callable[[int], float]) -> None:
    """Let a scheduler of the Trainer follow `factor(step)` from its current step on.

    Raises:
        ValueError: The scheduler does not multiply the rates by a factor a step (plateau, greedy, DeepSpeed's own).
    """
    inner = getattr(lr_scheduler, "scheduler", lr_scheduler)  # accelerate wraps it where it counts processes
    if not isinstance(inner, LambdaLR):
        raise ValueError(
            f"expected a scheduler that multiplies the learning rate, got {type(inner).__name__}: leave "
            "TrainingArguments.lr_scheduler_type at 'linear'"
        )
    inner.lr_lambdas = [factor for _ in inner.base_lrs]
    rates = [base * factor(inner.last_epoch) for base in inner.base_lrs]
    for group, rate in zip(inner.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    inner._last_lr = rates


@dataclass(frozen=True)
class _Factor:
    """A function that can be pickled and knows its numbers."""

    num_steps: int
    cut_frac: float
    ratio: float

    def __call__(self, step: int) -> float:
        return slanted_triangular_factor(step, self.num_steps, self.cut_frac, self.ratio)


def _check(cut_frac: float, ratio: float) -> None:
    if not 0 <= cut_frac <= 1:
        raise ValueError(f"cut_frac is the fraction of the steps that rise, between 0 and 1, got {cut_frac}")
    if not ratio >= 1:
        raise ValueError(f"ratio is how many times smaller than the peak the lowest rate is, >= 1, got {ratio}")
