"""Which task is trained in which step: rates of tasks from the sizes of their data, and schedules from a seed.

Everything is a function of its arguments, so that all processes agree without talking to each other, and a resumed
training goes on as it would have gone on.

- **proportional**: a task as often as its share of the examples; each example is as likely as any other. A large task
  drowns a small one; `limit` caps what a task counts for (T5's examples-proportional mixing: Raffel et al., JMLR 2020,
  https://arxiv.org/abs/1910.10683, section 3.5.2).
- **uniform**: all tasks equally often; a small data set is seen many times over, and overfitted.
- **temperature**: sizes to the power 1/T, between the two: T = 1 is proportional, T → ∞ uniform (the same section).
- **annealed**: sizes to the power α, from proportional in the first epoch to nearly uniform in the last,
  α = 1 - 0.8 (e - 1) / (E - 1) (Stickland & Murray, ICML 2019, https://arxiv.org/abs/1902.02671, section 3.3):
  interference is least harmful early, and a small task is not forgotten at the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

Strategy = Literal["proportional", "uniform", "temperature", "annealed"]


def task_probabilities(sizes: Sequence[int], exponent: float = 1.0, limit: int | None = None) -> np.ndarray:
    """Rates that are proportional to min(size, limit) ** exponent.

    Args:
        sizes: examples of each task.
        exponent: 1 is proportional, 0 uniform, 1/T temperature scaling.
        limit: what a larger task counts as.

    Returns:
        `(tasks,)` float64, of sum 1.

    Raises:
        ValueError: no task, an empty one, or an exponent or limit that is no such number.

    >>> task_probabilities([100, 300])
    array([0.25, 0.75])
    >>> task_probabilities([100, 300], limit=100)
    array([0.5, 0.5])
    """
    if not len(sizes) or min(sizes) < 1:
        raise ValueError(
            f"sizes are the numbers of examples of one or more tasks, each at least 1, got {list(sizes)}."
        )
    if not math.isfinite(exponent):
        raise ValueError(f"exponent is a finite number, got {exponent}.")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is at least 1, or None, got {limit}.")
    counted = np.minimum(np.asarray(sizes, dtype=np.float64), np.inf if limit is None else limit)
    # Of the largest, so that no power overflows.
    rates = (counted / counted.max()) ** exponent
    return rates / rates.sum()


def annealed_exponent(epoch: int, epochs: int, decay: float = 0.8) -> float:
    """Stickland & Murray's α of an epoch: 1 in the first, 1 - `decay` in the last, linear between.

    Args:
        epoch: counted from 0 (the paper's e - 1).
        epochs: how many there are (E). With one alone α is 1.

    >>> [round(annealed_exponent(epoch, 5), 2) for epoch in range(5)]
    [1.0, 0.8, 0.6, 0.4, 0.2]
    """
    if epoch < 0 or epochs < 1:
        raise ValueError(f"epoch is at least 0 and epochs at least 1, got {epoch} and {epochs}.")
    return 1.0 - decay * min(epoch, epochs - 1) / max(epochs - 1, 1)


def task_schedule(
    probabilities: np.ndarray, steps: int, *, seed: int, epoch: int = 0, stratified: bool = True
) -> np.ndarray:
    """The task of each step of an epoch.

    Args:
        probabilities: `(tasks,)`, of sum 1.
        seed: of the training; the same on every process.
        stratified: shuffle steps that were shared out to within one of steps x probability a task (with proportional
            rates an epoch is all data, shuffled, as MT-DNN trains: Liu et al., ACL 2019). False: each step is drawn
            independently.

    Returns:
        `(steps,)` int64, numbers of tasks.
    """
    random = np.random.default_rng((seed, epoch))
    points = (np.arange(steps) + random.random()) / steps if stratified else random.random(steps)
    cumulative = np.cumsum(probabilities)
    # The last bound is 1 but for rounding, and is left out: no point lies beyond the last task.
    tasks = np.searchsorted(cumulative[:-1] / cumulative[-1], points, side="right")
    return random.permutation(tasks) if stratified else tasks


@dataclass(frozen=True)
class TaskSampling:
    """How often each task is trained.

    Args:
        strategy: "proportional", "uniform", "temperature" or "annealed"; see the module.
        temperature: T of "temperature".
        limit: examples that a task counts for at most.
        decay: how far α falls, of "annealed".
        stratified: as of `task_schedule`.

    Raises:
        ValueError: an unknown strategy, or a number out of its range.
    """

    strategy: Strategy = "proportional"
    temperature: float = 2.0
    limit: int | None = None
    decay: float = 0.8
    stratified: bool = True

    def __post_init__(self) -> None:
        if self.strategy not in get_args(Strategy):
            raise ValueError(f"strategy is one of {list(get_args(Strategy))}, got {self.strategy!r}.")
        if not self.temperature > 0:
            raise ValueError(f"temperature is above 0, got {self.temperature}.")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay is between 0 and 1, got {self.decay}.")

    def probabilities(self, sizes: Sequence[int], epoch: int = 0, epochs: int = 1) -> np.ndarray:
        """The tasks' rates in an epoch (counted from 0): `(tasks,)`, of sum 1.

        Args:
            sizes: examples of each task.
            epoch: number of the epoch, from 0.
            epochs: epochs of the whole training.
        """
        exponent = {
            "proportional": 1.0,
            "uniform": 0.0,
            "temperature": 1 / self.temperature,
            "annealed": annealed_exponent(epoch, epochs, self.decay),
        }[self.strategy]
        return task_probabilities(sizes, exponent, self.limit)
