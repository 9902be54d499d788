"""The sheet of all ratios: whom it asks, what it prints of an answer and of none, and how it writes its page."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

sheet = importlib.import_module("_performance_sheet")

ANSWER = {"name": "own", "value": 27.31234, "goal": 25, "at_most": False, "details": {}, "reached": True}
SHORT = {"name": "time", "value": 1.3, "goal": 1.2, "at_most": True, "details": {}, "reached": False}
SCRIPTS = {
    "answers": f"import json\nprint(json.dumps({{'results': [{ANSWER!r}, {SHORT!r}]}}))",
    "lacks": "import sys\nsys.exit(print('No peer: give --peer.', file=sys.stderr) or 2)",
    "breaks": "raise RuntimeError('out of luck')",
}


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    for name, text in SCRIPTS.items():
        (tmp_path / f"{name}.py").write_text(
            f'"""What {name} measures.\n\nMore of it.\n"""\n{text}\n', encoding="utf-8"
        )
    monkeypatch.setattr(sheet, "HERE", tmp_path)
    return tmp_path


def run(monkeypatch, capsys, *arguments) -> tuple[int, list[str]]:
    monkeypatch.setattr(sys, "argv", ["_performance_sheet.py", *map(str, arguments)])
    status = sheet.main()
    return status, capsys.readouterr().out.splitlines()


def test_every_script_is_a_ratio_or_a_table() -> None:
    scripts = {path.stem for path in BENCHMARKS.glob("[!_]*.py")}
    assert set(sheet.TABLES) < scripts
    assert set(sheet.benchmarks()) == scripts - set(sheet.TABLES)
    for name in sheet.benchmarks():
        assert "report(" in (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")
        assert len(sheet.headline(name)) > 20


def test_one_line_a_ratio_and_the_reason_where_there_is_none(scripts, monkeypatch, capsys) -> None:
    status, lines = run(monkeypatch, capsys, "--only", "answers", "lacks")
    assert status == 0, "an absent peer is no failure"
    assert [line.split() for line in lines] == [
        ["own", "27.31", "≥", "25", "ok"],
        ["time", "1.3", "≤", "1.2", "short"],
        ["lacks", "No", "peer:", "give", "--peer."],
    ]


def test_a_benchmark_that_breaks_is_a_failure(scripts, monkeypatch, capsys) -> None:
    status, lines = run(monkeypatch, capsys, "--only", "answers", "breaks")
    assert status == 1
    assert lines[-1].endswith("RuntimeError: out of luck")


def test_what_was_measured_is_kept(scripts, monkeypatch, capsys, tmp_path) -> None:
    kept = tmp_path / "kept.jsonl"
    run(monkeypatch, capsys, "--only", "answers", "lacks", "--results", kept)
    assert [json.loads(line)["benchmark"] for line in kept.read_text(encoding="utf-8").splitlines()] == ["answers"]
    (scripts / "answers.py").write_text("raise SystemExit(1)", encoding="utf-8")
    status, lines = run(monkeypatch, capsys, "--only", "answers", "--results", kept)
    assert status == 0
    assert lines[0].split() == ["own", "27.31", "≥", "25", "ok"]


def test_the_page(scripts, monkeypatch, capsys, tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Head\n\n{sheet.BEGIN}\nold\n{sheet.END}\n\ntail\n", encoding="utf-8")
    run(monkeypatch, capsys, "--only", "answers", "lacks", "--page", page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Head")
    assert text.endswith("tail\n")
    assert "old" not in text
    for expected in (
        "## What answers measures",
        "| `time` | 1.3 | ≤ 1.2 | short |",
        "Not measured: No peer: give --peer.",
    ):
        assert expected in text
    page.write_text("# Head\n", encoding="utf-8")
    with pytest.raises(ValueError, match="once each"):
        run(monkeypatch, capsys, "--only", "answers", "--page", page)
    assert page.read_text(encoding="utf-8") == "# Head\n"


def test_options_are_those_whose_files_exist(tmp_path) -> None:
    (tmp_path / "run_qa.py").touch()
    (tmp_path / "data" / "question_answering").mkdir(parents=True)
    arguments = sheet.Arguments(tmp_path / "data", None, tmp_path)
    assert arguments.of("qa_features") == ["--script", str(tmp_path / "run_qa.py")]
    assert arguments.of("qa_postprocessing") == []
    assert arguments.of("qa_pipeline")[:2] == ["--data", str(tmp_path / "data" / "question_answering")]
    assert arguments.of("crf") == []
    assert sheet.Arguments(None, None, None).of("qa_metrics") == []
