"""Start of ChineseBERT's fusion layer from a trained character model."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def start_fusion(embeddings: Any, *, reserved: int = 0) -> None:
    """Set the fusion to [I | 0 | 0] (character | pinyin | glyph): the model starts as its characters alone.

    The two other branches have their random start, and gradients reach them through the fusion once it leaves zero.

    Args:
        embeddings: `ChineseBertEmbeddings`.
        reserved: leading dimensions that belong to the position (see `offset_heads`): their rows are zero.
    """
    weight = embeddings.map_fc.weight  # (H, 3H)
    weight.zero_()
    weight[reserved:, reserved : len(weight)] = torch.eye(len(weight) - reserved)
    embeddings.map_fc.bias.zero_()
