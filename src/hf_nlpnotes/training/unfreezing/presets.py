"""Schedules from the literature, as pure functions of a model's layer groups, and as callbacks for the Trainer.

When to use which, and how each fails:

- `GradualUnfreeze` (ULMFiT, Howard & Ruder 2018, 3.3): top down, one layer more a phase. Little data, and a model that
  forgets. Helps little alone: in the paper's ablation it counts together with discriminative rates and slanted
  triangular rates (`ulmfit`). Fails when the training is shorter than the phases: the lowest layers never train.
- `SequentialUnfreeze` (Chronopoulou et al. 2019, SiATL): new layers, then all hidden layers, then embeddings.
- `ChainThaw` (Felbo et al. 2017, DeepMoji): the new layers, then each layer alone from the bottom, then all. As many
  phases as layers; each needs time to converge.
- `LinearProbeThenFineTune` (Kumar et al. 2022): the head until it fits, then everything, so that a random head does
  not distort good features. Pays out of distribution; the second phase wants a small rate.
- `LISA` (Pan et al. 2024): embeddings, head and a few layers at random train, drawn anew every few steps. Saves
  gradients and their exchange; every layer trains in the end. The optimizer keeps the moments of layers drawn before,
  so its memory grows to that of full fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hf_nlpnotes.layers.layer_discovery import LayerGroup

from .callback import Unfreezing
from .schedule import Epoch, Fraction, LayerSample, Phase, Plateau, Start, Step, UnfreezingSchedule

PhaseSteps = int | float | None


def gradual_unfreeze(
    groups: Sequence[LayerGroup],
    phase_steps: PhaseSteps = None,
    *,
    plateau: Plateau | None = None,
    layers_per_phase: int = 1,
    warmup_steps: float = 0,
) -> UnfreezingSchedule:
    """Return the schedule of `GradualUnfreeze` for a model with these groups.

    Args:
        groups: the model's, from `layer_groups`.
        phase_steps: as of `GradualUnfreeze`.
        plateau: as of `GradualUnfreeze`.
        layers_per_phase: as of `GradualUnfreeze`.
        warmup_steps: as of `GradualUnfreeze`.

    Raises:
        ValueError: `layers_per_phase` is below 1.
    """
    if layers_per_phase < 1:
        raise ValueError(f"layers_per_phase is at least 1, got {layers_per_phase!r}")
    order = _new_layers_first(groups)
    ends = [1, *range(1 + layers_per_phase, len(order), layers_per_phase), len(order)]
    trained = [order[:end] for end in ends]
    return _cumulated([(names[-1], names) for names in trained], phase_steps, plateau, warmup_steps)


def sequential_unfreeze(
    groups: Sequence[LayerGroup],
    phase_steps: PhaseSteps = None,
    *,
    plateau: Plateau | None = None,
    warmup_steps: float = 0,
) -> UnfreezingSchedule:
    """Return the schedule of `SequentialUnfreeze` for a model with these groups.

    Args:
        groups: the model's, from `layer_groups`.
        phase_steps: as of `SequentialUnfreeze`.
        plateau: as of `SequentialUnfreeze`.
        warmup_steps: as of `SequentialUnfreeze`.
    """
    names = _names_by_kind(groups)
    new, hidden, embeddings = names["head"], names["layer"], names["embeddings"]
    steps = [("new layers", new), ("hidden layers", new + hidden), ("embeddings", new + hidden + embeddings)]
    distinct = [entry for i, entry in enumerate(steps) if entry[1] and (i == 0 or entry[1] != steps[i - 1][1])]
    return _cumulated(distinct, phase_steps, plateau, warmup_steps)


def chain_thaw(
    groups: Sequence[LayerGroup],
    phase_steps: PhaseSteps = None,
    *,
    plateau: Plateau | None = None,
    warmup_steps: float = 0,
) -> UnfreezingSchedule:
    """Return the schedule of `ChainThaw` for a model with these groups.

    Args:
        groups: the model's, from `layer_groups`.
        phase_steps: as of `ChainThaw`.
        plateau: as of `ChainThaw`.
        warmup_steps: as of `ChainThaw`.
    """
    order = _new_layers_first(groups)
    chain = [(name, [name]) for name in (order[0], *reversed(order[1:]))]
    return _cumulated([*chain, ("all", order)], phase_steps, plateau, warmup_steps)


def linear_probe_then_fine_tune(
    groups: Sequence[LayerGroup],
    phase_steps: PhaseSteps = None,
    *,
    plateau: Plateau | None = None,
    learning_rate_scale: float = 1.0,
    warmup_steps: float = 0,
) -> UnfreezingSchedule:
    """Return the schedule of `LinearProbeThenFineTune` for a model with these groups.

    Args:
        groups: the model's, from `layer_groups`.
        phase_steps: as of `LinearProbeThenFineTune`.
        plateau: as of `LinearProbeThenFineTune`.
        learning_rate_scale: as of `LinearProbeThenFineTune`.
        warmup_steps: as of `LinearProbeThenFineTune`.
    """
    order = _new_layers_first(groups)
    probe = Phase("linear probe", (order[0],))
    tune = Phase(
        "fine-tuning",
        tuple(order),
        _start(1, 2, phase_steps, plateau),
        learning_rate_scale=learning_rate_scale,
        warmup_steps=warmup_steps,
    )
    return UnfreezingSchedule((probe, tune))


def lisa(groups: Sequence[LayerGroup], num_layers: int = 2, *, every: int = 20, seed: int = 0) -> UnfreezingSchedule:
    """Return the schedule of `LISA` for a model with these groups.

    Args:
        groups: the model's, from `layer_groups`.
        num_layers: as of `LISA`.
        every: as of `LISA`.
        seed: as of `LISA`.

    Raises:
        ValueError: the model has fewer layers.
    """
    names = _names_by_kind(groups)
    if num_layers > len(names["layer"]):
        raise ValueError(f"num_layers={num_layers}, but the model has {len(names['layer'])} layers")
    always = tuple(names["embeddings"] + names["head"])
    return UnfreezingSchedule(
        (Phase("lisa", always, sample=LayerSample(tuple(names["layer"]), num_layers, every, seed)),)
    )


class GradualUnfreeze(Unfreezing):
    """Train the head, then one layer more from the top in each phase (ULMFiT, Howard & Ruder 2018, section 3.3).

    Args:
        phase_steps: length of a phase. None: an epoch; int: optimizer steps; float below 1: part of the training.
        plateau: start each phase when a metric stops improving, instead.
        layers_per_phase: layers that each phase adds.
        warmup_steps: of the learning rates at the start of every phase but the first, see `Phase`.
        restore_best: at the end of each phase go back to its best weights, see `Unfreezing`.
        rebuild_reducer: see `Unfreezing`.

    Example:
        ```python
        Trainer(model, args, train_dataset=data, callbacks=[GradualUnfreeze])
        Trainer(model, args, train_dataset=data, callbacks=[GradualUnfreeze(phase_steps=0.1)])
        ```
    """

    def __init__(
        self,
        phase_steps: PhaseSteps = None,
        *,
        plateau: Plateau | None = None,
        layers_per_phase: int = 1,
        warmup_steps: float = 0,
        restore_best: bool | str = False,
        rebuild_reducer: bool = True,
    ) -> None:
        _check_phase_steps(phase_steps, plateau)
        schedule = partial(
            gradual_unfreeze,
            phase_steps=phase_steps,
            plateau=plateau,
            layers_per_phase=layers_per_phase,
            warmup_steps=warmup_steps,
        )
        super().__init__(schedule, restore_best=restore_best, rebuild_reducer=rebuild_reducer)


class SequentialUnfreeze(Unfreezing):
    """Train the new layers, then the hidden layers too, then the embeddings too (Chronopoulou et al. 2019, 3.2).

    Args:
        phase_steps: length of the first two phases, as in `GradualUnfreeze`.
        plateau: as in `GradualUnfreeze`.
        warmup_steps: as in `GradualUnfreeze`.
        restore_best: see `Unfreezing`.
        rebuild_reducer: see `Unfreezing`.
    """

    def __init__(
        self,
        phase_steps: PhaseSteps = None,
        *,
        plateau: Plateau | None = None,
        warmup_steps: float = 0,
        restore_best: bool | str = False,
        rebuild_reducer: bool = True,
    ) -> None:
        _check_phase_steps(phase_steps, plateau)
        schedule = partial(sequential_unfreeze, phase_steps=phase_steps, plateau=plateau, warmup_steps=warmup_steps)
        super().__init__(schedule, restore_best=restore_best, rebuild_reducer=rebuild_reducer)


class ChainThaw(Unfreezing):
    """Train the new layers, then each layer alone from the bottom, then all (DeepMoji, Felbo et al. 2017, 3.3).

    The paper ends each phase when the validation loss stops falling, and goes back to the best weights:
    `ChainThaw(plateau=Plateau("eval_loss", patience=2), restore_best=True)`.

    Args:
        phase_steps: length of each phase but the last, as in `GradualUnfreeze`.
        plateau: as in `GradualUnfreeze`.
        warmup_steps: as in `GradualUnfreeze`.
        restore_best: see `Unfreezing`.
        rebuild_reducer: see `Unfreezing`.
    """

    def __init__(
        self,
        phase_steps: PhaseSteps = None,
        *,
        plateau: Plateau | None = None,
        warmup_steps: float = 0,
        restore_best: bool | str = False,
        rebuild_reducer: bool = True,
    ) -> None:
        _check_phase_steps(phase_steps, plateau)
        schedule = partial(chain_thaw, phase_steps=phase_steps, plateau=plateau, warmup_steps=warmup_steps)
        super().__init__(schedule, restore_best=restore_best, rebuild_reducer=rebuild_reducer)


class LinearProbeThenFineTune(Unfreezing):
    """Train the head alone, then everything (LP-FT, Kumar et al. 2022, section 3.4).

    Args:
        phase_steps: length of the first phase, as in `GradualUnfreeze`.
        plateau: as in `GradualUnfreeze`.
        learning_rate_scale: factor on the learning rates of the second phase.
        warmup_steps: of the learning rates at the start of the second phase.
        restore_best: see `Unfreezing`.
        rebuild_reducer: see `Unfreezing`.
    """

    def __init__(
        self,
        phase_steps: PhaseSteps = None,
        *,
        plateau: Plateau | None = None,
        learning_rate_scale: float = 1.0,
        warmup_steps: float = 0,
        restore_best: bool | str = False,
        rebuild_reducer: bool = True,
    ) -> None:
        _check_phase_steps(phase_steps, plateau)
        schedule = partial(
            linear_probe_then_fine_tune,
            phase_steps=phase_steps,
            plateau=plateau,
            learning_rate_scale=learning_rate_scale,
            warmup_steps=warmup_steps,
        )
        super().__init__(schedule, restore_best=restore_best, rebuild_reducer=rebuild_reducer)


class LISA(Unfreezing):
    """Train embeddings, head and `num_layers` layers, drawn anew every few steps (Pan et al. 2024, algorithm 1).

    Layers are drawn uniformly, without replacement, from (seed, step), the same on all processes and after a resume.

    Args:
        num_layers: layers that train at a time, γ in the paper.
        every: steps between draws, K in the paper.
        seed: of the draws.
        rebuild_reducer: see `Unfreezing`.
    """

    def __init__(self, num_layers: int = 2, *, every: int = 20, seed: int = 0, rebuild_reducer: bool = True) -> None:
        LayerSample((), num_layers, every, seed)  # complains now rather than when training begins
        schedule = partial(lisa, num_layers=num_layers, every=every, seed=seed)
        super().__init__(schedule, rebuild_reducer=rebuild_reducer)


def _new_layers_first(groups: Sequence[LayerGroup]) -> list[str]:
    """Names from the top down, without groups that hold no parameters."""
    names = [group.name for group in reversed(groups) if group.parameters]
    if len(names) < 2:
        raise ValueError(f"the model has {len(names)} group(s) of parameters, {names}: nothing to unfreeze by and by")
    return names


def _names_by_kind(groups: Sequence[LayerGroup]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"embeddings": [], "layer": [], "head": []}
    for group in groups:
        if group.parameters:
            found[group.kind].append(group.name)
    return found


def _cumulated(
    steps: Sequence[tuple[str, Sequence[str]]],
    phase_steps: PhaseSteps,
    plateau: Plateau | None,
    warmup_steps: float,
) -> UnfreezingSchedule:
    phases = [
        Phase(name, tuple(train), _start(i, len(steps), phase_steps, plateau), warmup_steps=warmup_steps if i else 0)
        for i, (name, train) in enumerate(steps)
    ]
    return UnfreezingSchedule(tuple(phases))


def _check_phase_steps(phase_steps: PhaseSteps, plateau: Plateau | None) -> None:
    if phase_steps is None:
        return
    if plateau is not None:
        raise ValueError(
            "phase_steps and plateau both say when a phase ends: give one; for a limit, Plateau(at_most=…)"
        )
    if isinstance(phase_steps, bool) or not isinstance(phase_steps, int | float):
        raise TypeError(f"phase_steps is None, a number of steps or a part of the training, got {phase_steps!r}")
    if (isinstance(phase_steps, int) and phase_steps < 1) or (
        isinstance(phase_steps, float) and not 0 < phase_steps < 1
    ):
        raise ValueError(
            f"phase_steps is None (an epoch), a whole number of steps, or a part of the training between 0 and 1, "
            f"got {phase_steps!r}"
        )


def _start(i: int, count: int, phase_steps: PhaseSteps, plateau: Plateau | None) -> Start:
    _check_phase_steps(phase_steps, plateau)
    if i == 0:
        return Step(0)
    if plateau is not None:
        return plateau
    if phase_steps is None:
        return Epoch(i)
    if isinstance(phase_steps, int):
        return Step(i * phase_steps)
    if (count - 1) * phase_steps >= 1:
        raise ValueError(
            f"phase_steps={phase_steps}: {count} phases of this part of the training each do not fit into it; "
            f"give less than {1 / (count - 1):.3g}, or join layers into fewer phases"
        )
    return Fraction(i * phase_steps)
