"""The best answers of every question: all valid spans of all windows compete, and an answer stands once.

Scores are summed in float64. Answers are spans of characters: where windows overlap, or where several tokens stand
for one character, equal spans are one answer with the best of their scores. Equal scores: the answer that begins
first, then the shorter one.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .collector import collector_at_rest
from .feature_table import FeatureTable, check_characters
from .question_search import QuestionSpans, find_peaks, first_winners, search_questions
from .script_best import begins_inside
from .script_lists import insert_column, looked_up_once

NullScore = Literal["min", "product"]

# Spans that are held at once.
_HELD = 1 << 20


@dataclass(frozen=True)
class ExactOptions:
    """Options of `postprocess_predictions`, under its names."""

    version_2_with_negative: bool = False
    n_best_size: int = 20
    max_answer_length: int = 30
    null_score_diff_threshold: float = 0.0
    null_score: NullScore = "min"


@dataclass(frozen=True)
class _Answers:
    """The best answers of some examples, (examples, k) each, best first; -inf scores fill up."""

    scores: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    begins: np.ndarray
    finishes: np.ndarray


def exact_best(table: FeatureTable, start: np.ndarray, end: np.ndarray, options: ExactOptions) -> dict[Hashable, str]:
    """The best answer of every example, without the others.

    Args:
        table: The features.
        start, end: Logits, (features, width).
        options: The options.
    """
    count = len(table.example_ids)
    begins, finishes = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    scores = np.full(count, -np.inf)
    windows = np.zeros(count, dtype=np.int64)
    left = np.flatnonzero(np.diff(table.first))
    if len(left) and table.max_context is None:
        peaks = find_peaks(
            start, end, table.rows_of(left), table.sizes_of(left), options.max_answer_length, np.dtype(np.float64)
        )
        sure = np.flatnonzero(peaks.certain & ~peaks.shared & (peaks.first_token < peaks.sums))
        begin, finish = table.offsets.spans(peaks.rows[sure], peaks.starts[sure], peaks.ends[sure])
        inside = (begin >= 0) & (finish >= 0)
        sure, begin, finish = sure[inside], begin[inside], finish[inside]
        begins[left[sure]], finishes[left[sure]], scores[left[sure]] = begin, finish, peaks.sums[sure]
        windows[left[sure]] = peaks.rows[sure]
        check_characters(table, left[sure], finish)
        left = np.delete(left, sure)
    for examples, found in _searched(table, start, end, left, 1, options.max_answer_length):
        begins[examples], finishes[examples] = found.begins[:, 0], found.finishes[:, 0]
        scores[examples], windows[examples] = found.scores[:, 0], found.rows[:, 0]
    nothing = np.zeros(count, dtype=bool)
    if options.version_2_with_negative:
        filled = np.flatnonzero(np.diff(table.first))
        null = _lowest_nulls(table, start, end, filled)[0]
        odds = _odds(table, start, end, filled, null, scores[filled], windows[filled], options)
        nothing[filled] = odds > options.null_score_diff_threshold
    return {
        name: "" if none else context[begin:finish]
        for name, context, begin, finish, none in zip(
            table.example_ids, table.contexts, begins.tolist(), finishes.tolist(), nothing.tolist(), strict=True
        )
    }


def exact_lists(
    table: FeatureTable, start: np.ndarray, end: np.ndarray, options: ExactOptions
) -> tuple[dict[Hashable, str], dict[Hashable, list[dict[str, Any]]], dict[Hashable, float]]:
    """Answers, n-best lists, and with `version_2_with_negative` scores of "no answer" less the answers'."""
    names = table.example_ids
    answers: dict[Hashable, str] = dict.fromkeys(names, "")
    n_best: dict[Hashable, list[dict[str, Any]]] = {name: [] for name in names}
    odds: dict[Hashable, float] = {}
    filled = np.flatnonzero(np.diff(table.first))
    with collector_at_rest():
        for examples, found in _searched(table, start, end, filled, options.n_best_size, options.max_answer_length):
            _write(table, start, end, options, examples, found, answers, n_best, odds)
    return answers, n_best, {name: odds[name] for name in names if name in odds}


