"""Prompt tuning and p-tuning for models whose embeddings fuse more than the token's number.

PEFT embeds the tokens itself, by the table of characters alone, and puts its virtual tokens before them. ChineseBERT's
vectors are fused from character, pinyin and glyph, so the fused ones have to be given to PEFT. Prefix tuning and the
methods that change weights need none of this.
"""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from torch import nn


def fuse_inputs(model: PeftModel) -> PeftModel:
    """Let a `PeftModel` around a ChineseBERT embed its inputs as ChineseBERT does.

    Call it after `get_peft_model` and after `PeftModel.from_pretrained`, for prompt tuning and p-tuning: the model
    then takes `input_ids` and `pinyin_ids` like any other. Without it such a model raises, because pinyin cannot be
    fused into characters that PEFT has embedded.

    Returns:
        The same model.

    Raises:
        TypeError: when `model` is not a `PeftModel` around a model with fused embeddings.
    """
    if not isinstance(model, PeftModel):
        raise TypeError(f"fuse_inputs takes a PeftModel, got {type(model).__name__}: call get_peft_model first")
    base = model.get_base_model()
    if not hasattr(getattr(base, "base_model", None), "get_fused_embeddings"):
        raise TypeError(f"The embeddings of {type(base).__name__} are not fused: PEFT's own embedding is right for it")
    model.register_forward_pre_hook(_fuse, with_kwargs=True)
    return model


def _fuse(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        kwargs = {"input_ids": args[0], **kwargs}
        if len(args) > 1:
            raise TypeError("Give all inputs but input_ids by name")
    input_ids, pinyin_ids = kwargs.get("input_ids"), kwargs.get("pinyin_ids")
    if input_ids is None:
        return (), kwargs
    encoder: Any = module.get_base_model().base_model  # type: ignore[operator]
    rest = {name: value for name, value in kwargs.items() if name not in ("input_ids", "pinyin_ids")}
    return (), {**rest, "inputs_embeds": encoder.get_fused_embeddings(input_ids, pinyin_ids)}
