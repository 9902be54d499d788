"""Exact match and F1 of SQuAD 1.1 for `evaluate`."""

from __future__ import annotations

from typing import Any

import evaluate

from hf_nlpnotes.evaluate_modules._question_answering import INPUTS, features
from hf_nlpnotes.question_answering.metrics import squad_v1

_CITATION = """\
@inproceedings{rajpurkar-etal-2016-squad,
  title = {{SQ}u{AD}: 100,000+ Questions for Machine Comprehension of Text},
  author = {Rajpurkar, Pranav and Zhang, Jian and Lopyrev, Konstantin and Liang, Percy},
  booktitle = {EMNLP},
  year = {2016},
}
"""


class SquadV1(evaluate.Metric):
    """Exact match and F1 of SQuAD 1.1, in per cent."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match and F1 of SQuAD 1.1, in per cent.",
            citation=_CITATION,
            inputs_description=INPUTS,
            features=features(),
            homepage="https://rajpurkar.github.io/SQuAD-explorer/",
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
        return squad_v1(predictions, references)
