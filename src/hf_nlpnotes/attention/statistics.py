"""What a head looks at, in numbers: how sharply, how far, and at what.

Clark et al. (2019), "What Does BERT Look At?", section 3, and Vig & Belinkov (2019), "Analyzing the Structure of
Attention in a Transformer Language Model", section 4, read heads by these. Every function takes the weights of one
layer or of many, `(..., queries, keys)`, and gives one number a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .maps import AttentionMaps, Kind
from .tokens import TokenSequence

Numbers = NDArray[np.float64]
Weights = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class HeadStatistics:
    """Numbers of one layer's heads, `(heads,)` each; None where a number makes no sense.

    Shares are of the weight that a query gives, 0 to 1, as a mean over queries.

    Attributes:
        layer: Number of the layer in the maps.
        kind: "encoder", "decoder" or "cross".
        entropy: Of the weights, in nats: 0 looks at one token, ln(keys) at all alike.
        largest: The largest weight of a query.
        distance: Tokens between a query and what it looks at. Not in cross attention.
        self_share: At itself. Not in cross attention.
        previous_share: At the token before, over the queries that have one. Not in cross attention.
        next_share: At the token behind, over the queries that have one. Not in cross attention.
        first_share: At the first token, where many models leave attention that they don't need.
        separator_share: At the special tokens behind the first of the text: [SEP], </s>.
        a_to_b: From the first text at the second. Only of pairs.
        b_to_a: From the second text at the first. Only of pairs.
    """

    layer: int
    kind: Kind
    entropy: Numbers
    largest: Numbers
    distance: Numbers | None
    self_share: Numbers | None
    previous_share: Numbers | None
    next_share: Numbers | None
    first_share: Numbers
    separator_share: Numbers
    a_to_b: Numbers | None
    b_to_a: Numbers | None

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary a head, of plain numbers: for `pandas.DataFrame`, or JSON."""
        names = [field.name for field in fields(self) if field.name not in {"layer", "kind"}]
        columns: dict[str, list[float | None]] = {}
        for name in names:
            values = getattr(self, name)
            columns[name] = [None] * len(self.entropy) if values is None else [float(value) for value in values]
        return [
            {"layer": self.layer, "head": head, "kind": self.kind} | {name: columns[name][head] for name in names}
            for head in range(len(self.entropy))
        ]


def head_statistics(maps: AttentionMaps) -> tuple[HeadStatistics, ...]:
    """Return the statistics of every layer of `maps`.

    Args:
        maps: What `capture_attention` returned.
    """
    return tuple(_of_layer(maps, layer) for layer in range(len(maps)))


def entropy(weights: Weights) -> Numbers:
    """Return the mean entropy of the queries' weights in nats, `(...)` of `(..., queries, keys)`."""
    exact = np.asarray(weights, dtype=np.float64)
    logarithms = np.log(exact, where=exact > 0, out=np.zeros_like(exact))
    result: Numbers = -(exact * logarithms).sum(-1).mean(-1)
    return result


def mean_distance(weights: Weights) -> Numbers:
    """Return the mean number of tokens between a query and its keys, `(...)` of `(..., tokens, tokens)`.

    Vig & Belinkov, equation 2: each distance counts with its weight.

    Raises:
        ValueError: Queries and keys are not the same tokens.
    """
    exact = _square(weights)
    places = np.arange(exact.shape[-1])
    distances = np.abs(places[:, None] - places[None, :])
    result: Numbers = (exact * distances).sum((-1, -2)) / exact.sum((-1, -2))
    return result


def share_at_offset(weights: Weights, offset: int) -> Numbers:
    """Return the mean weight on the token `offset` places behind the query (-1: the one before it), `(...)`.

    The mean is over the queries that have such a token; 0 where none has.

    Raises:
        ValueError: Queries and keys are not the same tokens.
    """
    exact = _square(weights)
    if abs(offset) >= exact.shape[-1]:
        return np.zeros(exact.shape[:-2])
    result: Numbers = exact.diagonal(offset, -2, -1).mean(-1)
    return result


def share_on(weights: Weights, keys: Sequence[int], queries: Sequence[int] | None = None) -> Numbers:
    """Return the mean over `queries` (None: all) of the weight on all of `keys`, `(...)` of `(..., queries, keys)`.

    Raises:
        ValueError: There are no queries to take the mean over.
    """
    exact = np.asarray(weights, dtype=np.float64)
    if queries is not None:
        if not len(queries):
            raise ValueError("queries are empty: expected at least one position, or None for all")
        exact = exact[..., list(queries), :]
    result: Numbers = exact[..., list(keys)].sum(-1).mean(-1)
    return result


def separators(tokens: TokenSequence) -> tuple[int, ...]:
    """Return the positions of the special tokens behind the first token of the text."""
    first = next((place for place, segment in enumerate(tokens.segments) if segment is not None), len(tokens))
    return tuple(place for place in tokens.of_segment(None) if place > first)


def _of_layer(maps: AttentionMaps, layer: int) -> HeadStatistics:
    weights = maps[layer].weights
    rows, columns = maps.rows(layer), maps.columns(layer)
    own = maps[layer].kind != "cross"
    pair = own and rows.is_pair
    first, second = rows.of_segment(0), rows.of_segment(1)
    return HeadStatistics(
        layer=layer,
        kind=maps[layer].kind,
        entropy=entropy(weights),
        largest=np.asarray(weights.max(-1).mean(-1), dtype=np.float64),
        distance=mean_distance(weights) if own else None,
        self_share=share_at_offset(weights, 0) if own else None,
        previous_share=share_at_offset(weights, -1) if own else None,
        next_share=share_at_offset(weights, 1) if own else None,
        first_share=share_on(weights, [0]),
        separator_share=share_on(weights, separators(columns)),
        a_to_b=share_on(weights, second, first) if pair else None,
        b_to_a=share_on(weights, first, second) if pair else None,
    )


def _square(weights: Weights) -> Numbers:
    exact = np.asarray(weights, dtype=np.float64)
    if exact.ndim < 2 or exact.shape[-1] != exact.shape[-2]:
        raise ValueError(
            f"weights have the shape {exact.shape}, expected (..., tokens, tokens): the same tokens twice"
        )
    return exact
