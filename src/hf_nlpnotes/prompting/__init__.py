"""Prompts: a masked language model as a classifier, with no training data."""

from .calibration import CALIBRATIONS, CONTENT_FREE_TEXTS, Calibration, label_prior_tensor, mean_bias, prior_bias
from .encoding import PromptEncoder
from .label_words import READY_LABEL_WORDS, ready_label_words
from .scoring import WordScores, accepted_inputs, longest_input, mask_logits, mask_positions, word_scores
from .template import Template
from .verbalizer import Verbalizer, WordGroup, group_words

__all__ = [
    "CALIBRATIONS",
    "CONTENT_FREE_TEXTS",
    "READY_LABEL_WORDS",
    "Calibration",
    "PromptEncoder",
    "Template",
    "Verbalizer",
    "WordGroup",
    "WordScores",
    "accepted_inputs",
    "group_words",
    "label_prior_tensor",
    "longest_input",
    "mask_logits",
    "mask_positions",
    "mean_bias",
    "prior_bias",
    "ready_label_words",
    "word_scores",
]
