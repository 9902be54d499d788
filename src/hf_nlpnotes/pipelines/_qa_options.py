"""Options of the question-answering pipelines: which there are, their defaults and what they may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

DEFAULT_MAX_ANSWER_LEN = 128
"""Tokens. In CMRC2018's dev set 17.3 % of the questions have no answer of 15 tokens or fewer; the longest has 85."""


_Check: TypeAlias = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_COUNT: _Check = (lambda value: type(value) is int and value > 0, "must be a positive whole number")
_SWITCH: _Check = (lambda value: isinstance(value, bool), "is True or False")
_PADDINGS = (False, True, "do_not_pad", "longest", "max_length")
_EXPECTED: dict[str, _Check] = {
    "top_k": _COUNT,
    "threshold": (lambda value: _is_number(value) and 0 <= value <= 1, "is a score, a number from 0 to 1"),
    "doc_stride": (lambda value: type(value) is int and value >= 0, "must be a whole number from 0 on"),
    "max_answer_len": _COUNT,
    "max_seq_len": _COUNT,
    "max_question_len": _COUNT,
    "handle_impossible_answer": _SWITCH,
    "null_score_diff_threshold": (_is_number, "must be a number"),
    "align_to_words": _SWITCH,
    "padding": (lambda value: value in _PADDINGS, "must be 'longest', 'max_length' or 'do_not_pad'"),
    "progress_bar": _SWITCH,
    "compatibility": (lambda value: value == "v4", "must be 'v4' or None"),
}


@dataclass(frozen=True)
class AnswerOptions:
    """How questions are answered; see `ExtractiveQuestionAnsweringPipeline` for each.

    Raises:
        ValueError: A value that an option cannot have.
    """

    top_k: int | None = None
    threshold: float | None = None
    doc_stride: int | None = None
    max_answer_len: int | None = None
    max_seq_len: int | None = None
    max_question_len: int | None = None
    handle_impossible_answer: bool = False
    null_score_diff_threshold: float | None = None
    align_to_words: bool = True
    padding: bool | str = False
    progress_bar: bool | None = None
    compatibility: Literal["v4"] | None = None

    def __post_init__(self) -> None:
        for name, (is_right, expected) in _EXPECTED.items():
            value = getattr(self, name)
            if value is not None and not is_right(value):
                raise ValueError(f"{name} {expected}, got {value!r}.")
        if self.null_score_diff_threshold is not None and not self.handle_impossible_answer:
            raise ValueError("null_score_diff_threshold is for handle_impossible_answer=True: set that as well.")
        if self.compatibility == "v4" and (self.threshold is not None or self.null_score_diff_threshold is not None):
            raise ValueError("compatibility='v4' answers as version 4 did, which had no threshold: leave it out.")

    def updated(self, options: Mapping[str, Any]) -> AnswerOptions:
        """These options, where `options` does not say otherwise; None leaves an option as it is.

        Raises:
            TypeError: A name that is none.
        """
        known = [field.name for field in fields(self)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise TypeError(
                f"Unknown option {unknown[0]!r}: expected question, context, or one of {', '.join(known)}."
            )
        return replace(self, **{name: value for name, value in options.items() if value is not None})

    @property
    def many(self) -> bool:
        """Whether a question has a list of answers."""
        return self.threshold is not None or (self.top_k or 1) > 1

    @property
    def answer_length(self) -> int:
        """The most tokens of an answer."""
        if self.max_answer_len is not None:
            return self.max_answer_len
        return 15 if self.compatibility == "v4" else DEFAULT_MAX_ANSWER_LEN

    def window_length(self, longest: int | None) -> int:
        """Tokens of a window, for a model that takes `longest`."""
        if self.max_seq_len is None:
            return min(384, 384 if longest is None else longest)
        if longest is not None and self.max_seq_len > longest:
            raise ValueError(f"max_seq_len={self.max_seq_len}, and the model takes {longest} tokens: give less.")
        return self.max_seq_len

    def stride(self, window_length: int) -> int:
        """Tokens that neighbouring windows share."""
        if self.doc_stride is not None:
            return self.doc_stride
        # Version 4 shared half of a short window, which a long question leaves no room for.
        return min(window_length // (2 if self.compatibility == "v4" else 3), 128)
