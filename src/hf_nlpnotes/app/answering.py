"""Answers to a question as marked pieces of the text that it is asked about."""

from __future__ import annotations

from typing import Any, NamedTuple

from ._bounds import bounded, counted
from ._spans import Piece, pieces

MOST_ANSWERS = 10
ANSWER = "answer"
"""What the marked piece is called."""


class AnsweredText(NamedTuple):
    """A text with the answers that were found in it.

    Attributes:
        pieces: The whole text, the best answer marked: (characters, "answer" or None) pairs.
        rows: (answer, start, end, score), best first; `start` and `end` are characters of the text.
        note: Said where the question has no answer; else empty.
    """

    pieces: list[Piece]
    rows: list[tuple[str, int, int, float]]
    note: str = ""


def answer_question(
    pipe: Any, question: str, text: str, top_k: float = 3, *, may_be_impossible: bool = False
) -> AnsweredText:
    """Return the best answers to a question.

    Args:
        pipe: The pipeline `extractive-question-answering`.
        question: The question.
        text: The text that is asked about, of any length: the pipeline reads it in windows.
        top_k: How many answers.
        may_be_impossible: Whether "no answer" is one.

    Raises:
        ValueError: A field is empty, too long or wrong.
    """
    question, text = bounded("question", question), bounded("text to read", text)
    top_k = counted("The number of answers", top_k, 1, MOST_ANSWERS)
    found = pipe(
        question=question, context=text, top_k=top_k, handle_impossible_answer=bool(may_be_impossible), batch_size=4
    )
    answers = [found] if isinstance(found, dict) else found
    rows = [(one["answer"], one["start"], one["end"], one["score"]) for one in answers]
    if not rows or not rows[0][0]:
        return AnsweredText(pieces(text, []), rows, "The text has no answer to this question.")
    _, start, end, _ = rows[0]
    return AnsweredText(pieces(text, [(start, end, ANSWER)]), rows)
