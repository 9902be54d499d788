"""`hf-nlpnotes eval fewclue`: tables and reports on a made-up folder in FewCLUE's layout."""

import json
from pathlib import Path
from typing import Any

import pytest

import hf_nlpnotes
from hf_nlpnotes import cli
from hf_nlpnotes.fewclue import runs
from hf_nlpnotes.fewclue.results import Run


@pytest.fixture
def fewclue(tmp_path: Path) -> Path:
    """A made-up folder in FewCLUE's layout, with two tasks; label words that the tiny vocabulary can spell."""
    good, bad = ["酒店很好", "喜欢", "推荐", "满意"], ["酒店不好", "难过", "差", "不满意"]
    rows = [{"sentence": text, "label": "Positive"} for text in good]
    rows += [{"sentence": text, "label": "Negative"} for text in bad]
    apps = [{"sentence": text, "label_des": label} for text, label in (("足球", "体育竞技"), ("价格", "股票"))]
    folder = tmp_path / "datasets"
    for task, objects in (("eprstmt", rows), ("iflytek", apps)):
        (folder / task).mkdir(parents=True)
        for file in ("train_0", "train_1", "test_public"):
            lines = [json.dumps(row, ensure_ascii=False) for row in objects]
            (folder / task / f"{file}.json").write_text("\n".join(lines), encoding="utf-8")
    names = {"label_des2tag": {"体育竞技": "体育", "股票": "股票"}}
    (folder / "iflytek" / "label_names.json").write_text(json.dumps(names), encoding="utf-8")
    return folder


EVAL_FEW = ["--seeds", "0", "7", "--splits", "1", "--epochs", "1", "--learning-rate", "1e-3", "--device", "cpu"]


def test_eval_prints_a_table_and_writes_json(
    tiny: None, fewclue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    command = ["eval", "fewclue", "--data", str(fewclue), "--limit", "6", "--output", str(file)]
    assert cli.main([*command, *EVAL_FEW]) == 0
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["task", "labels", "test", "texts", "majority", "zero-shot", "few-shot"]
    assert [row[0] for row in rows[2:]] == ["eprstmt", "iflytek", "mean"]
    assert "100%" in err, "the progress bar is on stderr, and counts every text"

    report = json.loads(file.read_text(encoding="utf-8"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "report.json"]
    assert report["model"] == hf_nlpnotes.EMBEDDED_MODEL
    assert list(report["tasks"]) == ["eprstmt", "iflytek"]
    task = report["tasks"]["eprstmt"]
    assert (task["texts"], task["labels"], task["test"]) == (6, 2, "test_public.json")
    assert [(run["split"], run["seed"]) for run in task["few"]["runs"]] == [("1", 0), ("1", 7)]
    for row, name in zip(rows[2:], ("eprstmt", "iflytek"), strict=False):
        found = report["tasks"][name]
        few = found["few"]
        assert row[3:] == [
            str(found["texts"]), f"{100 * found['majority']:.1f}", f"{100 * found['zero']['accuracy']:.1f}",
            f"{100 * few['accuracy']:.1f}", "±", f"{100 * few['deviation']:.1f}", "(2", "runs)",
        ]  # fmt: skip


def test_eval_trains_the_revision_that_it_was_asked_about(
    tiny: None, fewclue: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def few_shot(model: str, task: Any, split: str, *_: Any, **options: Any) -> Run:
        asked.append((options["revision"], options["trust_remote_code"]))
        return Run(split, 0, 1, 0.5)

    monkeypatch.setattr(runs, "few_shot", few_shot)
    options = ["--tasks", "eprstmt", "--shots", "few", "--splits", "0", "--revision", "trial", "--quiet", "--json"]
    assert cli.main(["eval", "fewclue", "--data", str(fewclue), *options]) == 0
    assert asked == [("trial", False)]
    assert json.loads(capsys.readouterr().out)["options"]["revision"] == "trial"


def test_eval_of_a_part(tiny: None, fewclue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Zero-shot needs no training files; another prompt replaces the task's own; nothing but the table is printed."""
    (fewclue / "iflytek" / "label_names.json").unlink()
    for path in (fewclue / "eprstmt").glob("train_*"):
        path.unlink()
    words = {"Negative": "差", "Positive": ["好", "满意"]}
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"eprstmt": {"template": "{label}：{text}", "verbalizer": words}}), encoding="utf-8")
    file = tmp_path / "report.json"
    options = ["--tasks", "eprstmt", "--shots", "zero", "--prompts", str(prompts), "--output", str(file)]
    assert cli.main(["eval", "fewclue", "--data", str(fewclue), "--no-progress", *options]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err == ""
    task = json.loads(file.read_text(encoding="utf-8"))["tasks"]["eprstmt"]
    assert task["template"] == "{label}：{text}"
    assert "few" not in task


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--data", "absent"], "There is no folder 'absent'"),
        (["--tasks", "bustm"], "no folder for the task 'bustm'; there are: eprstmt, iflytek"),
        (["--tasks", "chid"], "Unknown task 'chid'"),
        (["--splits", "0", "3"], "no training split '3'; there are: 0, 1"),
        (["--prompts", "absent.json"], "no file of prompts 'absent.json'"),
        (["--output", "absent/report.json"], "there is no folder 'absent'"),
        (["--output", "."], "is a folder"),
        (["--model", "absent/model"], "absent/model"),
    ],
)
def test_eval_errors(
    tiny: None, fewclue: Path, capsys: pytest.CaptureFixture[str], options: list[str], what: str
) -> None:
    assert cli.main(["eval", "fewclue", "--data", str(fewclue), "--no-progress", *options]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hf-nlpnotes: error: ")
    assert what in err


def test_eval_without_training_texts_says_so(tiny: None, fewclue: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (fewclue / "eprstmt").glob("train_*"):
        path.unlink()
    assert cli.main(["eval", "fewclue", "--data", str(fewclue)]) == 1
    assert "eprstmt has no training split" in capsys.readouterr().err


def test_eval_leaves_no_half_written_file(
    tiny: None, fewclue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.json"
    file.write_text("before", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    command = ["eval", "fewclue", "--data", str(fewclue), "--shots", "zero", "--no-progress", "--output", str(file)]
    assert cli.main(command) == 1
    assert file.read_text(encoding="utf-8") == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "report.json"]
