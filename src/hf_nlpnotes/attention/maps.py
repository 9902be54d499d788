"""What a model's attention was on one input: tokens, and for each layer its weights and what they were made of.

    scores  = query · keyᵀ · scaling + bias + mask      (with a softcap c, its first term t is c · tanh(t / c))
    weights = softmax over the keys (and the sinks, which are then left out) of scores

Shapes are those of one input, without a batch: heads come first. Keys and values that several heads share (grouped
queries) are repeated, so that there are as many as queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .storage import read_archive, write_archive
from .tokens import TokenSequence

Kind = Literal["encoder", "decoder", "cross"]
"""Who looks at whom. `encoder`: an encoder's tokens at one another. `decoder`: a decoder's tokens at one another;
in a model that is nothing but a decoder, its one input. `cross`: the decoder's tokens at the encoder's."""

Array = NDArray[np.float32]
FORMAT = 1
"""Version of the file layout that `AttentionMaps.save` writes."""


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """Attention of one layer. Arrays are float32 and read-only.

    What a model does not have is None: most have no bias, no softcap and no sinks. `query`, `key` and `scaling` are
    None together, where weights were caught but not the product that they came from.

    Attributes:
        name: Path of the attention module in the model, "encoder.layer.4.attention.self".
        kind: "encoder", "decoder" or "cross".
        weights: `(heads, queries, keys)`, each row sums to 1 (to less where there are sinks).
        query: `(heads, queries, dim)`, after rotary positions and norms: as it enters the product.
        key: `(heads, keys, dim)`.
        value: `(heads, keys, value_dim)`.
        scaling: Factor on query · key, mostly 1 / √dim.
        mask: `(1 or heads, queries, keys)`, added to the scores: 0 where looking is allowed, else very low.
        bias: `(heads, queries, keys)`, added likewise: relative positions, ALiBi, DeBERTa's content-position terms.
        softcap: Bound of the scores before mask and bias (Gemma 2).
        sinks: `(heads, queries)`, scores of a key that takes weight and gives nothing (gpt-oss).

    Raises:
        ValueError: There is no such kind; shapes do not fit those of the weights; or query, key and scaling are not
            there together.
    """

    name: str
    kind: Kind
    weights: Array
    query: Array | None = None
    key: Array | None = None
    value: Array | None = None
    scaling: float | None = None
    mask: Array | None = None
    bias: Array | None = None
    softcap: float | None = None
    sinks: Array | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is {self.kind!r}, expected one of {get_args(Kind)}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                array = np.asarray(value, dtype=np.float32)
                array = array.view() if array is value else array
                array.flags.writeable = False
                object.__setattr__(self, field.name, array)
        if self.weights.ndim != 3:
            raise ValueError(
                f"weights of {self.name!r} have the shape {self.weights.shape}, expected (heads, queries, keys)"
            )
        heads, queries, keys = self.weights.shape
        self._expect("query", (heads, queries))
        self._expect("key", (heads, keys))
        self._expect("value", (heads, keys))
        self._expect("bias", (heads, queries, keys))
        self._expect("sinks", (heads, queries))
        if self.mask is not None and self.mask.shape not in {(1, queries, keys), (heads, queries, keys)}:
            raise ValueError(f"mask of {self.name!r} has the shape {self.mask.shape}, expected {(1, queries, keys)}")
        if len({self.query is None, self.key is None, self.scaling is None}) > 1:
            raise ValueError(f"{self.name!r} has some of query, key and scaling: give all three or none")

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles are made anew: NumPy forgets there that an array is read-only."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    def _expect(self, field: str, shape: tuple[int, ...]) -> None:
        array = getattr(self, field)
        if array is not None and array.shape[: len(shape)] != shape:
            raise ValueError(
                f"{field} of {self.name!r} has the shape {array.shape}, expected it to begin with {shape}"
            )

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return int(self.weights.shape[0])

    @property
    def has_scores(self) -> bool:
        """Whether query, key and scaling are here, so that `products` and `scores` can be asked for."""
        return self.query is not None

    def products(self) -> Array:
        """Return query · key · scaling, `(heads, queries, keys)`, before softcap, bias and mask.

        Raises:
            ValueError: The layer's queries and keys were not captured.
        """
        if self.query is None or self.key is None or self.scaling is None:
            raise ValueError(f"queries and keys of {self.name!r} are not here: only its weights were captured")
        result: Array = self.query @ self.key.swapaxes(-1, -2) * np.float32(self.scaling)
        return result

    def scores(self) -> Array:
        """Return what the softmax was taken of, `(heads, queries, keys)`.

        Raises:
            ValueError: The layer's queries and keys were not captured.
        """
        scores = self.products()
        if self.softcap is not None:
            cap = np.float32(self.softcap)
            scores = np.tanh(scores / cap) * cap
        for term in (self.bias, self.mask):
            if term is not None:
                scores = (scores + term).astype(np.float32, copy=False)
        return scores

    def rebuilt(self) -> Array:
        """Return the weights made anew from `scores`, `(heads, queries, keys)`: equal to `weights` up to rounding.

        A row in which everything is masked with -inf is zero.

        Raises:
            ValueError: The layer's queries and keys were not captured.
        """
        scores = self.scores()
        keys = scores.shape[-1]
        if self.sinks is not None:
            scores = np.concatenate([scores, self.sinks[..., None]], axis=-1)
        largest = scores.max(axis=-1, keepdims=True)
        exponentials = np.exp(scores - np.where(np.isfinite(largest), largest, 0))
        total = exponentials.sum(axis=-1, keepdims=True)
        weights: Any = exponentials / np.where(total == 0, 1, total)
        result: Array = weights[..., :keys].astype(np.float32, copy=False)
        return result


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention of a model on one input.

    Attributes:
        model: Name of the model's class.
        model_type: `config.model_type`.
        layers: The layers in the order in which they ran. All of one kind, except in an encoder-decoder.
        tokens: The input's tokens; in an encoder-decoder, the encoder's.
        decoder_tokens: The decoder's tokens in an encoder-decoder, None in every other model.

    Raises:
        ValueError: There are no layers, or a layer's weights are not of the tokens' number.
    """

    model: str
    model_type: str
    layers: tuple[LayerAttention, ...]
    tokens: TokenSequence
    decoder_tokens: TokenSequence | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError("there are no layers: expected at least one LayerAttention")
        for index, layer in enumerate(self.layers):
            expected = (len(self.rows(index)), len(self.columns(index)))
            if layer.weights.shape[1:] != expected:
                raise ValueError(f"weights of {layer.name!r} are {layer.weights.shape[1:]}, but the tokens {expected}")

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, layer: int) -> LayerAttention:
        return self.layers[layer]

    def __repr__(self) -> str:
        heads = sorted({layer.num_heads for layer in self.layers})
        kinds = ", ".join(f"{len(self.of_kind(kind))} {kind}" for kind in self.kinds)
        sizes = [len(sequence) for sequence in (self.tokens, self.decoder_tokens) if sequence is not None]
        shown = [kinds, f"heads: {'/'.join(map(str, heads))}", f"tokens: {' and '.join(map(str, sizes))}"]
        return f"AttentionMaps({self.model}, layers: {', '.join(shown)})"

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of attention that there are, in the order of `Kind`."""
        found = {layer.kind for layer in self.layers}
        return tuple(kind for kind in get_args(Kind) if kind in found)

    def of_kind(self, kind: Kind) -> tuple[int, ...]:
        """Return the numbers of the layers of one kind.

        Args:
            kind: "encoder", "decoder" or "cross".
        """
        return tuple(index for index, layer in enumerate(self.layers) if layer.kind == kind)

    def select(self, layers: Sequence[int]) -> AttentionMaps:
        """Return the maps of some layers, in the given order; negative numbers count from the end.

        Args:
            layers: Numbers of the layers, from 0.

        Raises:
            ValueError: There is no such layer, or none was named.
        """
        for layer in layers:
            if not -len(self) <= layer < len(self):
                raise ValueError(f"layer {layer}: there are {len(self)} layers, 0 to {len(self) - 1}")
        return replace(self, layers=tuple(self.layers[layer] for layer in layers))

    def rows(self, layer: int) -> TokenSequence:
        """Return the tokens that look: the queries of a layer.

        Args:
            layer: Number of the layer, from 0.
        """
        if self.layers[layer].kind == "encoder" or self.decoder_tokens is None:
            return self.tokens
        return self.decoder_tokens

    def columns(self, layer: int) -> TokenSequence:
        """Return the tokens that are looked at: the keys of a layer.

        Args:
            layer: Number of the layer, from 0.
        """
        return self.tokens if self.layers[layer].kind == "cross" else self.rows(layer)

    def weights(self) -> Array:
        """Return the weights of all layers, `(layers, heads, queries, keys)`.

        Raises:
            ValueError: The layers differ in their shapes: `select` those of one kind.
        """
        shapes = {layer.weights.shape for layer in self.layers}
        if len(shapes) > 1:
            raise ValueError(
                f"layers differ in shape, {sorted(shapes)}: take them one by one, or select() those of one kind"
            )
        return np.stack([layer.weights for layer in self.layers])

    def save(self, path: str | Path) -> Path:
        """Write the maps into one file (a NumPy archive, ".npz") and return its path.

        The file is complete or not there: it is written beside its place and moved.

        Args:
            path: The file to write; its folder must exist.
        """
        header: dict[str, Any] = {
            "format": FORMAT,
            "model": self.model,
            "model_type": self.model_type,
            "tokens": self.tokens.to_dict(),
            "decoder_tokens": None if self.decoder_tokens is None else self.decoder_tokens.to_dict(),
            "layers": [],
        }
        arrays: dict[str, NDArray[Any]] = {}
        for index, layer in enumerate(self.layers):
            values = {field.name: getattr(layer, field.name) for field in fields(layer)}
            arrays |= {f"{index}.{name}": value for name, value in values.items() if isinstance(value, np.ndarray)}
            header["layers"].append(
                {k: v for k, v in values.items() if not isinstance(v, np.ndarray) and v is not None}
            )
        return write_archive(Path(path), header, arrays)

    @classmethod
    def load(cls, path: str | Path) -> AttentionMaps:
        """Return the maps that `save` wrote.

        Args:
            path: The file.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not one of these, or of a later version.
        """
        header, arrays = read_archive(Path(path), FORMAT)
        try:
            layers = [
                LayerAttention(
                    **plain
                    | {name.partition(".")[2]: value for name, value in arrays.items() if name.startswith(f"{index}.")}
                )
                for index, plain in enumerate(header["layers"])
            ]
            decoder = header["decoder_tokens"]
            return cls(
                header["model"],
                header["model_type"],
                tuple(layers),
                TokenSequence.from_dict(header["tokens"]),
                None if decoder is None else TokenSequence.from_dict(decoder),
            )
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise ValueError(
                f"{path} holds no whole attention maps ({type(error).__name__}: {error}): save them anew"
            ) from error
