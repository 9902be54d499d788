"""Recipes: what a task gives to the stock Trainer, from data that was read to a folder with a model.

    recipe = classification("bert-base-chinese", read_texts("reviews"))
    fine_tune(recipe, FineTuningArguments("work"), "classifier")

`hf-nlpnotes train` is these calls behind options. They hold no technique of their own: models, features, metrics and
optimizers are those of the other rooms, and each can be used with a Trainer directly, as the examples do.
"""

from .classification import classification, classification_metrics
from .fine_tuning import REPORT, FineTuningArguments, Recipe, fine_tune
from .question_answering import question_answering
from .sequence_tagging import new_tagger, sequence_tagging, tagging_features

__all__ = [
    "REPORT",
    "FineTuningArguments",
    "Recipe",
    "classification",
    "classification_metrics",
    "fine_tune",
    "new_tagger",
    "question_answering",
    "sequence_tagging",
    "tagging_features",
]
