"""Figures of an evaluation, against numpy and scikit-learn."""

import json
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score

from hf_nlpnotes.fewclue.results import HEADER, Run, TaskResult, accuracy, majority, means, summary, table

LABELS = ["好", "差", "中"]


@pytest.fixture
def answers() -> tuple[list[str], list[str]]:
    generator = np.random.default_rng(0)
    return tuple([LABELS[i] for i in generator.choice(3, 50, p=[0.6, 0.3, 0.1])] for _ in range(2))  # type: ignore[return-value]


def runs(*scores: float) -> tuple[Run, ...]:
    return tuple(Run(str(split), 0, 32, score) for split, score in enumerate(scores))


def test_accuracy_and_majority_are_scikit_learns(answers: tuple[list[str], list[str]]) -> None:
    predicted, expected = answers
    assert accuracy(predicted, expected) == pytest.approx(accuracy_score(expected, predicted))
    nothing = np.zeros((len(expected), 1))
    constant = DummyClassifier(strategy="most_frequent").fit(nothing, expected)
    assert majority(expected) == pytest.approx(constant.score(nothing, expected))


@pytest.mark.parametrize("count", [2, 3, 10])
def test_mean_and_deviation_are_numpys(count: int) -> None:
    values = np.random.default_rng(count).random(count)
    found = summary(values.tolist())
    assert found.mean == pytest.approx(values.mean())
    assert found.deviation == pytest.approx(values.std(ddof=1))
    assert found.count == count


def test_one_measurement_has_no_deviation() -> None:
    assert summary([0.5]).deviation is None


@pytest.mark.parametrize(
    ("function", "arguments", "what"),
    [
        (accuracy, (["好"], ["好", "差"]), "1 answers to 2 texts"),
        (accuracy, ([], []), "no text"),
        (majority, ([],), "no text"),
        (summary, ([],), "at least one"),
    ],
)
def test_nothing_to_measure_is_an_error(function: Any, arguments: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        function(*arguments)


def test_every_task_counts_once_in_the_mean() -> None:
    results = [
        TaskResult("a", 2, "test", 1000, 0.5, 0.6, runs(0.7, 0.9)),
        TaskResult("b", 2, "test", 10, 0.1, 0.2, runs(0.4)),
    ]
    assert means(results) == pytest.approx({"majority": 0.3, "zero": 0.4, "few": 0.6})
    # A mean over some of the tasks would be compared with one over all.
    assert means([*results, TaskResult("c", 2, "test", 10, 0.6)]) == pytest.approx({"majority": 0.4})
    assert means([]) == {}


def test_the_table() -> None:
    rows = table(
        [
            TaskResult("a", 2, "test_public.json", 610, 0.5, 0.6124, runs(0.7, 0.9)),
            TaskResult("b", 15, "dev_0.json", 10, 0.25, None, runs(0.4)),
        ]
    )
    assert rows == [
        ("a", "2", "test_public.json", "610", "50.0", "61.2", "80.0 ± 14.1 (2 runs)"),
        ("b", "15", "dev_0.json", "10", "25.0", "-", "40.0 (1 run)"),
        ("mean", "", "", "", "37.5", "-", "60.0"),
    ]
    assert all(len(row) == len(HEADER) for row in rows)
    assert table([TaskResult("a", 2, "t", 1, 1.0)]) == [("a", "2", "t", "1", "100.0", "-", "-")]


def test_a_result_as_json_leaves_out_what_was_not_measured() -> None:
    measured = TaskResult("a", 2, "t", 4, 0.5, 0.25, runs(0.5, 0.75)).to_dict()
    assert json.loads(json.dumps(measured)) == measured
    assert measured["zero"] == {"accuracy": 0.25}
    assert measured["few"]["accuracy"] == 0.625
    assert [run["accuracy"] for run in measured["few"]["runs"]] == [0.5, 0.75]
    assert set(TaskResult("a", 2, "t", 4, 0.5).to_dict()) == {"labels", "test", "texts", "majority"}
