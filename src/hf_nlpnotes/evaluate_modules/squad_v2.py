"""Exact match and F1 of SQuAD 2.0 for `evaluate`."""

from __future__ import annotations

from typing import Any

import evaluate

from hf_nlpnotes.evaluate_modules._question_answering import INPUTS, features
from hf_nlpnotes.question_answering.metrics import squad_v2

_CITATION = """\
@inproceedings{rajpurkar-etal-2018-know,
  title = {Know What You Don't Know: Unanswerable Questions for {SQ}u{AD}},
  author = {Rajpurkar, Pranav and Jia, Robin and Liang, Percy},
  booktitle = {ACL},
  year = {2018},
}
"""
_OPTIONS = """
    predictions: Also `no_answer_probability`, any number that grows with the model's doubt.
    no_answer_threshold: A prediction with a larger one counts as "no answer".
"""


class SquadV2(evaluate.Metric):
    """Exact match and F1 of SQuAD 2.0, in per cent."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match and F1 of SQuAD 2.0, in per cent.",
            citation=_CITATION,
            inputs_description=INPUTS + _OPTIONS,
            features=features(no_answer_probability="float64"),
            homepage="https://rajpurkar.github.io/SQuAD-explorer/",
        )

    def _compute(self, predictions: Any, references: Any, no_answer_threshold: float = 1.0) -> dict[str, Any]:
        return squad_v2(predictions, references, threshold=no_answer_threshold)
