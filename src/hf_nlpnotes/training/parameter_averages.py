"""Averages of a model's parameters over the steps of a training, and a way to compute with them. Needs torch alone.

Three averages, each updated in time linear in the number of parameters, whatever came before:

- `WindowAverage`, of the last K values: K copies, plus a sum where the average is wanted at every step;
- `RunningAverage` without a decay, of all values: one copy (Polyak & Juditsky 1992; SWA, Izmailov et al. 2018);
- `RunningAverage` with a decay, exponential: one copy, the newest values count most.

`parameters_as` puts other values in the place of a model's parameters for the time of a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import nn

Groups: TypeAlias = "dict[str, list[torch.Tensor]]"
"""Lists of tensors by name, each as long as the list of parameters: what an average keeps in a checkpoint."""


def require_count(name: str, value: object) -> None:
    """Refuse what is not a whole number from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is a whole number, at least 1, got {value!r}")


def cumulative_weight(update: int) -> float:
    """Weight of the n-th value in the mean of n: 1 / n, so that θ̄ₙ = θ̄ₙ₋₁ + (θₙ − θ̄ₙ₋₁) / n.

    >>> [cumulative_weight(update) for update in (1, 2, 4)]
    [1.0, 0.5, 0.25]
    """
    return 1 / update


def exponential_decay(update: int, decay: float, warm_up: bool = False) -> float:
    """Decay dₙ of the n-th update: `decay`, with warm-up at most (1 + n) / (10 + n).

    The warm-up lets an average that begins far from where the training goes forget its beginning.

    >>> exponential_decay(1, 0.999, warm_up=True) == 2 / 11, exponential_decay(1, 0.999)
    (True, 0.999)
    """
    return min(decay, (1 + update) / (10 + update)) if warm_up else decay


def exponential_weight(decay: float, remaining: float, bias_correction: bool = True) -> float:
    """Weight αₙ of the n-th value in an exponential average, θ̄ₙ = θ̄ₙ₋₁ + αₙ (θₙ − θ̄ₙ₋₁), which begins with θ̄₁ = θ₁.

    Without correction αₙ = 1 − dₙ, and θ₁ counts as if the training had stood there for long: it keeps the weight
    d₂ ⋯ dₙ. With it (Kingma & Ba 2015, section 3) it counts like the others: αₙ = (1 − dₙ) / (1 − d₁ ⋯ dₙ).

    Args:
        decay: dₙ.
        remaining: d₁ ⋯ dₙ.
        bias_correction: Whether to correct.
    """
    return (1 - decay) / (1 - remaining) if bias_correction else 1 - decay


class WindowAverage:
    """Mean of the last `size` values of a list of tensors.

    An update copies the values over the oldest ones. The mean is computed when asked for, in float64, from the copies
    themselves: nothing drifts. With `running_sum` a float64 sum is kept as well, so that a mean at every step does not
    read all copies; adding and taking away float32 numbers in float64 is exact as long as the magnitudes of an entry
    stay within a factor of about 10⁸ / size, so that does not drift either.

    Args:
        size: Number of values, at least 1.
        device: Where to keep them; by default where the values are.
        running_sum: Whether to keep the sum too.
    """

    def __init__(self, size: int, *, device: torch.device | str | None = None, running_sum: bool = False) -> None:
        require_count("size", size)
        self.size = size
        self.device = device
        self.running_sum = running_sum and size > 1
        self._values: list[list[torch.Tensor]] = []  # oldest first until full; then `_oldest` goes round
        self._oldest = 0
        self._sum: list[torch.Tensor] = []

    @property
    def count(self) -> int:
        """Number of values in the window."""
        return len(self._values)

    @property
    def values(self) -> list[list[torch.Tensor]]:
        """The values themselves, oldest first. Not copies."""
        return self._values[self._oldest :] + self._values[: self._oldest]

    @torch.no_grad()
    def update(self, values: Sequence[torch.Tensor]) -> None:
        """Take in the newest value, and let the oldest go where the window is full."""
        if self.count < self.size:
            self._values.append([value.detach().to(self.device or value.device, copy=True) for value in values])
            newest = self._values[-1]
        else:
            newest = self._values[self._oldest]
            if self.running_sum:
                for total, old in zip(self._sum, newest, strict=True):
                    total.sub_(old)
            for place, value in zip(newest, values, strict=True):
                place.copy_(value)
            self._oldest = (self._oldest + 1) % self.size
        if self.running_sum:
            if not self._sum:
                self._sum = [torch.zeros_like(value, dtype=_wide(value)) for value in newest]
            for total, value in zip(self._sum, newest, strict=True):
                total.add_(value)

    @torch.no_grad()
    def average(self) -> list[torch.Tensor]:
        """The mean, in the values' own dtype and on the device where they are kept.

        With a window of size 1 it is the value itself, not a copy.

        Raises:
            RuntimeError: There is no value yet.
        """
        _refuse_empty(self.count)
        if self.size == 1:
            return self._values[0]
        if self.running_sum:
            return [(s / self.count).to(v.dtype) for s, v in zip(self._sum, self._values[0], strict=True)]
        means = []
        for column in zip(*self.values, strict=True):
            total = column[0].to(_wide(column[0]), copy=True)
            for value in column[1:]:
                total.add_(value)
            means.append(total.div_(self.count).to(column[0].dtype))
        return means

    def state(self) -> tuple[Groups, dict[str, float]]:
        """All that an average needs to go on bit for bit: tensors and numbers."""
        groups = {f"value.{age}": values for age, values in enumerate(self.values)}
        if self._sum:
            groups["sum"] = self._sum
        return groups, {"count": self.count}

    def load(self, groups: Mapping[str, Sequence[torch.Tensor]], numbers: Mapping[str, float]) -> None:
        """Go on from a `state`, with tensors on the device where they are to be kept."""
        self._values = [list(groups[f"value.{age}"]) for age in range(int(numbers["count"]))]
        self._oldest = 0
        self._sum = list(groups.get("sum", ()))


