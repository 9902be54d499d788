"""Attention of any layer and head of a stock model, on a text.

    maps = capture_attention(model, tokenizer, "国足今晚出战")
    maps[4].weights[3]                                 # layer 4, head 3: (tokens, tokens)

Models that look their attention up in transformers' `AttentionInterface` are run once, through a function that calls
their own eager attention and keeps what went in and came out. The others are run with their eager attention, and the
products that feed its softmaxes are caught. Nothing is left changed: neither the model's attention setting nor its
training mode, also after an exception.

For an encoder-decoder give `decoder_text` too: without it only the encoder runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from .encoding import Words, accepted, encode, most_positions
from .interface import NoEagerAttentionError, uses_interface
from .maps import AttentionMaps, Kind, LayerAttention
from .products import record_products
from .recording import Recorded, evaluating, record_through_interface
from .tokens import TokenSequence

_CROSS = re.compile(r"cross|encoder_attn|encdec|enc_dec|encoder_attention|encoder_decoder_attention", re.IGNORECASE)


def capture_attention(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    text_pair: str | None = None,
    *,
    decoder_text: str | None = None,
    truncation: bool = False,
    words: Words | None = None,
) -> AttentionMaps:
    """Return the attention of every layer of `model` on a text, or on a pair of texts.

    Args:
        model: A model of transformers, with any head and any attention setting.
        tokenizer: The model's tokenizer.
        text: The text; an encoder-decoder's input.
        text_pair: A second text, for models that take pairs.
        decoder_text: What an encoder-decoder's decoder reads, behind its start token. None: only the encoder runs.
        truncation: Whether to cut texts that are too long for the model. Without it they are an error.
        words: How to split a text into words, `jieba.lcut` for example; None for the tokenizer's own words.

    Returns:
        The maps. Layers that attend over something else than these tokens (the image side of a text and image model,
        the pooled blocks of Funnel) are left out.

    Raises:
        TypeError: There is no tokenizer, or a text is no string.
        ValueError: A text is empty or too long, the model has no attention, or `decoder_text` was given to a model
            without a decoder.
    """
    _check_model(model)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(
            f"tokenizer is {tokenizer!r}, expected a tokenizer of transformers; "
            "without one call capture_inputs(model, inputs)"
        )
    for name, given in (("text", text), ("text_pair", text_pair), ("decoder_text", decoder_text)):
        if given is not None and not isinstance(given, str):
            raise TypeError(f"{name} is {given!r}, expected a string")
    inputs, tokens = encode(
        tokenizer, text, text_pair, limit=most_positions(model), truncation=truncation, words=words
    )
    if decoder_text is None:
        return capture_inputs(model, accepted(_encoder_of(model) or model, inputs), tokens=tokens)
    if not _is_encoder_decoder(model):
        raise ValueError(f"{type(model).__name__} has no decoder beside its encoder: leave decoder_text out")
    ids, decoder_tokens = _decoder_input(model, tokenizer, decoder_text, words)
    inputs = accepted(model, inputs | {"decoder_input_ids": ids})
    return capture_inputs(model, inputs, tokens=tokens, decoder_tokens=decoder_tokens)


def capture_inputs(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    *,
    tokens: TokenSequence | None = None,
    decoder_tokens: TokenSequence | None = None,
) -> AttentionMaps:
    """Return the attention of every layer of `model` on ready inputs: of images and sounds too.

    Args:
        model: A model of transformers.
        inputs: One input, a batch of 1. For an encoder-decoder without `decoder_input_ids`, only the encoder runs.
        tokens: The tokens of the input; None for as many nameless ones as most layers attend over.
        decoder_tokens: The same for an encoder-decoder's decoder.

    Raises:
        TypeError: The model is no `nn.Module` with a config.
        ValueError: There is more than one input, or no layer attends over `tokens`.
    """
    _check_model(model)
    sizes = {name: value.shape[0] for name, value in inputs.items() if value.dim()}
    if any(size != 1 for size in sizes.values()):
        raise ValueError(f"inputs have batches of {sizes}, expected one input: a first dimension of 1")
    encoder = _encoder_of(model)
    both = encoder is None or any(name.startswith("decoder_") for name in inputs)
    records = record_attention(model if both else encoder, inputs)  # type: ignore[arg-type]  # not None here
    if not records:
        raise ValueError(
            f"no attention was seen in {type(model).__name__}: it has none, or none that ends in a softmax of a "
            "product of queries and keys"
        )
    kinds = _kinds(model, records, prefix="" if both else _name_of(model, encoder))
    layers = [
        to_layer(record, kind)
        for record, kind in zip(records, kinds, strict=True)
        if record.weights.shape[:-3] == (1,)
    ]
    if encoder is None:
        sequence = tokens or TokenSequence.of_positions(_usual_length(layers, records))
        fitting = [layer for layer in layers if layer.weights.shape[1:] == (len(sequence), len(sequence))]
        own_decoder = None
    else:
        sequence = tokens or TokenSequence.of_positions(_usual_length(_of(layers, "encoder"), records))
        own_decoder = decoder_tokens
        if own_decoder is None and _of(layers, "decoder"):
            own_decoder = TokenSequence.of_positions(_usual_length(_of(layers, "decoder"), records))
        fitting = [layer for layer in layers if layer.weights.shape[1:] == _expected(layer, sequence, own_decoder)]
    if not fitting:
        shapes = sorted({tuple(record.weights.shape) for record in records})
        raise ValueError(
            f"no layer of {type(model).__name__} attends over the {len(sequence)} tokens one by one: "
            f"its weights have the shapes {shapes}"
        )
    config: Any = model.config
    return AttentionMaps(type(model).__name__, config.model_type, tuple(fitting), sequence, own_decoder)


def record_attention(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], *, on_route: Callable[[str], object] | None = None
) -> list[Recorded]:
    """Run `model` once on `inputs`, without gradients and dropout, and return its attention calls in order.

    This is the tensor behind the maps: any batch, any shape, on the model's device. Where nothing went through
    transformers' `AttentionInterface` the model is run again and its softmaxes are watched.

    Args:
        model: A model of transformers.
        inputs: What its forward takes.
        on_route: Told how the calls were found: "interface" or "fallback".

    Raises:
        TypeError: The model is no `nn.Module` with a config.
    """
    _check_model(model)
    options: dict[str, Any] = {}
    if "use_cache" in inspect.signature(model.forward).parameters:
        options["use_cache"] = False  # a cache is of no use to one forward

    def forward() -> object:
        return model(**inputs, **options)

    batch = next((value.shape[0] for value in inputs.values() if value.dim()), 1)
    with evaluating(model), torch.no_grad():
        route, records = "interface", _through_interface(model, forward) if uses_interface(model) else []
        if not records:
            route, records = "fallback", record_products(model, forward, batch)
    if on_route is not None:
        on_route(route)
    return records


def _through_interface(model: nn.Module, forward: Callable[[], object]) -> list[Recorded]:
    try:
        return record_through_interface(model, forward)
    except NoEagerAttentionError:
        return []


def _check_model(model: nn.Module) -> None:
    given: object = model
    if not (isinstance(given, nn.Module) and hasattr(given, "config")):
        raise TypeError(f"model is a {type(given).__name__}, expected a model of transformers")


def _is_encoder_decoder(model: nn.Module) -> bool:
    return bool(getattr(model.config, "is_encoder_decoder", False))


def _encoder_of(model: nn.Module) -> nn.Module | None:
    """Return an encoder-decoder's encoder, None for every other model."""
    if not _is_encoder_decoder(model):
        return None
    get_encoder: Any = getattr(model, "get_encoder", None)
    encoder = get_encoder() if callable(get_encoder) else None
    return encoder if isinstance(encoder, nn.Module) and encoder is not model else None


