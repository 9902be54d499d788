"""Questions in SQuAD's layout."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_nlpnotes.corpora import read_question_file, read_questions


def squad(path: Path, contexts: int) -> Path:
    rows: list[dict[str, Any]] = []
    for number in range(contexts):
        qas = [
            {"id": f"{number}-{n}", "question": "谁", "answers": [{"text": "国足", "answer_start": 0}]} for n in (0, 1)
        ]
        rows.append({"paragraphs": [{"context": f"国足出战{number}", "qas": qas}]})
    path.write_text(json.dumps({"data": rows}), encoding="utf-8")
    return path


def test_a_file_is_cut_by_its_contexts(tmp_path: Path) -> None:
    data = read_questions(str(squad(tmp_path / "all.json", 10)))
    assert (len(data["train"]), len(data["validation"])) == (16, 4)
    assert not set(data["train"]["context"]) & set(data["validation"]["context"])
    assert data["train"][0]["answers"] == {"text": ["国足"], "answer_start": [0]}


def test_folders_and_other_test_data(tmp_path: Path) -> None:
    squad(tmp_path / "my_train.json", 3)
    squad(tmp_path / "my_dev.json", 2)
    assert {part: len(rows) for part, rows in read_questions(str(tmp_path)).items()} == {"train": 6, "validation": 4}
    squad(tmp_path / "dev_train.json", 1)
    (tmp_path / "._a_dev.json").write_text("", encoding="utf-8")
    assert len(read_questions(str(tmp_path))["validation"]) == 4, "one file is for one thing; hidden ones do not count"
    (tmp_path / "dev_train.json").unlink()
    other = squad(tmp_path / "other.json", 1)
    assert len(read_questions(str(tmp_path), test_data=str(other))["validation"]) == 2
    assert len(read_questions(str(tmp_path / "my_train.json"), test_data=str(other))["train"]) == 6


def test_questions_without_answers(tmp_path: Path) -> None:
    path = tmp_path / "asked.json"
    row = {"context": "国足", "qas": [{"id": 7, "question": "谁"}]}
    path.write_text(json.dumps({"data": [{"paragraphs": [row]}]}), encoding="utf-8")
    (found,) = read_question_file(path)
    assert (found["id"], found["answers"]) == ("7", {"text": [], "answer_start": []})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not in SQuAD's layout"),
        ("[]", "not in SQuAD's layout"),
        ('{"data": [{"paragraphs": [{"qas": [{"id": "1", "question": "谁"}]}]}]}', "KeyError 'context'"),
        ('{"data": []}', "has no questions"),
        (
            json.dumps({"data": [{"paragraphs": [{"context": "a", "qas": [{"id": "1", "question": "b"}]}]}]}),
            "one text",
        ),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_questions(str(path))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no"):
        read_questions(str(tmp_path / "absent.json"))
    with pytest.raises(ValueError, match="there is no file"):
        read_question_file(tmp_path / "absent.json")
    with pytest.raises(ValueError, match=r"no \*train\*.json and \*dev\*.json"):
        read_questions(str(tmp_path))
