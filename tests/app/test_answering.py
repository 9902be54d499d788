"""Answers are the pipeline's, and the best one is marked where it stands."""

from pathlib import Path
from typing import Any

import pytest

from hf_nlpnotes.app import AppOptions, Models, answer_question

TEXT = "国足今晚出战，球队在北京公司。"


@pytest.fixture(scope="module")
def reader(reader_folder: Path) -> Any:
    return Models(AppOptions(reader=str(reader_folder), device="cpu")).reader()


@pytest.mark.parametrize("top_k", [1, 3])
def test_answers_are_the_pipelines(reader: Any, top_k: int) -> None:
    found = answer_question(reader, "球队在哪里？", f"\n{TEXT} ", top_k)
    expected = reader(question="球队在哪里？", context=TEXT, top_k=top_k)
    expected = [expected] if top_k == 1 else expected
    assert [row[0] for row in found.rows] == [one["answer"] for one in expected]
    assert [row[3] for row in found.rows] == pytest.approx([one["score"] for one in expected])
    assert "".join(piece for piece, _ in found.pieces) == TEXT
    marked = [piece for piece, mark in found.pieces if mark]
    assert marked == [expected[0]["answer"]]
    before = found.pieces[0][0] if found.pieces[0][1] is None else ""
    assert len(before) == expected[0]["start"]


def test_a_long_text_is_read_in_windows(reader: Any) -> None:
    found = answer_question(reader, "球队在哪里？", TEXT * 60)
    assert "".join(piece for piece, _ in found.pieces) == TEXT * 60


def test_no_answer_is_said() -> None:
    def pipe(**_: Any) -> Any:
        return [
            {"score": 0.9, "start": 0, "end": 0, "answer": ""},
            {"score": 0.1, "start": 0, "end": 2, "answer": "国足"},
        ]

    found = answer_question(pipe, "谁？", TEXT, may_be_impossible=True)
    assert found.pieces == [(TEXT, None)]
    assert "no answer" in found.note
    assert [row[0] for row in found.rows] == ["", "国足"]


@pytest.mark.parametrize(
    ("question", "text", "top_k", "message"),
    [
        ("", TEXT, 1, "question is empty"),
        ("谁？", "  ", 1, "text to read is empty"),
        ("谁" * 501, TEXT, 1, "501 characters"),
        ("谁？", "我" * 20_001, 1, "20,001 characters"),
        ("谁？", TEXT, 11, "from 1 to 10"),
        ("谁？", TEXT, float("inf"), "The number of answers is inf"),
        ("谁？", TEXT, float("nan"), "The number of answers is nan"),
    ],
)
def test_what_is_refused(reader: Any, question: str, text: str, top_k: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        answer_question(reader, question, text, top_k)
