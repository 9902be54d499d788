"""Schedules: which phase holds at which step, from the step and the log alone."""

import itertools
import math
from dataclasses import FrozenInstanceError

import pytest

from hf_nlpnotes.layers.layer_discovery import LayerGroup
from hf_nlpnotes.training.unfreezing.schedule import (
    Epoch,
    Fraction,
    LayerSample,
    Phase,
    Plateau,
    Progress,
    Step,
    UnfreezingSchedule,
    best_measurement,
    measurements,
    named_parameters,
    plateau_step,
)

GROUPS = (
    LayerGroup("embeddings", "embeddings", ("e.word", "e.position")),
    LayerGroup("layer.0", "layer", ("l.0.w", "l.0.b")),
    LayerGroup("layer.1", "layer", ("l.1.w", "l.1.b")),
    LayerGroup("head", "head", ("h.w",)),
)


def losses(*values: float) -> list[dict[str, float]]:
    """A log with an evaluation after each step, and other entries between."""
    return [
        entry
        for step, value in enumerate(values, start=1)
        for entry in ({"loss": 1.0, "step": step}, {"eval_loss": value, "step": step})
    ]


@pytest.mark.parametrize(
    ("start", "first"),
    [
        (Step(7), 7),
        (Epoch(1), 10),
        (Epoch(0.25), 3),  # 2.5 steps, rounded up
        (Fraction(0.5), 15),
        (Fraction(0.1), 3),  # 0.1 * 30 is 3.0000000000000004
        (Fraction(1 / 3), 10),
    ],
)
def test_a_phase_starts_where_it_says(start, first) -> None:
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), start)))
    names = [schedule.phase_at(Progress(step, 30, 10)).name for step in range(30)]
    assert names == ["a"] * first + ["b"] * (30 - first)
    assert schedule.starts(Progress(0, 30, 10)) == (0, first)


def test_parameters_of_each_step() -> None:
    schedule = UnfreezingSchedule(
        (Phase("a", ("head",)), Phase("b", ("head", "layer.*"), Step(2)), Phase("c", ("*",), Step(4))),
        keep_frozen=("e.position",),
    )
    trained = [schedule.parameters_at(Progress(step, 6), GROUPS) for step in range(6)]
    layers = {"l.0.w", "l.0.b", "l.1.w", "l.1.b"}
    assert trained == [{"h.w"}] * 2 + [{"h.w"} | layers] * 2 + [{"h.w", "e.word"} | layers] * 2
    assert schedule.parameters_ever(GROUPS) == {"h.w", "e.word"} | layers
    assert [schedule.parameters_ever(GROUPS, i) for i in range(3)] == trained[::2]


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("min_delta", [0.0, 0.15])
def test_plateaus_as_counted_by_hand(patience, min_delta) -> None:
    """Every sequence of five values out of three; the phase starts after `patience` evaluations that are no better."""
    for values in itertools.product([0.1, 0.2, 0.3], repeat=5):
        expected, best, waited = None, math.inf, 0
        for step, value in enumerate(values, start=1):
            waited = 0 if value < best - min_delta else waited + 1
            best = min(best, value) if waited == 0 else best
            if waited == patience:
                expected = step
                break
        plateau = Plateau(patience=patience, min_delta=min_delta)
        assert plateau_step(plateau, 0, Progress(5, 9, None, losses(*values))) == expected
        higher = Plateau("eval_accuracy", patience=patience, min_delta=min_delta)
        log = [{"eval_accuracy": 1 - value, "step": step} for step, value in enumerate(values, start=1)]
        if min_delta == 0:  # 1 - 0.1 is rounded
            assert plateau_step(higher, 0, Progress(5, 9, None, log)) == expected


def test_plateaus_count_from_the_start_of_the_phase_before() -> None:
    log = losses(0.5, 0.6, 0.9, 0.8, 0.7, 0.75)
    schedule = UnfreezingSchedule(
        (Phase("a", ("head",)), Phase("b", ("*",), Plateau()), Phase("c", ("*",), Plateau())),
    )
    names = [schedule.phase_at(Progress(step, 9, None, log)).name for step in range(7)]
    assert names == ["a", "a", "b", "b", "b", "b", "c"]  # 0.9 after 0.6 is a new beginning
    assert schedule.starts(Progress(1, 9, None, log)) == (0,), "what comes is not known"


def test_the_log_after_a_step_does_not_count() -> None:
    """So the phase at an earlier step is the same, whatever came after it."""
    log = losses(0.5, 0.4, 0.6, 0.3, 0.7)
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Plateau(patience=2))))
    for step in range(6):
        then = [entry for entry in log if entry["step"] <= step]
        assert schedule.index_at(Progress(step, 9, None, log)) == schedule.index_at(Progress(step, 9, None, then))


