"""The example prints a row for each question that the maps can answer, and writes the page."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "attention_views.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_a_pair_and_a_single_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_chinesebert_folder: Path, tmp_path: Path
) -> None:
    questions = [question for question, _ in runpy.run_path(str(SCRIPT))["QUESTIONS"]]
    page = tmp_path / "page.html"
    run(monkeypatch, "--model", tiny_chinesebert_folder, "--output", page)
    _, *rows, last = capsys.readouterr().out.splitlines()
    assert [row[:42].strip() for row in rows] == questions
    assert all(0 <= float(row.split()[-1]) <= 1 for row in rows)
    assert str(page) in last
    assert "球迷" in page.read_text(encoding="utf-8")

    run(monkeypatch, "--model", tiny_chinesebert_folder, "--output", page, "--text", "国足出战")
    _, *rows, _ = capsys.readouterr().out.splitlines()
    assert [row[:42].strip() for row in rows] == questions[:4]
    assert "球迷" not in page.read_text(encoding="utf-8")