def _name_of(model: nn.Module, part: nn.Module | None) -> str:
    return next((f"{name}." for name, module in model.named_modules() if module is part and name), "")


def _kinds(model: nn.Module, records: list[Recorded], prefix: str) -> list[Kind]:
    """Return who looks at whom in each record.

    In an encoder-decoder the module's path tells. In other models only the weights do: a model in which no token ever
    looks at a later one is a decoder.
    """
    encoder = _encoder_of(model)
    if encoder is not None:
        root = _name_of(model, encoder)
        paths = [prefix + record.name for record in records]
        return [
            "encoder" if path.startswith(root) else "cross" if _CROSS.search(path) else "decoder" for path in paths
        ]
    square = [r.weights for r in records if r.weights.shape[-1] == r.weights.shape[-2] > 1]
    causal = bool(square) and not any(bool(weights.triu(1).any()) for weights in square)
    return ["decoder" if causal else "encoder"] * len(records)


def _of(layers: list[LayerAttention], kind: Kind) -> list[LayerAttention]:
    return [layer for layer in layers if layer.kind == kind]


def _expected(layer: LayerAttention, tokens: TokenSequence, decoder: TokenSequence | None) -> tuple[int, int]:
    own = len(decoder) if decoder is not None else -1
    return {"encoder": (len(tokens), len(tokens)), "decoder": (own, own), "cross": (own, len(tokens))}[layer.kind]


