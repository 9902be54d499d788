"""What trains when: a schedule of phases, and pure functions from the state of a training to the phase it is in.

A phase names the groups of parameters that train (`hf_nlpnotes.layers.layer_discovery.layer_groups`) and when it
starts: at a step, an epoch, a part of the training, or when a metric stops improving. Which phase holds follows from
the number of steps done and from the Trainer's log, both of which stand in every checkpoint. There is no other state,
so a resumed training is in the phase that the uninterrupted one would be in, also in the middle of an epoch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from hf_nlpnotes.layers.layer_discovery import LayerGroup

Mode = Literal["min", "max"]


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Step:
    """After so many optimizer steps.

    Attributes:
        value: steps, a whole number of at least 0.

    Raises:
        ValueError: a number below 0.
        TypeError: no whole number.
    """

    value: int

    def __post_init__(self) -> None:
        if not _is_whole(self.value):
            raise TypeError(f"a step is a whole number, got {self.value!r}: for a part of the training take Fraction")
        if self.value < 0:
            raise ValueError(f"a step is at least 0, got {self.value}")


@dataclass(frozen=True)
class Epoch:
    """After so many epochs; parts of epochs are rounded up to whole steps.

    Attributes:
        value: epochs, at least 0; parts of one count.

    Raises:
        ValueError: a number below 0, or not finite.
        TypeError: no number.
    """

    value: float

    def __post_init__(self) -> None:
        if not _is_number(self.value):
            raise TypeError(f"an epoch is a number, got {self.value!r}")
        if not 0 <= self.value < math.inf:
            raise ValueError(f"an epoch is a finite number of at least 0, got {self.value}")


@dataclass(frozen=True)
class Fraction:
    """After this part of all steps, from 0 to 1, rounded up to whole steps.

    Attributes:
        value: from 0 to 1.

    Raises:
        ValueError: a number outside [0, 1].
        TypeError: no number.
    """

    value: float

    def __post_init__(self) -> None:
        if not _is_number(self.value):
            raise TypeError(f"a part of the training is a number, got {self.value!r}")
        if not 0 <= self.value <= 1:
            raise ValueError(f"a part of the training is between 0 and 1, got {self.value}")


Moment = Step | Epoch | Fraction


@dataclass(frozen=True)
class Plateau:
    """When a logged metric has not improved in `patience` measurements, counted from the start of the phase before.

    Attributes:
        metric: key in the Trainer's log, "eval_loss", "eval_accuracy", "loss".
        patience: so many measurements in a row that are no better than the best one of the phase.
        min_delta: what counts as better: more than this, in the units of the metric.
        mode: "min" or "max"; None: "min" for metrics whose name ends in "loss", else "max".
        at_most: the longest wait, counted from the start of the phase before too. None: as long as the training lasts.

    Raises:
        ValueError: a number out of its range, or an unknown mode.
        TypeError: a metric that is no text, or an `at_most` that is no moment.
    """

    metric: str = "eval_loss"
    patience: int = 1
    min_delta: float = 0.0
    mode: Mode | None = None
    at_most: Moment | None = None

    def __post_init__(self) -> None:
        if not _is_name(self.metric):
            raise TypeError(f"a plateau is one of a metric by name, such as 'eval_loss', got {self.metric!r}")
        if not _is_whole(self.patience) or self.patience < 1:
            raise ValueError(f"patience is a whole number of at least 1, got {self.patience!r}")
        if not _is_number(self.min_delta) or not 0 <= self.min_delta < math.inf:
            raise ValueError(f"min_delta is a number of at least 0, got {self.min_delta!r}")
        if self.mode not in {"min", "max", None}:
            raise ValueError(f"mode is 'min' or 'max', got {self.mode!r}")
        if self.at_most is not None and not isinstance(self.at_most, Moment):
            raise TypeError(f"at_most is a Step, an Epoch or a Fraction, got {self.at_most!r}")

    @property
    def resolved_mode(self) -> Mode:
        """`mode`, or what the metric's name says."""
        return self.mode or better_is(self.metric)


Start = Moment | Plateau


