"""F1 and exact match of DRCD for `evaluate`."""

from __future__ import annotations

from typing import Any

import evaluate

from hf_nlpnotes.evaluate_modules._question_answering import INPUTS, features
from hf_nlpnotes.question_answering.metrics import drcd

_CITATION = """\
@article{shao-etal-2018-drcd,
  title = {{DRCD}: a {C}hinese Machine Reading Comprehension Dataset},
  author = {Shao, Chih Chieh and Liu, Trois and Lai, Yuting and Tseng, Yiying and Tsai, Sam},
  journal = {arXiv:1806.00920},
  year = {2018},
}
"""


class Drcd(evaluate.Metric):
    """F1 and exact match of DRCD, for Chinese, in per cent."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F1 and exact match of DRCD, for Chinese, in per cent.",
            citation=_CITATION,
            inputs_description=INPUTS,
            features=features(),
            homepage="https://github.com/DRCKnowledgeTeam/DRCD",
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
        return drcd(predictions, references)
