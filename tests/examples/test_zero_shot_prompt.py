"""The example runs, on the tiny model and on data of the layout that it reads."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "zero_shot_prompt.py"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    topics, opinions = tmp_path / "thucnews10", tmp_path / "fewclue" / "eprstmt"
    topics.mkdir()
    opinions.mkdir(parents=True)
    (topics / "dev.txt").write_text("国足今晚出战\t7\n银行业绩\t0\n球队\t7\n", encoding="utf-8")
    rows = [{"sentence": "满意，推荐", "label": "Positive"}, {"sentence": "难过", "label": "Negative"}]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (opinions / "test_public.json").write_text(lines, encoding="utf-8")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_it_classifies_titles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chinesebert_folder: Path
) -> None:
    run(monkeypatch, "--model", tiny_chinesebert_folder)
    script: dict[str, Any] = runpy.run_path(str(SCRIPT))
    rows = capsys.readouterr().out.splitlines()
    assert [row.partition("  ")[2] for row in rows] == script["TITLES"]
    assert all(row[:2] in script["TOPICS"] for row in rows)


def test_it_measures_accuracy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chinesebert_folder: Path, data: Path
) -> None:
    run(monkeypatch, "--model", tiny_chinesebert_folder, "--data", data, "--batch_size", 2)
    header, topics, opinions = capsys.readouterr().out.splitlines()
    assert header.split() == ["texts", "majority", "none", "contextual", "domain", "batch"]
    assert topics.split()[:4] == ["thucnews10", "10", "labels", "0.667"]
    assert opinions.split()[:4] == ["eprstmt", "2", "labels", "0.500"]
    for row in (topics, opinions):
        assert all(0 <= float(cell) <= 1 for cell in row.split()[3:])


def test_the_readers_read_the_real_data(data_folder: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    folder = data_folder / "classification"
    assert len(script["read_thucnews"](folder)) == 10_000
    assert {label for _, label in script["read_thucnews"](folder)} == set(script["THUCNEWS"])
    assert {label for _, label in script["read_eprstmt"](folder)} == {"好评", "差评"}