@dataclass(frozen=True)
class LayerSample:
    """Some groups out of many, drawn anew every few steps from `seed` and the step (LISA, Pan et al. 2024).

    Attributes:
        groups: names or patterns of the groups to draw from.
        count: how many train at a time.
        every: steps between draws.
        seed: of the draws, the same on all processes.

    Raises:
        ValueError: a count or an interval below 1, or a seed that is no whole number.
    """

    groups: tuple[str, ...]
    count: int
    every: int
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", _names("sample.groups", self.groups))
        for name, value in (("count", self.count), ("every", self.every)):
            if not _is_whole(value) or value < 1:
                raise ValueError(f"{name} is a whole number of at least 1, got {value!r}")
        if not _is_whole(self.seed):
            raise ValueError(f"seed is a whole number, got {self.seed!r}")

    def drawn(self, names: Sequence[str], step: int) -> tuple[str, ...]:
        """Return the `count` of `names` that train at `step`, in the order of `names`.

        The names with the smallest digests of (seed, number of the draw, name): uniform without replacement, and the
        same in every version of Python.
        """

        def digest(name: str) -> bytes:
            return hashlib.sha256(f"{self.seed}/{step // self.every}/{name}".encode()).digest()

        chosen = set(sorted(names, key=digest)[: self.count])
        return tuple(name for name in names if name in chosen)


