"""F1 and exact match of CMRC 2018 for `evaluate`."""

from __future__ import annotations

from typing import Any

import evaluate

from hf_nlpnotes.evaluate_modules._question_answering import INPUTS, features
from hf_nlpnotes.question_answering.metrics import cmrc2018

_CITATION = """\
@inproceedings{cui-etal-2019-span,
  title = {A Span-Extraction Dataset for {C}hinese Machine Reading Comprehension},
  author = {Cui, Yiming and Liu, Ting and Che, Wanxiang and Xiao, Li and Chen, Zhipeng and Ma, Wentao and
            Wang, Shijin and Hu, Guoping},
  booktitle = {EMNLP},
  year = {2019},
}
"""


class Cmrc2018(evaluate.Metric):
    """F1 and exact match of CMRC 2018, for Chinese, in per cent."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F1 and exact match of CMRC 2018, for Chinese, in per cent.",
            citation=_CITATION,
            inputs_description=INPUTS,
            features=features(),
            homepage="https://github.com/ymcui/cmrc2018",
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, Any]:
        return cmrc2018(predictions, references)
