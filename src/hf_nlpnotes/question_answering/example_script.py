"""The answers of transformers' example script, bit for bit, ties included.

`postprocess_qa_predictions` (examples/pytorch/question-answering/utils_qa.py) crosses the `n_best_size` best starts of
a window with as many ends, collects the valid spans of all windows of a question and sorts them by score, equal ones
in the order in which they were collected: by window, then by rank of the start, then by rank of the end.

`replay` does that for one question. `script_best.py` and `script_lists.py` search all questions at once. Ranks matter
only between equal scores, so they are not computed: the script's starts and ends are those above a cut, and a question
whose result hangs on a tie, or where the script does something special, is left to `replay`. Offsets are looked up
only for the spans found; where one turns out to lie outside the context, the question's windows are searched again
without such tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .feature_table import FeatureTable, Offsets
from .question_search import first_winners


@dataclass(frozen=True)
class ScriptOptions:
    """Options of the script, under its names."""

    version_2_with_negative: bool = False
    n_best_size: int = 20
    max_answer_length: int = 30
    null_score_diff_threshold: float = 0.0


Span = tuple[int, int, Any, Any, Any]
"""Characters from and to, score, start logit, end logit; the last three in the logits' own precision."""

Result = tuple[str, list[dict[str, Any]], float | None]
"""Answer, n-best list, and the score of "no answer" less the best answer's."""


def replay(table: FeatureTable, number: int, start: np.ndarray, end: np.ndarray, options: ScriptOptions) -> Result:
    """Searches one question in the script's own order.

    Args:
        table: The features.
        number: The example.
        start, end: Logits of all features, (features, width).
        options: The script's options.

    Raises:
        ValueError: With `version_2_with_negative` an example has no feature, or no answer but empty ones.
    """
    rows = table.order[table.first[number] : table.first[number + 1]].tolist()
    k = options.n_best_size
    spans: list[Span] = []
    nothing: Span | None = None
    for row in rows:
        score = start[row, 0] + end[row, 0]
        if nothing is None or nothing[2] > score:
            nothing = (0, 0, score, start[row, 0], end[row, 0])
        starts = np.argsort(start[row])[: -k - 1 : -1]
        ends = np.argsort(end[row])[: -k - 1 : -1]
        begin = table.offsets.side(np.full(len(starts), row), starts, 0)
        finish = table.offsets.side(np.full(len(ends), row), ends, 1)
        length = ends[None, :] - starts[:, None] + 1
        valid = (begin >= 0)[:, None] & (finish >= 0) & (length >= 1) & (length <= options.max_answer_length)
        valid &= table.has_max_context(row, starts)[:, None]
        for i, j in np.argwhere(valid).tolist():
            first, last = start[row, starts[i]], end[row, ends[j]]
            spans.append((int(begin[i]), int(finish[j]), first + last, first, last))
    negative = options.version_2_with_negative
    if negative and nothing is not None:
        spans.append(nothing)
    spans = sorted(spans, key=lambda span: span[2], reverse=True)[:k]
    if negative and nothing is not None and all(span[:2] != (0, 0) for span in spans):
        spans.append(nothing)

    context = table.contexts[number]
    entries = [
        {"start_logit": float(first), "end_logit": float(last), "text": context[begin:finish]}
        for begin, finish, _, first, last in spans
    ]
    scores = [span[2] for span in spans]
    logits: list[tuple[Any, Any]] = [span[3:] for span in spans]
    if not entries or (len(entries) == 1 and not entries[0]["text"]):
        entries.insert(0, {"start_logit": 0.0, "end_logit": 0.0, "text": "empty"})
        scores.insert(0, 0.0)
        logits.insert(0, (0.0, 0.0))
    for entry, probability in zip(entries, softmax(np.array(scores)[None])[0].tolist(), strict=True):
        entry["probability"] = probability
    if not negative:
        return str(entries[0]["text"]), entries, None
    place = next((place for place, entry in enumerate(entries) if entry["text"]), None)
    if nothing is None or place is None:
        raise ValueError(
            f"Example {table.example_ids[number]!r} has {'no feature' if nothing is None else 'only empty answers'}:"
            " the example script fails there. mode='exact' gives no answer."
        )
    odds = nothing[2] - logits[place][0] - logits[place][1]
    return "" if odds > options.null_score_diff_threshold else str(entries[place]["text"]), entries, float(odds)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of each row, in the scores' own precision, (rows, scores)."""
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


# What the searches of all questions share


def special_examples(table: FeatureTable, options: ScriptOptions) -> tuple[np.ndarray, np.ndarray]:
    """Which examples are replayed in any case, (examples,) bool, and the numbers of the others."""
    replayed = np.diff(table.first) == 0
    if table.max_context is not None or (options.version_2_with_negative and options.n_best_size == 1):
        # The only place of the list may be taken by "no answer".
        replayed[:] = True
    return replayed, np.flatnonzero(~replayed)


def lowest_nulls(
    table: FeatureTable, start: np.ndarray, end: np.ndarray, examples: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lowest score of the first token over each example's windows and its two logits, (examples,) each."""
    rows = table.rows_of(examples)
    first, last = start[rows, 0], end[rows, 0]
    if not len(rows):
        return first, first, last
    chosen = first_winners(-(first + last), table.example[rows])
    return (first + last)[chosen], first[chosen], last[chosen]


def among_best(logits: np.ndarray, rows: np.ndarray, tokens: np.ndarray, k: int) -> np.ndarray:
    """Whether a row's token is among the script's `k` best whatever becomes of ties, (rows,) bool."""
    if logits.shape[1] <= k:
        return np.ones(len(rows), dtype=bool)
    own = logits[rows, tokens][:, None]
    return np.asarray(np.count_nonzero(logits[rows] >= own, axis=1) <= k)


class ScriptTokens:
    """Rules out what is not among the script's starts and ends of a window.

    Args:
        offsets: If given, tokens outside the context are looked up and ruled out as well.
        k: Number of starts, and of ends.
    """

    def __init__(self, offsets: Offsets | None, k: int) -> None:
        self.offsets = offsets
        self.k = k
        self.unsure: list[np.ndarray] = []

    def __call__(self, rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `question_search.Prepare`. Windows with too few finite logits are noted in `unsure`."""
        kept = [self._only_kept(rows, np.ascontiguousarray(logits)) for logits in (first, last)]
        if self.offsets is not None:
            for values in kept:
                places = np.flatnonzero(values > -np.inf)
                row, token = np.divmod(places, values.shape[1])
                outside = self.offsets.side(rows[row], token, 0) < 0
                values.reshape(-1)[places[outside]] = -np.inf
        return kept[0], kept[1]

    def _only_kept(self, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The script's `k` best of each row, -inf in place of the others, (rows, width)."""
        width = values.shape[1]
        if width <= self.k:
            self.unsure.append(rows[np.isneginf(values).any(axis=1)])
            return values.copy()
        ordered = np.sort(values, axis=1)
        cut = ordered[:, width - self.k]
        self.unsure.append(rows[np.isneginf(cut)])
        kept = values >= cut[:, None]
        tied = np.flatnonzero(cut == ordered[:, width - self.k - 1])
        if len(tied):
            # Which of several equal ones is left to how numpy sorts them.
            kept[tied] = False
            kept[tied[:, None], np.argsort(values[tied], axis=1)[:, -self.k :]] = True
        return np.where(kept, values, values.dtype.type(-np.inf))
