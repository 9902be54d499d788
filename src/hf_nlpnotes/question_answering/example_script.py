"""The answers of transformers' example script, bit for bit, ties included.

`postprocess_qa_predictions` (examples/pytorch/question-answering/utils_qa.py) crosses the `n_best_size` best starts of
a window with as many ends, collects the valid spans of all windows of a question and sorts them by score, equal ones
in the order in which they were collected: by window, then by rank of the start, then by rank of the end.

Here all windows are searched at once. Ranks matter only between equal scores, so they are not computed: the script's
starts and ends are those above a cut, and a question whose result hangs on a tie, or where the script does something
special, is searched again by `replay`, which follows the script's order. Offsets are looked up only for the spans
found; where one turns out to lie outside the context, the question's windows are searched again without such tokens.
"""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .feature_table import FeatureTable, check_characters
from .span_search import running_maximum

# Rows that are searched together: their logits and two copies stay in a core's cache.
_ROWS = 128


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


# One question, as the script does it


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
        if table.max_context is not None and (best := table.max_context[row]) is not None:
            valid &= np.array([bool(best.get(str(token), False)) for token in starts.tolist()])[:, None]
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
    for entry, probability in zip(entries, _softmax(np.array(scores)[None])[0].tolist(), strict=True):
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


def _softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of each row, in the scores' own precision, (rows, scores)."""
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


# The best answer of every question


@dataclass(frozen=True)
class _Best:
    """The best span of each of some windows, (rows,) each; `tied` where the script's order decides."""

    scores: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    tied: np.ndarray


def best_answers(
    table: FeatureTable, start: np.ndarray, end: np.ndarray, options: ScriptOptions
) -> tuple[dict[Hashable, str], dict[Hashable, float]]:
    """Answers, and with `version_2_with_negative` scores of "no answer" less the answers', without n-best lists.

    Args:
        table: The features.
        start, end: Logits, (features, width).
        options: The script's options.
    """
    count, negative = len(table.example_ids), options.version_2_with_negative
    begins, finishes = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    firsts, lasts = np.zeros(count, dtype=start.dtype), np.zeros(count, dtype=end.dtype)
    replayed, left = _special_examples(table, options)
    inside = _first_token_inside(table)
    # First among all spans, whose best nearly always starts and ends where the script looks; then only among the
    # script's starts and ends; then without those that turned out to lie outside the context.
    for restricted, known in ((False, inside), (True, inside), (True, None)):
        rows = _rows_of(table, left)
        if not len(rows):
            break
        found = _search_windows(table, start, end, rows, options, known, restricted=restricted)
        winners = _first_winners(found.scores, table.example[rows])
        row, first, last = rows[winners], found.starts[winners], found.ends[winners]
        example = table.example[row]
        begins[example] = table.offsets.side(row, first, 0)
        finishes[example] = table.offsets.side(row, last, 1)
        firsts[example], lasts[example] = start[row, first], end[row, last]
        special = found.tied[winners] | np.isneginf(found.scores[winners])
        again = ((begins[example] < 0) | (finishes[example] < 0)) & ~special
        if not restricted:
            again |= ~special & ~(_among_best(start, row, first, options) & _among_best(end, row, last, options))
        replayed[example[special]] = True
        left = example[again]
    check_characters(table, np.arange(count), finishes)
    texts = [
        context[begin:finish]
        for context, begin, finish in zip(table.contexts, begins.tolist(), finishes.tolist(), strict=True)
    ]
    odds: list[float] = []
    if negative:
        differences = _null_scores(table, start, end, replayed) - firsts - lasts
        nothing = (differences > options.null_score_diff_threshold).tolist()
        replayed |= [not text for text in texts]
        texts = ["" if none else text for text, none in zip(texts, nothing, strict=True)]
        odds = differences.tolist()
    for number in np.flatnonzero(replayed).tolist():
        text, _, difference = replay(table, number, start, end, options)
        texts[number] = text
        if difference is not None:
            odds[number] = difference
    ids = table.example_ids
    return dict(zip(ids, texts, strict=True)), dict(zip(ids, odds, strict=True)) if negative else {}


