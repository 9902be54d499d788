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

from .exact_answers import ExactOptions, NullScore, exact_best, exact_lists
from .example_script import ScriptOptions
from .feature_table import read_features
from .script_best import best_answers
from .script_lists import n_best_answers
from .span_search import check_logits

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
    null_score: NullScore = "min",
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
        null_score: How the windows' scores of "no answer" become one: `"min"`, the lowest, or `"product"`, of their
            probabilities, against the answer's in its window. The latter in mode `"exact"` only.
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
    if output_dir is None:
        _check_options(mode, n_best_size, max_answer_length, null_score)
        table = read_features(examples, features, id_column=id_column, context_column=context_column)
        start, end = _logits(predictions, len(table))
        values = version_2_with_negative, n_best_size, max_answer_length, null_score_diff_threshold
        if mode == "example_script":
            return best_answers(table, start, end, ScriptOptions(*values))[0]
        return exact_best(table, start, end, ExactOptions(*values, null_score))
    found = extract_spans(
        examples,
        features,
        predictions,
        version_2_with_negative,
        n_best_size,
        max_answer_length,
        null_score_diff_threshold,
        mode=mode,
        null_score=null_score,
        id_column=id_column,
        context_column=context_column,
    )
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
    null_score: NullScore = "min",
    id_column: str = "id",
    context_column: str = "context",
) -> SpanPredictions:
    """The best answers of every example, with scores. Arguments and errors as of `postprocess_predictions`."""
    _check_options(mode, n_best_size, max_answer_length, null_score)
    table = read_features(examples, features, id_column=id_column, context_column=context_column)
    start, end = _logits(predictions, len(table))
    if mode == "example_script":
        options = ScriptOptions(version_2_with_negative, n_best_size, max_answer_length, null_score_diff_threshold)
        answers, n_best, odds = n_best_answers(table, start, end, options)
        return SpanPredictions(answers, n_best, odds if version_2_with_negative else None)
    exact = ExactOptions(
        version_2_with_negative, n_best_size, max_answer_length, null_score_diff_threshold, null_score
    )
    answers, n_best, odds = exact_lists(table, start, end, exact)
    return SpanPredictions(answers, n_best, odds if version_2_with_negative else None)


def save_predictions(
    found: SpanPredictions, output_dir: str | os.PathLike[str], prefix: str | None = None
) -> list[Path]:
    """Writes the JSON files that the example script writes; each is whole or absent.

    Args:
        found: From `extract_spans`.
        output_dir: The folder, which must exist.
        prefix: Stands before each file's name, with an underscore; None: nothing.

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
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_text(json.dumps(value, indent=4) + "\n", encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        written.append(path)
    return written


def _check_options(mode: str, n_best_size: int, max_answer_length: int, null_score: str) -> None:
    if null_score not in ("min", "product") or (null_score == "product" and mode == "example_script"):
        raise ValueError(
            f"null_score must be 'min' or 'product', and 'min' with mode='example_script', got {null_score!r}."
        )
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
