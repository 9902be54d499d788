"""Answers and their places: what a data set says is checked against the context before it becomes a label.

Real data sets name wrong places: in CMRC2018's dev set 193 of 9,657 answers have `answer_start` -1, and 7 are off by
one or two. A wrong place is repaired by search: the occurrence of the text that is nearest to what was said, then the
nearest that differs only in blanks, case or width. What cannot be found is reported and never used.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

AnswerState = Literal["aligned", "moved", "respelled", "missing"]
"""`aligned`: the place is right. `moved`: the text stands elsewhere. `respelled`: the context has the text in other
blanks, case or width. `missing`: the context does not have it."""


@dataclass(frozen=True)
class AnswerSpan:
    """An answer and where it stands in its context.

    Attributes:
        text: The answer as the data set has it.
        stated: `answer_start` as the data set has it.
        start, end: Characters of the context, half-open; -1 and -1 where `state` is `"missing"`.
        state: How the place was found.
    """

    text: str
    stated: int
    start: int
    end: int
    state: AnswerState


@dataclass(frozen=True)
class AnswerReport:
    """What `answer_report` found out about a data set's answers.

    Attributes:
        answers: Number of answers.
        impossible: Number of examples without an answer.
        repaired: `(id, AnswerSpan)` of each answer whose place was wrong and was found.
        missing: `(id, AnswerSpan)` of each answer that the context does not have.
    """

    answers: int = 0
    impossible: int = 0
    repaired: list[tuple[Any, AnswerSpan]] = field(default_factory=list)
    missing: list[tuple[Any, AnswerSpan]] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.answers} answers, {len(self.repaired)} with a repaired place, {len(self.missing)} not in their"
            f" context; {self.impossible} examples without an answer"
        )


def locate_answer(context: str, text: str, answer_start: int) -> AnswerSpan:
    """Finds an answer in its context.

    Args:
        context: The text that is asked about.
        text: The answer.
        answer_start: Where it is said to begin; any number, used only to choose between several occurrences.

    Returns:
        The span; `state` says whether the place was right, and is `"missing"` where the context has no such text.

    Example:
        >>> locate_answer("猫喜欢猫", "猫", 3).state
        'aligned'
        >>> locate_answer("猫喜欢狗", "狗", -1)
        AnswerSpan(text='狗', stated=-1, start=3, end=4, state='moved')
    """
    if not text:
        return AnswerSpan(text, answer_start, -1, -1, "missing")
    if answer_start >= 0 and context.startswith(text, answer_start):
        return AnswerSpan(text, answer_start, answer_start, answer_start + len(text), "aligned")
    start = _nearest(context, text, answer_start)
    if start >= 0:
        return AnswerSpan(text, answer_start, start, start + len(text), "moved")
    folded, places = _folded(context)
    wanted, _ = _folded(text)
    if wanted:
        # The stated place counts characters of the context; the fold has fewer.
        stated = next((number for number, place in enumerate(places) if place >= answer_start), len(places))
        start = _nearest(folded, wanted, stated if answer_start >= 0 else -1)
        if start >= 0:
            first, last = places[start], places[start + len(wanted) - 1]
            return AnswerSpan(text, answer_start, first, last + 1, "respelled")
    return AnswerSpan(text, answer_start, -1, -1, "missing")


def answer_report(
    examples: Mapping[str, Sequence[Any]],
    *,
    context_column: str = "context",
    answers_column: str = "answers",
    id_column: str = "id",
) -> AnswerReport:
    """Checks every answer of a data set.

    Args:
        examples: Columns, as `datasets` gives them; `answers` has `text` and `answer_start` lists.
        context_column, answers_column, id_column: Their names.

    Returns:
        Counts, and each answer whose place was repaired or whose text the context does not have.
    """
    report, number, impossible = AnswerReport(), 0, 0
    for key, context, answers in zip(
        list(examples[id_column]), list(examples[context_column]), list(examples[answers_column]), strict=True
    ):
        spans = locate_answers(context, answers)
        number += len(spans)
        impossible += not spans
        report.repaired.extend((key, span) for span in spans if span.state in ("moved", "respelled"))
        report.missing.extend((key, span) for span in spans if span.state == "missing")
    return AnswerReport(number, impossible, report.repaired, report.missing)


def locate_answers(context: str, answers: Mapping[str, Sequence[Any]]) -> list[AnswerSpan]:
    """Finds every answer of one example; an empty list where it has none. Errors as of `iterate_answers`."""
    return list(iterate_answers(context, answers))


def iterate_answers(context: str, answers: Mapping[str, Sequence[Any]]) -> Iterator[AnswerSpan]:
    """Finds the answers of one example, one after the other.

    Raises:
        ValueError: `answers` has not as many texts as places.
    """
    texts, starts = answers["text"], answers["answer_start"]
    if len(texts) != len(starts):
        raise ValueError(f"answers has {len(texts)} texts and {len(starts)} answer_start: expected as many.")
    for text, start in zip(texts, starts, strict=True):
        yield locate_answer(context, text, start)


def _nearest(context: str, text: str, stated: int) -> int:
    """Beginning of the occurrence of `text` nearest to `stated`, the first one where that is negative; -1 if none."""
    if stated <= 0:
        return context.find(text)
    after = context.find(text, stated)
    before = context.rfind(text, 0, stated + len(text) - 1)
    if after < 0 or before < 0:
        return max(after, before)
    return before if stated - before <= after - stated else after


def _folded(text: str) -> tuple[str, list[int]]:
    """`text` without blanks, in one case and width, and the place in it of each character of the result."""
    characters: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        if character.isspace():
            continue
        for part in unicodedata.normalize("NFKC", character).casefold():
            if not part.isspace():
                characters.append(part)
                places.append(place)
    return "".join(characters), places
