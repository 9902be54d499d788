"""Features of span extraction: questions and windows of their contexts, with the answers' tokens as labels.

`prepare_train_features` and `prepare_validation_features` are for `datasets.map(batched=True)`, with any fast
tokenizer. The arrays are those of transformers' example script (`run_qa.py`), at a fraction of the time: each distinct
context and question is tokenised once, the windows are gathered from the tokens, and labels are looked up for all
windows at once.

Where they differ from the script, by intent: an answer with a wrong place is repaired or left out, not used as an
index (`answers.py`); a question that leaves no room for windows is cut; an answer that begins at the last context
token of a window ends there and does not run into the special tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .answers import AnswerSpan, iterate_answers
from .max_context import most_context
from .windows import TokenPool, Windows, make_windows, read_frame, tokenize_once

logger = logging.getLogger(__name__)

Padding = Literal["max_length", "longest"]


def prepare_train_features(
    examples: Mapping[str, Sequence[Any]],
    tokenizer: Any,
    max_length: int = 384,
    doc_stride: int = 128,
    *,
    max_question_length: int | None = None,
    padding: Padding | bool = "max_length",
    unusable_answers: Literal["drop", "raise"] = "drop",
    question_column: str = "question",
    context_column: str = "context",
    answers_column: str = "answers",
) -> dict[str, Any]:
    """Windows with `start_positions` and `end_positions`, for training.

    The label is the first answer's span of tokens, both ends included as the stock heads have it; where the window
    does not contain it, or the example has no answer, both are the classification token. Wrong places of answers are
    repaired (`locate_answer`); an example that has answers, none of which its context contains, is left out, since
    nobody knows where its answer is. Both are logged; `answer_report` lists them.

    Args:
        examples: Columns: questions, contexts, and answers as `{"text": [...], "answer_start": [...]}`.
        tokenizer: A fast tokenizer. With `padding_side="left"` the context comes before the question.
        max_length: Tokens of a window, the special ones included.
        doc_stride: Tokens that two neighbouring windows share.
        max_question_length: Tokens that a question is cut to. `None` cuts only a question that leaves windows no room.
        padding: `"max_length"`, `"longest"` of this batch (`True`), or `False` for rows of different lengths.
        unusable_answers: `"raise"` instead of leaving out.
        question_column, context_column, answers_column: Names of the columns.

    Returns:
        The tokenizer's columns, `start_positions` and `end_positions`: (windows, width) and (windows,) int64 arrays,
        or lists of lists with `padding=False`.

    Raises:
        TypeError: The tokenizer is not a fast one, or a question or context is no string.
        ValueError: A column is absent, lengths do not fit, a context or question is empty, or with
            `unusable_answers="raise"` an answer is not in its context.
    """
    table = _columns(examples, question_column, context_column, answers_column)
    contexts = table[context_column]
    spans = [_first_usable(context, answers) for context, answers in zip(contexts, table[answers_column], strict=True)]
    unusable = [number for number, span in enumerate(spans) if span is not None and span.state == "missing"]
    repaired = sum(span is not None and span.state in ("moved", "respelled") for span in spans)
    if unusable and unusable_answers == "raise":
        span = spans[unusable[0]]
        assert span is not None
        raise ValueError(
            f"The answer {span.text!r} of example {unusable[0]} is not in its context (answer_start {span.stated});"
            f" {len(unusable)} such examples in all. unusable_answers='drop' leaves them out; see answer_report."
        )
    if unusable or repaired:
        logger.warning(
            "Of %d examples %d had an answer at another place than answer_start, now repaired, and %d, left out, have"
            " no answer that their context contains: answer_report lists them.",
            len(spans),
            repaired,
            len(unusable),
        )
    kept = np.setdiff1d(np.arange(len(spans)), unusable)
    windows = _windows(
        [table[question_column][number] for number in kept],
        [contexts[number] for number in kept],
        tokenizer,
        max_length,
        doc_stride,
        max_question_length,
        padding,
    )
    features = _inputs(windows, padding, tokenizer.padding_side)
    kept_spans = [spans[number] for number in kept]
    starts = np.array([-1 if span is None else span.start for span in kept_spans], dtype=np.int64)
    ends = np.array([-1 if span is None else span.end for span in kept_spans], dtype=np.int64)
    first, last = label_windows(windows, starts, ends)
    features["start_positions"] = _places(first, windows, padding, tokenizer.padding_side)
    features["end_positions"] = _places(last, windows, padding, tokenizer.padding_side)
    return features


def prepare_validation_features(
    examples: Mapping[str, Sequence[Any]],
    tokenizer: Any,
    max_length: int = 384,
    doc_stride: int = 128,
    *,
    max_question_length: int | None = None,
    padding: Padding | bool = "max_length",
    token_is_max_context: bool = False,
    question_column: str = "question",
    context_column: str = "context",
    id_column: str = "id",
) -> dict[str, Any]:
    """Windows with what `postprocess_predictions` needs to read answers off the logits.

    Args:
        examples: Columns: questions, contexts and ids.
        tokenizer, max_length, doc_stride, max_question_length, padding: As for `prepare_train_features`.
        token_is_max_context: Adds the column of this name, with which answers begin only in the window that shows
            their first token with most context (see `max_context.py`).
        question_column, context_column, id_column: Names of the columns.

    Returns:
        The tokenizer's columns and
            - `example_id`: list of (windows,) ids;
            - `offset_mapping`: (windows, width, 2) int64, each token's characters in the context, half-open, and -1
              outside the context. Lists with `None` outside, as the example script has them, with `padding=False`;
            - `cls_index`: (windows,) int64, the token whose logits score "no answer";
            - `token_is_max_context`, if asked for: (windows, width) bool.

    Raises:
        TypeError, ValueError: As `prepare_train_features`.
    """
    table = _columns(examples, question_column, context_column, id_column)
    windows = _windows(
        table[question_column],
        table[context_column],
        tokenizer,
        max_length,
        doc_stride,
        max_question_length,
        padding,
    )
    features = _inputs(windows, padding, tokenizer.padding_side)
    ids = table[id_column]
    features["example_id"] = [ids[number] for number in windows.example.tolist()]
    features["offset_mapping"] = windows.offsets()
    features["cls_index"] = _places(windows.cls_index, windows, padding, tokenizer.padding_side)
    if token_is_max_context:
        best = most_context(windows)
        features["token_is_max_context"] = (
            best if padding is not False else _ragged(best, windows.lengths, tokenizer.padding_side)
        )
    if padding is False:
        rows = _ragged(windows.offsets(), windows.lengths, tokenizer.padding_side)
        features["offset_mapping"] = [[pair if pair[0] >= 0 else None for pair in row] for row in rows]
    return features


def label_windows(windows: Windows, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last token of each window's answer, both included.

    Args:
        windows: The windows.
        starts, ends: Characters of each example's answer in its context, half-open, (examples,); -1 for none.

    Returns:
        Two (windows,) int64 arrays; the classification token where a window does not contain the whole answer.
    """
    pool, start, end = windows.pool, starts[windows.example], ends[windows.example]
    size = windows.context_end - windows.context_start
    fits = (start >= 0) & (size > 0)
    first = np.where(fits, windows.source, 0)
    last = np.where(fits, windows.source + size - 1, 0)
    if len(pool.starts):
        fits &= (pool.starts[first] <= start) & (pool.ends[last] >= end)
    # Offsets rise within a text; a key that rises over all texts lets one search serve every window.
    text = np.repeat(np.arange(len(pool.first) - 1), pool.lengths)
    span = 1 + max(int(pool.ends.max(initial=0)), int(ends.max(initial=0)))
    begin_keys = np.maximum.accumulate(text * span + pool.starts)
    end_keys = np.minimum.accumulate((text * span + pool.ends)[::-1])[::-1]
    base = windows.context * span
    # The last token that begins at or before the answer, the first that ends at or after it: in the window.
    begin = np.searchsorted(begin_keys, base + start, side="right") - 1
    finish = np.searchsorted(end_keys, base + end, side="left")
    shift = windows.context_start - windows.source
    return (
        np.where(fits, np.clip(begin, first, last) + shift, windows.cls_index),
        np.where(fits, np.clip(finish, first, last) + shift, windows.cls_index),
    )


