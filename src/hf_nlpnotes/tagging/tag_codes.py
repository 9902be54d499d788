"""Gold and predicted tags of a corpus as two flat arrays of small integers: what the metrics count on.

Strings cost one dictionary look-up a token and ids almost nothing; everything after is numpy. A separator, coded as
`O`, stands before each sentence and after the last, so that no span runs from one sentence into the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .schemes import OUTSIDE

IGNORE_INDEX = -100
"""The label of positions that count for nothing, as the loss has it."""

# Codes of so few labels fit into bytes, which several steps are much faster on.
_BYTE_LABELS = 256

Tags: TypeAlias = Sequence[Sequence[Any]] | NDArray[Any]
Labels: TypeAlias = Sequence[str] | Mapping[int, str] | None
Codes: TypeAlias = NDArray[np.uint8] | NDArray[np.int32]


@dataclass(frozen=True)
class TagCodes:
    """Tags of a corpus as indices into `labels`.

    Attributes:
        labels: the tags; which one is `O` is `separator`.
        true, pred: (tokens + sentences + 1,), with separators.
        separator: the code of `O`.
        tokens: tokens that count, separators left out.
    """

    labels: tuple[str, ...]
    true: Codes
    pred: Codes
    separator: int
    tokens: int

    @property
    def right_tokens(self) -> int:
        """Tokens whose predicted tag is the gold one."""
        return int((self.true == self.pred).sum()) - (len(self.true) - self.tokens)


def encode_tags(
    y_true: Tags,
    y_pred: Tags,
    labels: Labels = None,
    *,
    ignore_index: int = IGNORE_INDEX,
) -> TagCodes:
    """Encode the gold and the predicted tags of the same sentences.

    Args:
        y_true: one sequence of tags a sentence; with `labels`, of label ids, or an array (sentences, tokens) of them.
        y_pred: the same for the predictions.
        labels: the tags in the order of their ids, or a config's `id2label`. None: the tags are strings.
        ignore_index: gold id of positions to leave out (special tokens, further sub-words, padding).

    Raises:
        ValueError: other numbers of sentences or tokens, no token at all, an id without a label, an empty tag.
        TypeError: strings where ids were announced, or the other way round, or one sentence instead of a list.
    """
    if labels is None:
        return _encode_strings(y_true, y_pred)
    return _encode_ids(y_true, y_pred, _as_labels(labels), ignore_index)


class _StringCodes(dict[str, int]):
    """Gives each new tag the next number; a known one costs no Python call."""

    def __missing__(self, tag: str) -> int:
        if not isinstance(tag, str):
            raise TypeError(
                f"a tag must be a string, got {type(tag).__name__}: {tag!r}. For label ids pass labels=, the tags in "
                "the order of their ids"
            )
        if not tag:
            raise ValueError("an empty string is not a tag: expected O, or a prefix and a type such as B-PER")
        self[tag] = number = len(self)
        return number


def _encode_strings(y_true: Tags, y_pred: Tags) -> TagCodes:
    lengths = _check_shapes(y_true, y_pred)
    tokens = int(lengths.sum())
    codes = _StringCodes({OUTSIDE: 0})
    places = np.ones(tokens + len(lengths) + 1, dtype=np.bool_)
    places[0] = False
    places[np.cumsum(lengths + 1)] = False
    numbers = [_numbers(sentences, codes) for sentences in (y_true, y_pred)]
    streams = [_stream(len(places), len(codes)) for _ in numbers]
    for stream, of_tokens in zip(streams, numbers, strict=True):
        stream[places] = of_tokens
    return TagCodes(tuple(codes), streams[0], streams[1], 0, tokens)


def _stream(length: int, num_codes: int) -> Codes:
    return np.zeros(length, dtype=np.uint8) if num_codes <= _BYTE_LABELS else np.zeros(length, dtype=np.int32)


def _numbers(sentences: Tags, codes: _StringCodes) -> Codes:
    try:
        # The fastest way from strings to an array, as long as every number fits into a byte.
        return np.frombuffer(bytes(map(codes.__getitem__, chain.from_iterable(sentences))), dtype=np.uint8)
    except ValueError:
        if len(codes) <= _BYTE_LABELS:  # not for the number of labels
            raise
        return np.fromiter(map(codes.__getitem__, chain.from_iterable(sentences)), dtype=np.int32)
    except TypeError as error:
        # Raised by an unhashable tag: a list among the tags, say. Its own message names neither tag nor way out.
        if "unhashable" in str(error):
            raise TypeError(f"every tag must be a string: {error}. One list of tags a sentence is expected") from None
        raise


def _as_labels(labels: Sequence[Any] | Mapping[int, Any]) -> list[str]:
    if isinstance(labels, str):
        raise TypeError(f"labels must be a sequence of tags, got one string: {labels!r}")
    if not isinstance(labels, Mapping):
        listed = list(labels)
    else:
        if sorted(labels) != list(range(len(labels))):
            raise ValueError(f"labels must have the ids 0 to {len(labels) - 1}, got {sorted(labels)}")
        listed = [labels[number] for number in range(len(labels))]
    if not listed:
        raise ValueError("labels is empty: expected the tags in the order of their ids")
    for label in listed:
        if not isinstance(label, str) or not label:
            raise TypeError(f"every label must be a tag, got {label!r}")
    return listed


def _encode_ids(y_true: Any, y_pred: Any, labels: list[str], ignore_index: int) -> TagCodes:
    true, pred = _as_matrix(y_true, "y_true"), _as_matrix(y_pred, "y_pred")
    if true is None or pred is None:
        _check_shapes(y_true, y_pred)
        true, pred = _pad(y_true, "y_true", ignore_index), _pad(y_pred, "y_pred", ignore_index)
    if true.shape != pred.shape:
        raise ValueError(f"y_true has the shape {true.shape} and y_pred {pred.shape}: expected the same")
    if not true.size:
        raise ValueError(f"y_true has the shape {true.shape}: expected at least one token")
    keep = None
    if _largest(true) >= len(labels) or 0 <= ignore_index < len(labels):
        keep = true != ignore_index
        if not keep.any():
            raise ValueError(f"every position of y_true is {ignore_index}: no token is left to count")
        if keep.all():
            keep = None
        else:
            true, pred = np.where(keep, true, 0), np.where(keep, pred, 0)
    separator = labels.index(OUTSIDE) if OUTSIDE in labels else len(labels)
    known = [*labels, OUTSIDE] if separator == len(labels) else labels
    for name, ids in (("y_true", true), ("y_pred", pred)):
        if _largest(ids) >= len(labels):
            wrong = ids[(ids < 0) | (ids >= len(labels))][0]
            raise ValueError(
                f"{name} has the id {wrong}: expected 0 to {len(labels) - 1}, one of the {len(labels)} labels"
            )
    tokens = true.size if keep is None else int(keep.sum())
    streams = [_id_stream(ids, keep, separator, len(known)) for ids in (true, pred)]
    return TagCodes(tuple(known), streams[0], streams[1], separator, tokens)


def _largest(ids: NDArray[Any]) -> int:
    """Return the largest id, where a negative one counts as very large: one pass instead of two."""
    return int(ids.view(f"u{ids.dtype.itemsize}").max())


def _id_stream(ids: NDArray[Any], keep: NDArray[np.bool_] | None, separator: int, num_codes: int) -> Codes:
    sentences, tokens = ids.shape
    stream = _stream(sentences * (tokens + 1) + 1, num_codes)
    stream[-1] = separator
    codes = stream[:-1].reshape(sentences, tokens + 1)
    codes[:, 0] = separator
    codes[:, 1:] = ids
    if keep is None:
        return stream
    return stream[np.append(np.pad(keep, ((0, 0), (1, 0)), constant_values=True), True)]


def _as_matrix(ids: Any, name: str) -> NDArray[Any] | None:
    """Return an array (sentences, tokens); None for sentences of different lengths."""
    try:
        array = np.asarray(ids)
    except ValueError:  # numpy's answer to lists of different lengths
        return None
    if array.ndim == 1 and array.dtype == object:
        return None
    if array.ndim != 2:
        raise ValueError(
            f"{name} has the shape {array.shape}: expected (sentences, tokens) of label ids. "
            "Of logits take the argmax over the last axis"
        )
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} has the type {array.dtype}: with labels= expected integer label ids")
    return array


def _pad(sentences: Sequence[Any], name: str, ignore_index: int) -> NDArray[np.int64]:
    matrix = np.full((len(sentences), max(map(len, sentences))), ignore_index, dtype=np.int64)
    for row, sentence in zip(matrix, sentences, strict=True):
        ids = np.asarray(sentence)
        if ids.size and ids.dtype.kind not in "iu":
            raise TypeError(f"{name} has the type {ids.dtype}: with labels= expected integer label ids")
        row[: len(ids)] = ids
    return matrix


def _check_shapes(y_true: Tags, y_pred: Tags) -> NDArray[np.int64]:
    """Return the lengths of the sentences, which gold and predicted ones share."""
    for name, sentences in (("y_true", y_true), ("y_pred", y_pred)):
        if isinstance(sentences, str) or str in set(map(type, sentences)):
            raise TypeError(
                f"{name} must be one list of tags a sentence, got strings: wrap a single sentence in a list"
            )
    if len(y_true) != len(y_pred):
        raise ValueError(f"y_true has {len(y_true)} sentences and y_pred {len(y_pred)}: expected as many")
    lengths, others = list(map(len, y_true)), list(map(len, y_pred))
    if lengths != others:
        number = next(i for i, (a, b) in enumerate(zip(lengths, others, strict=True)) if a != b)
        raise ValueError(
            f"sentence {number} has {lengths[number]} tags in y_true and {others[number]} in y_pred: expected as many"
        )
    if not any(lengths):
        raise ValueError(f"no tokens in {len(lengths)} sentences: nothing to count")
    return np.asarray(lengths)
