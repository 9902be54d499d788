"""Call forms of the question-answering pipelines: every way to name questions and contexts, and what is answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from torch.utils.data import Dataset

from ._texts import brief, check_characters

Kind: TypeAlias = Literal["single", "list", "stream"]
"""What is answered: one question with one answer, a list with a list, anything else with an iterator."""

_FORMS = (
    "call with question='…' and context='…', each a text or a list of texts, with a mapping {'question': …, 'context':"
    " …}, or with a list, generator or data set of such mappings"
)


@dataclass(frozen=True)
class Question:
    """A question and the text that is asked about."""

    question: str
    context: str


def questions_of(args: Sequence[Any], question: Any = None, context: Any = None) -> tuple[Kind, Iterable[Question]]:
    """Read the arguments of a call.

    Args:
        args: The positional ones: nothing; one mapping or a container of them; several mappings; or a question (or
            several) and a context.
        question, context: Those given by name, each a text or a list of texts; one text goes with all of a list.

    Returns:
        What is answered, and the questions: checked for a single one and a list, checked as they are read for a
        stream.

    Raises:
        ValueError: Arguments that fit no form, lists of unequal length, an empty question or context.
        TypeError: A question or context that is no text.
    """
    if question is None and context is None and len(args) == 2 and not any(isinstance(arg, Mapping) for arg in args):
        question, context = args
        args = ()
    elif question is None and context is not None and len(args) == 1:
        (question,) = args
        args = ()
    if question is not None or context is not None:
        if args or question is None or context is None:
            given = [f"{len(args)} other arguments"] if args else []
            given += [name for name, value in (("question", question), ("context", context)) if value is not None]
            raise ValueError(f"Got {' and '.join(given)}: {_FORMS}.")
        return _paired(question, context)
    if not args:
        raise ValueError(f"No question: {_FORMS}.")
    if len(args) > 1:
        return "list", [_question(item, place) for place, item in enumerate(args)]
    (inputs,) = args
    if isinstance(inputs, Mapping):
        return _paired(*_columns(inputs))
    if isinstance(inputs, Dataset):
        rows: Any = inputs
        return "stream", _stream(rows if isinstance(rows, Iterable) else (rows[i] for i in range(len(rows))))
    if isinstance(inputs, (str, bytes)) or not isinstance(inputs, Iterable):
        raise TypeError(f"Got {inputs!r}: {_FORMS}.")
    if isinstance(inputs, Sequence):
        return "list", [_question(item, place) for place, item in enumerate(inputs)]
    return "stream", _stream(inputs)


def _paired(question: Any, context: Any) -> tuple[Kind, list[Question]]:
    """Questions and contexts that were given apart."""
    questions, contexts = _texts(question, "question"), _texts(context, "context")
    if isinstance(questions, str) and isinstance(contexts, str):
        return "single", [_checked(questions, contexts)]
    if isinstance(questions, str):
        questions = [questions] * len(contexts)
    elif isinstance(contexts, str):
        contexts = [contexts] * len(questions)
    if len(questions) != len(contexts):
        raise ValueError(
            f"Got {len(questions)} questions and {len(contexts)} contexts: give as many of both, or one of either."
        )
    pairs = zip(questions, contexts, strict=True)
    return "list", [_checked(*pair, place) for place, pair in enumerate(pairs)]


def _texts(value: Any, name: str) -> str | list[str]:
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is a text or a list of texts, got {type(value).__name__}: {value!r}.")
    return list(value)


def _stream(items: Iterable[Any]) -> Iterator[Question]:
    for place, item in enumerate(items):
        yield _question(item, place)


def _question(item: Any, place: int) -> Question:
    if not isinstance(item, Mapping):
        raise TypeError(f"Input {place} is {item!r}, expected a mapping {{'question': …, 'context': …}}.")
    return _checked(*_columns(item), place)


def _columns(item: Mapping[Any, Any]) -> tuple[Any, Any]:
    missing = [name for name in ("question", "context") if name not in item]
    if missing:
        raise ValueError(
            f"The input has no {missing[0]!r}, only {list(item)}: expected a mapping {{'question': …, 'context': …}}."
        )
    return item["question"], item["context"]


def _checked(question: Any, context: Any, place: int | None = None) -> Question:
    where = "" if place is None else f" of input {place}"
    for name, text in (("question", question), ("context", context)):
        if not isinstance(text, str):
            raise TypeError(f"The {name}{where} is a text, got {type(text).__name__}: {brief(text)}.")
        if not text.strip():
            raise ValueError(f"The {name}{where} is empty, {brief(text)}: leave such inputs out.")
        check_characters(f"The {name}{where}", text)
    return Question(question, context)
