"""Exact search for the best spans of tokens: start ≤ end, a limit on the length, both ends where answers may be.

The score of a span is the sum of its start and end logits (Devlin et al., NAACL 2019, section 4.2). The best end for
every start is a running maximum over the next `max_answer_length` ends, in log2(length) passes over the array. The k
best spans begin at k starts at most: those whose best span scores highest. So the n-best list needs k × length sums a
row and not all of them, and nothing is left out, unlike with the k best starts crossed with the k best ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SpanTable:
    """The best spans of each row, best first; equal scores by start, then by length.

    Attributes:
        starts, ends: Tokens, half-open, (rows, k) int64; -1 where there are fewer than k spans.
        scores: Sum of the two logits, (rows, k) float64; -inf where there is no span.
    """

    starts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray


def top_spans(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    k: int,
    *,
    start_mask: np.ndarray | None = None,
    end_mask: np.ndarray | None = None,
    max_answer_length: int = 30,
) -> SpanTable:
    """Finds the k best spans of each row.

    Args:
        start_logits, end_logits: (rows, width).
        k: Number of spans, at least 1.
        start_mask, end_mask: Where a span may begin and where its last token may be, (rows, width) bool; `None` for
            everywhere.
        max_answer_length: Tokens of the longest span, at least 1.

    Raises:
        ValueError: Shapes differ, a number is not positive, or logits are not numbers.

    Example:
        >>> best = top_spans(np.array([[0.0, 3.0, 1.0]]), np.array([[4.0, 0.0, 2.0]]), k=2)
        >>> best.starts.tolist(), best.ends.tolist(), best.scores.tolist()
        ([[1, 0]], [[3, 1]], [[5.0, 4.0]])
    """
    start, end = check_logits(start_logits, end_logits)
    if k < 1 or max_answer_length < 1:
        raise ValueError(f"k and max_answer_length must be at least 1, got {k} and {max_answer_length}.")
    rows, width = start.shape
    start = _masked(start, start_mask)
    end = _masked(end, end_mask)
    if not rows or not width:
        return SpanTable(np.full((rows, k), -1), np.full((rows, k), -1), np.full((rows, k), -np.inf))
    length = min(max_answer_length, width)
    best = start + running_maximum(end, length)

    # (rows, kept): the starts whose best spans are best, from left to right so that ties keep that order.
    kept = min(k, width)
    cut = np.partition(best, width - kept, axis=1)[:, width - kept, None]
    above, equal = best > cut, best == cut
    chosen = above | (equal & (np.cumsum(equal, axis=1) <= kept - above.sum(axis=1, keepdims=True)))
    columns = np.nonzero(chosen)[1].reshape(rows, kept)

    # (rows, kept, length): all spans that begin there.
    padded = np.concatenate([end, np.full((rows, length - 1), -np.inf)], axis=1)
    ends = columns[:, :, None] + np.arange(length)
    scores = (
        np.take_along_axis(start, columns, axis=1)[:, :, None] + padded[np.arange(rows)[:, None, None], ends]
    ).reshape(rows, kept * length)
    number = min(k, scores.shape[1])
    order = np.argsort(-scores, axis=1, kind="stable")[:, :number]
    result = np.take_along_axis(scores, order, axis=1)
    first = np.take_along_axis(columns, order // length, axis=1)
    found = SpanTable(first, first + order % length + 1, result)
    absent = np.isneginf(result)
    found.starts[absent] = -1
    found.ends[absent] = -1
    if number < k:
        fill = ((0, 0), (0, k - number))
        return SpanTable(
            np.pad(found.starts, fill, constant_values=-1),
            np.pad(found.ends, fill, constant_values=-1),
            np.pad(found.scores, fill, constant_values=-np.inf),
        )
    return found


def running_maximum(values: np.ndarray, length: int) -> np.ndarray:
    """The maximum of each element and the `length` - 1 that follow it in its row, (rows, width)."""
    rows, width = values.shape
    padded = np.full((rows, width + length - 1), -np.inf, dtype=values.dtype)
    padded[:, :width] = values
    return maximum_of_next(padded, length, np.empty((2, *padded.shape), dtype=values.dtype))[:, :width]


def maximum_of_next(padded: np.ndarray, length: int, work: np.ndarray) -> np.ndarray:
    """The same where rows end in `length` - 1 elements that are none; what becomes of these is of no meaning.

    With these between the rows, they are one row: each pass is one sweep over memory. The result is a part of `work`,
    (2, rows, columns): fresh memory for every few rows would cost more than the search.
    """
    current, other, spare = padded.reshape(-1), work[0].reshape(-1), work[1].reshape(-1)
    if length == 1:
        np.copyto(other, current)
        return work[0]
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        np.maximum(current[:-step], current[step:], out=other[:-step])
        other[-step:] = current[-step:]
        current, other, spare = other, spare, other
        covered += step
    return current.reshape(padded.shape)


def check_logits(start_logits: np.ndarray, end_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays.

    Raises:
        ValueError: They are not two equal (rows, width) arrays of numbers.
    """
    start, end = check_shapes(start_logits, end_logits)
    for logits in (start, end):
        check_below_infinity(logits.max(keepdims=True) if logits.size else logits)
    return start, end


def check_shapes(start_logits: np.ndarray, end_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, the numbers not looked at. Errors as of `check_logits`."""
    start, end = np.asarray(start_logits), np.asarray(end_logits)
    if start.ndim != 2 or start.shape != end.shape:
        raise ValueError(f"Start and end logits must both be (rows, width), got {start.shape} and {end.shape}.")
    if start.dtype.kind != "f" or end.dtype.kind != "f":
        raise ValueError(f"Logits must be floating-point numbers, got {start.dtype} and {end.dtype}.")
    return start, end


def check_below_infinity(maxima: np.ndarray) -> None:
    """Checks logits by their maxima: NaN is one wherever it stands, and -inf is how a model rules a token out.

    Raises:
        ValueError: A logit is NaN or infinite.
    """
    if not (maxima < np.inf).all():
        raise ValueError("Logits must be numbers below infinity: some are NaN or infinite.")


def _masked(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """float64 copy with -inf where the mask is off: sums of float32 and float16 logits are then exact."""
    if mask is None:
        return values.astype(np.float64)
    if mask.shape != values.shape:
        raise ValueError(f"A mask must have the shape of the logits, {values.shape}, got {mask.shape}.")
    return np.where(mask, values, -np.inf).astype(np.float64)
