"""Figures of an evaluation: accuracy, the constant answer beside it, mean and deviation over runs, and their table.

Pure functions and records; nothing here loads a model or a file.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

HEADER = ("task", "labels", "test", "texts", "majority", "zero-shot", "few-shot")
"""Columns of `table`."""


@dataclass(frozen=True)
class Summary:
    """Several measurements of one thing.

    Args:
        mean: their mean.
        deviation: sample standard deviation, with n - 1 below the line; `None` for a single measurement.
        count: how many there are.
    """

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Run:
    """One training and its test.

    Args:
        split: name of the training split.
        seed: of the order of the examples and of dropout.
        train_texts: how many texts were learned from.
        accuracy: share of the test texts that are answered rightly.
    """

    split: str
    seed: int
    train_texts: int
    accuracy: float


@dataclass(frozen=True)
class TaskResult:
    """What was measured on one task.

    Args:
        task: its name.
        labels: how many there are.
        test: name of the file that was tested on.
        texts: how many of its texts.
        majority: see `majority`.
        zero: accuracy without training; `None`: not measured.
        runs: the trainings; empty: not measured.
    """

    task: str
    labels: int
    test: str
    texts: int
    majority: float
    zero: float | None = None
    runs: tuple[Run, ...] = ()

    @property
    def few(self) -> Summary | None:
        """Mean and deviation over the trainings."""
        return summary([run.accuracy for run in self.runs]) if self.runs else None

    def to_dict(self) -> dict[str, Any]:
        """In JSON's types; what was not measured is left out."""
        result: dict[str, Any] = {
            "labels": self.labels,
            "test": self.test,
            "texts": self.texts,
            "majority": self.majority,
        }
        if self.zero is not None:
            result["zero"] = {"accuracy": self.zero}
        if self.few is not None:
            runs = [
                {"split": run.split, "seed": run.seed, "train_texts": run.train_texts, "accuracy": run.accuracy}
                for run in self.runs
            ]
            result["few"] = {"accuracy": self.few.mean, "deviation": self.few.deviation, "runs": runs}
        return result


def accuracy(predicted: Sequence[str], expected: Sequence[str]) -> float:
    """Share of the answers that are right.

    Args:
        predicted: a label for each text.
        expected: the right ones.

    Raises:
        `ValueError`: no answers, or not one for each text.

    >>> accuracy(["好", "差", "差"], ["好", "好", "差"])
    0.6666666666666666
    """
    if len(predicted) != len(expected):
        raise ValueError(f"There are {len(predicted)} answers to {len(expected)} texts: give one for each.")
    if not expected:
        raise ValueError("There is no text to be right or wrong about: give at least one.")
    return sum(a == b for a, b in zip(predicted, expected, strict=True)) / len(expected)


def majority(expected: Sequence[str]) -> float:
    """Accuracy of the best constant answer, the most frequent label of the texts themselves.

    Args:
        expected: the right label of each text.

    Raises:
        `ValueError`: no texts.

    >>> majority(["好", "好", "差", "好"])
    0.75
    """
    if not expected:
        raise ValueError("There is no text, and so no most frequent label: give at least one.")
    return max(Counter(expected).values()) / len(expected)


def summary(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation.

    Args:
        values: measurements of one thing.

    Raises:
        `ValueError`: no measurements.

    >>> summary([0.5, 0.75, 1.0])
    Summary(mean=0.75, deviation=0.25, count=3)
    """
    if not values:
        raise ValueError("There is nothing to take the mean of: give at least one measurement.")
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), deviation, len(values))


def means(results: Sequence[TaskResult]) -> dict[str, float]:
    """Mean over tasks, each counting once, of `majority`, `zero` and `few`, where every task has them.

    Args:
        results: one a task.
    """
    columns: dict[str, list[float | None]] = {
        "majority": [result.majority for result in results],
        "zero": [result.zero for result in results],
        "few": [result.few.mean if result.few else None for result in results],
    }
    present = {name: [value for value in values if value is not None] for name, values in columns.items()}
    return {
        name: statistics.fmean(values) for name, values in present.items() if values and len(values) == len(results)
    }


def table(results: Sequence[TaskResult]) -> list[tuple[str, ...]]:
    """Rows under `HEADER`, in percent; with several tasks the last row is the mean over them.

    Args:
        results: one a task.
    """
    rows: list[tuple[str, ...]] = [
        (
            result.task,
            str(result.labels),
            result.test,
            str(result.texts),
            _percent(result.majority),
            _percent(result.zero),
            _percent_of(result.few),
        )
        for result in results
    ]
    if len(results) > 1:
        mean = means(results)
        rows.append(("mean", "", "", "", *(_percent(mean.get(name)) for name in ("majority", "zero", "few"))))
    return rows


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def _percent_of(few: Summary | None) -> str:
    if few is None:
        return "-"
    if few.deviation is None:
        return f"{_percent(few.mean)} (1 run)"
    return f"{_percent(few.mean)} ± {_percent(few.deviation)} ({few.count} runs)"
