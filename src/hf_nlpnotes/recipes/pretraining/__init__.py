"""Pretraining from text to a published folder: on from a model, or from scratch.

    run = PretrainingRun(TextOptions(["texts"]), ModelOptions("chinesebert-small"), PretrainingArguments("MODEL"))
    data = prepare_text(run)
    model = model_to_go_on_from(run)  # or new_model(run, data)
    train_masked_lm(run, data, model)
    publish(run, data, model)

`examples/pretrain_chinesebert.py` and `hf-nlpnotes train pretrain` are these calls behind options. Each step keeps
what it has made in the work folder: the same calls after a kill go on where the last whole checkpoint was, and come to
the same weights. Under `torchrun` and `accelerate launch` every process makes them.
"""

from .masked_lm import train_masked_lm
from .options import FurtherPretrainingArguments, ModelOptions, PretrainingArguments, TextOptions, check_options
from .publishing import publish
from .run import PretrainingRows, PretrainingRun, train_stage
from .start import model_to_go_on_from, new_model
from .text import PretrainingData, prepare_text

__all__ = [
    "FurtherPretrainingArguments",
    "ModelOptions",
    "PretrainingArguments",
    "PretrainingData",
    "PretrainingRows",
    "PretrainingRun",
    "TextOptions",
    "check_options",
    "model_to_go_on_from",
    "new_model",
    "prepare_text",
    "publish",
    "train_masked_lm",
    "train_stage",
]
