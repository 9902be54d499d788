"""Numbers of a page in few characters: weights in 8 bits, vectors in 10, deflated, written in 85 safe characters.

A weight is a whole number of steps of 1/255, so that it is off by at most 1/510. Above 128 keys the mean weight falls
below two steps; rows without a large weight are then kept in steps that are 2, 4, … times finer, and stay as readable
as in a short text.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_nlpnotes.attention.maps import LayerAttention

LEVELS = 255
"""Steps of a weight of 1."""

VECTOR_LEVELS = 511
"""Steps of the largest element of a query or a key, to either side of 0: 10 bits with the sign."""

ALPHABET = np.array([code for code in range(35, 127) if chr(code) not in "&<>\\"][:85], dtype=np.uint8)
"""Digits of base 85: nothing that HTML or JSON would have to escape. Base 64 makes a page 7 % larger."""


def pack_weights(layer: LayerAttention) -> dict[str, Any]:
    """Return a layer's weights for the page: `size` in bytes once deflated, and these bytes as `data`.

    Inflated, they are (heads, queries) shifts, (heads, queries) ranks and (heads, keys, queries) codes, a byte each:
    a weight is code / (255 · 2^shift). The largest weight of a row is that of the true largest among those with the
    largest code: `rank` of them stand before it (at most 255 are counted).

    Raises:
        ValueError: A weight is not a number from 0 to 1.
    """
    weights = layer.weights
    # NaN fails both comparisons. Rounding may bring the only weight of a row a little over 1.
    if not bool(((weights >= 0) & (weights <= 1 + 1e-3)).all()):
        raise ValueError(f"weights of {layer.name!r} are not numbers from 0 to 1: did the model compute NaN?")
    shifts = _shifts(weights)
    codes = np.rint(np.minimum(weights, 1) * (LEVELS * np.exp2(shifts, dtype=np.float32))[..., None]).astype(np.uint8)
    best = weights.argmax(axis=-1)[..., None]
    ties = (codes == codes.max(axis=-1, keepdims=True)) & (np.arange(weights.shape[-1]) < best)
    ranks = np.minimum(ties.sum(axis=-1), 255).astype(np.uint8)
    return _pack(shifts.tobytes() + ranks.tobytes() + np.ascontiguousarray(codes.swapaxes(1, 2)).tobytes())


def pack_vectors(layer: LayerAttention) -> dict[str, Any]:
    """Return a layer's queries and keys for the page: `dim`, `scaling`, `size` and `data`.

    Inflated: for each query the scaled product with the key that it gives most weight, and for each vector its scale,
    queries before keys, 4 bytes each; of each element the upper 8 bits; of four elements together the lower 2 bits.
    An element is (code - 512) / 511 · scale. The products are there because a sum of rounded elements that nearly
    cancel is off by much of itself.

    Raises:
        ValueError: The layer's queries and keys were not captured, or they are not finite.
    """
    if layer.query is None or layer.key is None or layer.scaling is None:
        raise ValueError(f"queries and keys of {layer.name!r} are not here: only its weights were captured")
    dim = layer.query.shape[-1]
    vectors = np.concatenate([layer.query.reshape(-1, dim), layer.key.reshape(-1, dim)])
    if not bool(np.isfinite(vectors).all()):
        raise ValueError(f"queries or keys of {layer.name!r} are not finite: did the model overflow?")
    scales = np.abs(vectors).max(axis=-1, initial=0)
    steps = np.rint(vectors / np.where(scales == 0, 1, scales)[:, None] * VECTOR_LEVELS)
    codes = (steps.astype(np.int16) + VECTOR_LEVELS + 1).astype(np.uint16).ravel()
    quarters = np.pad(codes & 3, (0, -len(codes) % 4)).astype(np.uint8).reshape(-1, 4)
    low = quarters[:, 0] | quarters[:, 1] << 2 | quarters[:, 2] << 4 | quarters[:, 3] << 6
    best = layer.weights.argmax(axis=-1)[..., None]
    keys = np.take_along_axis(layer.key[:, None], best[..., None], axis=2)[:, :, 0]
    products = (layer.query * keys).sum(axis=-1) * layer.scaling
    numbers = np.concatenate([products.ravel(), scales]).astype("<f4")
    data = numbers.tobytes() + (codes >> 2).astype(np.uint8).tobytes() + low.tobytes()
    return {"dim": dim, "scaling": float(layer.scaling), **_pack(data)}


def _shifts(weights: NDArray[np.float32]) -> NDArray[np.uint8]:
    """How many times a row's step is halved, (heads, queries)."""
    finest = max(0, math.ceil(math.log2(weights.shape[-1] / 128)))
    largest = np.clip(weights.max(axis=-1), 2.0**-finest, 1)
    return np.floor(-np.log2(largest)).astype(np.uint8)


def _pack(data: bytes) -> dict[str, Any]:
    # Weights that repeat along a column are shortest as references, those that look like noise as plain Huffman codes.
    strategies = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)
    packed = min((_deflate(data, strategy) for strategy in strategies), key=len)
    return {"size": len(packed), "data": base85(packed)}


def _deflate(data: bytes, strategy: int) -> bytes:
    deflater = zlib.compressobj(6, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return deflater.compress(data) + deflater.flush()


def base85(data: bytes) -> str:
    """Write bytes with the characters of `ALPHABET`: 5 for every 4, the last ones filled up with zeros."""
    number = np.frombuffer(data + b"\0" * (-len(data) % 4), dtype=">u4").astype(np.uint32)
    digits = np.empty((len(number), 5), dtype=np.uint8)
    for place in range(4, -1, -1):
        number, digits[:, place] = np.divmod(number, np.uint32(85))
    return ALPHABET[digits].tobytes().decode("ascii")