def _columns(examples: Mapping[str, Sequence[Any]], *names: str) -> dict[str, list[Any]]:
    """The named columns as lists.

    Raises:
        ValueError: One is absent, or they are not equally long.
    """
    present = getattr(examples, "column_names", None) or list(examples)
    absent = [name for name in names if name not in present]
    if absent:
        raise ValueError(
            f"examples has no column {absent[0]!r}: it has {list(present)}. Names of columns are options."
        )
    table = {name: list(examples[name]) for name in names}
    sizes = {name: len(values) for name, values in table.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"Columns must be equally long, got {sizes}.")
    return table


def _first_usable(context: str, answers: Any) -> AnswerSpan | None:
    """The first answer that the context has; else the first one, as missing; `None` where there is no answer."""
    if not isinstance(answers, Mapping) or not {"text", "answer_start"} <= answers.keys():
        raise ValueError(f"answers must be {{'text': [...], 'answer_start': [...]}}, got {answers!r}.")
    first: AnswerSpan | None = None
    for span in iterate_answers(context, answers):
        if span.state != "missing":
            return span
        first = first or span
    return first


def _windows(
    questions: Sequence[str],
    contexts: Sequence[str],
    tokenizer: Any,
    max_length: int,
    doc_stride: int,
    max_question_length: int | None,
    padding: Padding | bool,
) -> Windows:
    """Tokenises each distinct text once and lays the windows; checks everything that can be wrong with them."""
    if not getattr(tokenizer, "is_fast", False):
        raise TypeError(
            f"{type(tokenizer).__name__} gives no character offsets: expected a tokenizer on the Rust backend"
            " (AutoTokenizer gives one where there is one)."
        )
    if padding not in ("max_length", "longest", True, False):
        raise ValueError(f"padding must be 'max_length', 'longest', True or False, got {padding!r}.")
    _check_texts("question", questions)
    _check_texts("context", contexts)
    frame = read_frame(tokenizer)
    _check_lengths(tokenizer, frame.specials, max_length, doc_stride, max_question_length)
    # Blanks before a question would only take room from the context.
    question_pool, question_of = _distinct(tokenizer, [question.lstrip() for question in questions], offsets=False)
    context_pool, context_of = _distinct(tokenizer, contexts)
    empty = np.flatnonzero(context_pool.lengths[context_of] == 0)
    if len(empty):
        raise ValueError(f"The context of example {empty[0]} has no token: {contexts[empty[0]][:80]!r}.")
    cls_id = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    return make_windows(
        question_pool,
        context_pool,
        question_of,
        context_of,
        frame,
        max_length=max_length,
        doc_stride=doc_stride,
        max_question_length=max_question_length,
        width=max_length if padding == "max_length" else None,
        cls_id=cls_id,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
    )