def _usual_length(layers: list[LayerAttention], records: list[Recorded]) -> int:
    """Return the length of sequence that most layers attend over."""
    lengths = [layer.weights.shape[1] for layer in layers if layer.weights.shape[1] == layer.weights.shape[2]]
    if not lengths:
        shapes = sorted({tuple(record.weights.shape) for record in records})
        raise ValueError(f"no layer attends from a sequence to itself: the weights have the shapes {shapes}")
    return max(set(lengths), key=lengths.count)


def _decoder_input(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, text: str, words: Words | None
) -> tuple[torch.Tensor, TokenSequence]:
    """Return what the decoder reads when it is to write `text`: its start token, then the text without its end."""
    encoded, sequence = encode(tokenizer, text, words=words)
    ids = encoded["input_ids"]
    config: Any = model.config
    named = [getattr(config, name, None) for name in ("decoder_start_token_id", "bos_token_id")]
    start = next((token for token in named if token is not None), None)
    if start is None:
        raise ValueError(f"the config of {type(model).__name__} has no decoder_start_token_id: set it")
    ended = int(ids[0, -1]) in {tokenizer.eos_token_id, tokenizer.sep_token_id}  # BERT tokenizers end with [SEP]
    length = len(sequence) - int(ended)
    piece = str(tokenizer.convert_ids_to_tokens(int(start)))
    shifted = TokenSequence(
        sequence.texts,
        (piece, *sequence.tokens[:length]),
        (piece, *sequence.pieces[:length]),
        (None, *sequence.segments[:length]),
        (None, *sequence.spans[:length]),
        (None, *sequence.words[:length]),
        (None, *sequence.pinyin[:length]),
    )
    return torch.cat([torch.tensor([[int(start)]]), ids[:, :length]], dim=1), shifted


def to_layer(record: Recorded, kind: Kind) -> LayerAttention:
    """Return the first input of a record as arrays."""
    weights = _array(record.weights[0])
    heads, queries, keys = weights.shape
    scaling = record.scaling
    whole = record.query is not None and record.key is not None and record.query.shape[1] == heads
    return LayerAttention(
        name=record.name,
        kind=kind,
        weights=weights,
        query=_per_head(record.query, heads) if whole else None,
        key=_per_head(record.key, heads) if whole else None,
        value=_per_head(record.value, heads),
        scaling=scaling if whole else None,
        mask=_added(record.mask, heads, queries, keys),
        bias=_added(record.bias, heads, queries, keys, every_head=True),
        softcap=record.softcap,
        sinks=None if record.sinks is None else _array(record.sinks[0]),
    )


def _array(tensor: torch.Tensor) -> NDArray[np.float32]:
    result: NDArray[np.float32] = tensor.float().cpu().numpy()
    return result


def _per_head(tensor: torch.Tensor | None, heads: int) -> NDArray[np.float32] | None:
    """Return `(heads, tokens, dim)`; heads that share keys get a copy each."""
    if tensor is None or tensor.dim() != 4 or heads % tensor.shape[1]:
        return None
    return _array(tensor[0].repeat_interleave(heads // tensor.shape[1], 0) if tensor.shape[1] < heads else tensor[0])


def _added(
    tensor: torch.Tensor | None, heads: int, queries: int, keys: int, *, every_head: bool = False
) -> NDArray[np.float32] | None:
    """Return what is added to scores, `(1 or heads, queries, keys)`, of whatever shape broadcasts to it."""
    if tensor is None:
        return None
    if tensor.dtype == torch.bool:
        tensor = torch.zeros(tensor.shape).masked_fill(~tensor.cpu(), torch.finfo(torch.float32).min)
    array = _array(tensor)
    array = array.reshape((1,) * (4 - array.ndim) + array.shape)[0, ..., :keys]
    count = heads if every_head or array.shape[0] == heads else 1
    return np.broadcast_to(array, (count, queries, keys))