def _searched(
    table: FeatureTable, start: np.ndarray, end: np.ndarray, examples: np.ndarray, k: int, length: int
) -> list[tuple[np.ndarray, _Answers]]:
    """The answers of examples, in parts; each example stands in one of them."""
    results: list[tuple[np.ndarray, _Answers]] = []
    # First as if all tokens were the context's, which the best spans' tokens nearly always are.
    work = [(examples, k, table.max_context is not None)]
    while work:
        left, asked, masked = work.pop()
        step = max(1, _HELD // asked)
        for low in range(0, len(left), step):
            part = left[low : low + step]
            spans = search_questions(
                start,
                end,
                table.rows_of(part),
                table.sizes_of(part),
                asked,
                length,
                dtype=np.dtype(np.float64),
                prepare=_ContextOnly(table) if masked else None,
                skip_first_token=not masked,
            )
            filled = ~np.isneginf(spans.scores)
            begins, finishes = (np.zeros(filled.shape, dtype=np.int64) for _ in range(2))
            if filled.any():
                begins[filled], finishes[filled] = looked_up_once(table, spans, filled)
            outside = ((begins < 0) | (finishes < 0)).any(axis=1)
            if not masked:
                outside |= begins_inside(table, spans)[part] | ~filled.any(axis=1)
            check_characters(table, part, np.where(outside, 0, finishes.max(axis=1)))
            found, enough = _distinct(spans, begins, finishes, k)
            more = ~enough & ~outside
            if outside.any():
                work.append((part[outside], k, True))
            if more.any():
                work.append((part[more], 2 * asked, masked))
            done = ~outside & ~more
            if done.any():
                results.append((part[done], _take(found, done)))
    return results


class _ContextOnly:
    """Rules out tokens outside the context, and starts with more context in another window where features say so."""

    def __init__(self, table: FeatureTable) -> None:
        self.table = table

    def __call__(self, rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `question_search.Prepare`."""
        mask = self.table.offsets.mask(first.shape[1], rows)
        starts = mask
        if self.table.max_context is not None:
            starts = mask.copy()
            for place, row in enumerate(rows.tolist()):
                tokens = np.flatnonzero(mask[place])
                starts[place, tokens] = self.table.has_max_context(row, tokens)
        return np.where(starts, first, -np.inf), np.where(mask, last, -np.inf)


def _distinct(spans: QuestionSpans, begins: np.ndarray, finishes: np.ndarray, k: int) -> tuple[_Answers, np.ndarray]:
    """The first k spans of each example that differ in characters, and whether no other can be among them."""
    scores = spans.scores
    order = np.lexsort((finishes, begins, -scores), axis=-1) if spans.tied.any() else None
    columns = [scores, spans.rows, spans.starts, spans.ends, begins, finishes]
    if order is not None:
        columns = [np.take_along_axis(values, order, axis=1) for values in columns]
    scores, begins, finishes = columns[0], columns[4], columns[5]
    key = begins * (int(finishes.max(initial=0)) + 1) + finishes
    by_key = np.argsort(key, axis=1, kind="stable")
    ranked = np.take_along_axis(key, by_key, axis=1)
    repeated = np.zeros(key.shape, dtype=bool)
    np.put_along_axis(repeated[:, :], by_key[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    kept = ~repeated & (scores > -np.inf)
    # Spans that were not asked for may equal the last one, but are no better.
    surer = kept & (scores > scores[:, -1:])
    enough = np.isneginf(scores[:, -1]) | (surer.sum(axis=1) >= k) | (~spans.tied & (kept.sum(axis=1) >= k))
    kept &= np.cumsum(kept, axis=1) <= k
    place = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    columns = [np.take_along_axis(values, place, axis=1) for values in columns]
    columns[0] = np.where(np.take_along_axis(kept, place, axis=1), columns[0], -np.inf)
    if columns[0].shape[1] < k:
        fill = ((0, 0), (0, k - columns[0].shape[1]))
        columns = [np.pad(values, fill, constant_values=0 if n else -np.inf) for n, values in enumerate(columns)]
    return _Answers(*columns), enough


def _take(found: _Answers, chosen: np.ndarray) -> _Answers:
    return _Answers(*(values[chosen] for values in vars(found).values()))


def _lowest_nulls(
    table: FeatureTable, start: np.ndarray, end: np.ndarray, examples: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The lowest score of the classification token over each example's windows, and the window, (examples,) each."""
    rows = table.rows_of(examples)
    if not len(rows):
        return np.zeros(0), rows
    place = table.cls_index[rows]
    scores = start[rows, place].astype(np.float64) + end[rows, place]
    winner = first_winners(-scores, table.example[rows])
    return scores[winner], rows[winner]


def _odds(
    table: FeatureTable,
    start: np.ndarray,
    end: np.ndarray,
    examples: np.ndarray,
    null: np.ndarray,
    scores: np.ndarray,
    windows: np.ndarray,
    options: ExactOptions,
) -> np.ndarray:
    """Score of "no answer" less that of the best answer, (examples,); infinite where there is no answer.

    "min" takes the lowest sum of the classification token's logits over the windows (Devlin et al. 2019, section 4.3).
    "product" takes probabilities: that no window has the answer, the product over them, against the answer's in its
    own window.
    """
    if options.null_score == "min" or not len(examples):
        return np.asarray(null - scores)
    rows, sizes = table.rows_of(examples), table.sizes_of(examples)
    place = table.cls_index[rows]
    normalizer = np.zeros(len(table))
    nulls = np.zeros(len(rows))
    for logits in (start, end):
        values = logits[rows].astype(np.float64)
        top = values.max(axis=1)
        normalizers = top + np.log(np.exp(values - top[:, None]).sum(axis=1))
        normalizer[rows] += normalizers
        nulls += values[np.arange(len(rows)), place] - normalizers
    product = np.add.reduceat(nulls, np.cumsum(sizes) - sizes)
    return np.asarray(product - (scores - normalizer[windows]))


def _write(
    table: FeatureTable,
    start: np.ndarray,
    end: np.ndarray,
    options: ExactOptions,
    examples: np.ndarray,
    found: _Answers,
    answers: dict[Hashable, str],
    n_best: dict[Hashable, list[dict[str, Any]]],
    odds: dict[Hashable, float],
) -> None:
    """Puts "no answer" in its place and writes the entries of examples."""
    scores, begins, finishes = found.scores, found.begins, found.finishes
    firsts = start[found.rows, found.starts].astype(np.float64)
    lasts = end[found.rows, found.ends].astype(np.float64)
    counts = (scores > -np.inf).sum(axis=1)
    nothing = np.zeros(len(examples), dtype=bool)
    names = [table.example_ids[number] for number in examples.tolist()]
    contexts = [table.contexts[number] for number in examples.tolist()]
    best = zip(names, contexts, begins[:, 0].tolist(), finishes[:, 0].tolist(), strict=True)
    answers.update((name, context[begin:finish]) for name, context, begin, finish in best)
    if options.version_2_with_negative:
        null, row = _lowest_nulls(table, start, end, examples)
        difference = _odds(table, start, end, examples, null, scores[:, 0], found.rows[:, 0], options)
        nothing = difference > options.null_score_diff_threshold
        odds.update(zip(names, difference.tolist(), strict=True))
        answers.update((name, "") for name, none in zip(names, nothing.tolist(), strict=True) if none)
        position = np.minimum((scores >= null[:, None]).sum(axis=1), counts)
        place = table.cls_index[row]
        zero = np.zeros_like(position)
        pairs = (scores, null), (firsts, start[row, place]), (lasts, end[row, place]), (begins, zero), (finishes, zero)
        scores, firsts, lasts, begins, finishes = (insert_column(values, position, new) for values, new in pairs)
        counts = counts + 1
    listed = np.arange(scores.shape[1]) < counts[:, None]
    weights = np.exp(scores - np.where(counts > 0, scores[:, 0], 0)[:, None]) * listed
    probabilities = weights / np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    entries = [
        {
            "text": contexts[number][begin:finish],
            "start": begin,
            "end": finish,
            "start_logit": first,
            "end_logit": last,
            "probability": probability,
        }
        for number, begin, finish, first, last, probability in zip(
            np.repeat(np.arange(len(examples)), counts).tolist(),
            *(values[listed].tolist() for values in (begins, finishes, firsts, lasts, probabilities)),
            strict=True,
        )
    ]
    stops = np.cumsum(counts)
    for name, begin, stop in zip(names, (stops - counts).tolist(), stops.tolist(), strict=True):
        n_best[name] = entries[begin:stop]
