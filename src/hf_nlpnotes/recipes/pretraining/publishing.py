"""The end of a run: a folder that the Auto classes load, with a card and a learning curve of what was measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import read_glyph_font
from hf_nlpnotes.pretraining.learning_curve import plot_learning_curves
from hf_nlpnotes.pretraining.model_card import write_card
from hf_nlpnotes.recipes.fine_tuning import REPORT
from hf_nlpnotes.training import whole_folder

from .masked_lm import MASKED
from .run import PretrainingRun
from .text import PretrainingData

logger = logging.getLogger(__name__)

_NOT_ON_THE_CARD = ("data", "exclude", "work_dir", "note", "manifest", "model_name_or_path")
"""Paths of this machine, and what has a place of its own."""
_OF_A_NEW_MODEL = (
    "vocab_size", "layers", "hidden_size", "heads", "fonts", "warm_start", "neighbour_steps", "attention_steps"
)  # fmt: skip
"""What a model to go on from has of its own."""


def publish(
    run: PretrainingRun,
    data: PretrainingData,
    model: Any,
    *,
    before: Mapping[str, float] | None = None,
    about: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Write the model in float16, its tokenizer, card and learning curve; all of it or nothing.

    The first process writes, and the others wait for it. Without matplotlib there is no picture, and a warning.

    Args:
        run: whose `arguments.output_dir` is written, and replaced where it exists.
        data: to measure on.
        model: that was trained; it is in float16 afterwards.
        before: accuracy before the training, for card, curve and `training.json`; None: not measured.
        about: what `training.json` in the folder shall tell besides the accuracy; None: there is no such file.

    Returns:
        Accuracy on the held-out lines of the folder as it was written, as `masked_accuracy` tells it; of processes
        that do not write, nothing.
    """
    accuracy = {}
    if run.arguments.process_index == 0:
        with whole_folder(run.arguments.output_dir or "") as made:
            accuracy = _write(run, data, model, made, before)
            if about is not None:
                report = _report({**about, "before": before, "metrics": accuracy})
                (made / REPORT).write_text(report, encoding="utf-8")
    if distributed.is_initialized():
        distributed.barrier()
    return accuracy


def _options_of_the_card(run: PretrainingRun) -> dict[str, str]:
    stated = {name: value for name, value in run.stated.items() if name not in _NOT_ON_THE_CARD}
    if run.model.model_name_or_path:
        return {name: value for name, value in stated.items() if name not in _OF_A_NEW_MODEL}
    return {**stated, "fonts": ", ".join(read_glyph_font(font).name for font in run.model.fonts) or "none"}


def _report(told: Mapping[str, Any]) -> str:
    """JSON, which has no NaN: where there was nothing to find, the accuracy is null."""
    plain = json.loads(json.dumps(dict(told)), parse_constant=lambda _: None)
    return json.dumps(plain, ensure_ascii=False, indent=2) + "\n"


def _write(
    run: PretrainingRun, data: PretrainingData, model: Any, made: Path, before: Mapping[str, float] | None
) -> dict[str, float]:
    model.set_attn_implementation("sdpa")
    # Fine-tuning on little data wants the usual dropout; pretraining went without.
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1
    model.half().save_pretrained(made)
    model.config.dtype = torch.float32  # what it is loaded in unless told otherwise; float16 is for the file
    model.config.use_cache = True  # the Trainer turns it off
    model.config.architectures = [type(model).__name__.removeprefix("Sampled")]
    model.config.save_pretrained(made)
    data.tokenizer.save_pretrained(made)
    accuracy = data.accuracy(type(model).from_pretrained(made))
    history = dict(run.logs)
    if before is not None:
        first = {"step": 0, **{f"eval_{name}": value for name, value in before.items()}}
        history[MASKED] = [first, *history[MASKED]]
    manifest = run.text.manifest
    write_card(
        made,
        name=Path(run.arguments.output_dir or "").name,
        accuracy=accuracy,
        history=history,
        sources=json.loads(Path(manifest).read_text(encoding="utf-8")) if manifest else [],
        options=_options_of_the_card(run),
        training_tokens=None if data.input_ids is None else len(data.input_ids),
        device=run.arguments.device.type,
        note=run.model.note,
        overlap=str(data.overlap or ""),
        base=run.model.model_name_or_path,
    )
    try:
        plot_learning_curves(history, made / "learning_curve.png")
    except ImportError as error:
        logger.warning("%s", error)
    return accuracy
