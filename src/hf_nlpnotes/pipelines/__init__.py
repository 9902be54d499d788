"""Pipelines: thin shells around the package's pure functions, in the stock pipelines' calling conventions."""

from .prompt_classification import DEFAULT_TEMPLATE, ZeroShotPromptPipeline
from .question_answering import ExtractiveQuestionAnsweringPipeline, QuestionAnsweringPipeline
from .tagging import SequenceTaggingPipeline

__all__ = [
    "DEFAULT_TEMPLATE",
    "ExtractiveQuestionAnsweringPipeline",
    "QuestionAnsweringPipeline",
    "SequenceTaggingPipeline",
    "ZeroShotPromptPipeline",
]
