"""The example runs, on the tiny model, on its own sentences and on data of the layout that it reads."""

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, EvalPrediction

from hf_nlpnotes.training.multi_task import MultiTaskModel

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # where a script finds its neighbours
    monkeypatch.setattr(sys, "argv", ["multi_task.py", *map(str, arguments)])
    runpy.run_path(str(FOLDER / "multi_task.py"), run_name="__main__")


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(FOLDER))
    return runpy.run_path(str(FOLDER / "multi_task.py"))


def test_it_trains_alone_and_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chinesebert_folder: Path, tmp_path: Path
) -> None:
    few = ["--seeds", 1, "--epochs", 1, "--output_dir", tmp_path]
    run(monkeypatch, "--model", tiny_chinesebert_folder, *few)
    header, *rows, sentiment, ner = capsys.readouterr().out.splitlines()
    assert header.split() == ["accuracy", "F1"]
    assert [len(re.findall("±", row)) for row in rows] == [1, 1, 2]
    assert "评" in sentiment
    assert ner.startswith("ner [")
    assert MultiTaskModel.from_pretrained(tmp_path / "together").tasks == ("sentiment", "ner")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "sentiment").config.num_labels == 2
    assert AutoModelForTokenClassification.from_pretrained(tmp_path / "ner").config.id2label[1] == "B-LOC"


def test_it_reads_folders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chinesebert_folder: Path, tmp_path: Path
) -> None:
    texts, tags = tmp_path / "texts", tmp_path / "tags"
    texts.mkdir()
    tags.mkdir()
    for split in ("train", "dev", "test"):
        lines = ["label\ttext_a", *(f"{number % 2}\t酒店服务很好" for number in range(4))]
        (texts / f"{split}.tsv").write_text("\n".join(lines), encoding="utf-8")
        (tags / f"x.{split}").write_text("北0\tB-LOC\n京1\tI-LOC\n好0\tO\n\n你0\tO\n好1\tO\n", encoding="utf-8")
    few = ["--seeds", 1, "--epochs", 1, "--sampling", "uniform"]
    run(monkeypatch, "--model", tiny_chinesebert_folder, "--data", texts, "--tags", tags, *few)
    assert "together" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O", set()),
        ("B-A I-A O B-A", {("A", 0, 2), ("A", 3, 4)}),
        ("B-A B-A I-A", {("A", 0, 1), ("A", 1, 3)}),
        ("B-A I-B I-B", {("A", 0, 1)}),
        ("I-A I-A O", set()),
        ("O B-B I-B I-B", {("B", 1, 4)}),
        ("B-A O I-A", {("A", 0, 1)}),
    ],
)
def test_entities(script: dict[str, Any], tags: str, expected: set) -> None:
    assert script["entities"](tags.split()) == expected


def test_f1(script: dict[str, Any]) -> None:
    """One right of three proposed and three true: 2 · 1 / (3 + 3)."""
    names = ["O", "B-A", "I-A"]
    gold = np.array([[-100, 1, 2, 0, 1, 1, 0]])
    guess = np.array([[0, 1, 2, 0, 1, 2, 1]])  # the first; the second too long; and one where there is none
    found = script["f1"](EvalPrediction(np.eye(3)[guess], gold), names)
    assert found == {"f1": pytest.approx(2 * 1 / (3 + 3))}
