"""Predictions and gold answers in the forms in which they come, as one form for all metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

References = Mapping[Any, Any] | Iterable[Mapping[str, Any]]
Predictions = Mapping[Any, str] | Iterable[Mapping[str, Any]]
Gold = list[tuple[Any, list[str]]]

_REFERENCES = (
    "references are a data set in the layout of SQuAD or CMRC 2018 (a dict with 'data', or its list of articles),"
    " a list of {'id', 'answers'}, or a dict from ids to lists of answers"
)
_PREDICTIONS = "predictions are a dict from ids to texts, or a list of {'id', 'prediction_text'}"


def gold_answers(references: References) -> Gold:
    """The answers of every question, in the order of the data.

    Args:
        references: See the message of the error. Answers are texts, `{"text": …}` each, or one `{"text": [texts]}`.

    Raises:
        TypeError, ValueError: Another form.
    """
    if isinstance(references, str) or not isinstance(references, Iterable):
        raise TypeError(f"{_REFERENCES}; got {type(references).__name__}")
    if isinstance(references, Mapping) and "data" not in references:
        gold = [(key, _texts(key, answers)) for key, answers in references.items()]
    else:
        rows = references["data"] if isinstance(references, Mapping) else references
        gold = [pair for row in rows for pair in _questions(row)]
    if not gold:
        raise ValueError("no references: there is nothing to score")
    return gold


def predicted_texts(predictions: Predictions, gold: Gold) -> dict[Any, str]:
    """The text of every question that has a prediction.

    Raises:
        TypeError, ValueError: Another form, two predictions of one question, or none of any of the questions.
    """
    if isinstance(predictions, str) or not isinstance(predictions, Iterable):
        raise TypeError(f"{_PREDICTIONS}; got {type(predictions).__name__}")
    texts: dict[Any, str] = {}
    rows = predictions.items() if isinstance(predictions, Mapping) else map(_prediction, predictions)
    for key, text in rows:
        if not isinstance(text, str):
            raise TypeError(f"the prediction of question {key!r} is a text, '' for no answer; got {text!r}")
        if texts.setdefault(key, text) != text:
            raise ValueError(f"question {key!r} has two predictions: {texts[key]!r} and {text!r}")
    if not any(key in texts for key, _ in gold):
        raise ValueError(
            f"no prediction is of any of the {len(gold)} questions: predictions have ids such as"
            f" {list(texts)[:3]}, references {[key for key, _ in gold[:3]]}"
        )
    return texts


def _prediction(row: Any) -> tuple[Any, Any]:
    if not isinstance(row, Mapping) or not {"id", "prediction_text"} <= set(row):
        raise ValueError(f"{_PREDICTIONS}; got {row!r}")
    return row["id"], row["prediction_text"]


def _questions(row: Any) -> Iterable[tuple[Any, list[str]]]:
    """The questions of an article, of a paragraph, or the one that the row is."""
    if not isinstance(row, Mapping):
        raise ValueError(f"{_REFERENCES}; got {row!r}")
    if "paragraphs" in row:
        return [pair for paragraph in row["paragraphs"] for pair in _questions(paragraph)]
    questions = row.get("qas", [row])
    found = []
    for question in questions:
        key = question.get("id", question.get("query_id"))
        if key is None or "answers" not in question:
            raise ValueError(f"{_REFERENCES}; a question has {sorted(question)}")
        found.append((key, _texts(key, question["answers"])))
    return found


def _texts(key: Any, answers: Any) -> list[str]:
    if isinstance(answers, Mapping):
        answers = answers.get("text")
    if isinstance(answers, str) or not isinstance(answers, Iterable):
        raise TypeError(f"the answers of question {key!r} are a list of texts, got {answers!r}")
    texts: list[Any] = [answer.get("text") if isinstance(answer, Mapping) else answer for answer in answers]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"the answers of question {key!r} are texts, got {texts!r}")
    return texts


def running_sum(numbers: Iterable[float]) -> float:
    """Sum from left to right, as the official scripts do: `sum` rounds less from Python 3.12 on."""
    total = 0.0
    for number in numbers:
        total += number
    return total
