"""The best answers of windows: the most probable spans of characters, by an exact search over spans of tokens.

A span's score is P(first token) · P(last token), each a softmax over the context's tokens and the classification
token, or P(first, last) of a model that judges them together. Tokens that begin or end at the same character are one
place, and spans that differ only in such tokens are one answer, with the best of their scores.
"""

from __future__ import annotations

import functools
import unicodedata
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from hf_nlpnotes.question_answering.span_search import SpanTable, top_spans

Spans: TypeAlias = dict[tuple[int, int], float]
"""Answers: characters `[start, end)` of the context, and the logarithm of their score."""


@dataclass(frozen=True)
class WindowAnswers:
    """The best answers of one window.

    Args:
        spans: Them, best first.
        null: Logarithm of the probability that the window has no answer.
        normalizer: What is added to a logarithm to make it the sum of the two logits again.
    """

    spans: Spans
    null: float
    normalizer: float


@dataclass(frozen=True)
class WindowScores:
    """What a model says about windows, and where their tokens are in the context.

    Args:
        start_logits, end_logits: `(windows, tokens)`.
        span_logits: `(windows, tokens, tokens)`, by first and last token, of models that give them.
        starts: Character at which an answer begins that begins with a token, `(windows, tokens)`; -1 where no answer
            can begin.
        ends: Character before which an answer ends that ends with a token, `(windows, tokens)`; -1 likewise.
        cls_index: Place of the classification token, `(windows,)`.
    """

    start_logits: np.ndarray
    end_logits: np.ndarray
    span_logits: np.ndarray | None
    starts: np.ndarray
    ends: np.ndarray
    cls_index: np.ndarray

    def logarithms(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]:
        """Log-probabilities of first tokens, last tokens and, in place of their sums, pairs; float64, -inf outside.

        Last the normalizer of each window, `(windows,)`.
        """
        rows = np.arange(len(self.cls_index))
        tokens = (self.starts >= 0) | (self.ends >= 0)
        tokens[rows, self.cls_index] = True
        if self.span_logits is None:
            first, first_normalizer = _log_softmax(self.start_logits.astype(np.float64), tokens)
            last, last_normalizer = _log_softmax(self.end_logits.astype(np.float64), tokens)
            return first, last, None, first_normalizer + last_normalizer
        size = tokens.shape[1]
        allowed = tokens[:, :, None] & tokens[:, None, :] & np.triu(np.ones((size, size), dtype=bool))
        # An answer does not end or begin at the classification token: it is a pair with itself alone.
        allowed[rows, self.cls_index] = False
        allowed[rows, :, self.cls_index] = False
        allowed[rows, self.cls_index, self.cls_index] = True
        pairs, normalizer = _log_softmax(self.span_logits.reshape(len(rows), -1), allowed.reshape(len(rows), -1))
        nothing = np.zeros(tokens.shape)
        return nothing, nothing, pairs.reshape(allowed.shape), normalizer


def best_spans(windows: WindowScores, top_k: int, max_answer_len: int) -> list[WindowAnswers]:
    """Search each window for its most probable answers.

    Args:
        windows: The windows.
        top_k: How many answers of a window; all where it has no more.
        max_answer_len: Tokens of the longest answer.

    Returns:
        The answers of each window.
    """
    first, last, pairs, normalizer = windows.logarithms()
    rows = np.arange(len(first))
    cls = windows.cls_index
    null = first[rows, cls] + last[rows, cls] if pairs is None else pairs[rows, cls, cls]
    spans: list[Spans] = [{} for _ in rows]
    # Where spans of tokens are one answer, more of them are needed; how many is seen when they are there.
    wanted, open_rows, most = top_k, rows, first.shape[1] * min(max_answer_len, first.shape[1])
    while len(open_rows):
        wanted = min(wanted, most)
        begins, reaches = windows.starts[open_rows], windows.ends[open_rows]
        if pairs is None:
            found = top_spans(
                first[open_rows],
                last[open_rows],
                wanted,
                start_mask=begins >= 0,
                end_mask=reaches >= 0,
                max_answer_length=max_answer_len,
            )
        else:
            allowed = (begins >= 0)[:, :, None] & (reaches >= 0)[:, None, :]
            found = top_pairs(np.where(allowed, pairs[open_rows], -np.inf), wanted, max_answer_len)
        begins = np.take_along_axis(begins, found.starts.clip(0), axis=1)
        reaches = np.take_along_axis(reaches, (found.ends - 1).clip(0), axis=1)
        left = []
        for place, row in enumerate(open_rows.tolist()):
            there = found.scores[place] > -np.inf
            spans[row] = _distinct(begins[place][there], reaches[place][there], found.scores[place][there], top_k)
            if len(spans[row]) < top_k and there.all() and wanted < most:
                left.append(row)
        open_rows, wanted = np.array(left, dtype=np.intp), 4 * wanted + 8
    rest = zip(spans, null.tolist(), normalizer.tolist(), strict=True)
    return [WindowAnswers(*answers) for answers in rest]


