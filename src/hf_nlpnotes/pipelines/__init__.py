"""Pipelines: thin shells around the package's pure functions, in the stock pipelines' calling conventions."""

from .prompt_classification import DEFAULT_TEMPLATE, ZeroShotPromptPipeline

__all__ = ["DEFAULT_TEMPLATE", "ZeroShotPromptPipeline"]