def test_longest_wait() -> None:
    schedule = UnfreezingSchedule(
        (
            Phase("a", ("head",)),
            Phase("b", ("*",), Plateau(at_most=Step(3))),
            Phase("c", ("*",), Plateau(at_most=Epoch(1))),
        )
    )
    falling = losses(*[1 / n for n in range(1, 12)])
    assert schedule.starts(Progress(11, 20, 4, falling)) == (0, 3, 7)
    assert schedule.starts(Progress(11, 20, 4, losses(0.1, 0.2, 0.1, 0.2))) == (0, 2, 4)


def test_a_moment_that_has_passed_when_a_plateau_comes() -> None:
    """The phase between is left out: the next one holds from the step on at which the wait ended."""
    schedule = UnfreezingSchedule(
        (Phase("a", ("head",)), Phase("b", ("layer.*",), Plateau(at_most=Step(8))), Phase("c", ("*",), Step(5)))
    )
    assert schedule.starts(Progress(9, 20)) == (0, 8, 8)
    assert [schedule.phase_at(Progress(step, 20)).name for step in (7, 8)] == ["a", "c"]


def test_nan_is_no_improvement_and_never_the_best() -> None:
    log = losses(math.nan, 0.5, math.nan)
    assert plateau_step(Plateau(patience=1), 0, Progress(3, 9, None, log)) == 1
    assert plateau_step(Plateau(patience=2), 0, Progress(3, 9, None, losses(math.nan, math.nan, 0.5))) == 2
    values = measurements("eval_loss", 0, 3, log)
    assert best_measurement(values, "min") == (2, 0.5)
    assert best_measurement([(1, math.nan)], "min") is None
    assert best_measurement([(1, 0.5), (2, 0.7), (3, 0.7)], "max") == (2, 0.7)
    assert best_measurement([(1, 0.5), (2, 0.3), (3, 0.3)], "min") == (2, 0.3)


def test_rates_rise_anew_in_a_phase() -> None:
    schedule = UnfreezingSchedule(
        (Phase("a", ("head",)), Phase("b", ("*",), Step(2), learning_rate_scale=0.5, warmup_steps=0.4))
    )
    factors = [schedule.rate_factor(Progress(step, 10)) for step in range(10)]
    assert factors == [1, 1, 0.125, 0.25, 0.375, *[0.5] * 5]
    by_steps = [UnfreezingSchedule((Phase("a", ("head",), warmup_steps=steps),)) for steps in (1, 2)]
    assert [[schedule.rate_factor(Progress(step, 10)) for step in range(3)] for schedule in by_steps] == [
        [1, 1, 1],
        [0.5, 1, 1],
    ]


def test_a_phase_ends_the_training() -> None:
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Step(2), stop=Plateau(patience=2))))
    log = losses(0.1, 0.2, 0.5, 0.6, 0.7, 0.8)
    assert [schedule.stops(Progress(step, 9, None, log)) for step in range(7)] == [False] * 5 + [True] * 2
    bound = UnfreezingSchedule((Phase("a", ("head",), stop=Plateau(at_most=Step(3))),))
    assert [bound.stops(Progress(step, 9)) for step in range(5)] == [False, False, False, True, True]


