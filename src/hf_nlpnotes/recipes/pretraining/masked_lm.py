"""Masked language modelling of the whole model."""

from __future__ import annotations

from typing import Any

from hf_nlpnotes.models.chinesebert.collator_chinesebert import DataCollatorForChineseBertMaskedLM
from hf_nlpnotes.pretraining import bfloat16_attention
from hf_nlpnotes.pretraining.masking_epoch import MaskingEpoch
from hf_nlpnotes.pretraining.trainer import AllTokensAtTheEnd

from .run import PretrainingRun, train_stage
from .text import PretrainingData

MASKED = "masked language modelling"


def train_masked_lm(run: PretrainingRun, data: PretrainingData, model: Any) -> None:
    """Train the whole model to find hidden words and characters; it goes on where it was, or is loaded when done.

    Args:
        run: of the pretraining.
        data: to train and to measure on.
        model: of `model_to_go_on_from` or `new_model`, changed in place.
    """
    options, arguments = run.model, run.arguments
    collate = DataCollatorForChineseBertMaskedLM(
        data.tokenizer, mlm_probability=options.mlm_probability, whole_word_share=options.whole_word_share,
        seed=arguments.seed,
    )  # fmt: skip
    if data.unigram is not None:
        model.set_unigram(data.unigram)
    if arguments.bf16 and arguments.device.type == "cpu":
        bfloat16_attention.register()
        model.set_attn_implementation(bfloat16_attention.NAME)
    callbacks = [MaskingEpoch(collate), AllTokensAtTheEnd(model, options.negatives)]
    train_stage(run, data, MASKED, model, collate, muon=options.muon, callbacks=callbacks)
