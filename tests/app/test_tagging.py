"""Spans of the text, shown and listed."""

from pathlib import Path
from typing import Any

import pytest

from hf_nlpnotes.app import AppOptions, Models, TaggedText, find_words, parse_word_list, tag_text

TEXT = "北京大学生前来国足公司"


def check(found: TaggedText, text: str = TEXT) -> None:
    """The pieces are the whole text, and every row is what stands at its place."""
    assert "".join(piece for piece, _ in found.pieces) == text
    assert all(text[start:end] == piece for piece, _, start, end, _ in found.rows)


def test_word_lists() -> None:
    assert parse_word_list(" 北京大学 ORG\n\n大学生\n李雷,PER") == {"北京大学": "ORG", "大学生": "", "李雷": "PER"}
    assert parse_word_list(None) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [("北京 大学 ORG", "no word with a type"), ("北京\n北京 LOC", "stands twice"), ("词\n" * 10_001, "characters")],
)
def test_wrong_word_lists(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_word_list(text)


def test_without_a_tagger_the_words_of_the_list_are_found() -> None:
    found = find_words(TEXT, "北京\n北京大学 ORG\n大学生\n公司")
    check(found)
    # The longest from the left: 大学生 overlaps 北京大学 and is none.
    assert found.pieces == [("北京大学", "ORG"), ("生前来国足", None), ("公司", "word")]
    assert found.rows == [("北京大学", "ORG", 0, 4, None), ("公司", "word", 9, 11, None)]


@pytest.mark.parametrize(("text", "words"), [(TEXT, ""), (TEXT, " \n"), ("", "北京"), ("我" * 5001, "北京")])
def test_without_a_tagger_and_without_words_there_is_an_error(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"empty|characters"):
        find_words(text, words)


@pytest.fixture(scope="module")
def models(tagger_folder: Path, segmenter_folder: Path) -> Models:
    return Models(AppOptions(tagger=str(tagger_folder), device="cpu", choose_models=True))


def test_entities(models: Models) -> None:
    pipe = models.tagger()
    found = tag_text(pipe, f" {TEXT}\n")
    check(found)
    assert found.rows == [
        (one["word"], one["entity_group"], one["start"], one["end"], one["score"]) for one in pipe(TEXT)
    ]
    assert {type_ for _, type_ in found.pieces} <= {"PER", "ORG", None}


def test_words_are_shown_though_they_have_no_type(models: Models, segmenter_folder: Path) -> None:
    pipe = models.tagger(str(segmenter_folder))
    found = tag_text(pipe, TEXT)
    check(found)
    assert [piece for piece, _ in found.pieces] == [one["word"] for one in pipe(TEXT)]
    assert {type_ for _, type_ in found.pieces} == {"word"}


def test_words_of_ones_own_are_forced(models: Models, segmenter_folder: Path) -> None:
    found = tag_text(models.tagger(str(segmenter_folder)), TEXT, "大学生\n国足")
    check(found)
    assert {"大学生", "国足"} <= {piece for piece, *_ in found.rows}
    found = tag_text(models.tagger(), TEXT, "国足 ORG")
    assert ("国足", "ORG", 7, 9) in [row[:4] for row in found.rows]
    with pytest.raises(ValueError, match="type"):
        tag_text(models.tagger(), TEXT, "国足 LOC")


class _Fixed:
    """A pipeline that always answers the same."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def __call__(self, text: str) -> Any:
        return self.answer


def test_other_views() -> None:
    slots = {
        "intent": {"label": "weather", "score": 0.987},
        "slots": [{"slot": "city", "score": 0.9, "word": "北京", "start": 0, "end": 2}],
    }
    found = tag_text(_Fixed(slots), TEXT)
    check(found)
    assert found.note == "intent: weather 0.99"
    assert found.rows == [("北京", "city", 0, 2, 0.9)]
    tagged = [
        {"tag": "O", "score": 0.9, "word": "北京", "start": 0, "end": 2},
        {"tag": "n", "score": 0.8, "word": "大学生", "start": 2, "end": 5},
    ]
    found = tag_text(_Fixed(tagged), TEXT)
    check(found)
    assert found.pieces == [("北京", None), ("大学生", "n"), ("前来国足公司", None)]
