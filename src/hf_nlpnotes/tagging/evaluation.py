"""Scores during training: what the stock Trainer takes as `compute_metrics`.

    trainer = Trainer(
        model, args,
        compute_metrics=TaggingMetrics(model.config.id2label),
        preprocess_logits_for_metrics=best_labels,
        ...
    )

`best_labels` keeps one id a token instead of all logits, which spares a long evaluation most of its memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from .metrics import Mode, count_coded_spans, scores_by_type, span_scores
from .schemes import Scheme, detect_scheme, get_scheme
from .tag_codes import IGNORE_INDEX, encode_tags

_BIOES_LETTERS = {"M": "I", "L": "E", "U": "S"}


def best_labels(logits: Any, _labels: Any = None) -> torch.Tensor:
    """Return the best label of each token, (batch, seq), of logits (batch, seq, labels) or a tuple that begins so.

    Args:
        logits: a model's output after its loss.
        _labels: not used; the Trainer passes them.
    """
    first = logits[0] if isinstance(logits, (tuple, list)) else logits
    best: torch.Tensor = first.argmax(dim=-1) if first.is_floating_point() else first
    return best


class TaggingMetrics:
    """Precision, recall and F1 of spans, and the accuracy of tags, from a Trainer's predictions.

    Each row that the Trainer evaluates counts for itself. Where long sentences are cut into overlapping windows,
    tokens in the overlap count twice: score whole sentences after `merge_windows` instead.

    Args:
        id2label: the config's, or the tags in the order of their ids.
        scheme: the tagging scheme; None: told from the labels. Single tags (parts of speech) have accuracy alone.
        mode: None or "strict", see `metrics`. In the default mode BILOU and BMES are read as BIOES with other letters,
            which seqeval's default reading does not know.
        by_type: whether to give each type's scores as well, as `f1_PER`.
        ignore_index: label of the positions to leave out.

    Raises:
        ValueError: labels that fit no scheme.
    """

    def __init__(
        self,
        id2label: Mapping[int, str] | Sequence[str],
        *,
        scheme: str | Scheme | None = None,
        mode: Mode = None,
        by_type: bool = False,
        ignore_index: int = IGNORE_INDEX,
    ) -> None:
        self.labels = [id2label[number] for number in range(len(id2label))]
        self.scheme = get_scheme(scheme or detect_scheme(self.labels))
        if mode is None and self.scheme.name in ("BILOU", "BMES", "BMESO"):
            self.labels = [_BIOES_LETTERS.get(label[0], label[0]) + label[1:] for label in self.labels]
        self.mode: Mode = mode
        self.by_type = by_type
        self.ignore_index = ignore_index

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Give the scores of `prediction`: logits (sentences, tokens, labels) or label ids (sentences, tokens)."""
        predicted: Any = prediction.predictions
        predicted = predicted[0] if isinstance(predicted, (tuple, list)) else predicted
        gold: Any = prediction.label_ids
        gold = gold[0] if isinstance(gold, (tuple, list)) else gold
        if predicted.ndim == 3:
            predicted = predicted.argmax(axis=-1)
        coded = encode_tags(np.asarray(gold), np.asarray(predicted), self.labels, ignore_index=self.ignore_index)
        scores = {"accuracy": coded.right_tokens / coded.tokens}
        if not self.scheme.prefixed:
            return scores
        counts = count_coded_spans(coded, scheme=self.scheme, mode=self.mode)
        overall = span_scores(counts, average="micro")
        scores |= {"precision": overall.precision, "recall": overall.recall, "f1": overall.f1}
        if self.by_type:
            scores |= {f"f1_{name}": each.f1 for name, each in scores_by_type(counts).items()}
        return scores
