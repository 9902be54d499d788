"""Exact match and F1 while training: `compute_metrics` for the stock Trainer, and the features that it needs.

    features = examples.map(prepare_evaluation_features, batched=True, remove_columns=examples.column_names,
                            fn_kwargs={"tokenizer": tokenizer, "max_length": 128, "doc_stride": 32})
    trainer = Trainer(..., eval_dataset=features, compute_metrics=SpanMetrics(examples, features, "cmrc2018"))

No subclass is needed: the Trainer drops the columns that the model does not take and gives back the logits of all
windows in the order of the features, from all processes if there are several; `SpanMetrics` reads answers off them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .answers import locate_answers
from .features import prepare_train_features, prepare_validation_features
from .metrics import best_threshold, cmrc2018, drcd, squad_v1, squad_v2, squad_v2_scores
from .postprocessing import Mode, SpanPredictions, extract_spans

MetricName = Literal["squad_v1", "squad_v2", "cmrc2018", "drcd"]
Answers = Mapping[Any, Sequence[str]]

_METRICS: dict[str, Callable[[Any, Any], dict[str, Any]]] = {
    "squad_v1": squad_v1,
    "squad_v2": squad_v2,
    "cmrc2018": cmrc2018,
    "drcd": drcd,
}
_LABELS = ("start_positions", "end_positions")


def prepare_evaluation_features(
    examples: Mapping[str, Sequence[Any]],
    tokenizer: Any,
    max_length: int = 384,
    doc_stride: int = 128,
    *,
    question_column: str = "question",
    context_column: str = "context",
    answers_column: str = "answers",
    id_column: str = "id",
    **options: Any,
) -> dict[str, Any]:
    """Windows with what `postprocess_predictions` needs, and with labels: without them the Trainer calls no metric.

    No example is left out, unlike for training: one whose context has none of its answers is asked all the same, and
    counts as one without an answer in the loss alone.

    Args:
        examples: Columns: ids, questions, contexts, and answers as `{"text": [...], "answer_start": [...]}`.
        tokenizer, max_length, doc_stride: As for `prepare_train_features`.
        question_column, context_column, answers_column, id_column: Names of the columns.
        options: Further ones of `prepare_train_features` and `prepare_validation_features`: `max_question_length`,
            `padding`.

    Returns:
        The columns of `prepare_validation_features`, `start_positions` and `end_positions`.

    Raises:
        TypeError, ValueError: As `prepare_train_features`.
    """
    options |= {"question_column": question_column, "context_column": context_column}
    features = prepare_validation_features(examples, tokenizer, max_length, doc_stride, id_column=id_column, **options)
    if answers_column not in (getattr(examples, "column_names", None) or examples):
        raise ValueError(f"examples has no column {answers_column!r}; without answers: prepare_validation_features")
    contexts, answers = list(examples[context_column]), list(examples[answers_column])
    labelled = {
        question_column: list(examples[question_column]),
        context_column: contexts,
        answers_column: [_usable(context, each) for context, each in zip(contexts, answers, strict=True)],
    }
    labels = prepare_train_features(
        labelled, tokenizer, max_length, doc_stride, answers_column=answers_column, **options
    )
    assert len(labels["input_ids"]) == len(features["input_ids"]), "the same windows, in the same order"
    return features | {name: labels[name] for name in _LABELS}


@dataclass(frozen=True)
class SpanMetrics:
    """A `compute_metrics` for the stock Trainer: from the logits of all windows to exact match and F1.

    Attributes:
        examples: `datasets.Dataset`, mapping of columns or list of dicts, with ids, contexts and answers.
        features: What `prepare_evaluation_features` made of them, in its order.
        metric: `"squad_v1"`, `"squad_v2"` (some questions have no answer), `"cmrc2018"` or `"drcd"`.
        n_best_size: Number of candidates an example.
        max_answer_length: Tokens of the longest answer.
        null_score_diff_threshold: For `"squad_v2"`: "no answer" is predicted where its score exceeds the best
            answer's by more.
        mode: As for `postprocess_predictions`.
        id_column, context_column, answers_column: Names of the examples' columns.

    Raises:
        ValueError: The metric is unknown.
    """

    examples: Any
    features: Any
    metric: MetricName = "squad_v1"
    n_best_size: int = 20
    max_answer_length: int = 30
    null_score_diff_threshold: float = 0.0
    mode: Mode = "exact"
    id_column: str = "id"
    context_column: str = "context"
    answers_column: str = "answers"

    def __post_init__(self) -> None:
        if self.metric not in _METRICS:
            raise ValueError(f"metric must be one of {', '.join(_METRICS)}, got {self.metric!r}")

    def __call__(self, prediction: Any) -> dict[str, Any]:
        """Metrics of an `EvalPrediction`, in per cent.

        With `"squad_v2"` also `best_f1` and `best_f1_thresh`, what the best threshold on these very data would reach.

        Raises:
            ValueError: The logits are not those of the features, in their order.
        """
        self._check_order(prediction.label_ids)
        found = self.answers(prediction.predictions)
        references = self.references()
        scores = dict(_METRICS[self.metric](found.answers, references))
        if self.metric == "squad_v2":
            scores["best_f1"], scores["best_f1_thresh"] = best_null_threshold(found, references)
        return scores

    def answers(self, logits: Sequence[Any]) -> SpanPredictions:
        """Answers from `(start_logits, end_logits, …)`, each (features, width); what else the model gives is left.

        Args:
            logits: The model's outputs, `(start_logits, end_logits, …)`, each (features, width).
        """
        return extract_spans(
            self.examples,
            self.features,
            (logits[0], logits[1]),
            self.metric == "squad_v2",
            self.n_best_size,
            self.max_answer_length,
            self.null_score_diff_threshold,
            mode=self.mode,
            id_column=self.id_column,
            context_column=self.context_column,
        )

    def references(self) -> dict[Hashable, list[str]]:
        """The texts of the answers of every example."""
        ids, answers = (self._column(name) for name in (self.id_column, self.answers_column))
        return {key: list(each["text"]) for key, each in zip(ids, answers, strict=True)}

    def _column(self, name: str) -> list[Any]:
        if isinstance(self.examples, Sequence):
            return [example[name] for example in self.examples]
        return list(self.examples[name])

    def _check_order(self, label_ids: Any) -> None:
        """The labels come back in the order of the logits: where it is another one, answers would get mixed up."""
        if not isinstance(label_ids, tuple) or len(label_ids) != len(_LABELS):
            return
        for name, given in zip(_LABELS, label_ids, strict=True):
            own = self._labels(name)
            if own is not None and not np.array_equal(own, given):
                raise ValueError(
                    f"the {len(given)} labels that came back are not the {len(own)} {name} of the features, in their"
                    " order: evaluate on the features that SpanMetrics was given, and without"
                    " train_sampling_strategy='group_by_length', which sorts evaluation data too"
                )

    def _labels(self, name: str) -> np.ndarray | None:
        rows = self.features
        if isinstance(rows, Sequence):
            return np.array([row[name] for row in rows]) if rows and name in rows[0] else None
        return np.asarray(rows[name]) if name in (getattr(rows, "column_names", None) or rows) else None


def best_null_threshold(
    found: SpanPredictions, references: Answers, score: Literal["exact", "f1"] = "f1"
) -> tuple[float, float]:
    """The `null_score_diff_threshold` with the best mean score, and that score. Tune it on one data set for another.

    Args:
        found: From `extract_spans` with `version_2_with_negative=True`, whatever its threshold.
        references: Id → texts of the answers, none where the question has no answer.
        score: What to make best.

    Returns:
        The score in per cent and the threshold, the odds of the most doubtful question that is still answered.

    Raises:
        ValueError: `found` has no null odds, or a question has no references.
    """
    if found.null_odds is None:
        raise ValueError("found has no null odds: extract_spans gives them with version_2_with_negative=True")
    missing = [key for key in found.answers if key not in references]
    if missing:
        raise ValueError(f"{len(missing)} of {len(found.answers)} questions have no references: {missing[:3]}")
    texts = {key: next((entry["text"] for entry in found.n_best[key] if entry["text"]), "") for key in found.null_odds}
    place = ("exact", "f1").index(score)
    scores = {key: squad_v2_scores(references[key], text)[place] for key, text in texts.items()}
    # Ranks instead of odds: the search starts at 0 and takes that for "no question is answered".
    odds = sorted(set(found.null_odds.values()))
    ranks = {value: rank for rank, value in enumerate(odds, 1)}
    best, rank = best_threshold(
        scores,
        {key: ranks[value] for key, value in found.null_odds.items()},
        texts,
        {key: bool(references[key]) for key in texts},
    )
    return best, odds[int(rank) - 1] if rank else math.nextafter(odds[0], -math.inf)


def _usable(context: str, answers: Any) -> Any:
    """The answers, or none where the context has none of them and `prepare_train_features` would leave it out."""
    if isinstance(answers, Mapping) and {"text", "answer_start"} <= answers.keys() and answers["text"]:
        spans = locate_answers(context, answers)
        if all(span.state == "missing" for span in spans):
            return {"text": [], "answer_start": []}
    return answers
