"""Precision, recall and F1 of tagged spans for `evaluate`, with the columns and the result of its own `seqeval`."""

from __future__ import annotations

from typing import Any

import evaluate
from datasets import Features, Sequence, Value

from hf_nlpnotes.tagging.metrics import accuracy_score, classification_report

_CITATION = """\
@inproceedings{ramshaw-marcus-1995-text,
  title = {Text Chunking using Transformation-Based Learning},
  author = {Ramshaw, Lance and Marcus, Mitch},
  booktitle = {Third Workshop on Very Large Corpora},
  year = {1995},
}
"""

_INPUTS = """
Args:
    predictions: For each sentence the predicted tags.
    references: For each sentence the gold tags.
    scheme: For the strict mode, a scheme's name; told from the gold tags if absent.
    mode: None, or "strict" for spans that are whole in their scheme.
    suffix: Whether prefixes stand behind the types, PER-B.
"""


class SpanF1(evaluate.Metric):
    """Precision, recall and F1 of spans, of each type and overall."""

    def _info(self) -> evaluate.MetricInfo:
        tags = Sequence(Value("string"))
        return evaluate.MetricInfo(
            description="Precision, recall and F1 of spans, read from tags as seqeval reads them.",
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=Features({"predictions": tags, "references": tags}),
        )

    def _compute(
        self, predictions: Any, references: Any, *, scheme: str | None = None, mode: Any = None, suffix: bool = False
    ) -> dict[str, Any]:
        report = classification_report(references, predictions, scheme, mode, output_dict=True, suffix=suffix)
        overall = report["micro avg"]
        names = {"precision": "precision", "recall": "recall", "f1": "f1-score", "number": "support"}
        by_type = {
            row: {name: scores[key] for name, key in names.items()}
            for row, scores in report.items()
            if not row.endswith(" avg")
        }
        return {
            **by_type,
            **{f"overall_{name}": overall[names[name]] for name in ("precision", "recall", "f1")},
            "overall_accuracy": accuracy_score(references, predictions),
        }
