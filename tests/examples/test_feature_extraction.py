"""The example runs, on the tiny model, with the built-in texts and with a folder."""

import re
import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "feature_extraction.py"


@pytest.mark.parametrize("data", [False, True])
def test_it_trains_and_prints_accuracies(monkeypatch, capsys, tiny_chinesebert_folder, tmp_path, data):
    arguments = ["--model", tiny_chinesebert_folder, "--output_dir", tmp_path / "out", "--epochs", 2]
    arguments += ["--batch_size", 4, "--max_length", 16, "--cache", tmp_path / "states"]
    if data:
        rows = "".join(f"{i % 2}\t{'我喜欢猫' if i % 2 else '难过'}{'很' * i}\n" for i in range(8))
        for split in ("train", "dev", "test"):
            (tmp_path / f"{split}.tsv").write_text(f"label\ttext\n{rows}", encoding="utf-8")
        arguments += ["--data", tmp_path, "--layers", 1]
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    count = 8 if data else 12
    assert f"{count} of {2 * count} rows went through" in printed
    found = [float(number) for number in re.findall(r"accuracy (\d\.\d+)", printed)]
    assert len(found) == 2
    assert all(0 <= number <= 1 for number in found)