def _check_texts(name: str, texts: Sequence[str]) -> None:
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"The {name} of example {number} must be a string, got {text!r}.")
        if not text.strip():
            raise ValueError(f"The {name} of example {number} is empty: {text!r}.")


def _check_lengths(
    tokenizer: Any, specials: int, max_length: int, doc_stride: int, max_question_length: int | None
) -> None:
    if max_length > tokenizer.model_max_length:
        raise ValueError(f"max_length is {max_length}, but the model takes {tokenizer.model_max_length} tokens.")
    if doc_stride < 0:
        raise ValueError(f"doc_stride must be 0 or more tokens, got {doc_stride}.")
    space = max_length - specials - doc_stride
    if space < 2:
        raise ValueError(
            f"max_length {max_length} leaves no room: {specials} special tokens and a doc_stride of {doc_stride}"
            " must leave at least two tokens."
        )
    if max_question_length is not None and not 0 < max_question_length < space:
        raise ValueError(
            f"max_question_length must be between 1 and {space - 1}, which is what max_length {max_length} and"
            f" doc_stride {doc_stride} leave for a question, got {max_question_length}."
        )


def _distinct(tokenizer: Any, texts: Sequence[str], *, offsets: bool = True) -> tuple[TokenPool, np.ndarray]:
    """Tokens of the distinct texts, and which of them each text is, (texts,)."""
    number: dict[str, int] = {}
    which = np.fromiter((number.setdefault(text, len(number)) for text in texts), dtype=np.int64, count=len(texts))
    return tokenize_once(tokenizer, list(number), offsets=offsets), which


def _inputs(windows: Windows, padding: Padding | bool, side: str) -> dict[str, Any]:
    if padding is not False:
        return dict(windows.columns)
    return {name: _ragged(values, windows.lengths, side) for name, values in windows.columns.items()}


def _places(tokens: np.ndarray, windows: Windows, padding: Padding | bool, side: str) -> Any:
    """Places of tokens in the windows as they are returned: without padding on the left, they are counted anew."""
    if padding is not False:
        return tokens
    if side == "left":
        tokens = tokens - (windows.index.shape[1] - windows.lengths)
    return tokens.tolist()


def _ragged(values: np.ndarray, lengths: np.ndarray, side: str) -> list[list[Any]]:
    """Rows without their padding."""
    rows = zip(values.tolist(), lengths.tolist(), strict=True)
    if side == "left":
        return [row[len(row) - length :] for row, length in rows]
    return [row[:length] for row, length in rows]
