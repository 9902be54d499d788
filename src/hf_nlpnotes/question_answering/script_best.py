"""The best answer of every question, as the example script gives it, without n-best lists."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from .example_script import ScriptOptions, ScriptTokens, among_best, lowest_nulls, replay, special_examples
from .feature_table import FeatureTable, check_characters
from .question_search import QuestionSpans, find_peaks, search_questions


def best_answers(
    table: FeatureTable, start: np.ndarray, end: np.ndarray, options: ScriptOptions
) -> tuple[dict[Hashable, str], dict[Hashable, float]]:
    """Answers, and with `version_2_with_negative` scores of "no answer" less the answers'.

    Args:
        table: The features.
        start, end: Logits, (features, width).
        options: The script's options.
    """
    count, negative = len(table.example_ids), options.version_2_with_negative
    replayed, left = special_examples(table, options)
    spans = _Spans(table, start, end)
    left = spans.take_peaks(left, options)
    # First among all spans, whose best nearly always starts and ends where the script looks; then only among the
    # script's starts and ends; then without those that turned out to lie outside the context.
    for restricted, looked_up in ((False, False), (True, False), (True, True)):
        if len(left):
            left, special = spans.search(left, options, restricted=restricted, looked_up=looked_up)
            replayed[special] = True
    replayed[left] = True
    check_characters(table, np.arange(count), spans.finishes)
    texts = [
        context[begin:finish]
        for context, begin, finish in zip(table.contexts, spans.begins.tolist(), spans.finishes.tolist(), strict=True)
    ]
    odds: list[float] = []
    if negative:
        differences = np.zeros(count, dtype=spans.dtype)
        filled = np.flatnonzero(np.diff(table.first))
        differences[filled] = lowest_nulls(table, start, end, filled)[0]
        differences = differences - spans.firsts - spans.lasts
        nothing = (differences > options.null_score_diff_threshold).tolist()
        replayed |= np.array([not text for text in texts], dtype=bool)  # of none too, which would be floats
        texts = ["" if none else text for text, none in zip(texts, nothing, strict=True)]
        odds = differences.tolist()
    for number in np.flatnonzero(replayed).tolist():
        text, _, difference = replay(table, number, start, end, options)
        texts[number] = text
        if difference is not None:
            odds[number] = difference
    ids = table.example_ids
    return dict(zip(ids, texts, strict=True)), dict(zip(ids, odds, strict=True)) if negative else {}


class _Spans:
    """The spans found so far, an element an example: their characters and logits."""

    def __init__(self, table: FeatureTable, start: np.ndarray, end: np.ndarray) -> None:
        count = len(table.example_ids)
        self.table, self.start, self.end = table, start, end
        self.begins, self.finishes = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        self.firsts, self.lasts = np.zeros(count, dtype=start.dtype), np.zeros(count, dtype=end.dtype)
        self.dtype = (start[:0, :1] + end[:0, :1]).dtype

    def take_peaks(self, left: np.ndarray, options: ScriptOptions) -> np.ndarray:
        """Takes the spans of examples that need no search; gives the others.

        The best start and the best end are crossed first, so that among equal spans theirs is the script's. They are
        so but for the first token, which may stand before them: the script must look at two at least.
        """
        if not len(left) or options.n_best_size == 1:
            return left
        rows, sizes = self.table.rows_of(left), self.table.sizes_of(left)
        peaks = find_peaks(self.start, self.end, rows, sizes, options.max_answer_length, self.dtype)
        sure = peaks.certain & (peaks.first_token < peaks.sums)
        unsure = np.flatnonzero(peaks.certain & ~sure)
        if len(unsure):
            # What the first token would win does not matter where it is outside the context, as it nearly always is.
            again, own = self.table.rows_of(left[unsure]), self.table.sizes_of(left[unsure])
            inside = self.table.offsets.side(again, np.zeros_like(again), 0) >= 0
            sure[unsure] = ~np.logical_or.reduceat(inside, np.cumsum(own) - own)
        taken = self._take(left[sure], peaks.rows[sure], peaks.starts[sure], peaks.ends[sure])
        sure[np.flatnonzero(sure)[~taken]] = False
        return left[~sure]

    def search(
        self, left: np.ndarray, options: ScriptOptions, *, restricted: bool, looked_up: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Searches examples; gives those to be searched again, and those where the script's order decides."""
        table = self.table
        prepare = ScriptTokens(table.offsets if looked_up else None, options.n_best_size) if restricted else None
        found = search_questions(
            self.start,
            self.end,
            table.rows_of(left),
            table.sizes_of(left),
            1,
            options.max_answer_length,
            dtype=self.dtype,
            prepare=prepare,
            skip_first_token=not looked_up,
        )
        special = found.tied | np.isneginf(found.scores[:, 0])
        again = ~special & begins_inside(table, found)[left]
        row, first, last = found.rows[:, 0], found.starts[:, 0], found.ends[:, 0]
        if not restricted:
            k = options.n_best_size
            again |= ~special & ~(among_best(self.start, row, first, k) & among_best(self.end, row, last, k))
        settled = np.flatnonzero(~special & ~again)
        taken = self._take(left[settled], row[settled], first[settled], last[settled])
        again[settled[~taken]] = True
        return left[again], left[special]

    def _take(self, examples: np.ndarray, row: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Notes spans, of which the result says whether both tokens are in the context, (examples,) bool."""
        begins, finishes = self.table.offsets.spans(row, first, last)
        taken = np.asarray((begins >= 0) & (finishes >= 0))
        self.begins[examples], self.finishes[examples] = np.where(taken, begins, 0), np.where(taken, finishes, 0)
        self.firsts[examples], self.lasts[examples] = self.start[row, first], self.end[row, last]
        return taken


def begins_inside(table: FeatureTable, found: QuestionSpans) -> np.ndarray:
    """Examples in which a first token, left out of the search, is in the context and matters, (examples,) bool."""
    result = np.zeros(len(table.example_ids), dtype=bool)
    rows = found.first_token
    if len(rows):
        inside = table.offsets.side(rows, np.zeros_like(rows), 0) >= 0
        result[table.example[rows[inside]]] = True
    return result
