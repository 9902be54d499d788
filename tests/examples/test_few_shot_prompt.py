"""The example runs, on the tiny model: its own texts, a folder of data, a file, and two processes."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_nlpnotes.prompting.model import PromptForSequenceClassification

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "few_shot_prompt.py"
HEADER = ["texts", "majority", "prompt,", "untrained", "prompt,", "trained", "plain", "fine-tuning"]


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[list[str], list[list[str]]]:
    """The header's words, and those of each row."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    header, *rows = capsys.readouterr().out.splitlines()
    return header.split(), [row.split() for row in rows]


@pytest.fixture(scope="module")
def model(tiny_chinesebert_folder: Path) -> list[object]:
    return ["--model", tiny_chinesebert_folder, "--seeds", 2, "--epochs", 1, "--plain_epochs", 1]


def test_its_own_texts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: list[object], tmp_path: Path
) -> None:
    header, rows = run(monkeypatch, capsys, *model, "--output_dir", tmp_path)
    assert header == HEADER
    (row,) = rows
    assert row[:4] == ["reviews", "2", "labels", "0.500"]
    assert len(row) == 13  # three times: mean, ±, deviation
    assert all(0 <= float(cell) <= 1 for cell in row[3:] if cell != "±")
    kept = PromptForSequenceClassification.from_pretrained(tmp_path)
    assert kept.prompt.labels == ("差评", "好评")


def test_a_folder_of_data(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: list[object], tmp_path: Path
) -> None:
    # Titles of ten topics, each with one topic only; reviews; a task with official splits.
    topics = tmp_path / "thucnews10" / "dev.txt"
    titles = "".join(f"{a}{b}\t{number}\n" for number, a in enumerate("我你他她们的人大小上") for b in "来去和说要会")
    reviews = tmp_path / "chnsenticorp" / "train.tsv"
    opinions = "label\ttext_a\n" + "".join(f"{i % 2}\t服务{c}\n" for i, c in enumerate("我你他她们的人大"))
    for path, text in ((topics, titles), (reviews, opinions)):
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
    task = tmp_path / "fewclue" / "eprstmt"
    task.mkdir(parents=True)
    rows = [{"sentence": f"服务{c}", "label": label} for c in "我你他她" for label in ("Positive", "Negative")]
    for name, copies in (("train_0.json", 1), ("train_few_all.json", 5), ("test_public.json", 1)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows * copies)
        (task / name).write_text(lines, encoding="utf-8")
    header, found = run(monkeypatch, capsys, *model, "--data", tmp_path, "--shots", 1, "--test_texts", 6)
    assert header == HEADER
    assert [(row[0], int(row[1])) for row in found] == [("eprstmt", 2), ("chnsenticorp", 2), ("thucnews10", 10)]
    with pytest.raises(SystemExit, match="has none of"):
        run(monkeypatch, capsys, *model, "--data", topics.parent)


def test_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: list[object], tmp_path: Path
) -> None:
    path = tmp_path / "news.csv"
    lines = "".join(
        f"{'球队' if i % 2 else '银行'}{c},{'体育' if i % 2 else '财经'}\n" for i, c in enumerate("我你他她们的人大")
    )
    path.write_text("text,label\n" + lines, encoding="utf-8")
    _, rows = run(monkeypatch, capsys, *model, "--data", path, "--shots", 1)
    assert rows[0][:3] == ["news", "2", "labels"]
    with pytest.raises(SystemExit, match=r"news has too few texts for 16 of each label: give a smaller --shots\."):
        run(monkeypatch, capsys, *model, "--data", path)


def test_two_processes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    torchrun: Callable[..., Any],
    tiny_chinesebert_folder: Path,
) -> None:
    arguments = ["--model", str(tiny_chinesebert_folder), "--seeds", "1", "--epochs", "2", "--plain_epochs", "2"]
    header, rows = run(monkeypatch, capsys, *arguments)
    done = torchrun(SCRIPT, *arguments)
    # Gloo of torch 2.9 says on the standard output that "[Gloo] Rank 0 is connected to 1 peer ranks. …".
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith("[Gloo]")]
    assert lines == [header, *rows]


def test_the_readers_read_the_real_data(monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    script = runpy.run_path(str(SCRIPT))
    folder, options = data_folder / "classification", script["Options"]()
    first, second = (script["thucnews"](folder, options, seed) for seed in (0, 1))
    assert len(first.train) == 160
    assert first.test == second.test
    assert first.train != second.train
    assert not {e["text"] for e in first.train} & {e["text"] for e in first.test}
    for seed in range(5):
        task = script["eprstmt"](folder, options, seed)
        assert len(task.train) == 32
        assert {example["label"] for example in task.train} == {0, 1}
    assert len(task.test) == 610
    news = script["tnews"](folder, options, 0)
    assert len(news.labels) == 15
    assert len(news.test) == options.test_texts
    assert {example["label"] for example in news.train} == set(range(15))
