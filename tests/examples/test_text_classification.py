"""The example learns what it is given, from a file or from its own texts, and classifies with what it saved."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from transformers import pipeline

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "text_classification.py"


@pytest.fixture
def run(monkeypatch, capsys, tiny_chinesebert_folder, tmp_path):
    def run(*arguments: object) -> str:
        everywhere = ["--model", tiny_chinesebert_folder, "--output_dir", tmp_path / "classifier", "--max_length", 16]
        monkeypatch.syspath_prepend(str(SCRIPT.parent))
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, [*everywhere, *arguments])])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_its_own_texts(run) -> None:
    printed = run("--epochs", 1)
    assert "8 texts to learn from, 6 to test on, 2 labels" in printed
    assert "(always the most frequent label: 0.500)" in printed
    assert len(re.findall(r"^(?:差评|好评) 0\.\d\d  ", printed, re.MULTILINE)) == 3


def test_a_file_is_learnt_and_held_out_texts_are_told_apart(run, tmp_path) -> None:
    words = {"猫": "我喜欢猫", "球": "国足出战"}
    rows = "".join(f"{text}{'很' * (i % 4)},{label}\n" for i in range(40) for label, text in words.items())
    (tmp_path / "own.csv").write_text(f"text,label\n{rows}", encoding="utf-8")
    printed = run("--data", tmp_path / "own.csv", "--epochs", 6, "--learning_rate", 1e-2, "--batch_size", 8)
    assert "72 texts to learn from, 8 to test on, 2 labels" in printed
    assert "accuracy 1.000" in printed
    classify = pipeline("text-classification", model=str(tmp_path / "classifier"))
    assert [answer["label"] for answer in classify(["我喜欢猫很", "国足出战很"])] == ["猫", "球"]
