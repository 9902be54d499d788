"""Metrics of extractive question answering: plain functions of texts, without downloads.

`squad_v1`, `squad_v2`, `cmrc2018` and `drcd` take predictions and references and give figures in per cent, equal to
those of the official scripts to the last bit. The functions `…_scores` score one question.
"""

from .cmrc_metrics import cmrc2018, cmrc2018_scores, drcd
from .no_answer_thresholds import average_precision, best_threshold
from .squad_metrics import normalize_answer, squad_v1, squad_v1_scores, squad_v2, squad_v2_scores

__all__ = [
    "average_precision",
    "best_threshold",
    "cmrc2018",
    "cmrc2018_scores",
    "drcd",
    "normalize_answer",
    "squad_v1",
    "squad_v1_scores",
    "squad_v2",
    "squad_v2_scores",
]
