"""Lines of text as tokens with word borders and readings, and which lines are held out or left out.

`rows` makes full rows of them for training; held-out lines are measured one by one (`held_out`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import BertWordPieceTokenizer


@dataclass(frozen=True)
class TokenStream:
    """Tokens of many lines, one after the other; the arrays have the same length.

    Attributes:
        input_ids: (tokens,) int32 or smaller, ``[SEP]`` after each line.
        continues_word: (tokens,) bool, whether the token belongs to the same word as the token before it.
        pinyin_ids: (tokens,) readings, or None for models without pinyin.
    """

    input_ids: np.ndarray
    continues_word: np.ndarray
    pinyin_ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.input_ids)


def is_held_out(line: str, percent: float = 1.0) -> bool:
    """Whether a line belongs to the held-out part: a function of its text alone (CRC-32), so that every run agrees.

    Args:
        line: the text.
        percent: size of the held-out part, in per cent of the lines, in steps of 0.01.
    """
    return zlib.crc32(line.encode()) % 10_000 < percent * 100


def thin_out(lines: Sequence[str], share: float, *, block: int = 100, seed: int = 0) -> list[str]:
    """Keep about `share` of the lines, in blocks of neighbouring lines so that texts stay readable.

    Args:
        lines: the text.
        share: from 0 to 1.
        block: lines a block.
        seed: of the choice.

    Raises:
        ValueError: `share` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share={share}: expected a number from 0 to 1")
    if share == 1:
        return list(lines)
    blocks = range(0, len(lines), block)
    kept = np.random.default_rng(seed).random(len(blocks)) < share
    return [line for start, keep in zip(blocks, kept, strict=True) if keep for line in lines[start : start + block]]


def word_starts(text: str, cut: Callable[[str], Iterable[str]]) -> np.ndarray:
    """(len(text),) bool: whether a word starts at this character; the segmenter's words must concatenate to `text`.

    Args:
        text: a line.
        cut: word segmenter (``jieba.cut``).

    Raises:
        ValueError: the words do not make up the text.
    """
    starts = np.zeros(len(text) + 1, dtype=bool)
    position = 0
    for word in cut(text):
        starts[position] = True
        position += len(word)
    if position != len(text):
        raise ValueError(f"the segmenter's words cover {position} of {len(text)} characters: expected all of {text!r}")
    return starts[:-1]


def encode_lines(
    lines: Sequence[str],
    tokenizer: BertWordPieceTokenizer,
    cut: Callable[[str], Iterable[str]] | None = None,
    read: Callable[[str], Sequence[int]] | None = None,
) -> TokenStream:
    """Tokenize lines into a stream, a separator after each line.

    Args:
        lines: the text.
        tokenizer: a `BertWordPieceTokenizer` of `tokenizers`, with ``[SEP]``.
        cut: word segmenter (``jieba.cut``); None: every Han character is a word, ``##`` pieces continue one.
        read: a reading for each character of a line (``PinyinReader.read_text``). A token gets one if it stands for
            exactly one character; None leaves the stream without pinyin.
    """
    sep = tokenizer.token_to_id("[SEP]")
    all_ids: list[np.ndarray] = []
    all_continues: list[np.ndarray] = []
    all_readings: list[np.ndarray] = []
    for line, encoding in zip(lines, tokenizer.encode_batch(list(lines), add_special_tokens=False), strict=True):
        ids = np.array([*encoding.ids, sep], dtype=np.int32)
        begin = np.fromiter((start for start, _ in encoding.offsets), dtype=np.int64, count=len(encoding.ids))
        if read is not None:
            end = np.fromiter((end for _, end in encoding.offsets), dtype=np.int64, count=len(encoding.ids))
            readings = np.asarray(read(line), dtype=np.int16)[begin]
            all_readings.append(np.append(np.where(end - begin == 1, readings, 0), 0).astype(np.int16))
        if cut is None:
            words = np.array([*encoding.word_ids, -1])
            continues = np.concatenate([[False], words[1:] == words[:-1]])
        else:
            continues = np.append(~word_starts(line, cut)[begin], False)
            continues[0] = False
        all_ids.append(ids)
        all_continues.append(continues)
    empty = np.zeros(0, np.int16)
    return TokenStream(
        np.concatenate([empty.astype(np.int32), *all_ids]),
        np.concatenate([empty.astype(bool), *all_continues]),
        np.concatenate([empty, *all_readings]) if read is not None else None,
    )
