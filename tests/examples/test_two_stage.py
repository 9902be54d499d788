"""The example runs, on the tiny model, on its own sentences and on data of the layout that it reads."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

FOLDER = Path(__file__).resolve().parents[2] / "examples"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # where a script finds its neighbours
    monkeypatch.setattr(sys, "argv", ["two_stage.py", *map(str, arguments)])
    runpy.run_path(str(FOLDER / "two_stage.py"), run_name="__main__")


def rows(printed: str) -> dict[str, float]:
    return {name.strip(): float(mean) for name, mean in re.findall(r"^(\D+?)  +(\d\.\d{3}) ±", printed, re.MULTILINE)}


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def test_it_trains_both_ways(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chinesebert_folder: Path, tmp_path: Path
) -> None:
    few = ["--seeds", 2, "--epochs", 1, "--intermediate_epochs", 1]
    run(monkeypatch, "--model", tiny_chinesebert_folder, *few, "--output_dir", tmp_path / "model")
    printed = capsys.readouterr().out
    found = rows(printed)
    assert list(found) == ["plain fine-tuning", "two stages"]
    assert all(0 <= figure <= 1 for figure in found.values())
    assert "newly initialised: classifier.weight, classifier.bias" in printed
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert [stage["architecture"] for stage in model.config.lineage] == [
        "ChineseBertForMaskedLM",
        "ChineseBertForSequenceClassification",
    ]
    assert "base_model:" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_it_reads_folders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chinesebert_folder: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "reviews", tmp_path / "topics"
    first.mkdir()
    second.mkdir()
    for split in ("train", "dev", "test"):
        lines = ["label\ttext_a", *(f"{number % 2}\t酒店服务很好" for number in range(4))]
        (first / f"{split}.tsv").write_text("\n".join(lines), encoding="utf-8")
        topics = [{"sentence": "国足今晚出战", "label": label} for label in ("体育", "财经", "科技")]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in topics)
        (second / f"{split}.json").write_text(text, encoding="utf-8")
    few = ["--seeds", 1, "--epochs", 1, "--intermediate_epochs", 1]
    run(monkeypatch, "--model", tiny_chinesebert_folder, "--intermediate", first, "--data", second, *few)
    found = rows(capsys.readouterr().out)
    # The same text thrice, with three labels.
    assert found["plain fine-tuning"] == pytest.approx(1 / 3, abs=1e-3)
