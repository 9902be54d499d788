"""Demonstrations: who is chosen, and in which order."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hf_nlpnotes.prompting.demonstrations import DemonstrationPool
from hf_nlpnotes.prompting.template import Template

ROWS = [
    {"text": f"{label}{i}", "label": label} for label, count in (("a", 9), ("b", 3), ("c", 1)) for i in range(count)
]
LABELS = ["a", "b", "c"]


def chosen(
    source: str, text: str = "?", labels: list[str] = LABELS, rows: list[Any] = ROWS, **kwargs: Any
) -> list[str]:
    pool = DemonstrationPool(rows, Template(source), **kwargs)
    return [row["text"] for row in pool.choose({"text": text}, labels)]


def test_labels_take_turns() -> None:
    for seed in range(20):
        texts = chosen(f"{{demos:6,seed={seed}}}{{text}}{{label}}")
        assert sorted(Counter(text[0] for text in texts).values()) == [1, 2, 3]
        assert len(set(texts)) == 6
    assert len({tuple(chosen(f"{{demos:6,seed={seed}}}{{text}}{{label}}")) for seed in range(20)}) > 10


def test_the_seed_decides() -> None:
    assert chosen("{demos:3}{text}{label}") == chosen("{demos:3,seed=0}{text}{label}")
    assert chosen("{demos:3}{text}{label}", text="!") == chosen("{demos:3}{text}{label}")


def test_only_these_labels_and_not_the_text_itself() -> None:
    assert {text[0] for text in chosen("{demos:10}{text}{label}", labels=["a", "c"])} == {"a", "c"}
    assert "c0" in chosen("{demos:3}{text}{label}")
    assert "c0" not in chosen("{demos:12}{text}{label}", text="c0")
    with pytest.raises(ValueError, match="shows 13 demonstrations, and 12 of the 13"):
        chosen("{demos:13}{text}{label}", text="c0")


def test_an_example_has_a_sample_of_its_own() -> None:
    """Other texts all have the same one."""
    source = "{demos:3}{text}{label}"
    samples = {row["text"]: chosen(source, row["text"]) for row in ROWS}
    assert all(text not in sample for text, sample in samples.items())
    assert len({tuple(sample) for sample in samples.values()}) > 10
    assert samples == {row["text"]: chosen(source, row["text"]) for row in ROWS}
    assert samples != {row["text"]: chosen("{demos:3,seed=1}{text}{label}", row["text"]) for row in ROWS}
    assert {text: Counter(one[0] for one in sample) for text, sample in samples.items() if text != "c0"} == {
        row["text"]: Counter("abc") for row in ROWS if row["text"] != "c0"
    }


def vectors() -> Any:
    """Texts are points on a circle: `"30"` is at 30 degrees."""

    def words(ids: list[list[int]]) -> torch.Tensor:
        angles = torch.tensor([float(own[0]) for own in ids], dtype=torch.float64).deg2rad()
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    return SimpleNamespace(words=words, token_ids=lambda text: [int(text)])


def test_the_nearest_stand_beside_the_text() -> None:
    rows = [{"text": str(angle), "label": "a"} for angle in (200, 0, 90, 40, 300, 60)]
    options: dict[str, Any] = {"rows": rows, "labels": ["a"], "vectors": vectors}
    assert chosen("{demos:3,nearest}{text}{label}", "50", **options) in (["90", "60", "40"], ["90", "40", "60"])
    assert chosen("{demos:3,nearest}{text}{label}", "55", **options) == ["90", "40", "60"]
    assert chosen("{text}{label}{demos:3,nearest}", "55", **options) == ["60", "40", "90"]
    assert chosen("{demos:2,nearest}{text}{label}", "60", **options) == ["90", "40"]


@pytest.mark.parametrize(
    ("row", "error", "what"),
    [
        ({"text": "a"}, ValueError, "number 1 has no 'label'"),
        ({"label": "a"}, ValueError, "number 1 has no 'text'"),
        ({"text": None, "label": "a"}, TypeError, "number 1 has None as its 'text'"),
        ("a", TypeError, "number 1 is a mapping"),
    ],
)
def test_rows_that_are_none(row: Any, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        DemonstrationPool([ROWS[0], row], Template("{demos:1}{text}{label}"))