def _special_examples(table: FeatureTable, options: ScriptOptions) -> tuple[np.ndarray, np.ndarray]:
    """Which examples are replayed in any case, (examples,) bool, and the numbers of the others."""
    replayed = np.diff(table.first) == 0
    if table.max_context is not None or (options.version_2_with_negative and options.n_best_size == 1):
        # The only place of the list may be taken by "no answer".
        replayed[:] = True
    return replayed, np.flatnonzero(~replayed)


def _rows_of(table: FeatureTable, examples: np.ndarray) -> np.ndarray:
    """Features of some examples, those of one example together, (rows,)."""
    if len(examples) == len(table.example_ids):
        return table.order
    chosen = np.zeros(len(table.example_ids), dtype=bool)
    chosen[examples] = True
    return table.order[chosen[table.example[table.order]]]


def _first_token_inside(table: FeatureTable) -> np.ndarray:
    """Whether each window's first token may be in an answer, (features,): the one that scores high outside."""
    rows = np.arange(len(table))
    return np.asarray(table.offsets.side(rows, np.zeros_like(rows), 0) >= 0)


def _first_winners(scores: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Place of the best score of each run of equal `owners`, the first one among equals, (runs,)."""
    first = np.flatnonzero(np.concatenate([[True], owners[1:] != owners[:-1]]))
    best = np.repeat(np.maximum.reduceat(scores, first), np.diff(np.append(first, len(owners))))
    places = np.flatnonzero(scores == best)
    return places[np.concatenate([[True], owners[places][1:] != owners[places][:-1]])]


def _null_scores(table: FeatureTable, start: np.ndarray, end: np.ndarray, replayed: np.ndarray) -> np.ndarray:
    """Lowest score of the first token over each example's windows, (examples,); 0 where it has none."""
    scores = start[table.order, 0] + end[table.order, 0]
    result = np.zeros(len(replayed), dtype=scores.dtype)
    filled = np.diff(table.first) > 0
    if filled.any():
        result[filled] = np.minimum.reduceat(scores, table.first[:-1][filled])
    return result


def _among_best(logits: np.ndarray, rows: np.ndarray, tokens: np.ndarray, options: ScriptOptions) -> np.ndarray:
    """Whether a row's token is among the script's best whatever becomes of ties, (rows,) bool."""
    if logits.shape[1] <= options.n_best_size:
        return np.ones(len(rows), dtype=bool)
    own = logits[rows, tokens][:, None]
    return np.asarray(np.count_nonzero(logits[rows] >= own, axis=1) <= options.n_best_size)


def _cut(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k-th best value of each row, (rows, 1), and the rows where the next is equal, (tied,)."""
    width = values.shape[1]
    if width <= k:
        return np.full((len(values), 1), -np.inf, dtype=values.dtype), np.zeros(0, dtype=np.int64)
    ordered = np.sort(values, axis=1)
    return ordered[:, width - k, None], np.flatnonzero(ordered[:, width - k] == ordered[:, width - k - 1])


def _kept(values: np.ndarray, k: int) -> np.ndarray:
    """Where the script's `k` best of each row are, left to right: places in the flat array, (rows, min(k, width))."""
    rows, width = values.shape
    cut, tied = _cut(values, k)
    kept: np.ndarray = values >= cut
    if len(tied):
        # Which of several equal ones is left to how numpy sorts them.
        kept[tied] = False
        kept[tied[:, None], np.argsort(values[tied], axis=1)[:, -k:]] = True
    return np.flatnonzero(kept).reshape(rows, min(k, width))


def _only_kept(values: np.ndarray, k: int) -> np.ndarray:
    """The script's `k` best of each row, -inf in place of the others, (rows, width)."""
    places = _kept(values, k)
    result = np.full(values.shape, -np.inf, dtype=values.dtype)
    result.reshape(-1)[places] = values.reshape(-1)[places]
    return result


def _parts(rows: np.ndarray) -> Iterator[tuple[slice, slice | np.ndarray]]:
    """A few rows at a time: their places in `rows`, and what takes them out of an array, without a copy if it can."""
    whole = bool((np.diff(rows) == 1).all())
    for low in range(0, len(rows), _ROWS):
        span = slice(low, min(low + _ROWS, len(rows)))
        yield span, slice(rows[span.start], rows[span.stop - 1] + 1) if whole else rows[span]


def _search_windows(
    table: FeatureTable,
    start: np.ndarray,
    end: np.ndarray,
    rows: np.ndarray,
    options: ScriptOptions,
    inside: np.ndarray | None,
    *,
    restricted: bool,
) -> _Best:
    """The best span of each row, with `restricted` among the script's starts and ends.

    `inside` says whether the rows' first tokens count, and all others are taken to; `None` looks all of them up.
    """
    size, width = len(rows), start.shape[1]
    length = min(options.max_answer_length, width)
    scores = np.empty(size, dtype=(start[:0, :1] + end[:0, :1]).dtype)
    starts, ends = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    tied = np.empty(size, dtype=bool)
    reach = np.arange(length)
    room = min(size, _ROWS)
    work = np.empty((2, room, width + length - 1), dtype=end.dtype)
    added = np.empty((room, width), dtype=scores.dtype)
    for span, part in _parts(rows):
        place = np.arange(span.stop - span.start)
        first, last = start[part], end[part]
        if restricted:
            first, last = (_only_kept(np.ascontiguousarray(logits), options.n_best_size) for logits in (first, last))
        if inside is None:
            for values in (first, last):
                places = np.flatnonzero(values > -np.inf)
                outside = table.offsets.side(rows[span][places // width], places % width, 0) < 0
                values.reshape(-1)[places[outside]] = -np.inf
        # A start outside takes all its spans away; of its own end, the first token has no other.
        sums = np.add(running_maximum(last, length, work), first, out=added[: len(place)])
        if inside is not None:
            sums[~inside[part], 0] = -np.inf
        chosen = sums.argmax(axis=1)
        best = sums[place, chosen]
        sums[place, chosen] = -np.inf
        reached = chosen[:, None] + reach
        closing = first[place, chosen][:, None] + last[place[:, None], np.minimum(reached, width - 1)]
        equal = (closing == best[:, None]) & (reached < width)
        scores[span], starts[span] = best, chosen
        ends[span] = chosen + equal.argmax(axis=1)
        tied[span] = (sums.max(axis=1) == best) | (np.count_nonzero(equal, axis=1) > 1)
    return _Best(scores, starts, ends, tied)


# The n-best list of every question


@dataclass(frozen=True)
class _Lists:
    """The best spans of some examples, (examples, k) each, best first; -inf scores fill up.

    `tied`: (examples,), where the script's order decides, or too few logits are finite. `rows` are places in the
    windows that were searched, `starts` and `ends` places in `tokens`, (2, windows, kept): each window's starts and
    ends that were kept.
    """

    scores: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    tied: np.ndarray
    tokens: np.ndarray


def n_best_answers(
    table: FeatureTable, start: np.ndarray, end: np.ndarray, options: ScriptOptions
) -> tuple[dict[Hashable, str], dict[Hashable, list[dict[str, Any]]], dict[Hashable, float]]:
    """Answers, n-best lists, and with `version_2_with_negative` scores of "no answer" less the answers'.

    Args:
        table: The features.
        start, end: Logits, (features, width).
        options: The script's options.
    """
    results: list[Result | None] = [None] * len(table.example_ids)
    _, left = _special_examples(table, options)
    inside = _first_token_inside(table)
    with _collector_at_rest():
        for attempt in range(2):
            if not len(left):
                break
            rows = _rows_of(table, left)
            found = _search_lists(table, start, end, rows, left, options, inside if not attempt else None)
            filled = ~np.isneginf(found.scores)
            characters = np.zeros((*found.scores.shape, 2), dtype=np.int64)
            for side, places in enumerate((found.starts, found.ends)):
                characters[filled, side] = _looked_up(
                    table, rows, found.tokens[side], found.rows[filled], places[filled], side
                )
            check_characters(table, left, characters[..., 1].max(axis=1))
            special = found.tied | ~filled[:, 0] | ((characters == 0).all(axis=2) & filled).any(axis=1)
            outside = (characters < 0).any(axis=(1, 2)) & ~special
            _write_lists(table, start, end, options, rows, left, found, characters, ~special & ~outside, results)
            left = left[outside]
        for number, result in enumerate(results):
            if result is None:
                results[number] = replay(table, number, start, end, options)
        complete = [result for result in results if result is not None]
    ids = table.example_ids
    answers = {name: result[0] for name, result in zip(ids, complete, strict=True)}
    n_best = {name: result[1] for name, result in zip(ids, complete, strict=True)}
    odds = {name: result[2] for name, result in zip(ids, complete, strict=True) if result[2] is not None}
    return answers, n_best, odds


def _search_lists(
    table: FeatureTable,
    start: np.ndarray,
    end: np.ndarray,
    rows: np.ndarray,
    examples: np.ndarray,
    options: ScriptOptions,
    inside: np.ndarray | None,
) -> _Lists:
    """The best spans of each of `examples`, whose windows are `rows`, among the script's starts and ends."""
    k, width = options.n_best_size, start.shape[1]
    kept = min(k, width)
    dtype = (start[:0, :1] + end[:0, :1]).dtype
    grid = np.full((len(rows), kept * kept), -np.inf, dtype=dtype)
    tokens = np.empty((2, len(rows), kept), dtype=np.int32)
    unsure = np.empty(len(rows), dtype=bool)
    far = 2 * width
    for span, part in _parts(rows):
        size = span.stop - span.start
        chosen, searched = [], []
        for side, logits in enumerate((start, end)):
            values = np.ascontiguousarray(logits[part])
            places = _kept(values, k)
            token = places - np.arange(0, size * width, width)[:, None]
            tokens[side, span] = token
            chosen.append(values.reshape(-1)[places])
            if inside is not None:
                barred = (token == 0) & ~inside[part][:, None]
            else:
                looked_up = table.offsets.side(np.repeat(rows[span], kept), token.ravel(), 0)
                barred = (looked_up < 0).reshape(size, kept)
            # Starts moved beyond every end, ends before every start.
            searched.append((token + np.where(barred, -far if side else far, 0)).astype(np.int32))
        length = searched[1][:, None, :] - searched[0][:, :, None]
        # One comparison: as an unsigned number, a negative length is a large one.
        allowed = np.flatnonzero(length.view(np.uint32) < min(options.max_answer_length, width))
        sums = chosen[0][:, :, None] + chosen[1][:, None, :]
        grid[span].reshape(-1)[allowed] = sums.reshape(-1)[allowed]
        unsure[span] = np.isneginf(chosen[0]).any(axis=1) | np.isneginf(chosen[1]).any(axis=1)

    sizes = np.diff(table.first)[examples]
    before = np.cumsum(sizes) - sizes
    shape = (len(examples), k)
    result = _Lists(
        np.full(shape, -np.inf, dtype=dtype),
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.zeros(len(examples), dtype=bool),
        tokens,
    )
    for size in np.unique(sizes).tolist():
        group = np.flatnonzero(sizes == size)
        windows = before[group][:, None] + np.arange(size)
        scores = grid[windows].reshape(len(group), -1)
        # Equal scores are left to `replay`, so that any order of them will do here.
        ordered = np.sort(scores, axis=1)[:, ::-1][:, : k + 1]
        values = ordered[:, :k]
        twins = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > -np.inf)
        best = _kept(scores, k)
        order = np.argsort(-scores.reshape(-1)[best], axis=1)
        best = np.take_along_axis(best, order, axis=1) % scores.shape[1]
        listed = slice(0, best.shape[1])
        result.scores[group, listed] = values
        result.rows[group, listed] = np.take_along_axis(windows, best // (kept * kept), axis=1)
        result.starts[group, listed] = best // kept % kept
        result.ends[group, listed] = best % kept
        result.tied[group] = twins.any(axis=1) | unsure[windows].any(axis=1)
    return result


def _looked_up(
    table: FeatureTable, rows: np.ndarray, tokens: np.ndarray, row: np.ndarray, place: np.ndarray, side: int
) -> np.ndarray:
    """Characters at which `tokens[row, place]` of windows `rows[row]` begin or end; each looked up once, (spans,)."""
    kept = tokens.shape[1]
    flat = row * kept + place
    wanted = np.zeros(tokens.size, dtype=bool)
    wanted[flat] = True
    unique = np.flatnonzero(wanted)
    found = np.empty(tokens.size, dtype=np.int64)
    found[unique] = table.offsets.side(rows[unique // kept], tokens.reshape(-1)[unique], side)
    return np.asarray(found[flat])


def _write_lists(
    table: FeatureTable,
    start: np.ndarray,
    end: np.ndarray,
    options: ScriptOptions,
    rows: np.ndarray,
    examples: np.ndarray,
    found: _Lists,
    characters: np.ndarray,
    done: np.ndarray,
    results: list[Result | None],
) -> None:
    """Puts "no answer" in its place and writes the entries of all examples that are `done`."""
    scores, begins, finishes = found.scores[done], characters[done, :, 0], characters[done, :, 1]
    row = found.rows[done]
    firsts = start[rows[row], found.tokens[0][row, found.starts[done]]]
    lasts = end[rows[row], found.tokens[1][row, found.ends[done]]]
    examples = examples[done]
    counts = (~np.isneginf(scores)).sum(axis=1)
    odds: np.ndarray | None = None
    if options.version_2_with_negative:
        k = options.n_best_size
        null, first, last = _lowest_null(table, start, end, examples)
        odds = null - firsts[:, 0] - lasts[:, 0]
        # Behind its equals, for it was collected last; cut off with the rest, it comes back at the end.
        position = (scores >= null[:, None]).sum(axis=1)
        counts = np.where(position < k, np.minimum(counts + 1, k), k + 1)
        scores, firsts, lasts, begins, finishes = (
            _insert(values, position, new)
            for values, new in (
                (scores, null),
                (firsts, first),
                (lasts, last),
                (begins, np.zeros_like(position)),
                (finishes, np.zeros_like(position)),
            )
        )
    probabilities = np.zeros(scores.shape, dtype=scores.dtype)
    for count in np.unique(counts).tolist():
        group = np.flatnonzero(counts == count)
        probabilities[group, :count] = _softmax(np.ascontiguousarray(scores[group, :count]))

    lists = zip(
        examples.tolist(),
        counts.tolist(),
        firsts.tolist(),
        lasts.tolist(),
        begins.tolist(),
        finishes.tolist(),
        probabilities.tolist(),
        odds.tolist() if odds is not None else [None] * len(examples),
        (odds > options.null_score_diff_threshold).tolist() if odds is not None else [False] * len(examples),
        strict=True,
    )
    contexts = table.contexts
    for example, count, first, last, begin, finish, probability, difference, nothing in lists:
        context = contexts[example]
        entries: list[dict[str, Any]] = [
            {"start_logit": a, "end_logit": b, "text": context[x:y], "probability": p}
            for a, b, x, y, p in zip(first[:count], last, begin, finish, probability, strict=False)
        ]
        best = entries[0]["text"] or (entries[1]["text"] if odds is not None and count > 1 else "")
        if best or (odds is None and count > 1):
            results[example] = ("" if nothing else best, entries, difference)


def _lowest_null(
    table: FeatureTable, start: np.ndarray, end: np.ndarray, examples: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lowest score of the first token over each example's windows and its two logits, (examples,) each."""
    rows = _rows_of(table, examples)
    first, last = start[rows, 0], end[rows, 0]
    if not len(rows):
        return first, first, last
    chosen = _first_winners(-(first + last), table.example[rows])
    return (first + last)[chosen], first[chosen], last[chosen]


def _insert(values: np.ndarray, position: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Each row with one more element at its position, (rows, k + 1)."""
    column = np.arange(values.shape[1] + 1)
    padded = np.concatenate([values, values[:, :1]], axis=1)
    result = np.take_along_axis(padded, column - (column > position[:, None]), axis=1)
    result[np.arange(len(values)), position] = new
    return result


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """No garbage collection: tens of thousands of small dicts, none in a cycle, would call for many."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
