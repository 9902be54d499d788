"""The best spans of questions over all windows of their contexts, for many questions at once.

The k best spans of a window begin at the k starts whose best spans are best, so the k-th of those is a score that the
question's k best spans all reach, and so is the highest such score among its windows. Only starts whose best span
reaches it are crossed with the ends that follow them, and few spans remain to be sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from .span_search import maximum_of_next

# Rows that are searched together: their logits and some copies stay in a core's cache.
_ROWS = 128

Prepare: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From numbers of windows and their start and end logits to what is searched, -inf where no answer may be."""


@dataclass(frozen=True)
class QuestionSpans:
    """The best spans of questions, (questions, k) each, best first; -inf scores fill up.

    Attributes:
        scores: Sums of the two logits.
        rows: Windows, numbers of all features.
        starts, ends: First and last token, both included.
        tied: Where two of the spans, or the last of them and the next, have equal scores, (questions,) bool.
        first_token: Windows in which a span that begins at the first token would be among the best, had it not been
            left out, (windows,).
    """

    scores: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    tied: np.ndarray
    first_token: np.ndarray


def search_questions(
    start: np.ndarray,
    end: np.ndarray,
    rows: np.ndarray,
    sizes: np.ndarray,
    k: int,
    max_answer_length: int,
    *,
    dtype: np.dtype,
    prepare: Prepare | None = None,
    skip_first_token: bool = True,
) -> QuestionSpans:
    """Finds the k best spans of each question.

    Args:
        start, end: Logits of all windows, (features, width).
        rows: Windows of the questions, those of a question together, (windows,).
        sizes: Windows of each question, at least one, (questions,).
        k: Number of spans.
        max_answer_length: Tokens of the longest span.
        dtype: In which scores are summed.
        prepare: Rules tokens out.
        skip_first_token: No span begins at the first token: in most models it stands for "no answer".
    """
    width = start.shape[1]
    length = min(max_answer_length, width)
    span = width + length - 1
    room = _ROWS + int(sizes.max(initial=0))
    work = np.empty((3, room, span), dtype=dtype)
    work[2, :, width:] = -np.inf
    lowest = np.finfo(dtype).min
    found: list[tuple[np.ndarray, ...]] = []
    suspicious = []
    for low, high, before, after in _blocks(sizes):
        block, own = rows[before:after], sizes[low:high]
        first, last = start[_index(block)], end[_index(block)]
        if prepare is not None:
            first, last = prepare(block, first, last)
        padded = work[2, : len(block)]
        padded[:, :width] = last
        reached = maximum_of_next(padded, length, work[:2, : len(block)])[:, :width]
        sums = np.add(reached, first, dtype=dtype)
        begin = np.cumsum(own) - own
        if skip_first_token:
            at_first = sums[:, 0].copy()
            sums[:, 0] = -np.inf
        if k == 1:
            kth = sums.max(axis=1)
        else:
            kth = np.sort(sums, axis=1)[:, -k] if k <= width else np.full(len(block), lowest)
        cut = np.repeat(np.maximum(np.maximum.reduceat(kth, begin), lowest), own)
        if skip_first_token:
            suspicious.append(block[at_first >= cut])
        flat = np.flatnonzero(sums >= cut[:, None])
        row = flat // width
        token = flat - row * width
        # All spans that begin at these starts, (starts, length).
        ends = np.lib.stride_tricks.sliding_window_view(padded.reshape(-1), length)[row * span + token]
        scores = np.add(ends, first[row, token][:, None], dtype=dtype)
        flat = np.flatnonzero(scores >= cut[row][:, None])
        which = flat // length
        group = np.repeat(np.arange(low, high), own)
        row, token = row[which], token[which]
        found.append((group[row], block[row], token, token + flat - which * length, scores.reshape(-1)[flat]))
    if not found:
        return _arranged([rows[:0]] * 4 + [np.zeros(0, dtype=dtype)], len(sizes), k, rows[:0])
    first_token = np.concatenate(suspicious) if suspicious else rows[:0]
    parts = [np.concatenate(values) for values in zip(*found, strict=True)]
    return _arranged(parts, len(sizes), k, first_token)


