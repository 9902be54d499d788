"""Which token gets the reading of which character.

The rule is by offset: a token that stands for exactly one character of the text gets the reading of that character.
Asking the Rust backend for offsets costs more than all the rest, and nearly every text needs none of them: BERT makes
each Chinese character one token, so that the k-th Chinese token belongs to the k-th Chinese character. Where this is
not certain, the offsets decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain
from typing import TypeAlias

import numpy as np
from tokenizers import Encoding

from .pinyin_reader_chinesebert import READABLE, SMALL, SPLIT, PinyinReader, kinds_of, to_codes

Row: TypeAlias = tuple[str | Sequence[str], ...]
"""What is encoded as one row: a text or a pair of texts, each a string or a list of words."""


def to_rows(text: object, text_pair: object, split_into_words: bool) -> list[Row]:
    """The rows that a tokenizer's arguments `text` and `text_pair` stand for, as the backend takes them."""
    if split_into_words:
        batched = isinstance(text, (list, tuple)) and bool(text) and isinstance(text[0], (list, tuple))
    else:
        batched = isinstance(text, (list, tuple))
    if not batched:
        return [(text, text_pair)] if text_pair else [(text,)]  # type: ignore[list-item]
    if text_pair is not None:
        return list(zip(text, text_pair, strict=True))  # type: ignore[call-overload]
    if not split_into_words:
        return [(entry,) if isinstance(entry, str) else tuple(entry) for entry in text]  # type: ignore[attr-defined]
    return [(entry,) if _is_words(entry) else tuple(entry) for entry in text]  # type: ignore[attr-defined]


def align(
    rows: Sequence[Row],
    encodings: Sequence[Encoding],
    input_ids: Sequence[list[int]],
    *,
    tokens: np.ndarray,
    reader: PinyinReader,
) -> tuple[np.ndarray, np.ndarray]:
    """Readings of the tokens of strings, one encoding a row.

    Args:
        rows: What was encoded; strings, no lists of words.
        encodings: The backend's output, asked only about the rows that need offsets.
        input_ids: Its token ids.
        tokens (`np.ndarray`): For each token of the vocabulary the code point it stands for if it is one character
            that BERT splits off, else 0. (vocab,) int32
        reader (`PinyinReader`): Reads the texts.

    Returns:
        Readings of all tokens one row after the other, (tokens,) int16, and where each row ends in it, (rows,).
    """
    texts = list(chain.from_iterable(rows))
    codes = to_codes(texts)  # type: ignore[arg-type]
    readings = reader.read_codes(codes)
    text_ends = np.cumsum(np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)) + 1)
    row_ends = text_ends[np.cumsum(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))) - 1]
    kinds = kinds_of(codes)
    characters_at = np.flatnonzero(kinds & SPLIT)
    character_counts = np.diff(np.searchsorted(characters_at, row_ends), prepend=0)

    token_ends = np.cumsum(np.fromiter(map(len, input_ids), dtype=np.int64, count=len(input_ids)))
    ids = np.fromiter(chain.from_iterable(input_ids), dtype=np.int64, count=int(token_ends[-1]))
    token_codes = tokens[ids]
    tokens_at = np.flatnonzero(token_codes)
    token_counts = np.diff(np.searchsorted(tokens_at, token_ends), prepend=0)

    # A row is certain when its tokens spell the Chinese characters of its text, one by one, and no other character
    # of it can have a reading. That fails where a token is unknown, cut off or added, and is right to fail there.
    certain = character_counts == token_counts
    certain[np.searchsorted(row_ends, np.flatnonzero(kinds == READABLE), side="right")] = False
    characters_at = characters_at[np.repeat(certain, character_counts)]
    tokens_at = tokens_at[np.repeat(certain, token_counts)]
    differ = codes[characters_at] != token_codes[tokens_at]
    if differ.any():
        certain[np.repeat(np.flatnonzero(certain), character_counts[certain])[differ]] = False

    aligned = np.zeros(len(ids), dtype=np.int16)
    aligned[tokens_at] = readings[characters_at]
    first_text = np.cumsum([0, *map(len, rows)])
    for row in np.flatnonzero(~certain).tolist():
        here = range(first_text[row], first_text[row + 1])
        by_text = [readings[text_ends[text] - 1 - len(texts[text]) : text_ends[text] - 1].tolist() for text in here]
        aligned[token_ends[row] - len(input_ids[row]) : token_ends[row]] = _by_offsets(
            encodings[row], by_text, [None] * len(here)
        )
    return aligned, token_ends


def align_by_offsets(
    rows: Sequence[Row], encodings: Sequence[Encoding], samples: Sequence[int], *, reader: PinyinReader
) -> list[list[int]]:
    """Readings of the tokens of each encoding, any number of encodings a row.

    Args:
        rows: What was encoded. Words are read as if they were written together.
        encodings: The backend's output.
        samples: The row that each encoding is of.
        reader (`PinyinReader`): Reads the texts.
    """
    readings = iter(_read_each(["".join(sequence) for row in rows for sequence in row], reader))
    by_row = [[next(readings) for _ in row] for row in rows]
    starts = [[_word_starts(sequence) for sequence in row] for row in rows]
    return [_by_offsets(e, by_row[sample], starts[sample]) for e, sample in zip(encodings, samples, strict=True)]


def _by_offsets(
    encoding: Encoding, readings: Sequence[Sequence[int]], word_starts: Sequence[Sequence[int] | None]
) -> list[int]:
    """Readings of an encoding's tokens from those of its texts, by offset; within words the offsets begin anew."""
    if len(readings) == 1 and word_starts[0] is None:
        (characters,) = readings
        return [characters[start] if end - start == 1 else 0 for start, end in encoding.offsets]
    aligned = []
    for (start, end), sequence, word in zip(encoding.offsets, encoding.sequence_ids, encoding.word_ids, strict=True):
        if end - start != 1 or sequence is None:
            aligned.append(0)
            continue
        starts = word_starts[sequence]
        aligned.append(readings[sequence][start if starts is None or word is None else starts[word] + start])
    return aligned


def _read_each(texts: list[str], reader: PinyinReader) -> list[list[int]]:
    if sum(map(len, texts)) < SMALL:
        return [reader.read_text(text) for text in texts]
    rows = reader.read(texts).tolist()
    ends = list(accumulate(map(len, texts)))
    return [rows[end - len(text) : end] for text, end in zip(texts, ends, strict=True)]


def _word_starts(sequence: str | Sequence[str]) -> list[int] | None:
    return None if isinstance(sequence, str) else list(accumulate(map(len, sequence), initial=0))


def _is_words(entry: Sequence[object]) -> bool:
    return not entry or isinstance(entry[0], str)
