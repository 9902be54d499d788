"""The n-best list of every question, as the example script gives it, probabilities included."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from .collector import collector_at_rest
from .example_script import Result, ScriptOptions, ScriptTokens, lowest_nulls, replay, softmax, special_examples
from .feature_table import FeatureTable, check_characters
from .question_search import QuestionSpans, search_questions
from .script_best import begins_inside

# Examples whose lists are made together: what they take on the way stays in a core's cache.
_EXAMPLES = 512


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
    _, left = special_examples(table, options)
    with collector_at_rest():
        for looked_up in (False, True):
            parts = (left[low : low + _EXAMPLES] for low in range(0, len(left), _EXAMPLES))
            again = [_search(table, start, end, options, part, results, looked_up=looked_up) for part in parts]
            left = np.concatenate(again) if again else left
        for number, result in enumerate(results):
            if result is None:
                results[number] = replay(table, number, start, end, options)
        complete = [result for result in results if result is not None]
    ids = table.example_ids
    answers = {name: result[0] for name, result in zip(ids, complete, strict=True)}
    n_best = {name: result[1] for name, result in zip(ids, complete, strict=True)}
    odds = {name: result[2] for name, result in zip(ids, complete, strict=True) if result[2] is not None}
    return answers, n_best, odds


def _search(
    table: FeatureTable,
    start: np.ndarray,
    end: np.ndarray,
    options: ScriptOptions,
    examples: np.ndarray,
    results: list[Result | None],
    *,
    looked_up: bool,
) -> np.ndarray:
    """Searches examples and writes their results, where the script's order does not decide; gives those left."""
    prepare = ScriptTokens(table.offsets if looked_up else None, options.n_best_size)
    found = search_questions(
        start,
        end,
        table.rows_of(examples),
        table.sizes_of(examples),
        options.n_best_size,
        options.max_answer_length,
        dtype=(start[:0, :1] + end[:0, :1]).dtype,
        prepare=prepare,
        skip_first_token=not looked_up,
    )
    unsure = np.zeros(len(results), dtype=bool)
    for rows in prepare.unsure:
        unsure[table.example[rows]] = True
    filled = ~np.isneginf(found.scores)
    begins, finishes = (np.zeros(filled.shape, dtype=np.int64) for _ in range(2))
    begins[filled], finishes[filled] = looked_up_once(table, found, filled)
    check_characters(table, examples, finishes.max(axis=1))
    # A span that looks like "no answer" keeps the script from adding that.
    empty = ((begins == 0) & (finishes == 0) & filled).any(axis=1)
    special = found.tied | unsure[examples] | ~filled[:, 0] | empty
    outside = ((begins < 0) | (finishes < 0)).any(axis=1) | begins_inside(table, found)[examples]
    outside &= ~special
    _write_lists(table, start, end, options, examples, found, (begins, finishes), ~special & ~outside, results)
    return examples[outside]


def looked_up_once(table: FeatureTable, found: QuestionSpans, filled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Characters at which the spans begin and end, (spans,) each; a token of several spans is looked up once."""
    width = int(found.ends.max(initial=0)) + 1
    row = found.rows[filled]
    lowest = int(row.min(initial=len(table)))
    first, last = ((row - lowest) * width + tokens[filled] for tokens in (found.starts, found.ends))
    wanted = np.zeros((int(row.max(initial=lowest)) - lowest + 1) * width, dtype=bool)
    wanted[first] = True
    wanted[last] = True
    unique = np.flatnonzero(wanted)
    number = np.empty(len(wanted), dtype=np.int32)
    number[unique] = np.arange(len(unique))
    rows, tokens = np.divmod(unique, width)
    begins, finishes = table.offsets.pairs(rows + lowest, tokens)
    return begins[number[first]], finishes[number[last]]


def _write_lists(
    table: FeatureTable,
    start: np.ndarray,
    end: np.ndarray,
    options: ScriptOptions,
    examples: np.ndarray,
    found: QuestionSpans,
    characters: tuple[np.ndarray, np.ndarray],
    done: np.ndarray,
    results: list[Result | None],
) -> None:
    """Puts "no answer" in its place and writes the entries of all examples that are `done`."""
    scores, begins, finishes = found.scores[done], characters[0][done], characters[1][done]
    row = found.rows[done]
    firsts, lasts = start[row, found.starts[done]], end[row, found.ends[done]]
    examples = examples[done]
    counts = (~np.isneginf(scores)).sum(axis=1)
    odds: np.ndarray | None = None
    if options.version_2_with_negative:
        k = options.n_best_size
        null, first, last = lowest_nulls(table, start, end, examples)
        odds = null - firsts[:, 0] - lasts[:, 0]
        # Behind its equals, for it was collected last; cut off with the rest, it comes back at the end.
        position = (scores >= null[:, None]).sum(axis=1)
        counts = np.where(position < k, np.minimum(counts + 1, k), k + 1)
        scores, firsts, lasts, begins, finishes = (
            insert_column(values, position, new)
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
        probabilities[group, :count] = softmax(np.ascontiguousarray(scores[group, :count]))

    listed = np.arange(scores.shape[1]) < counts[:, None]
    contexts = table.contexts
    texts = [
        contexts[example][begin:finish]
        for example, begin, finish in zip(
            np.repeat(examples, counts).tolist(), begins[listed].tolist(), finishes[listed].tolist(), strict=True
        )
    ]
    entries: list[dict[str, Any]] = [
        {"start_logit": first, "end_logit": last, "text": text, "probability": probability}
        for first, last, text, probability in zip(
            firsts[listed].tolist(), lasts[listed].tolist(), texts, probabilities[listed].tolist(), strict=True
        )
    ]
    stops = np.cumsum(counts)
    lists = zip(
        examples.tolist(),
        (stops - counts).tolist(),
        stops.tolist(),
        odds.tolist() if odds is not None else [None] * len(examples),
        (odds > options.null_score_diff_threshold).tolist() if odds is not None else [False] * len(examples),
        strict=True,
    )
    for example, begin, stop, difference, nothing in lists:
        best = texts[begin] or (texts[begin + 1] if odds is not None and stop > begin + 1 else "")
        if best or (odds is None and stop > begin + 1):
            results[example] = ("" if nothing else best, entries[begin:stop], difference)


def insert_column(values: np.ndarray, position: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Each row with one more element at its position, (rows, k + 1)."""
    column = np.arange(values.shape[1] + 1)
    padded = np.concatenate([values, values[:, :1]], axis=1)
    result = np.take_along_axis(padded, column - (column > position[:, None]), axis=1)
    result[np.arange(len(values)), position] = new
    return result
