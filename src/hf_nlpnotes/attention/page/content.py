"""What a page holds of attention maps: tokens, packed weights, vectors of some layers, statistics of the heads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from hf_nlpnotes.attention.maps import AttentionMaps
from hf_nlpnotes.attention.statistics import head_statistics
from hf_nlpnotes.attention.tokens import TokenSequence

from .packing import pack_vectors, pack_weights

View = Literal["head", "matrix", "model", "neuron"]
"""What a page shows first."""

MOST_WEIGHTS = 80_000_000
"""Largest number of weights of a page: twice those of 512 tokens in 12 layers of 12 heads, which are 10 to 20 MB."""

_NAMES = {
    "entropy": "entropy (nats)",
    "largest": "mean largest weight",
    "distance": "mean distance (tokens)",
    "self_share": "share on itself",
    "previous_share": "share on the previous token",
    "next_share": "share on the next token",
    "first_share": "share on the first token",
    "separator_share": "share on separators",
    "a_to_b": "share A → B",
    "b_to_a": "share B → A",
}


@dataclass(frozen=True)
class Start:
    """What a page shows when it opens: its view, layer and head.

    Attributes:
        view: "head", "matrix", "model" or "neuron".
        layer: Number of the layer, from 0.
        head: Number of the head, from 0.
    """

    view: View
    layer: int
    head: int


def counted(name: str, number: int, count: int) -> int:
    """Return `number` counted from 0, where negative numbers count from the last.

    Args:
        name: What is counted, for the message.
        number: Its number, from 0, or from -1 downwards.
        count: How many there are.

    Raises:
        ValueError: There are not so many.
    """
    if not -count <= number < count:
        raise ValueError(f"{name} {number}: there are {count}, 0 to {count - 1}")
    return number % count


def page_data(maps: AttentionMaps, start: Start, neurons: Collection[int]) -> dict[str, Any]:
    """Return the page's data, of plain Python values; `neurons` are the layers whose queries and keys it holds.

    Args:
        maps: The attention.
        start: What the page shows first.
        neurons: Numbers of the layers whose queries and keys the page holds.

    Raises:
        ValueError: There are too many weights for a page, or there is no such view.
    """
    if start.view not in get_args(View):
        raise ValueError(f"view is {start.view!r}, expected one of {get_args(View)}")
    total = sum(layer.weights.size for layer in maps.layers)
    if total > MOST_WEIGHTS:
        raise ValueError(
            f"{total:,} weights are too many for a page, which shows up to {MOST_WEIGHTS:,}: choose layers with "
            "maps.select([…]), or take a shorter text"
        )
    sequences = [maps.tokens] if maps.decoder_tokens is None else [maps.tokens, maps.decoder_tokens]
    layers = []
    for index, layer in enumerate(maps.layers):
        entry: dict[str, Any] = {
            "name": layer.name,
            "kind": layer.kind,
            "heads": layer.num_heads,
            "queries": int(maps.rows(index) is not maps.tokens),
            "keys": int(maps.columns(index) is not maps.tokens),
            "weights": pack_weights(layer),
        }
        if index in neurons:
            entry["vectors"] = pack_vectors(layer)
        layers.append(entry)
    rows = maps.rows(start.layer)
    return {
        "view": start.view,
        "layer": start.layer,
        "head": start.head,
        "token": next((place for place, segment in enumerate(rows.segments) if segment is not None), 0),
        "sequences": [_sequence(sequence) for sequence in sequences],
        "layers": layers,
        "statistics": _statistics(maps),
    }


def _sequence(tokens: TokenSequence) -> dict[str, Any]:
    return {
        "tokens": tokens.tokens,
        "pieces": tokens.pieces,
        "segments": tokens.segments,
        "pinyin": tokens.pinyin if any(tokens.pinyin) else None,
    }


def _statistics(maps: AttentionMaps) -> list[dict[str, Any]]:
    """Statistics that some head has, each `{"name", "values"}` with a list of numbers or None for each layer."""
    layers = head_statistics(maps)
    result = []
    for field, name in _NAMES.items():
        found = [getattr(layer, field) for layer in layers]
        values = [
            [None] * len(layer.entropy) if numbers is None else [_short(number) for number in numbers]
            for layer, numbers in zip(layers, found, strict=True)
        ]
        if any(value is not None for row in values for value in row):
            result.append({"name": name, "values": values})
    return result


def _short(number: float) -> float | None:
    return float(f"{number:.4g}") if np.isfinite(number) else None