class RunningAverage:
    """Weighted mean of all values of a list of tensors so far, in one copy.

    Args:
        decay: Of an exponential average, between 0 and 1; None for the mean in which all values count the same.
        warm_up: As in `exponential_decay`.
        bias_correction: As in `exponential_weight`.
        dtype: Of the average; by default the values' own, but float32 for half precision, in which small changes of a
            long average would be lost.
        device: Where to keep it; by default where the values are.
    """

    def __init__(
        self,
        decay: float | None = None,
        *,
        warm_up: bool = False,
        bias_correction: bool = True,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        self.decay = decay
        self.warm_up = warm_up
        self.bias_correction = bias_correction
        self.dtype = dtype
        self.device = device
        self.count = 0
        self._remaining = 1.0
        self._average: list[torch.Tensor] = []

    @torch.no_grad()
    def update(self, values: Sequence[torch.Tensor]) -> None:
        """Take in the newest value."""
        self.count += 1
        if self.decay is None:
            weight = cumulative_weight(self.count)
        else:
            decay = exponential_decay(self.count, self.decay, self.warm_up)
            self._remaining *= decay
            weight = exponential_weight(decay, self._remaining, self.bias_correction)
        if not self._average:
            self._average = [
                value.detach().to(self.device or value.device, self.dtype or _at_least_float32(value), copy=True)
                for value in values
            ]
            return
        for average, value in zip(self._average, values, strict=True):
            average.lerp_(value.detach().to(average.device, average.dtype), weight)

    def average(self) -> list[torch.Tensor]:
        """The average, in its own dtype and on the device where it is kept. Not a copy.

        Raises:
            RuntimeError: There is no value yet.
        """
        _refuse_empty(self.count)
        return self._average

    def state(self) -> tuple[Groups, dict[str, float]]:
        """All that an average needs to go on bit for bit: tensors and numbers."""
        groups: Groups = {"average": self._average} if self._average else {}
        return groups, {"count": self.count, "remaining": self._remaining}

    def load(self, groups: Mapping[str, Sequence[torch.Tensor]], numbers: Mapping[str, float]) -> None:
        """Go on from a `state`, with tensors on the device where they are to be kept."""
        self._average = list(groups.get("average", ()))
        self.count, self._remaining = int(numbers["count"]), numbers["remaining"]


@contextmanager
def parameters_as(parameters: Sequence[nn.Parameter], values: Sequence[torch.Tensor]) -> Iterator[None]:
    """Let parameters have other values within a block.

    Only addresses change hands, nothing is copied, and the parameters stay the same objects, so optimizers, hooks and
    an autograd graph that waits for its backward pass are not disturbed: after the block all is as before.

    Args:
        parameters: The parameters.
        values: Of the same shapes, dtypes and devices.
    """
    own = [parameter.data for parameter in parameters]
    _exchange(parameters, values)
    try:
        yield
    finally:
        _exchange(parameters, own)


def _exchange(parameters: Sequence[nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value
    if torch.is_autocast_enabled() or torch.is_autocast_enabled("cpu"):
        torch.clear_autocast_cache()  # it knows a parameter by its object, and would give the old values


def _wide(tensor: torch.Tensor) -> torch.dtype:
    """Dtype to add up in: Apple's GPUs have no float64."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _at_least_float32(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _refuse_empty(count: int) -> None:
    if not count:
        raise RuntimeError("no value was averaged yet")