@dataclass(frozen=True)
class Phase:
    """One phase of a schedule.

    Attributes:
        name: for the log, the plot and messages.
        train: what trains: names of groups ("head", "layer.11"), patterns of them ("layer.*"), or, where no group
            matches, patterns of names of parameters ("bert.encoder.layer.11.output.*").
        start: when it begins; the first phase begins at once.
        sample: groups that train besides, drawn anew every few steps.
        learning_rate_scale: factor on the learning rates of all optimizer groups during the phase.
        warmup_steps: the rates rise linearly from 1/warmup_steps to 1 times theirs over the first steps of the phase:
            a number of steps, or a part of the training (a float below 1).
        stop: ends the whole training when this metric stops improving during the phase.

    Raises:
        ValueError: nothing to train, or a number out of its range.
        TypeError: a name that is no text, names that are no list, or a start or stop of another kind.
    """

    name: str
    train: tuple[str, ...]
    start: Start = Step(0)
    sample: LayerSample | None = None
    learning_rate_scale: float = 1.0
    warmup_steps: float = 0
    stop: Plateau | None = None

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise TypeError(f"a phase's name is a text, got {self.name!r}")
        object.__setattr__(self, "train", _names("train", self.train))
        if not self.train and self.sample is None:
            raise ValueError("train is empty: name at least one group")
        if not isinstance(self.start, Start):
            raise TypeError(f"start is a Step, an Epoch, a Fraction or a Plateau, got {self.start!r}")
        scale, warmup = self.learning_rate_scale, self.warmup_steps
        if not _is_number(scale) or not 0 < scale < math.inf:
            raise ValueError(f"learning_rate_scale is a number above 0, got {scale!r}")
        if not _is_number(warmup) or warmup < 0 or (warmup >= 1 and not _is_whole(warmup)):
            raise ValueError(f"warmup_steps is a whole number of steps or a part of the training, got {warmup!r}")
        if self.stop is not None and not isinstance(self.stop, Plateau):
            raise TypeError(f"stop is a Plateau, got {self.stop!r}")


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        step: optimizer steps done, `state.global_step`.
        max_steps: steps of the whole training.
        steps_per_epoch: optimizer steps an epoch; None where the data has no length.
        log_history: the Trainer's log, as in `state.log_history`.
    """

    step: int
    max_steps: int
    steps_per_epoch: int | None = None
    log_history: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    def at(self, step: int) -> Progress:
        """The same training after so many steps, as far as the log tells.

        Args:
            step: optimizer steps done.
        """
        return replace(self, step=step)


@dataclass(frozen=True)
class UnfreezingSchedule:
    """Phases, one after the other.

    Attributes:
        phases: in the order in which they hold; the first starts at 0.
        keep_frozen: names or patterns of groups or parameters that never train.

    Raises:
        ValueError: there is no phase, or their starts are not in order.

    Example:
        >>> schedule = UnfreezingSchedule((Phase("head", ("head",)), Phase("all", ("*",), Epoch(1))))
        >>> schedule.phase_at(Progress(step=99, max_steps=300, steps_per_epoch=100)).name
        'head'
        >>> schedule.phase_at(Progress(step=100, max_steps=300, steps_per_epoch=100)).name
        'all'
    """

    phases: tuple[Phase, ...]
    keep_frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "phases", tuple(self.phases))
        object.__setattr__(self, "keep_frozen", _names("keep_frozen", self.keep_frozen))
        if not self.phases:
            raise ValueError("a schedule has at least one phase")
        first = self.phases[0].start
        if isinstance(first, Plateau) or first.value != 0:
            raise ValueError(f"phases[0] starts at 0, got {first}: name there what trains from the beginning")
        for i in range(1, len(self.phases)):
            before, start = self.phases[i - 1].start, self.phases[i].start
            if type(before) is type(start) and isinstance(start, Moment) and isinstance(before, Moment):
                if start.value <= before.value:
                    raise ValueError(f"phases[{i}] starts at {start}, not after phases[{i - 1}] at {before}")
            elif isinstance(before, Plateau) and before.at_most is None and isinstance(start, Moment):
                raise ValueError(
                    f"phases[{i}] starts at {start}, but phases[{i - 1}] before it waits for a plateau that may never "
                    f"come: give that plateau at_most, or let phases[{i}] wait for a plateau too"
                )

    @property
    def metrics(self) -> frozenset[str]:
        """The metrics that the schedule waits for."""
        waits = (wait for phase in self.phases for wait in (phase.start, phase.stop))
        return frozenset(wait.metric for wait in waits if isinstance(wait, Plateau))

    def starts(self, progress: Progress) -> tuple[int, ...]:
        """Return the first step of each phase, as far as it is known: a plateau to come has none.

        Args:
            progress: how far the training is.

        Raises:
            ValueError: a phase starts before the one above it; or epochs of data without a length.
        """
        found = [0]
        for i, phase in enumerate(self.phases[1:], start=1):
            start = _first_step(phase.start, found[-1], progress)
            if start is None:
                break
            if start < found[-1] and not isinstance(self.phases[i - 1].start, Plateau):
                raise ValueError(
                    f"phases[{i}] ({phase.name!r}) starts at step {start} of {progress.max_steps}, before "
                    f"phases[{i - 1}] at step {found[-1]}"
                )
            found.append(max(start, found[-1]))
        return tuple(found)

    def index_at(self, progress: Progress) -> int:
        """Return the number of the phase that holds for the next step.

        Args:
            progress: how far the training is.
        """
        return max(i for i, start in enumerate(self.starts(progress)) if start <= progress.step)

    def phase_at(self, progress: Progress) -> Phase:
        """Return the phase that holds for the next step.

        Args:
            progress: how far the training is.
        """
        return self.phases[self.index_at(progress)]

    def parameters_at(self, progress: Progress, groups: Sequence[LayerGroup]) -> frozenset[str]:
        """Return the names of the parameters that train in the next step.

        Args:
            progress: how far the training is.
            groups: the model's, from `layer_groups`.
        """
        phase = self.phase_at(progress)
        train: tuple[str, ...] = phase.train
        if phase.sample is not None:
            train += phase.sample.drawn(_matching_groups(phase.sample.groups, groups), progress.step)
        return named_parameters(train, groups) - named_parameters(self.keep_frozen, groups)

    def parameters_ever(self, groups: Sequence[LayerGroup], index: int | None = None) -> frozenset[str]:
        """Return the names of the parameters that train at some time, or at some time of phase number `index`.

        Args:
            groups: the model's, from `layer_groups`.
            index: number of the phase; None for all phases.
        """
        phases = self.phases if index is None else self.phases[index : index + 1]
        patterns = [name for p in phases for name in (*p.train, *(p.sample.groups if p.sample else ()))]
        return named_parameters(patterns, groups) - named_parameters(self.keep_frozen, groups)

    def rate_factor(self, progress: Progress) -> float:
        """Return the factor on all learning rates in the next step.

        Args:
            progress: how far the training is.
        """
        starts = self.starts(progress)
        index = self.index_at(progress)
        phase = self.phases[index]
        warmup = phase.warmup_steps
        steps = _rounded_up(warmup * progress.max_steps if warmup < 1 else warmup)
        risen = 1.0 if steps == 0 else min(1.0, (progress.step - starts[index] + 1) / steps)
        return phase.learning_rate_scale * risen

    def stops(self, progress: Progress) -> bool:
        """Whether the phase of the step just done ends the training.

        Args:
            progress: how far the training is.
        """
        if progress.step == 0:
            return False
        index = self.index_at(progress.at(progress.step - 1))
        stop = self.phases[index].stop
        end = None if stop is None else _first_step(stop, self.starts(progress)[index], progress)
        return end is not None and end <= progress.step

    def check(self, groups: Sequence[LayerGroup]) -> None:
        """See that every name stands for something in a model with these groups.

        Args:
            groups: the model's, from `layer_groups`.

        Raises:
            ValueError: a name or pattern matches nothing, or a phase trains nothing; the message names the phase.
        """
        named_parameters(self.keep_frozen, groups, "keep_frozen: ")
        for i, phase in enumerate(self.phases):
            named_parameters(phase.train, groups, f"phases[{i}] ({phase.name!r}), train: ")
            if phase.sample is not None:
                many = len(_matching_groups(phase.sample.groups, groups))
                if phase.sample.count > many:
                    raise ValueError(
                        f"phases[{i}] ({phase.name!r}), sample: draws {phase.sample.count} of {many} groups"
                    )
            if not self.parameters_ever(groups, i):
                raise ValueError(f"phases[{i}] ({phase.name!r}): no parameters train")


def better_is(metric: str) -> Mode:
    """Whether smaller or larger values of a metric are better, by its name."""
    return "min" if metric.endswith("loss") else "max"


def measurements(metric: str, after: int, until: int, log: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Return (step, value) of a metric in a log, for `after` < step <= `until`; the last value at each step."""
    found: dict[int, float] = {}
    for entry in log:
        if metric in entry and after < entry.get("step", -1) <= until:
            found[int(entry["step"])] = float(entry[metric])
    return sorted(found.items())


