"""Windows of questions and their contexts, as the model reads them: laid once, batched by length, scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from hf_nlpnotes.question_answering import prepare_validation_features

from ._qa_inputs import Question

Name = TypeVar("Name")

_CHUNK = 512
"""Questions whose windows are in memory at once."""


@dataclass(frozen=True)
class WindowTable:
    """Windows of several questions.

    Args:
        columns: Inputs of the model, each `(windows, width)`, padded on the right whatever the tokenizer does: a
            padding on the left would move the positions of tokens, and with them scores, by the length of the batch.
        lengths: Tokens of each window without padding, `(windows,)`.
        question: Number of each window's question, `(windows,)`.
        details: What the decoding needs of the windows.
    """

    columns: dict[str, np.ndarray]
    lengths: np.ndarray
    question: np.ndarray
    details: dict[str, Any]


@dataclass(frozen=True)
class ScoredWindows:
    """The logits of a batch of windows.

    Args:
        rows: The windows' places in the table, `(batch,)`.
        width: Tokens of the batch's longest window.
        start_logits, end_logits: `(batch, width)` float32.
        span_logits: `(batch, width, width)` of models that score pairs, else None.
    """

    rows: np.ndarray
    width: int
    start_logits: np.ndarray
    end_logits: np.ndarray
    span_logits: np.ndarray | None


def chunks(questions: Iterable[Question], kind: str, batch_size: int) -> Iterator[list[tuple[int, Question]]]:
    """Questions with their numbers, as many at once as are prepared together.

    Those of a list are taken by context, so that each context is prepared once. A stream is read 16 batches ahead,
    and not at all where batches are of one.
    """
    if kind != "stream":
        listed = list(enumerate(questions))
        place: dict[str, int] = {}
        for number, question in listed:
            place.setdefault(question.context, number)
        listed.sort(key=lambda item: place[item[1].context])
        begin = 0
        while begin < len(listed):
            end = min(begin + _CHUNK, len(listed))
            # To the end of the last context, unless it has very many questions.
            while end < min(begin + 2 * _CHUNK, len(listed)) and listed[end][1].context == listed[end - 1][1].context:
                end += 1
            yield listed[begin:end]
            begin = end
        return
    numbered = iter(enumerate(questions))
    while chunk := list(islice(numbered, min(16 * batch_size, _CHUNK) if batch_size > 1 else 1)):
        yield chunk


def context_windows(
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    max_length: int,
    doc_stride: int,
    max_question_length: int | None,
    padding: Literal["longest", "max_length"],
    places: Callable[[str, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> WindowTable:
    """Lay windows over the contexts of questions.

    Args:
        tokenizer: A fast one.
        questions: The questions.
        max_length, doc_stride, max_question_length, padding: As of `prepare_validation_features`.
        places: Gives, of a context and `(tokens, 2)` offsets in it, where answers begin and end.

    Returns:
        The windows; `details` has `starts`, `ends` `(windows, width)` of `places`, and `cls_index`.
    """
    features = prepare_validation_features(
        {
            "id": list(range(len(questions))),
            "question": [one.question for one in questions],
            "context": [one.context for one in questions],
        },
        tokenizer,
        max_length=max_length,
        doc_stride=doc_stride,
        max_question_length=max_question_length,
        padding=padding,
    )
    number = np.asarray(features.pop("example_id"), dtype=np.int64)
    offsets, cls_index = features.pop("offset_mapping"), features.pop("cls_index")
    starts, ends = np.full(offsets.shape[:2], -1), np.full(offsets.shape[:2], -1)
    # Questions that ask about one context have its windows' tokens in one piece.
    of_context: dict[str, list[int]] = {}
    for window, question in enumerate(number.tolist()):
        of_context.setdefault(questions[question].context, []).append(window)
    for context, windows in of_context.items():
        first, last = places(context, offsets[windows].reshape(-1, 2))
        starts[windows] = first.reshape(len(windows), -1)
        ends[windows] = last.reshape(len(windows), -1)
    columns = {name: np.asarray(values) for name, values in features.items()}
    lengths = columns["attention_mask"].sum(axis=1)
    if tokenizer.padding_side == "left":
        columns, starts, ends = padded_right(columns, lengths), *padded_right({0: starts, 1: ends}, lengths).values()
        cls_index -= offsets.shape[1] - lengths
    return WindowTable(columns, lengths, number, {"starts": starts, "ends": ends, "cls_index": cls_index})


def padded_right(columns: Mapping[Name, np.ndarray], lengths: np.ndarray) -> dict[Name, np.ndarray]:
    """Move the padding of `(windows, width)` arrays from the left to the right."""
    width = next(iter(columns.values())).shape[1]
    places = (np.arange(width) + (width - lengths)[:, None]) % width
    return {name: np.take_along_axis(values, places, axis=1) for name, values in columns.items()}


def scored(
    table: WindowTable,
    forward: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]],
    batch_size: int,
    *,
    full_width: bool = False,
) -> Iterator[ScoredWindows]:
    """Run the model over windows, in batches of about equal lengths, the longest first.

    Args:
        table: The windows.
        forward: The model, as `Pipeline.forward`.
        batch_size: Windows in a batch.
        full_width: Leave all padding that the table has, instead of cutting each batch to its longest window.

    Raises:
        ValueError: Logits that are no numbers.
    """
    order = np.argsort(-table.lengths, kind="stable")
    for begin in range(0, len(order), batch_size):
        rows = order[begin : begin + batch_size]
        width = table.columns["input_ids"].shape[1] if full_width else int(table.lengths[rows[0]])
        inputs = {name: torch.from_numpy(values[rows, :width]) for name, values in table.columns.items()}
        outputs = {name: logits.float().numpy() for name, logits in forward(inputs).items()}
        if any(np.isnan(logits).any() for logits in outputs.values()):
            raise ValueError("The model's logits are not numbers (NaN): load it with dtype=torch.float32 or bfloat16.")
        yield ScoredWindows(rows, width, outputs["start_logits"], outputs["end_logits"], outputs.get("span_logits"))
