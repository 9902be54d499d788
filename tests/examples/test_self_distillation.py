"""The example trains in every way, on its own texts and on a folder of files, and leaves a model that loads."""

import runpy
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPT = EXAMPLES / "self_distillation.py"
WAYS = ["plain", "self-ensemble", "self-distillation", "both"]

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*")  # on a machine without a GPU


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return [line.split() for line in capsys.readouterr().out.splitlines() if "±" in line]


def test_it_trains_in_every_way(monkeypatch, capsys, tmp_path, tiny_chinesebert_folder):
    rows = run(
        monkeypatch, capsys, "--model", tiny_chinesebert_folder, "--seeds", 2, "--epochs", 2, "--batch_size", 4,
        "--output_dir", tmp_path,
    )  # fmt: skip
    assert [row[0] for row in rows] == WAYS
    assert all(0 <= float(row[1]) <= 1 and row[2] == "±" for row in rows)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config.num_labels == 2


def test_it_reads_a_folder(monkeypatch, capsys, tmp_path, tiny_chinesebert_folder):
    for split in ("train", "dev", "test"):
        lines = ["label\ttext", *[f"{i % 3}\t{'好' * i}天气" for i in range(6)]]
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = run(
        monkeypatch, capsys, "--model", tiny_chinesebert_folder, "--data", tmp_path, "--limit", 4, "--seeds", 1,
        "--epochs", 1, "--weight", 0.5, "--window", 2,
    )  # fmt: skip
    assert [row[0] for row in rows] == WAYS
