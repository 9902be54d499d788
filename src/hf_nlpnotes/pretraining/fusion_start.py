"""Start of ChineseBERT's fusion layer from a trained character model, and its training at a fraction of the cost."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F


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


def fuse_distinct(embeddings: Any, input_ids: torch.Tensor, pinyin_ids: torch.Tensor) -> torch.Tensor:
    """The fused embeddings of a batch, computed once for each distinct token and reading.

    W [c; p; g] + b = (Wc c + Wg g + b) + Wp p, where c and g depend on the token and p on the reading alone; a batch
    of 4,096 tokens has about a thousand distinct ones. Values and gradients are those of `embeddings.fuse`.

    Args:
        embeddings: `ChineseBertEmbeddings`.
        input_ids: (batch, length).
        pinyin_ids: (batch, length) rows of the pinyin table.

    Returns:
        (batch, length, H), for `inputs_embeds`.
    """
    character, pinyin, glyph = embeddings.map_fc.weight.chunk(3, dim=1)
    tokens, token_at = _distinct(input_ids)
    readings, reading_at = _distinct(pinyin_ids)
    bitmaps = embeddings.glyph_embeddings(tokens).to(embeddings.glyph_map.weight.dtype)
    by_token = F.linear(embeddings.word_embeddings(tokens), character, embeddings.map_fc.bias)
    by_token = by_token + F.linear(embeddings.glyph_map(bitmaps), glyph)
    letters = embeddings.pinyin_table[readings].int()
    by_reading = F.linear(embeddings.pinyin_embeddings(letters), pinyin)
    return F.embedding(token_at, by_token) + F.embedding(reading_at, by_reading)


def _distinct(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct ids, filled up with 0 to whole blocks (kernels are compiled for each size), and where each stands."""
    distinct, at = ids.unique(return_inverse=True)
    return F.pad(distinct, (0, -len(distinct) % 128)), at
