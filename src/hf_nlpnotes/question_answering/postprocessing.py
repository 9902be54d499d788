"""From logits to answers: the best spans of every question over all windows of its context.

`mode="exact"` finds the best valid spans there are. `mode="example_script"` gives, bit for bit, what
`postprocess_qa_predictions` of transformers' example script gives, which looks at the `n_best_size` best starts
crossed with as many ends, keeps duplicates of overlapping windows, and answers "empty" where it finds nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .example_script import ScriptOptions, best_answers, n_best_answers
from .feature_table import FeatureTable, check_characters, read_features
from .span_search import SpanTable, check_logits, top_spans

Mode = Literal["exact", "example_script"]


@dataclass(frozen=True)
class SpanPredictions:
    """Answers of every example.

    Attributes:
        answers: Id → answer, `""` where none is predicted.
        n_best: Id → the best answers, best first: `text`, `start`, `end` (characters of the context, half-open),
            `start_logit`, `end_logit`, `probability` among these. `"example_script"` has no `start` and `end`.
        null_odds: Id → score of "no answer" less that of the best answer, positive where "no answer" is better;
            `None` where the data set has only answerable questions.
    """

    answers: dict[Hashable, str]
    n_best: dict[Hashable, list[dict[str, Any]]]
    null_odds: dict[Hashable, float] | None


def postprocess_predictions(
    examples: Any,
    features: Any,
    predictions: tuple[Any, Any],
    version_2_with_negative: bool = False,
    n_best_size: int = 20,
    max_answer_length: int = 30,
    null_score_diff_threshold: float = 0.0,
    *,
    mode: Mode = "exact",
    output_dir: str | os.PathLike[str] | None = None,
    prefix: str | None = None,
    id_column: str = "id",
    context_column: str = "context",
) -> dict[Hashable, str]:
    """The best answer of every example.

    Args:
        examples: `datasets.Dataset`, mapping of columns or list of dicts, with ids and contexts.
        features: What `prepare_validation_features` or the example script's function made of them, in the same forms.
        predictions: Start and end logits, each (features, width).
        version_2_with_negative: Some questions have no answer; "no answer" is then `""`.
        n_best_size: Number of candidates an example.
        max_answer_length: Tokens of the longest answer.
        null_score_diff_threshold: "No answer" is predicted where its score exceeds the best answer's by more.
        mode: `"exact"`, or `"example_script"` for the answers of transformers' script, bit for bit.
        output_dir: Folder for `predictions.json`, `nbest_predictions.json` and with `version_2_with_negative`
            `null_odds.json`.
        prefix: Put before the names of these files, with `_`.
        id_column, context_column: Names of the examples' columns.

    Returns:
        Id → answer, in the order of the examples.

    Raises:
        ValueError: Columns or shapes do not fit, logits are NaN, an offset lies outside its context.
        NotADirectoryError: `output_dir` is no folder.
    """
    if mode == "example_script" and output_dir is None:
        _check_options(mode, n_best_size, max_answer_length)
        table = read_features(examples, features, id_column=id_column, context_column=context_column)
        options = ScriptOptions(version_2_with_negative, n_best_size, max_answer_length, null_score_diff_threshold)
        return best_answers(table, *_logits(predictions, len(table)), options)[0]
    found = extract_spans(
        examples,
        features,
        predictions,
        version_2_with_negative,
        n_best_size,
        max_answer_length,
        null_score_diff_threshold,
        mode=mode,
        id_column=id_column,
        context_column=context_column,
    )
    if output_dir is not None:
        save_predictions(found, output_dir, prefix)
    return found.answers


def extract_spans(
    examples: Any,
    features: Any,
    predictions: tuple[Any, Any],
    version_2_with_negative: bool = False,
    n_best_size: int = 20,
    max_answer_length: int = 30,
    null_score_diff_threshold: float = 0.0,
    *,
    mode: Mode = "exact",
    id_column: str = "id",
    context_column: str = "context",
) -> SpanPredictions:
    """The best answers of every example, with scores. Arguments and errors as of `postprocess_predictions`."""
    _check_options(mode, n_best_size, max_answer_length)
    table = read_features(examples, features, id_column=id_column, context_column=context_column)
    start, end = _logits(predictions, len(table))
    if mode == "example_script":
        options = ScriptOptions(version_2_with_negative, n_best_size, max_answer_length, null_score_diff_threshold)
        answers, n_best, odds = n_best_answers(table, start, end, options)
        return SpanPredictions(answers, n_best, odds if version_2_with_negative else None)
    return _exact(
        table, start, end, version_2_with_negative, n_best_size, max_answer_length, null_score_diff_threshold
    )


def save_predictions(
    found: SpanPredictions, output_dir: str | os.PathLike[str], prefix: str | None = None
) -> list[Path]:
    """Writes the JSON files that the example script writes; each is whole or absent.

    Raises:
        NotADirectoryError: `output_dir` is no folder.
    """
    folder = Path(output_dir)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder.")
    parts: dict[str, Any] = {"predictions": found.answers, "nbest_predictions": found.n_best}
    if found.null_odds is not None:
        parts["null_odds"] = found.null_odds
    written = []
    for name, value in parts.items():
        path = folder / f"{prefix + '_' if prefix is not None else ''}{name}.json"
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(value, indent=4) + "\n", encoding="utf-8")
        os.replace(part, path)
        written.append(path)
    return written


def _check_options(mode: str, n_best_size: int, max_answer_length: int) -> None:
    if mode not in ("exact", "example_script"):
        raise ValueError(f"mode must be 'exact' or 'example_script', got {mode!r}.")
    if n_best_size < 1 or max_answer_length < 1:
        raise ValueError(
            f"n_best_size and max_answer_length must be at least 1, got {n_best_size} and {max_answer_length}."
        )


def _logits(predictions: tuple[Any, Any], number: int) -> tuple[np.ndarray, np.ndarray]:
    if len(predictions) != 2:
        raise ValueError(f"predictions must be (start_logits, end_logits), got {len(predictions)} parts.")
    start, end = check_logits(predictions[0], predictions[1])
    if len(start) != number:
        raise ValueError(f"Got logits of {len(start)} features, but there are {number} features.")
    return start, end


def _exact(
    table: FeatureTable,
    start: np.ndarray,
    end: np.ndarray,
    with_negative: bool,
    n_best_size: int,
    max_answer_length: int,
    threshold: float,
) -> SpanPredictions:
    mask = table.offsets.mask(start.shape[1])
    rows, characters, spans = distinct_spans(table, start, end, mask, n_best_size, max_answer_length)
    null = start[np.arange(len(start)), table.cls_index].astype(np.float64)
    null += end[np.arange(len(end)), table.cls_index]

    answers: dict[Hashable, str] = {}
    n_best: dict[Hashable, list[dict[str, Any]]] = {}
    null_odds: dict[Hashable, float] = {}
    order, first = table.order, table.first
    for number, (name, context) in enumerate(zip(table.example_ids, table.contexts, strict=True)):
        own = order[first[number] : first[number + 1]]
        candidates = _merge(own, rows, characters, spans, n_best_size)
        listed: list[dict[str, Any]] = [
            {
                "text": context[begin:finish],
                "start": begin,
                "end": finish,
                "start_logit": float(start[row, token]),
                "end_logit": float(end[row, last - 1]),
            }
            for _, begin, finish, row, token, last in candidates
        ]
        scores = [-candidate[0] for candidate in candidates]
        best = listed[0]["text"] if listed else ""
        if with_negative and len(own):
            row = int(own[np.argmin(null[own])])
            score = float(null[row])
            place = table.cls_index[row]
            odds = score - scores[0] if scores else float("inf")
            null_odds[name] = odds
            if odds > threshold:
                best = ""
            position = sum(other >= score for other in scores)
            nothing: dict[str, Any] = {"text": "", "start": 0, "end": 0}
            nothing |= {"start_logit": float(start[row, place]), "end_logit": float(end[row, place])}
            listed.insert(position, nothing)
            scores.insert(position, score)
        answers[name] = best
        n_best[name] = listed
        if listed:
            weights = np.exp(np.array(scores) - max(scores))
            for entry, probability in zip(listed, (weights / weights.sum()).tolist(), strict=True):
                entry["probability"] = probability
    return SpanPredictions(answers, n_best, null_odds if with_negative else None)


def distinct_spans(
    table: FeatureTable,
    start: np.ndarray,
    end: np.ndarray,
    mask: np.ndarray,
    k: int,
    max_answer_length: int,
) -> tuple[np.ndarray, np.ndarray, SpanTable]:
    """The best spans of each feature, at least `k` that differ in characters where there are as many.

    Several tokens can stand for one character (bytes of a rare one), so that spans of tokens differ and answers do
    not. More spans are then asked for, until there are enough.

    Returns:
        For each span of the table in turn, valid ones only: its feature, (spans,), and characters, (spans, 2); and the
        table.
    """
    asked = k
    most = start.shape[1] * min(max_answer_length, start.shape[1]) if start.size else k
    while True:
        spans = top_spans(start, end, asked, start_mask=mask, end_mask=mask, max_answer_length=max_answer_length)
        rows, places = np.nonzero(spans.starts >= 0)
        begins = table.offsets.side(rows, spans.starts[rows, places], 0)
        ends = table.offsets.side(rows, spans.ends[rows, places] - 1, 1)
        check_characters(table, table.example[rows], ends)
        if asked >= most:
            break
        full = np.bincount(rows, minlength=len(start)) == asked
        distinct = np.unique(np.stack([rows, begins, ends], axis=1), axis=0)
        if (np.bincount(distinct[:, 0], minlength=len(start))[full] >= k).all():
            break
        asked = min(2 * asked, most)
    return rows, np.stack([begins, ends], axis=1), spans


def _merge(
    own: np.ndarray, rows: np.ndarray, characters: np.ndarray, spans: SpanTable, k: int
) -> list[tuple[float, int, int, int, int, int]]:
    """The best `k` spans of an example that differ in characters: (-score, begin, end, feature, token, last token)."""
    candidates: list[tuple[float, int, int, int, int, int]] = []
    for row in own.tolist():
        low, high = np.searchsorted(rows, [row, row + 1])
        number = high - low
        candidates.extend(
            zip(
                (-spans.scores[row, :number]).tolist(),
                characters[low:high, 0].tolist(),
                characters[low:high, 1].tolist(),
                [row] * number,
                spans.starts[row, :number].tolist(),
                spans.ends[row, :number].tolist(),
                strict=True,
            )
        )
    candidates.sort()
    seen: set[tuple[int, int]] = set()
    kept = []
    for candidate in candidates:
        if candidate[1:3] not in seen:
            seen.add(candidate[1:3])
            kept.append(candidate)
            if len(kept) == k:
                break
    return kept
