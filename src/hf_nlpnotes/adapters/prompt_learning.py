"""Prompt tuning, p-tuning and prefix tuning of PEFT on ChineseBERT.

PEFT does two things in these methods that fit BERT and not ChineseBERT. It embeds the tokens itself, by the table of
characters alone, and puts its virtual tokens before them; but ChineseBERT's vectors are fused from character, pinyin
and glyph. And it gives a prefix only to models whose `forward` names `past_key_values`. A third thing fits no model:
virtual tokens lengthen the sequence, so that labels and answers' positions no longer stand at their tokens. Methods
that change weights need none of this.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers.utils import ModelOutput

_PAST = "past_key_values"
_POSITIONS = ("start_positions", "end_positions")


def prepare_prompt_learning(model: PeftModel) -> PeftModel:
    """Let a `PeftModel` around a ChineseBERT take `input_ids` and `pinyin_ids` with virtual tokens or a prefix.

    Labels and scores of tokens are those of the real tokens, as without virtual ones.

    Call it after `get_peft_model` and after `PeftModel.from_pretrained`, when the method is prompt tuning, p-tuning or
    prefix tuning. Without it such a model raises at its first batch. Calling it again, or for another method, does
    nothing.

    Args:
        model: The `PeftModel`; it is changed in place.

    Returns:
        The same model.

    Raises:
        TypeError: when `model` is not a `PeftModel` around a ChineseBERT.
    """
    if not isinstance(model, PeftModel):
        raise TypeError(f"prepare_prompt_learning takes a PeftModel, got {type(model).__name__}: call get_peft_model")
    base: Any = model.get_base_model()
    if not hasattr(getattr(base, "base_model", None), "get_fused_embeddings"):
        raise TypeError(f"{type(base).__name__} needs no preparation: PEFT embeds its tokens as the model itself does")
    if not model.active_peft_config.is_prompt_learning or _PAST in inspect.signature(base.forward).parameters:
        return model
    base.forward = _with_past(base)
    model.register_forward_pre_hook(_before, with_kwargs=True)
    model.register_forward_hook(_after)
    return model


def _with_past(base: nn.Module) -> Callable[..., Any]:
    """Return the model's `forward`, which hands all it is given to the encoder, with `past_key_values` named."""
    # No closure and no method: these would not be pickled.
    forward = partial(_forward, base)
    signature = inspect.signature(type(base).forward)
    _, *parameters = signature.parameters.values()  # without `self`
    parameters.insert(-1, inspect.Parameter(_PAST, inspect.Parameter.KEYWORD_ONLY, default=None))
    # The other names stay: the Trainer keeps the columns that it finds here.
    forward.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return forward


def _forward(base: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return type(base).forward(base, *args, **kwargs)


def _before(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give the model fused vectors in place of tokens, and move labels behind the virtual tokens."""
    if len(args) > 1:
        raise TypeError("A prepared model takes input_ids first and everything else by name")
    if args:
        kwargs = {**kwargs, "input_ids": args[0]}
    input_ids, pinyin_ids = kwargs.pop("input_ids", None), kwargs.pop("pinyin_ids", None)
    if input_ids is not None:
        encoder: Any = module.get_base_model().base_model  # type: ignore[operator]
        kwargs["inputs_embeds"] = encoder.get_fused_embeddings(input_ids, pinyin_ids)
    moved = _virtual_tokens(module)
    if not moved:
        return (), kwargs
    if kwargs.get("return_dict") is False:
        raise ValueError("Scores of tokens behind virtual ones come by name alone: leave return_dict at True")
    if kwargs.get("labels") is not None:
        kwargs["labels"] = nn.functional.pad(kwargs["labels"], (moved, 0), value=-100)
    for name in _POSITIONS:
        if kwargs.get(name) is not None:
            kwargs[name] = kwargs[name] + moved * (kwargs[name] >= 0)  # those before the sequence stay there
    return (), kwargs


def _after(module: nn.Module, _: Any, output: ModelOutput) -> ModelOutput:
    """Leave out the scores of the virtual tokens."""
    moved = _virtual_tokens(module)
    if moved:
        for name in ("logits", "start_logits", "end_logits"):
            scores = output.get(name)
            if isinstance(scores, torch.Tensor):
                output[name] = scores[:, moved:]
    return output


def _virtual_tokens(module: Any) -> int:
    """Return how many positions stand before the first token whose scores are wanted."""
    config = module.active_peft_config
    of_tokens = config.task_type in {"TOKEN_CLS", "QUESTION_ANS"} and config.peft_type != "PREFIX_TUNING"
    return config.num_virtual_tokens if of_tokens and not module._adapters_disabled else 0
