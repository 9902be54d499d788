"""Positions and attention heads that look at one relative offset each, from the first step on.

Heads that attend to "the token before" or "two tokens after" form in every masked language model, but only after
hundreds of thousands of examples; until then the model is a bag of words. They can be written down. Give every token a
few dimensions of its own for the position, with sines and cosines of frequencies ω_k, and rotate the query by the
wanted offset o (the rotation property of sinusoidal positions, Vaswani et al. 2017, section 3.5):

    q_i · k_j  ∝  Σ_k cos ω_k (j − i − o),

which is largest at j = i + o. Frequencies spread over (0, π) with jitter make the sum fall off at once and keep it
from coming back within the length. When it fails: once token vectors grow, LayerNorm shrinks the position's part of
the sum and the heads blur; see `calibrated_gain`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

DEFAULT_OFFSETS = (-1, 1, -2, 2, -3, 3, -4, 4)
"""The offset of each of eight heads, in positions from the query."""


def frequencies(count: int = 16, *, jitter: float = 0.35, seed: int = 0) -> torch.Tensor:
    """(count,) ω_k = π (k + ½ + jitter·u_k) / count with u_k uniform on (−1, 1).

    Args:
        count: K, how many.
        jitter: largest shift of a frequency, in steps of π / K.
        seed: of the shifts.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, generator=generator, dtype=torch.float64) * 2 - 1
    return math.pi * (torch.arange(count) + 0.5 + jitter * noise) / count


def position_vectors(length: int, hidden_size: int, omega: torch.Tensor, *, scale: float = 0.7 / 4) -> torch.Tensor:
    """(length, hidden_size): (sin ω_k i, cos ω_k i)·scale in dimensions 2k and 2k + 1, zero in the others.

    With 16 frequencies and the default scale a row's length is 0.7, that of `token_vectors`.

    Args:
        length: positions.
        hidden_size: width of the vectors, 2K or more.
        omega: (K,) from `frequencies`.
        scale: factor on every number.

    Raises:
        ValueError: `hidden_size` is below 2K.
    """
    angles = torch.arange(length, dtype=torch.float64)[:, None] * omega  # (length, K)
    pairs = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1) * scale  # (length, 2K)
    if pairs.shape[1] > hidden_size:
        raise ValueError(f"{len(omega)} frequencies need {pairs.shape[1]} dimensions: hidden_size is {hidden_size}")
    vectors = torch.zeros(length, hidden_size)
    vectors[:, : pairs.shape[1]] = pairs
    return vectors


def rotation(omega: torch.Tensor, offset: int) -> torch.Tensor:
    """(2K, 2K) matrix that turns the position part of row i of `position_vectors` into that of row i + offset."""
    cos, sin = (omega * offset).cos(), (omega * offset).sin()
    matrix = torch.zeros(2 * len(omega), 2 * len(omega), dtype=omega.dtype)
    even = torch.arange(0, 2 * len(omega), 2)
    matrix[even, even], matrix[even, even + 1] = cos, sin
    matrix[even + 1, even], matrix[even + 1, even + 1] = -sin, cos
    return matrix


def offset_head_weights(
    hidden_size: int, head_size: int, omega: torch.Tensor, offsets: Sequence[int], *, gain: float = 0.63
) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and key weights of one layer, a head for each offset.

    Args:
        hidden_size: H; `head_size` times the number of offsets.
        head_size: d ≥ 2K; dimensions that are left over stay zero.
        omega: (K,) from `frequencies`.
        offsets: the offset of each head, in positions.
        gain: factor in both matrices; the logits grow with its square.

    Returns:
        Two (H, H) matrices for ``nn.Linear`` (rows are outputs).

    Raises:
        ValueError: the heads do not make up `hidden_size`, or `head_size` is below 2K.
    """
    used = 2 * len(omega)
    if head_size * len(offsets) != hidden_size or head_size < used:
        raise ValueError(
            f"{len(offsets)} offsets with head_size={head_size} and {len(omega)} frequencies: expected "
            f"offsets x head_size = hidden_size ({hidden_size}) and head_size >= {used}"
        )
    query, key = torch.zeros(hidden_size, hidden_size), torch.zeros(hidden_size, hidden_size)
    for head, offset in enumerate(offsets):
        rows = slice(head * head_size, head * head_size + used)
        query[rows, :used] = (gain * rotation(omega, offset)).float()
        key[rows, :used] = gain * torch.eye(used)
    return query, key


def value_output_weights(
    hidden_size: int, *, value_scale: float = 0.5, output_scale: float = 0.3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and output weights (H, H) that carry tokens unmixed: V orthogonal × value_scale, output_scale · Vᵀ.

    Args:
        hidden_size: H.
        value_scale: factor in V.
        output_scale: factor on Vᵀ in the output.
        seed: of V.
    """
    generator = torch.Generator().manual_seed(seed)
    value = torch.nn.init.orthogonal_(torch.empty(hidden_size, hidden_size), generator=generator) * value_scale
    return value, output_scale * value.T.contiguous()


def weight_on_offset(probabilities: torch.Tensor, offset: int) -> torch.Tensor:
    """Mean weight that a head puts on the position at `offset`, over the queries that have one.

    Args:
        probabilities: (..., length, length), rows are queries.
        offset: in positions; negative ones lie before the query.

    Returns:
        (...), from 0 to 1.
    """
    return probabilities.diagonal(offset, dim1=-2, dim2=-1).mean(-1)


def calibrated_gain(logits: torch.Tensor, offset: int, *, target: float = 0.93, largest: float = 8.0) -> float:
    """The smallest factor (in steps of 2 %, at least 1) on a head's logits with which it puts `target` on its offset.

    Args:
        logits: (..., length, length) of one head, scaled as the softmax sees them.
        offset: the head's offset, in positions.
        target: mean weight that the offset is to have, below 1.
        largest: the factor at which the search gives up.

    Raises:
        ValueError: no factor up to `largest` is enough.
    """
    factor = 1.0
    while weight_on_offset((logits * factor).softmax(-1), offset).mean() < target:
        factor *= 1.02
        if factor > largest:
            raise ValueError(
                f"a factor of {largest} does not bring {target:.0%} of the weight to offset {offset}: "
                "the position's part of the hidden state is too small; scale token vectors down"
            )
    return factor
