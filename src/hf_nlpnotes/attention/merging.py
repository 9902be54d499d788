"""Attention between words, of attention between their tokens.

A word's row is the mean of its tokens' rows, and a row's weight on a word is the sum over the word's tokens: rows
still sum to 1. This is how Clark et al. (2019), "What Does BERT Look At?", section 4.1, go from word pieces to words.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from .maps import AttentionMaps, LayerAttention
from .tokens import TokenSequence


def merge_words(maps: AttentionMaps) -> AttentionMaps:
    """Return the attention between words; special tokens stay by themselves.

    Words are those that the tokens were given when they were captured: the tokenizer's own (in BERT's tokenizers a
    Chinese character is a word), or those of `capture_attention(…, words=jieba.lcut)`. Weights alone are kept: words
    have no queries and keys of their own.

    Args:
        maps: What `capture_attention` returned.
    """
    starts = _starts(maps.tokens)
    decoder = maps.decoder_tokens
    decoder_starts = None if decoder is None else _starts(decoder)
    layers = []
    for index, layer in enumerate(maps.layers):
        of = [
            starts if sequence is maps.tokens or decoder_starts is None else decoder_starts
            for sequence in (maps.rows(index), maps.columns(index))
        ]
        layers.append(LayerAttention(layer.name, layer.kind, _merged(layer.weights, *of)))
    return AttentionMaps(
        maps.model,
        maps.model_type,
        tuple(layers),
        _words(maps.tokens, starts),
        None if decoder is None or decoder_starts is None else _words(decoder, decoder_starts),
    )


def _starts(tokens: TokenSequence) -> list[int]:
    """Place of the first token of each word."""
    names = [
        (segment, word) if segment is not None and word is not None else (None, place)
        for place, (segment, word) in enumerate(zip(tokens.segments, tokens.words, strict=True))
    ]
    groups = [len(list(group)) for _, group in groupby(names)]
    return [0, *np.cumsum(groups[:-1]).tolist()]


def _merged(weights: NDArray[np.float32], rows: list[int], columns: list[int]) -> NDArray[np.float32]:
    sums = np.add.reduceat(np.add.reduceat(weights, columns, axis=2), rows, axis=1)
    lengths = np.diff([*rows, weights.shape[1]])
    return np.divide(sums, lengths[:, None], dtype=np.float32)


def _words(tokens: TokenSequence, starts: list[int]) -> TokenSequence:
    groups = [range(start, end) for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True)]
    spans, shown, pinyin = [], [], []
    for group in groups:
        segment, found = tokens.segments[group[0]], [tokens.spans[place] for place in group]
        known = [span for span in found if span is not None]
        span = (known[0][0], known[-1][1]) if known else None
        spans.append(span)
        text = tokens.texts[segment][slice(*span)].strip() if span is not None and segment is not None else ""
        shown.append(text or "".join(tokens.tokens[place] for place in group))
        readings = [tokens.pinyin[place] for place in group]
        pinyin.append(" ".join(reading for reading in readings if reading) or None)
    return TokenSequence(
        tokens.texts,
        tuple(shown),
        tuple(" ".join(tokens.pieces[place] for place in group) for group in groups),
        tuple(tokens.segments[start] for start in starts),
        tuple(spans),
        tuple(tokens.words[start] for start in starts),
        tuple(pinyin),
    )