def top_pairs(scores: np.ndarray, k: int, max_answer_length: int) -> SpanTable:
    """The `k` best spans of each row, as `top_spans` gives them, by scores `(rows, tokens, tokens)` of pairs."""
    size = scores.shape[1]
    near = np.tril(np.ones((size, size), dtype=bool), max_answer_length - 1)
    scores = np.where(near, scores, -np.inf)
    # The k best spans begin at k tokens at most: those whose best span scores highest.
    kept = min(k, size)
    first = np.sort(np.argpartition(-scores.max(axis=2), kept - 1, axis=1)[:, :kept], axis=1)
    flat = np.take_along_axis(scores, first[:, :, None], axis=1).reshape(len(scores), -1)
    k = min(k, flat.shape[1])
    best = np.sort(np.argpartition(-flat, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(flat, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best, values = np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)
    return SpanTable(np.take_along_axis(first, best // size, axis=1), best % size + 1, values)


def _distinct(starts: np.ndarray, ends: np.ndarray, scores: np.ndarray, top_k: int) -> Spans:
    """The first `top_k` spans of characters that differ; of equal ones the first, which is the best."""
    spans: Spans = {}
    for start, end, score in zip(starts.tolist(), ends.tolist(), scores.tolist(), strict=True):
        if end > start and (start, end) not in spans:
            spans[start, end] = score
            if len(spans) == top_k:
                break
    return spans


def _log_softmax(logits: np.ndarray, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithm of the softmax over what is allowed in each row, -inf elsewhere; and what was taken off in float64."""
    values = np.where(allowed, logits, -np.inf)
    largest = values.max(axis=1, keepdims=True)
    sums = np.exp(values - largest).sum(axis=1, keepdims=True, dtype=np.float64)
    normalizer = largest + np.log(sums)
    return (values - normalizer).astype(logits.dtype, copy=False), normalizer[:, 0]


def character_places(context: str, offsets: np.ndarray, align_to_words: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where answers begin and end that begin and end with each token.

    Args:
        context: The text.
        offsets: `(tokens, 2)`, characters of each token, half-open; -1 where it is none of the context.
        align_to_words: Move both out of the middle of a word (see `word_bounds`).

    Returns:
        Two `(tokens,)` arrays, -1 where no answer can begin or end. Blanks at a token's edges are not of the answer.
    """
    firsts, lasts = _edges(context, align_to_words)
    tokens = offsets[:, 1] > offsets[:, 0]
    begin, end = offsets[:, 0].clip(0), offsets[:, 1].clip(0)
    starts = np.where(tokens, firsts[begin], -1)
    ends = np.where(tokens, lasts[end], -1)
    blank = tokens & (starts >= offsets[:, 1])  # a token of blanks alone: answers begin after and end before it
    return np.where(blank, -1, starts), np.where(blank, -1, ends)


def _edges(context: str, align_to_words: bool) -> tuple[np.ndarray, np.ndarray]:
    """For each place in the text, `(characters + 1,)`: where an answer that begins, and one that ends there, does."""
    size = len(context)
    blank = np.fromiter(map(str.isspace, context), dtype=bool, count=size)
    places = np.arange(size + 1)
    # The next character that is no blank, and the place after the last one before.
    following = np.append(np.where(blank, size, places[:-1]), size)
    firsts = np.minimum.accumulate(following[::-1])[::-1]
    lasts = np.maximum.accumulate(np.append(0, np.where(blank, 0, places[1:])))
    if align_to_words:
        inside = word_bounds(context)
        firsts = np.maximum.accumulate(np.where(inside, 0, places))[firsts]
        lasts = np.minimum.accumulate(np.where(inside, size, places)[::-1])[::-1][lasts]
    return firsts, lasts


def word_bounds(context: str) -> np.ndarray:
    """Where a text is in the middle of a word: `(characters + 1,)` bool, True between two characters of one word.

    A word is a run of letters, digits and combining marks of scripts that are written with blanks between words. It
    goes by the text, not by the tokenizer, some of which take a whole Chinese sentence for one word.
    """
    in_word = np.fromiter(map(_is_of_a_word, context), dtype=bool, count=len(context))
    inside = np.zeros(len(context) + 1, dtype=bool)
    inside[1:-1] = in_word[:-1] & in_word[1:]
    return inside


# Scripts without blanks between words, and Hangul, where a particle is written together with its noun: first and last
# code points of Unicode's blocks, the most frequent first.
_NO_BLANKS = (
    (0x4E00, 0x9FFF),  # CJK
    (0x2E80, 0x31FF),  # CJK radicals, kana, Bopomofo, Hangul compatibility Jamo
    (0xAC00, 0xD7FF),  # Hangul
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul Jamo
    (0x1780, 0x17FF),  # Khmer
    (0x3400, 0x4DBF),  # CJK extension A
    (0xA960, 0xA97F),  # Hangul Jamo extended A
    (0xF900, 0xFAFF),  # CJK compatibility
    (0xFF66, 0xFFDF),  # half-width kana and Hangul
    (0x1B000, 0x1B16F),  # kana supplement
    (0x20000, 0x3FFFF),  # CJK extensions
)


@functools.lru_cache(maxsize=1 << 16)
def _is_of_a_word(character: str) -> bool:
    code = ord(character)
    return unicodedata.category(character)[0] in "LMN" and not any(a <= code <= b for a, b in _NO_BLANKS)
