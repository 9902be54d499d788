"""The example runs, on the tiny model, on its own sentences and on a folder."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

FOLDER = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))  # where a script finds its neighbours
    monkeypatch.setattr(sys, "argv", ["scalar_mix.py", *map(str, arguments)])
    runpy.run_path(str(FOLDER / "scalar_mix.py"), run_name="__main__")


def test_it_compares_selections_and_shows_the_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chinesebert_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    picture, folder = tmp_path / "weights.png", tmp_path / "model"
    few = ["--model", tiny_chinesebert_folder, "--epochs", 1, "--seeds", 2]
    run(monkeypatch, *few, "--plot", picture, "--output_dir", folder)
    printed = capsys.readouterr().out
    accuracies = dict(re.findall(r"^(\w+) +(\d\.\d{3}) ± ", printed, re.MULTILINE))
    assert list(accuracies) == ["embeddings", "top", "mix"]
    weights = re.findall(r"^(embeddings|layer \d) +(\d\.\d{3}) █+$", printed, re.MULTILINE)
    assert [name for name, _ in weights] == ["embeddings", "layer 1", "layer 2"]
    assert sum(float(weight) for _, weight in weights) == pytest.approx(1, abs=0.002)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.selection == "mix"
    assert "pinyin_ids" in AutoTokenizer.from_pretrained(folder)("银行")


def test_it_reads_a_folder_and_fine_tunes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chinesebert_folder: Path, tmp_path: Path
) -> None:
    for split in ("train", "dev", "test"):
        lines = ["label\ttext_a", *(f"{number % 3}\t酒店服务很好" for number in range(6))]
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines), encoding="utf-8")
    options = ["--selections", "last:2:mix", "all:concat", "--train_encoder", "true", "--test_limit", 3]
    few = ["--model", tiny_chinesebert_folder, "--epochs", 1, "--seeds", 1, "--data", tmp_path]
    run(monkeypatch, *few, *options)
    printed = capsys.readouterr().out
    assert re.findall(r"^(\S+) +\d\.\d{3} ± 0\.000$", printed, re.MULTILINE) == ["last:2:mix", "all:concat"]
    assert re.findall(r"^(layer \d) ", printed, re.MULTILINE) == ["layer 1", "layer 2"]
