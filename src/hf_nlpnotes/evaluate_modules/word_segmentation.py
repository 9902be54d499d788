"""Word segmentation scores of the SIGHAN bakeoffs for `evaluate`."""

from __future__ import annotations

from typing import Any

import evaluate
from datasets import Features, Sequence, Value

from hf_nlpnotes.tagging.word_segmentation import segmentation_scores

_CITATION = """\
@inproceedings{emerson-2005-second,
  title = {The Second International {C}hinese Word Segmentation Bakeoff},
  author = {Emerson, Thomas},
  booktitle = {Fourth SIGHAN Workshop on Chinese Language Processing},
  year = {2005},
}
"""

_INPUTS = """
Args:
    predictions: For each sentence the predicted words.
    references: For each sentence the gold words, of the same characters.
    vocabulary: The words of the training data, for the recall of words outside and inside of it.
"""


class WordSegmentation(evaluate.Metric):
    """Precision, recall and F1 of words, and recall of words that training has not seen."""

    def _info(self) -> evaluate.MetricInfo:
        words = Sequence(Value("string"))
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of words; recall of words outside and inside of the vocabulary.",
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=Features({"predictions": words, "references": words}),
        )

    def _compute(self, predictions: Any, references: Any, *, vocabulary: Any = None) -> dict[str, Any]:
        return segmentation_scores(references, predictions, vocabulary=vocabulary).as_dict()