class TestSample:
    def test_drawn_from_seed_and_step_alone(self) -> None:
        names = [f"layer.{i}" for i in range(12)]
        sample = LayerSample(tuple(names), 3, every=5, seed=1)
        draws = [sample.drawn(names, step) for step in range(100)]
        assert all(len(set(draw)) == 3 for draw in draws)
        assert all(draws[step] == draws[step - step % 5] for step in range(100))
        assert len(set(draws)) > 15
        assert sample.drawn(names, 7) != LayerSample(tuple(names), 3, every=5, seed=2).drawn(names, 7)

    def test_the_same_in_every_version(self) -> None:
        """The smallest digests, as a shell has them: printf 0/3/a | sha256sum. A resumed training draws them again."""
        sample = LayerSample(("*",), 2, every=2)
        assert sample.drawn(list("abcd"), 6) == ("c", "d")

    def test_uniform(self) -> None:
        """Pearson's χ² over the 10 pairs of 5 layers, in 4000 draws: 9 degrees of freedom, 27.9 at p = 0.001."""
        names = list("abcde")
        sample = LayerSample(tuple(names), 2, every=1)
        draws = [sample.drawn(names, step) for step in range(4000)]
        counts = [draws.count(pair) for pair in itertools.combinations(names, 2)]
        assert sum(counts) == 4000
        assert sum((count - 400) ** 2 / 400 for count in counts) < 27.9

    def test_in_a_schedule(self) -> None:
        sample = LayerSample(("layer.*",), 1, every=2)
        schedule = UnfreezingSchedule((Phase("a", ("head", "embeddings"), sample=sample),))
        for step in range(8):
            (name,) = sample.drawn(("layer.0", "layer.1"), step)
            expected = named_parameters(("head", "embeddings", name), GROUPS)
            assert schedule.parameters_at(Progress(step, 8), GROUPS) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Step(0.5), "a step is a whole number, got 0.5"),
        (lambda: Step(-1), "at least 0, got -1"),
        (lambda: Epoch(math.inf), "finite"),
        (lambda: Fraction(2), "between 0 and 1, got 2"),
        (lambda: Plateau(""), "by name"),
        (lambda: Plateau(patience=0), "patience is a whole number of at least 1, got 0"),
        (lambda: Plateau(mode="smallest"), "'min' or 'max', got 'smallest'"),
        (lambda: Plateau(at_most=3), "a Step, an Epoch or a Fraction, got 3"),
        (lambda: LayerSample(("layer.*",), 0, 5), "count is a whole number of at least 1, got 0"),
        (lambda: Phase("", ("head",)), "name is a text"),
        (lambda: Phase("a", "head"), "train is a list of names, got 'head'"),
        (lambda: Phase("a", ()), "train is empty"),
        (lambda: Phase("a", ("head",), start=3), "start is a Step"),
        (lambda: Phase("a", ("head",), learning_rate_scale=0), "above 0, got 0"),
        (
            lambda: Phase("a", ("head",), warmup_steps=1.5),
            "a whole number of steps or a part of the training, got 1.5",
        ),
        (lambda: Phase("a", ("head",), learning_rate_scale=math.inf), "above 0, got inf"),
        (lambda: Phase("a", ("head",), warmup_steps=1.0), "a whole number of steps or a part .*, got 1.0"),
        (lambda: Phase("a", ("head",), warmup_steps=-1), "a whole number of steps or a part .*, got -1"),
        (lambda: Phase("a", ("head",), stop=Step(3)), "stop is a Plateau, got Step"),
        (lambda: Epoch("1"), "an epoch is a number, got '1'"),
        (lambda: Epoch(-0.5), "finite number of at least 0, got -0.5"),
        (lambda: Fraction(None), "a part of the training is a number, got None"),
        (lambda: Plateau(min_delta=math.inf), "min_delta is a number of at least 0, got inf"),
        (lambda: LayerSample(("layer.*",), 1, 0), "every is a whole number of at least 1, got 0"),
        (lambda: LayerSample(("layer.*",), 1, 5, seed=0.5), "seed is a whole number, got 0.5"),
        (lambda: UnfreezingSchedule((Phase("a", ("head",)),), "head"), "keep_frozen is a list of names, got 'head'"),
        (lambda: UnfreezingSchedule(()), "at least one phase"),
        (lambda: UnfreezingSchedule((Phase("a", ("head",), Step(3)),)), r"phases\[0\] starts at 0, got Step"),
        (
            lambda: UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Step(0)))),
            r"phases\[1\] starts at Step\(value=0\), not after",
        ),
        (
            lambda: UnfreezingSchedule(
                (Phase("a", ("head",)), Phase("b", ("*",), Plateau()), Phase("c", ("*",), Step(9)))
            ),
            r"phases\[2\] .* a plateau that may never come: give that plateau at_most",
        ),
    ],
)
def test_bad_values_are_named(make, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Step(1), "value"),
        (Epoch(1), "value"),
        (Fraction(1), "value"),
        (Plateau(), "patience"),
        (LayerSample(("*",), 1, 1), "count"),
        (Phase("a", ("*",)), "train"),
        (Progress(1, 2), "step"),
        (UnfreezingSchedule((Phase("a", ("*",)),)), "phases"),
    ],
)
def test_what_was_checked_once_stays_as_it_is(value, name) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(value, name, 0)


def test_epochs_of_data_without_length() -> None:
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Epoch(1))))
    with pytest.raises(ValueError, match=r"has no length.*phase_steps"):
        schedule.phase_at(Progress(3, 10))


def test_starts_out_of_order_in_steps() -> None:
    schedule = UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Epoch(1)), Phase("c", ("*",), Step(5))))
    with pytest.raises(ValueError, match=r"phases\[2\] \('c'\) starts at step 5 of 30, before phases\[1\] at step 10"):
        schedule.starts(Progress(0, 30, 10))


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (
            UnfreezingSchedule((Phase("a", ("heads",)),)),
            r"phases\[0\] \('a'\), train: 'heads' is no group .* layer\.0",
        ),
        (UnfreezingSchedule((Phase("a", ("head",)),), ("embedding",)), "keep_frozen: 'embedding' is no group"),
        (UnfreezingSchedule((Phase("a", ("head",)),), ("head",)), r"phases\[0\] \('a'\): no parameters train"),
        (UnfreezingSchedule((Phase("a", (), sample=LayerSample(("layer.*",), 3, 1)),)), "draws 3 of 2 groups"),
        (UnfreezingSchedule((Phase("a", (), sample=LayerSample(("x",), 1, 1)),)), "'x' is no group"),
    ],
)
def test_names_are_checked_against_the_model(schedule, message) -> None:
    with pytest.raises(ValueError, match=message):
        schedule.check(GROUPS)