def best_measurement(values: Sequence[tuple[int, float]], mode: Mode) -> tuple[int, float] | None:
    """Return the (step, value) with the best value, the earliest of equals; NaN is never the best."""
    real = [pair for pair in values if not math.isnan(pair[1])]
    sign = 1 if mode == "min" else -1
    return min(real, key=lambda pair: (sign * pair[1], pair[0]), default=None)


def plateau_step(plateau: Plateau, after: int, progress: Progress) -> int | None:
    """Return the step at which the metric has stopped improving, counted from step `after`; None: not yet."""
    best, bad = math.inf, 0
    sign = 1 if plateau.resolved_mode == "min" else -1
    for step, value in measurements(plateau.metric, after, progress.step, progress.log_history):
        if sign * value < best - plateau.min_delta:  # false for NaN
            best, bad = sign * value, 0
        else:
            bad += 1
        if bad >= plateau.patience:
            return step
    return None


def named_parameters(names: Sequence[str], groups: Sequence[LayerGroup], where: str = "") -> frozenset[str]:
    """Return the names of the parameters that names or patterns of groups, else of parameters, stand for.

    Raises:
        ValueError: a name matches neither a group nor a parameter.
    """
    found: set[str] = set()
    for name in names:
        matched = [group.parameters for group in groups if fnmatchcase(group.name, name)]
        if not matched:
            single = tuple(p for group in groups for p in group.parameters if fnmatchcase(p, name))
            if not single:
                known = ", ".join(group.name for group in groups)
                raise ValueError(
                    f"{where}{name!r} is no group of the model and matches no parameter: its groups are {known}"
                )
            matched = [single]
        found.update(*matched)
    return frozenset(found)


def _matching_groups(patterns: Sequence[str], groups: Sequence[LayerGroup]) -> tuple[str, ...]:
    matched = tuple(group.name for group in groups if any(fnmatchcase(group.name, pattern) for pattern in patterns))
    for pattern in patterns:
        if not any(fnmatchcase(group.name, pattern) for group in groups):
            raise ValueError(f"{pattern!r} is no group of the model: {', '.join(group.name for group in groups)}")
    return matched


def _names(what: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"{what} is a list of names, got {value!r}")
    return tuple(value)


def _rounded_up(steps: float) -> int:
    return math.ceil(steps - 1e-6)  # 0.1 * 30 is 3.0000000000000004


def _moment_step(moment: Moment, progress: Progress) -> int:
    if isinstance(moment, Step):
        return moment.value
    if isinstance(moment, Fraction):
        return _rounded_up(moment.value * progress.max_steps)
    if progress.steps_per_epoch is None:
        raise ValueError(
            f"a phase starts at {moment}, but the training data has no length, so that nobody knows when an epoch "
            "ends: give steps (phase_steps=…) or parts of the training instead"
        )
    return _rounded_up(moment.value * progress.steps_per_epoch)


def _first_step(start: Start, after: int, progress: Progress) -> int | None:
    """The first step of a phase, counted from the start of the phase before; None: waits for a plateau."""
    if isinstance(start, Moment):
        return _moment_step(start, progress)
    bounds = [plateau_step(start, after, progress)]
    if start.at_most is not None:
        bounds.append(after + _moment_step(start.at_most, progress))
    return min((bound for bound in bounds if bound is not None), default=None)
