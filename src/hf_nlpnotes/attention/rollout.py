"""How much of each input token reaches each position of each layer: attention rollout and attention flow.

Abnar & Zuidema (2020), "Quantifying Attention Flow in Transformers". A layer's attention says where it takes its
input from, not which of the text's tokens that input stands for: above the first layers every position holds a mixture
of all. Both methods follow the weights down to the tokens, with the residual connection counted as half of each
layer's input. Rollout multiplies the layers; flow takes each weight as the capacity of a pipe.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .maps import AttentionMaps

Numbers = NDArray[np.float64]

_UNIT = 2**30
"""Capacities are whole numbers of this: SciPy's flow is exact on 32-bit integers. A row's capacities sum to 1."""


def attention_rollout(maps: AttentionMaps, *, residual: float = 0.5) -> Numbers:
    """Return the rollout, `(layers, tokens, tokens)`: row i of layer l is what position i holds there of each token.

    Rows sum to 1. Ã_l = A'_l · Ã_(l-1), where A'_l is the mean of the heads with the residual connection (section 3,
    equation 1). In an encoder-decoder `select` the layers of the encoder or of the decoder first.

    Args:
        maps: Layers of one kind, not "cross".
        residual: Share of a layer's input that goes past its attention.

    Raises:
        ValueError: The layers are not of one kind that looks at itself, or `residual` is not in [0, 1).
    """
    steps = mixed_layers(maps, residual=residual)
    result = np.empty_like(steps)
    below = np.eye(steps.shape[-1])
    for layer, step in enumerate(steps):
        below = step @ below
        result[layer] = below
    return result


def attention_flow(
    maps: AttentionMaps, *, residual: float = 0.5, layer: int = -1, positions: Iterable[int] | None = None
) -> Numbers:
    """Return the largest flow from positions of a layer to each token of the text, `(positions, tokens)`.

    The network has a node for each position of each layer and of the text, and a pipe from each node to every one in
    the layer below, as wide as its weight (section 3). Each number is a problem of its own: all of 20 tokens through
    12 layers are 400 of them.

    Args:
        maps: Layers of one kind, not "cross".
        residual: Share of a layer's input that goes past its attention.
        layer: The layer to start in, the last by default.
        positions: The positions to start from; None for all.

    Raises:
        ImportError: SciPy is not installed.
        ValueError: As in `attention_rollout`; or there is no such layer or position.
    """
    try:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import maximum_flow
    except ImportError as error:
        raise ImportError(
            'attention_flow needs SciPy, which attention_rollout does without: pip install "hf-nlpnotes[plots]"'
        ) from error
    if not -len(maps) <= layer < len(maps):
        raise ValueError(f"layer {layer}: there are {len(maps)} layers, 0 to {len(maps) - 1}")
    steps = mixed_layers(maps, residual=residual)[: layer % len(maps) + 1]
    depth, tokens = steps.shape[:2]
    starts = list(range(tokens)) if positions is None else list(positions)
    if any(not 0 <= start < tokens for start in starts):
        raise ValueError(f"positions are {starts}, expected numbers from 0 to {tokens - 1}")
    capacities = np.zeros(((depth + 1) * tokens,) * 2, dtype=np.int32)
    for level, step in enumerate(steps, start=1):  # level 0 is the text
        rows, columns = slice(level * tokens, (level + 1) * tokens), slice((level - 1) * tokens, level * tokens)
        capacities[rows, columns] = np.round(step * _UNIT)
    network = csr_array(capacities)
    flows: list[list[Any]] = [
        [maximum_flow(network, depth * tokens + start, token).flow_value / _UNIT for token in range(tokens)]
        for start in starts
    ]
    return np.array(flows, dtype=np.float64).reshape(len(starts), tokens)


def mixed_layers(maps: AttentionMaps, *, residual: float = 0.5) -> Numbers:
    """Return where each layer takes its input from, `(layers, tokens, tokens)`, rows summing to 1.

    It is the mean of the heads, and the position itself with the share `residual`.

    Raises:
        ValueError: As in `attention_rollout`.
    """
    if not 0 <= residual < 1:
        raise ValueError(f"residual is {residual}, expected a share of at least 0 and below 1")
    if len(maps.kinds) > 1 or maps.kinds == ("cross",):
        raise ValueError(
            f"the layers are of kind {', '.join(maps.kinds)}, expected one kind that looks at itself: "
            'maps.select(maps.of_kind("encoder"))'
        )
    heads = np.stack([layer.weights.mean(0, dtype=np.float64) for layer in maps.layers])
    # Where a sink took a part the rest counts as the whole.
    heads /= np.maximum(heads.sum(-1, keepdims=True), np.finfo(np.float64).tiny)
    return (1 - residual) * heads + residual * np.eye(heads.shape[-1])
