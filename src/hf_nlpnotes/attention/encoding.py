"""A text, or two, as a model's input, with the tokens that it becomes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pypinyin.contrib.tone_convert import to_tone
from torch import nn
from transformers import BatchEncoding, PreTrainedTokenizerBase

from .tokens import Span, TokenSequence

Words = Callable[[str], Sequence[str]]
"""Splits a text into words, as `jieba.lcut` does."""

_NO_LIMIT = 1_000_000
"""Tokenizers without a limit have a huge number in its place."""


def encode(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    text_pair: str | None = None,
    *,
    limit: int | None = None,
    truncation: bool = False,
    words: Words | None = None,
) -> tuple[dict[str, torch.Tensor], TokenSequence]:
    """Return the model's inputs, one row, and the tokens in it.

    Args:
        tokenizer: Any tokenizer of transformers.
        text: The text.
        text_pair: A second text, for models that take pairs.
        limit: Most tokens that the model takes; None for no limit beyond the tokenizer's own.
        truncation: Whether to cut a text that is too long, the longer of two first. Without it that is an error.
        words: How to split a text into words; None for the tokenizer's own words, which in BERT's tokenizers are
            single characters of Chinese.

    Raises:
        ValueError: The text is empty or too long, or `words` gave what is not in the text.
    """
    texts = (text,) if text_pair is None else (text, text_pair)
    for given in texts:
        if not given.strip():
            raise ValueError(f"the text is empty: {given[:40]!r}")
        try:
            given.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text has half of a surrogate pair, {given[error.start]!r}, as its character {error.start}: "
                "replace it, as text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') does"
            ) from None
    own = tokenizer.model_max_length
    limits = [most for most in (limit, own) if most is not None and most < _NO_LIMIT]
    most = min(limits, default=None)
    options: dict[str, Any] = {"return_offsets_mapping": True} if tokenizer.is_fast else {}
    if truncation and most is not None:
        options |= {"truncation": True, "max_length": most}
    encoded = tokenizer(*texts, verbose=False, **options)
    length = len(encoded["input_ids"])
    if most is not None and length > most:
        raise ValueError(
            f"the text has {length} tokens and the model takes {most}: shorten it, or cut it with truncation=True"
        )
    inputs = {name: torch.tensor([values]) for name, values in encoded.items() if name != "offset_mapping"}
    return inputs, _sequence(tokenizer, encoded, texts, words)


def accepted(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the inputs that the model's forward names, on its device. DistilBERT takes no `token_type_ids`."""
    # A wrapper (PEFT, torch.compile) takes anything: what counts is the first forward that names an input.
    every = (inspect.signature(module.forward).parameters for module in model.modules())
    parameters: Mapping[str, Any] = next((names for names in every if any(name in names for name in inputs)), {})
    device = device_of(model)
    return {name: value.to(device) for name, value in inputs.items() if name in parameters}


def device_of(model: nn.Module) -> torch.device:
    """Return where the model takes its inputs: on the device of its first weights that are in memory.

    Weights that accelerate keeps elsewhere are on the meta device meanwhile; its hooks move the inputs, from anywhere.
    """
    return next((weights.device for weights in model.parameters() if not weights.is_meta), torch.device("cpu"))


def most_positions(model: nn.Module) -> int | None:
    """Return the most tokens that the model's table of positions has room for, None if it has no such table."""
    sizes = []
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding):
            # RoBERTa counts positions from behind the padding row.
            sizes.append(table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1))
    return min(sizes, default=None)


def _sequence(
    tokenizer: PreTrainedTokenizerBase, encoded: BatchEncoding, texts: tuple[str, ...], words: Words | None
) -> TokenSequence:
    ids = encoded["input_ids"]
    pieces = tuple(tokenizer.convert_ids_to_tokens(ids))
    segments, spans = _fast_places(encoded) if tokenizer.is_fast else _slow_places(tokenizer, ids, texts)
    shown = tuple(
        piece if segment is None or span is None else (texts[segment][slice(*span)].strip() or piece)
        for piece, segment, span in zip(pieces, segments, spans, strict=True)
    )
    numbers = _own_words(encoded, segments) if words is None else _given_words(words, texts, segments, spans)
    return TokenSequence(texts, shown, pieces, segments, spans, numbers, _pinyin(tokenizer, encoded, len(ids)))


def _fast_places(encoded: BatchEncoding) -> tuple[tuple[int | None, ...], tuple[Span | None, ...]]:
    segments = tuple(encoded.sequence_ids(0))
    offsets = encoded["offset_mapping"]
    spans = tuple(
        None if segment is None else (int(start), int(end))
        for segment, (start, end) in zip(segments, offsets, strict=True)
    )
    return segments, spans


def _slow_places(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], texts: tuple[str, ...]
) -> tuple[tuple[int | None, ...], tuple[Span | None, ...]]:
    """Tell the texts apart by counting: a tokenizer in Python does not say where its tokens stand."""
    first = len(tokenizer.tokenize(texts[0]))
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    segments: list[int | None] = []
    seen = 0
    for token in ids:
        if token in special:
            segments.append(None)
        else:
            segments.append(int(seen >= first and len(texts) == 2))
            seen += 1
    return tuple(segments), (None,) * len(ids)


def _own_words(encoded: BatchEncoding, segments: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if not encoded.is_fast:
        return tuple(None if segment is None else place for place, segment in enumerate(segments))
    own: list[int | None] = encoded.word_ids(0)
    first = [word for word, segment in zip(own, segments, strict=True) if segment == 0 and word is not None]
    behind = 1 + max(first, default=-1)
    return tuple(
        None if segment is None or word is None else word + (behind if segment else 0)
        for word, segment in zip(own, segments, strict=True)
    )


def _given_words(
    words: Words, texts: tuple[str, ...], segments: tuple[int | None, ...], spans: tuple[Span | None, ...]
) -> tuple[int | None, ...]:
    if any(segment is not None and span is None for segment, span in zip(segments, spans, strict=True)):
        raise ValueError("words need a tokenizer that says where its tokens stand: one with is_fast")
    owner: list[dict[int, int]] = []  # for each text: character -> number of its word
    count = 0
    for text in texts:
        owner.append({})
        for number, (start, end) in enumerate(_located(words(text), text), start=count):
            owner[-1] |= dict.fromkeys(range(start, end), number)
            count = number + 1
    result: list[int | None] = []
    for segment, span in zip(segments, spans, strict=True):
        inside = () if segment is None or span is None else range(span[0], max(span[1], span[0] + 1))
        result.append(next((owner[segment or 0][place] for place in inside if place in owner[segment or 0]), None))
    return tuple(result)


def _located(words: Sequence[str], text: str) -> Iterator[Span]:
    end = 0
    for word in words:
        start = text.find(word, end)
        if start < 0:
            raise ValueError(f"the word {word!r} is not in the text behind character {end}: {text[end : end + 40]!r}")
        end = start + len(word)
        if word.strip():
            yield start, end


def _pinyin(tokenizer: PreTrainedTokenizerBase, encoded: BatchEncoding, length: int) -> tuple[str | None, ...]:
    """Return the readings that a tokenizer of ChineseBERT gave, with tone marks; it is known by what it has."""
    readings = getattr(tokenizer, "readings", None)
    if readings is None or "pinyin_ids" not in encoded:
        return (None,) * length
    spelled = [readings.spelling(int(row)) for row in encoded["pinyin_ids"]]
    return tuple(to_tone(reading) if reading else None for reading in spelled)