def _arranged(found: list[np.ndarray], questions: int, k: int, first_token: np.ndarray) -> QuestionSpans:
    """The k best of each question's spans: question, row, first and last token, score; a question's stand together."""
    group, row, first, last, score = found
    counts = np.bincount(group, minlength=questions)
    begin = np.cumsum(counts) - counts
    shape = (questions, k)
    scores = np.full(shape, -np.inf, dtype=score.dtype)
    rows, starts, ends = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    tied = np.zeros(questions, dtype=bool)
    # Questions with similar numbers of spans are sorted together.
    classes = np.maximum(counts - 1, 1).astype(np.float64)
    classes = np.where(counts > 0, np.frexp(classes)[1], -1)
    for power in np.unique(classes[counts > 0]).tolist():
        groups = np.flatnonzero(classes == power)
        column = np.arange(int(counts[groups].max()))
        place = begin[groups][:, None] + column
        inside = column < counts[groups][:, None]
        values = np.where(inside, score[np.where(inside, place, 0)], -np.inf).astype(score.dtype)
        order = np.argsort(-values, axis=1)[:, : k + 1]
        ranked = np.take_along_axis(values, order, axis=1)
        tied[groups] = ((ranked[:, 1:] == ranked[:, :-1]) & (ranked[:, 1:] > -np.inf)).any(axis=1)
        ranked, order = ranked[:, :k], order[:, :k]
        listed = slice(0, ranked.shape[1])
        chosen = np.where(ranked > -np.inf, np.take_along_axis(place, order, axis=1), begin[groups][:, None])
        scores[groups, listed] = ranked
        rows[groups, listed], starts[groups, listed], ends[groups, listed] = row[chosen], first[chosen], last[chosen]
    return QuestionSpans(scores, rows, starts, ends, tied, first_token)


@dataclass(frozen=True)
class Peaks:
    """The best start and the best end of windows, (windows,) each, and where they make the best span of a question.

    Attributes:
        rows: For each question, the window in which the two sum highest, the first among equals, (questions,).
        starts, ends: The two in this window.
        sums: Their score.
        first_token: The highest score of a span that begins at the first token, or more, (questions,); the first
            token is not among starts and ends.
        certain: The span is valid, and no other span of the question, but one that begins at the first token, scores
            higher, (questions,) bool.
        shared: Another window may have a span that scores as high, (questions,) bool.
    """

    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    sums: np.ndarray
    first_token: np.ndarray
    certain: np.ndarray
    shared: np.ndarray


def find_peaks(
    start: np.ndarray, end: np.ndarray, rows: np.ndarray, sizes: np.ndarray, max_answer_length: int, dtype: np.dtype
) -> Peaks:
    """Looks for questions that need no search: the best start and the best end of all make a valid span.

    No span of a window scores more than the sum of its best start and its best end, rounded or not. So where the
    window in which this sum is highest has its best start before its best end, and near enough, the two are the best
    span of all windows. Arguments as of `search_questions`.
    """
    width = start.shape[1]
    count = len(rows)
    tokens = np.zeros((2, count), dtype=np.int64)
    tops = np.full((2, count), -np.inf, dtype=dtype)
    zeros = np.full((2, count), -np.inf, dtype=dtype)
    # Whether the maximum of a row stands there once is asked for all rows together first.
    unique = np.ones((2, count), dtype=bool)
    for low in range(0, count if width > 1 else 0, _ROWS):
        part = slice(low, min(low + _ROWS, count))
        place = np.arange(part.stop - low)
        for side, logits in enumerate((start, end)):
            block = logits[_index(rows[part])]
            zeros[side, part] = block[:, 0]
            values = np.ascontiguousarray(block[:, 1:])
            best = values.argmax(axis=1)
            top = values[place, best]
            equal = values == top[:, None]
            if np.count_nonzero(equal) > len(place):
                unique[side, part] = equal.sum(axis=1) == 1
            tokens[side, part] = best + 1
            tops[side, part] = top
    sums = tops[0] + tops[1]
    begin = np.cumsum(sizes) - sizes
    winner = first_winners(sums, np.repeat(np.arange(len(sizes)), sizes))
    starts, ends = tokens[:, winner]
    distance = ends - starts
    certain = (distance >= 0) & (distance < max_answer_length) & unique[:, winner].all(axis=0)
    certain &= sums[winner] > -np.inf
    at_first = zeros[0] + np.maximum(zeros[1], tops[1])
    shared = np.add.reduceat(sums == np.repeat(sums[winner], sizes), begin) > 1
    best_at_first = np.maximum.reduceat(at_first, begin)
    return Peaks(rows[winner], starts, ends, sums[winner], best_at_first, certain, shared)


def first_winners(scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Place of the best score of each run of equal `owners`, the first one among equals, (runs,)."""
    first = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    best = np.repeat(np.maximum.reduceat(scores, first), np.diff(np.append(first, len(owners))))
    places = np.flatnonzero(scores == best)
    return places[np.concatenate([[True], owners[places][1:] != owners[places][:-1]])]


def _blocks(sizes: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """A few whole questions at a time: the first and the end of them, the first and the end of their windows."""
    ends = np.cumsum(sizes)
    low, before = 0, 0
    while low < len(sizes):
        high = max(low + 1, int(np.searchsorted(ends, before + _ROWS, side="right")))
        after = int(ends[high - 1])
        yield low, high, before, after
        low, before = high, after


def _index(rows: np.ndarray) -> slice | np.ndarray:
    """What takes rows out of an array, without a copy where they follow one another."""
    low, size = int(rows[0]), len(rows)
    return slice(low, low + size) if bool((np.diff(rows) == 1).all()) else rows
