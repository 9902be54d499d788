"""Span extraction: features, answers from logits, metrics. For any model with start and end logits."""

from .answers import AnswerReport, AnswerSpan, answer_report, locate_answer
from .evaluation import SpanMetrics, best_null_threshold, prepare_evaluation_features
from .features import prepare_train_features, prepare_validation_features
from .metrics import cmrc2018, drcd, squad_v1, squad_v2
from .pipeline_v4 import WindowSpans, decode_windows, select_starts_ends
from .postprocessing import SpanPredictions, extract_spans, postprocess_predictions, save_predictions
from .several_answers import select_answers
from .span_search import SpanTable, top_spans

__all__ = [
    "AnswerReport",
    "AnswerSpan",
    "SpanMetrics",
    "SpanPredictions",
    "SpanTable",
    "WindowSpans",
    "answer_report",
    "best_null_threshold",
    "cmrc2018",
    "decode_windows",
    "drcd",
    "extract_spans",
    "locate_answer",
    "postprocess_predictions",
    "prepare_evaluation_features",
    "prepare_train_features",
    "prepare_validation_features",
    "save_predictions",
    "select_answers",
    "select_starts_ends",
    "squad_v1",
    "squad_v2",
    "top_spans",
]
