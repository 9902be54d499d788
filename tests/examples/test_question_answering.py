"""The example runs: on its own sentences, on a file, and for answers alone."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from transformers import pipeline

FOLDER = Path(__file__).resolve().parents[2] / "examples"
ROW = re.compile(r"epoch (\S+) +(?:loss (\S+))? +held out (\S+)  exact match +(\S+)  F1 +(\S+)")
CONTEXT = "国足今晚在北京出战，明日银行公布业绩。学生下午考试，老师中午去上海。"


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture
def run(monkeypatch, capsys, tiny_chinesebert_folder):
    def main(*arguments):
        monkeypatch.syspath_prepend(str(FOLDER))  # where a script finds its neighbours
        few = ["--model", tiny_chinesebert_folder, "--max_length", 48, "--doc_stride", 8, *arguments]
        monkeypatch.setattr(sys, "argv", ["question_answering.py", *map(str, few)])
        runpy.run_path(str(FOLDER / "question_answering.py"), run_name="__main__")
        return capsys.readouterr().out

    return main


def squad(path, contexts=5, with_answers=True, negatives=False):
    questions = [("国足今晚在哪里出战？", "北京", 5), ("学生下午做什么？", "考试", 23)]
    rows = []
    for number in range(contexts):
        asked = []
        for place, (question, answer, start) in enumerate(questions):
            one = {"id": f"{number}-{place}", "question": question}
            if with_answers:
                one["answers"] = [] if negatives and place else [{"text": answer, "answer_start": start}]
            asked.append(one)
        rows.append({"paragraphs": [{"context": f"{CONTEXT}{number}", "qas": asked}]})
    path.write_text(json.dumps({"data": rows}, ensure_ascii=False), encoding="utf-8")
    return path


def test_it_learns_from_its_own_sentences(run, tmp_path):
    printed = run("--epochs", 2, "--limit", 60, "--output_dir", tmp_path / "reader")
    header, baseline, *rows = printed.splitlines()
    assert header == "60 questions for train, 60 questions for validation; 60 and 60 windows; cmrc2018"
    assert re.fullmatch(r"random spans +exact match +\S+  F1 +\S+", baseline)
    epochs = [ROW.fullmatch(row) for row in rows[:2]]
    assert float(epochs[1][2]) < float(epochs[0][2])
    assert len(rows) == 2 + 1 + 5
    answers = json.loads((tmp_path / "reader" / "predictions.json").read_text(encoding="utf-8"))
    assert len(answers) == 60
    answer = pipeline("extractive-question-answering", model=str(tmp_path / "reader"))(
        question="谁在北京？", context="国足在北京。"
    )
    assert answer["answer"] in "国足在北京。"


def test_it_reads_a_file_and_keeps_contexts_apart(run, tmp_path):
    path = squad(tmp_path / "questions.json", contexts=5)
    printed = run("--epochs", 1, "--data", path, "--empty_windows", 0.5, "--bf16", "true")
    assert printed.startswith("8 questions for train, 2 questions for validation; ")
    assert ROW.search(printed)[2]


def test_it_answers_without_training_and_without_gold(run, tmp_path):
    (tmp_path / "data").mkdir()
    squad(tmp_path / "data" / "train.json", contexts=2, negatives=True)
    squad(tmp_path / "data" / "dev.json", contexts=1, negatives=True)
    questions = squad(tmp_path / "questions.json", contexts=1, with_answers=False)
    folder = tmp_path / "answers"
    printed = run("--epochs", 0, "--data", tmp_path / "data", "--predict", questions, "--output_dir", folder)
    assert printed.splitlines()[0].endswith("squad_v2")
    assert not ROW.search(printed)[2]
    assert printed.splitlines()[-2].startswith("国足今晚在哪里出战？  ")
    answers = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    assert answers.keys() == {"0-0", "0-1"}
    assert (folder / "null_odds.json").is_file()


def test_a_folder_without_the_files_says_so(run, tmp_path):
    with pytest.raises(ValueError, match=r"no \*train\*.json and \*dev\*.json"):
        run("--data", tmp_path)


def test_the_reader_reads_the_real_data(monkeypatch, data_folder):
    monkeypatch.syspath_prepend(str(FOLDER))
    from hf_nlpnotes.corpora import read_questions

    data = read_questions(str(data_folder / "question_answering" / "cmrc2018_dev.squad.json"))
    contexts = [set(data[part]["context"]) for part in ("train", "validation")]
    assert not contexts[0] & contexts[1]
    assert 0.15 < len(data["validation"]) / (len(data["train"]) + len(data["validation"])) < 0.25
