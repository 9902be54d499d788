"""The model before masked language modelling: one to go on from, or a new one, warm or at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig

from hf_nlpnotes.models.chinesebert import ChineseBertConfig
from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import render_glyphs
from hf_nlpnotes.pretraining.every_position import DataCollatorForEveryPosition, EveryPosition, EveryPositionLoss
from hf_nlpnotes.pretraining.fusion_start import start_fusion
from hf_nlpnotes.pretraining.offset_heads import DEFAULT_OFFSETS
from hf_nlpnotes.pretraining.sampled_masked_lm import SampledChineseBertForMaskedLM
from hf_nlpnotes.pretraining.warm_start import free_heads, sharpen_heads, warm_start
from hf_nlpnotes.training import whole_folder

from .options import MODELS, RESERVED, ModelOptions
from .run import PretrainingRun, train_stage

if TYPE_CHECKING:
    from .text import PretrainingData

_WITHOUT_DROPOUT: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""Which little training needs."""


def model_to_go_on_from(run: PretrainingRun) -> Any:
    """Load the model that `ModelOptions.model_name_or_path` names, in float32 and without dropout.

    Args:
        run: of the pretraining.

    Returns:
        A `SampledChineseBertForMaskedLM` or `SampledBertForMaskedLM`.

    Raises:
        ValueError: none is named.
    """
    if not run.model.model_name_or_path:
        raise ValueError("model_name_or_path is None: name a model to go on from, or begin with new_model(run, data)")
    return _load(**run.model.start())


def new_model(run: PretrainingRun, data: PretrainingData) -> Any:
    """Make a new ChineseBERT, with bitmaps from fonts where they are named, and train its warm start where wanted.

    Args:
        run: of the pretraining; its work folder keeps the start, and a folder of each stage of the warm start.
        data: of a tokenizer that was made for it, not streamed.

    Returns:
        A `SampledChineseBertForMaskedLM`.

    Raises:
        ValueError, OSError: fonts that cannot be read.
        ImportError: fonts without Pillow.
    """
    assert data.input_ids is not None, "check_options refuses a stream without a model"
    folder, options = run.work / "start", run.model
    with run.arguments.main_process_first(desc="start"):
        if not folder.exists():
            fresh = _fresh_model(data.tokenizer, options, run.text.length)
            if options.warm_start:
                warm_start(fresh, data.input_ids, reserved=RESERVED)
                start_fusion(fresh.bert.embeddings, reserved=RESERVED)
            with whole_folder(folder) as made:
                fresh.save_pretrained(made)
    model = _load(str(folder)).to(run.arguments.device)
    if options.warm_start:
        _train_first_layer(run, data, model, "neighbours", shifts=True, steps=options.neighbour_steps)
        full = [row for row in data.rows[:64]["input_ids"] if len(row) == run.text.length]
        ids = torch.tensor(full, device=run.arguments.device)
        sharpen_heads(model, ids, data.tokenizer.mask_token_id)
        free_heads(model, heads=(6, 7))
        _train_first_layer(run, data, model, "attention", shifts=False, steps=options.attention_steps)
    return model


def _fresh_model(tokenizer: Any, options: ModelOptions, length: int) -> SampledChineseBertForMaskedLM:
    """A ChineseBERT with its tables of readings and bitmaps, and random weights."""
    config = ChineseBertConfig(
        vocab_size=len(tokenizer), hidden_size=options.hidden_size, num_hidden_layers=options.layers,
        num_attention_heads=options.heads, intermediate_size=4 * options.hidden_size, max_position_embeddings=length,
        layer_norm_eps=1e-12, pad_token_id=tokenizer.pad_token_id, glyph_storage="bits",
        pinyin_table_size=len(tokenizer.pinyin_table), **_WITHOUT_DROPOUT,
    )  # fmt: skip
    torch.manual_seed(0)
    model = SampledChineseBertForMaskedLM(config)
    model.set_readings(tokenizer.pinyin_table, tokenizer.default_pinyin_ids)
    if options.fonts:
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        model.set_glyphs(render_glyphs(tokens, options.fonts, missing="fallback"))
    return model


def _load(pretrained_model_name_or_path: str, revision: str = "main") -> Any:
    where = {"pretrained_model_name_or_path": pretrained_model_name_or_path, "revision": revision}
    kind = MODELS[AutoConfig.from_pretrained(**where).model_type]
    return kind.from_pretrained(**where, dtype=torch.float32, **_WITHOUT_DROPOUT)


def _train_first_layer(
    run: PretrainingRun, data: PretrainingData, model: Any, name: str, *, shifts: bool, steps: int
) -> None:
    """Stages A and B of the warm start: layer 0 and the head predict every position."""
    if not steps:
        return
    assert data.unigram is not None, "check_options refuses a stream without a model"
    predict = EveryPosition(model, data.tokenizer.mask_token_id, DEFAULT_OFFSETS)
    loss = EveryPositionLoss(predict, shifts=shifts, unigram=data.unigram, reserved=RESERVED).begin()
    collate = DataCollatorForEveryPosition(data.tokenizer.pad_token_id)
    changes: dict[str, Any] = {"max_steps": steps, "learning_rate": 2e-3, "adam_beta2": 0.98, "warmup_steps": 40}
    train_stage(run, data, name, model, collate, trained=loss, **changes)
    loss.end()
