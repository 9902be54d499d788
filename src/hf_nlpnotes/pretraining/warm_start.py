"""A BERT-shaped model that knows neighbours, positions and frequencies before its first step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .every_position import EveryPosition
from .offset_heads import (
    DEFAULT_OFFSETS,
    calibrated_gain,
    frequencies,
    offset_head_weights,
    position_vectors,
    value_output_weights,
)
from .token_vectors import cooccurrence_counts, token_vectors, unigram_log_probabilities


@torch.no_grad()
def warm_start(
    model: Any, input_ids: np.ndarray, *, offsets: Sequence[int] = DEFAULT_OFFSETS, reserved: int = 32, seed: int = 0
) -> None:
    """Set a fresh BERT from counts and formulas; the feed-forward layers keep their random start.

    Token vectors are those of `token_vectors`, positions and the heads of the first three layers those of
    `offset_heads`. Layer 0 passes its neighbours on with 0.3 Vᵀ, the layers above with 0.05 Vᵀ, so that they begin
    near the identity. The head's transform is the identity without the positions' dimensions, its bias the log of the
    unigrams.

    Args:
        model: `BertForMaskedLM` whose hidden size is the number of offsets times a head size of `reserved` or more.
        input_ids: (tokens,) the training text, to count in.
        offsets: the offset of each head of the first three layers, in positions.
        reserved: leading dimensions that carry the position.
        seed: of the frequencies and the token vectors.
    """
    config, bert, head = model.config, model.bert, model.cls.predictions
    hidden, vocab = config.hidden_size, config.vocab_size
    omega = frequencies(reserved // 2, seed=seed)
    vectors = token_vectors(cooccurrence_counts(input_ids, vocab), hidden, reserved=reserved, seed=seed)
    bert.embeddings.word_embeddings.weight.copy_(vectors)
    positions = len(bert.embeddings.position_embeddings.weight)
    bert.embeddings.position_embeddings.weight.copy_(position_vectors(positions, hidden, omega))
    bert.embeddings.token_type_embeddings.weight.zero_()
    query, key = offset_head_weights(hidden, hidden // len(offsets), omega, offsets)
    for number, layer in enumerate(bert.encoder.layer):
        attention = layer.attention
        value, output = value_output_weights(hidden, output_scale=0.3 if number == 0 else 0.05, seed=number)
        if number < 3:
            attention.self.query.weight.copy_(query)
            attention.self.key.weight.copy_(key)
        attention.self.value.weight.copy_(value)
        attention.output.dense.weight.copy_(output)
    identity = torch.eye(hidden)
    identity[:reserved] = 0
    head.transform.dense.weight.copy_(identity)
    head.bias.copy_(unigram_log_probabilities(input_ids, vocab))


@torch.no_grad()
def sharpen_heads(
    model: Any, input_ids: torch.Tensor, mask_token_id: int, *, offsets: Sequence[int] = DEFAULT_OFFSETS
) -> list[float]:
    """Raise the query gains of layer 0 until each head puts 93 % of its weight on its offset again.

    Args:
        model: a model as `warm_start` leaves it, changed in place.
        input_ids: (batch, length) of real text.
        mask_token_id: id of ``[MASK]``.
        offsets: the offset of each head, as in `warm_start`.

    Returns:
        The factor of each head.
    """
    stage = EveryPosition(model, mask_token_id, offsets)
    content, query = stage.streams(input_ids)
    layer = model.bert.encoder.layer[0].attention.self
    q, k = stage.split_heads(layer.query(query)), stage.split_heads(layer.key(content))
    size = q.shape[-1]
    logits = q @ k.transpose(-1, -2) * size**-0.5  # (batch, heads, length, length)
    gains = [calibrated_gain(logits[:, head], offset) for head, offset in enumerate(offsets)]
    for head, gain in enumerate(gains):
        layer.query.weight[head * size : (head + 1) * size] *= gain
        layer.query.bias[head * size : (head + 1) * size] *= gain
    return gains


@torch.no_grad()
def free_heads(model: Any, heads: Sequence[int], *, seed: int = 0) -> None:
    """Let heads of layer 0 find their own use: no query weights, a random query bias from N(0, 1).

    Args:
        model: a `BertForMaskedLM`, changed in place.
        heads: numbers of the heads, from 0.
        seed: of the biases.
    """
    layer = model.bert.encoder.layer[0].attention.self
    size = layer.attention_head_size
    generator = torch.Generator().manual_seed(seed)
    for head in heads:
        rows = slice(head * size, (head + 1) * size)
        layer.query.weight[rows] = 0
        layer.query.bias[rows] = torch.randn(size, generator=generator)
