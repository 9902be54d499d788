"""Prompts: a masked language model as a classifier, with no training data or a little.

A room for each step: templates (`template`, `template_parts`, `encoding`, `demonstrations`), words (`verbalizer`,
`label_words`, `label_paths`, and finding them: `search`, `expansion`, `refinement`, `template_search`), scores
(`word_scorer`, `sequential`, `reranking`, `causal_scoring`, `static_prior`), `calibration`, training (`model`,
`collating`, `self_training`, `adapters`), and what is stored (`config`).
"""

import importlib
from typing import TYPE_CHECKING, Any

from .calibration import CALIBRATIONS, CONTENT_FREE_TEXTS, Calibration, label_prior_tensor, mean_bias, prior_bias
from .causal_scoring import (
    CausalPrompt,
    CausalPromptEncoder,
    CausalScores,
    causal_word_scores,
    continuation_log_probs,
    is_causal,
)
from .collating import DataCollatorForPrompts
from .config import PROMPT_FILE, PromptConfig
from .demonstrations import DemonstrationPool
from .encoding import PromptEncoder
from .expansion import candidate_words, expand_from_texts, expand_from_vectors, vocabulary_words
from .label_paths import LabelPaths
from .label_words import READY_LABEL_WORDS, ready_label_words
from .mask_predictions import MaskPredictions
from .model import PromptForSequenceClassification
from .predictions import mask_logits, predict_masks, scoring_path
from .refinement import Refinement, learn_word_weights, refine_by_frequency, refine_by_relevance, refine_label_words
from .reranking import best, pseudo_log_likelihood, rerank
from .scoring import WordScores, mask_positions, word_scores
from .search import (
    Assignment,
    best_assignments,
    choose_words,
    label_word_scores,
    search_assignments,
    search_label_words,
)
from .sequential import sequential_scores
from .soft_prompts import SOFT_FILE, SoftPrompt
from .static_prior import StaticVectors, combine, prior_scale, static_similarity
from .template import Template
from .template_parts import Demonstrations, Literal, Options, Separator, Slot, SlotOptions, Soft
from .template_search import TemplateScore, cross_validated, search_templates, stratified_folds
from .text_scores import score_texts
from .verbalizer import Verbalizer, WordGroup, group_words
from .word_scorer import SCORINGS, WordScorer

__all__ = [
    "CALIBRATIONS",
    "CONTENT_FREE_TEXTS",
    "PROMPT_FILE",
    "READY_LABEL_WORDS",
    "SCORINGS",
    "SOFT_FILE",
    "Assignment",
    "Calibration",
    "CausalPrompt",
    "CausalPromptEncoder",
    "CausalScores",
    "DataCollatorForPrompts",
    "DemonstrationPool",
    "Demonstrations",
    "Generation",
    "LabelPaths",
    "Literal",
    "MaskPredictions",
    "Options",
    "PeftModelForPrompts",
    "PromptConfig",
    "PromptEncoder",
    "PromptForSequenceClassification",
    "Refinement",
    "Separator",
    "Slot",
    "SlotOptions",
    "Soft",
    "SoftPrompt",
    "StaticVectors",
    "Template",
    "TemplateScore",
    "Verbalizer",
    "WordGroup",
    "WordScorer",
    "WordScores",
    "best",
    "best_assignments",
    "candidate_words",
    "causal_word_scores",
    "choose_words",
    "combine",
    "continuation_log_probs",
    "cross_validated",
    "expand_from_texts",
    "expand_from_vectors",
    "group_words",
    "is_causal",
    "label_prior_tensor",
    "label_word_scores",
    "learn_word_weights",
    "mask_logits",
    "mask_positions",
    "mean_bias",
    "predict_masks",
    "prior_bias",
    "prior_scale",
    "pseudo_log_likelihood",
    "ready_label_words",
    "refine_by_frequency",
    "refine_by_relevance",
    "refine_label_words",
    "rerank",
    "score_texts",
    "scoring_path",
    "search_assignments",
    "search_label_words",
    "search_templates",
    "self_train",
    "sequential_scores",
    "static_similarity",
    "stratified_folds",
    "vocabulary_words",
    "word_scores",
]

if TYPE_CHECKING:
    from .adapters import PeftModelForPrompts
    from .self_training import Generation, self_train

_LATE = {"Generation": "self_training", "PeftModelForPrompts": "adapters", "self_train": "self_training"}
"""Names whose modules import the `Trainer`, and with it `datasets`, or peft: imported when they are asked for."""


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
