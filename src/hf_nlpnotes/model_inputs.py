"""What a model reads: how many tokens, and which of a tokenizer's tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["accepted_inputs", "longest_input"]


def longest_input(model: Any, tokenizer: Any) -> int | None:
    """Most tokens that model and tokenizer take, or `None` where neither sets a limit.

    RoBERTa's kin count positions from `padding_idx + 1`, so that a table of 514 rows serves 512 tokens; of all models
    they alone give a padding index to their table of positions.

    Args:
        model (`PreTrainedModel`):
            The model.
        tokenizer (`PreTrainedTokenizerBase`):
            Its tokenizer.
    """
    limits = []
    if tokenizer.model_max_length < 1_000_000:  # the stock "no limit" is 1e30
        limits.append(int(tokenizer.model_max_length))
    rows = getattr(model.config, "max_position_embeddings", None)
    if isinstance(rows, int) and rows > 0:
        for name, module in model.named_modules():
            offset = getattr(module, "padding_idx", None) if name.endswith("position_embeddings") else None
            if offset is not None:
                rows -= offset + 1
                break
        limits.append(rows)
    return min(limits, default=None)


def accepted_inputs(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The inputs that the model's `forward` names (DistilBERT has no `token_type_ids`, …).

    Args:
        model (`nn.Module`):
            The model, also compiled by torch or with adapters of PEFT around it.
        inputs (`Mapping[str, torch.Tensor]`):
            Inputs by name.
    """
    inner: Any = getattr(model, "_orig_mod", model)  # what is around a model names few inputs, or none
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    names = inspect.signature(inner.forward).parameters
    return {name: value for name, value in inputs.items() if name in names}
