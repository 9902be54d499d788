"""From tags of words or spans of characters to labels of sub-words, and from scores of sub-words back to words.

Everything goes by offsets. A token is a piece `[start, end)` of a document: of its text, or of its words written one
after the other (`token_offsets` makes these from a tokenizer's word ids, whose offsets count within each word). So a
window that begins in the middle of a span or of a word is labelled as what it is, and scores of overlapping windows
meet again at the word they belong to, before anything is decoded: a span that crosses windows comes out whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .schemes import OUTSIDE, Scheme, Span, check_flat_spans, format_tag, get_scheme, parse_tag, tags_to_spans

Offset = tuple[int, int] | None
"""A token's piece of the document; None for a special token."""

Subwords = Literal["first", "all", "none"]
"""Which sub-words of a word stand for it: its first, all of them, or none where there are several."""

SUBWORDS: tuple[Subwords, ...] = ("first", "all", "none")


class Misalignment(NamedTuple):
    """A span that tags cannot write: one of its edges lies inside a token, or (token -1) no token has any of it.

    `start` and `end` are the token's offsets, or the span's own where there is no token.

    Attributes:
        span: the span.
        token: number of the token that an edge lies inside of; -1 where no token has any of the span.
        start: first character of that token, or of the span where there is none.
        end: the character after its last.
    """

    span: Span
    token: int
    start: int
    end: int


class TokenTags(NamedTuple):
    """Tags of tokens, None where there is nothing to learn, and the spans that could not be written exactly.

    Attributes:
        tags: one a token; None for special tokens and wherever there is nothing to learn.
        misaligned: the spans that tags could not write exactly.
    """

    tags: list[str | None]
    misaligned: list[Misalignment]


class MergedScores(NamedTuple):
    """Scores of a document's words or tokens.

    Attributes:
        scores: (units, labels); zeros where no window has the unit.
        covered: (units,); whether any window has it (a tokenizer drops some characters altogether).
    """

    scores: NDArray[np.float64]
    covered: NDArray[np.bool_]


def token_offsets(
    word_ids: Sequence[int | None], offsets: Sequence[tuple[int, int]], words: Sequence[str]
) -> list[Offset]:
    """Place tokens of pre-split words in the words' concatenation.

    Args:
        word_ids: (tokens,); an encoding's `word_ids()`.
        offsets: (tokens,); its `offset_mapping`, which for pre-split input counts within each word.
        words: the words that were encoded.

    Raises:
        ValueError: other numbers of ids and offsets, or a word id out of range.
    """
    if len(word_ids) != len(offsets):
        raise ValueError(f"{len(word_ids)} word ids for {len(offsets)} offsets: expected one of each a token")
    begins = [0, *accumulate(map(len, words))]
    placed: list[Offset] = []
    for word, (start, end) in zip(word_ids, offsets, strict=True):
        if word is not None and not 0 <= word < len(words):
            raise ValueError(f"word id {word} for {len(words)} words: were these the words that were encoded?")
        placed.append(None if word is None else (begins[word] + start, begins[word] + end))
    return placed


def word_units(
    word_ids: Sequence[int | None],
    offsets: Sequence[tuple[int, int]],
    subwords: Subwords = "first",
    *,
    words: Sequence[str],
) -> list[int]:
    """Number of the word that each token stands for, -1 for tokens that stand for none.

    Args:
        word_ids: (tokens,); an encoding's `word_ids()`.
        offsets: (tokens,); its `offset_mapping`, counted within each word.
        subwords: "first": the token at the word's beginning (a window that begins inside a word has none of it);
            "all": every token; "none": only a token that is the whole word.
        words: the words that were encoded.

    Raises:
        ValueError: an unknown way, or as `token_offsets`.
    """
    _check_subwords(subwords)
    token_offsets(word_ids, offsets, words)  # for its checks
    units = []
    seen: set[int] = set()
    for word, (start, end) in zip(word_ids, offsets, strict=True):
        counts = word is not None and (
            subwords == "all"
            # Some tokenizers begin a word with an empty piece: the first one at 0 is it.
            or (subwords == "first" and start == 0 and word not in seen)
            or (subwords == "none" and (start, end) == (0, len(words[word])))
        )
        if word is not None:
            seen.add(word)
        units.append(word if counts and word is not None else -1)
    return units


def align_word_tags(
    word_ids: Sequence[int | None],
    offsets: Sequence[tuple[int, int]],
    words: Sequence[str],
    tags: Sequence[str],
    scheme: str | Scheme = "IOB2",
    *,
    subwords: Subwords = "first",
) -> list[str | None]:
    """Give sub-words the tags of their words.

    Args:
        word_ids: (tokens,); an encoding's `word_ids()`.
        offsets: (tokens,); its `offset_mapping`, counted within each word.
        words: the words that were encoded; characters, for Chinese.
        tags: one tag a word.
        scheme: the tagging scheme.
        subwords: "first": a word's first sub-word has its tag, the others none; "all": the spans are written over
            all sub-words anew, so that `S-LOC` on three sub-words is `B-LOC I-LOC E-LOC`; "none": a word of several
            sub-words has no tag at all.

    Returns:
        One tag a token, None for special tokens and where `subwords` gives none.

    Raises:
        ValueError: no words, other numbers of words and tags, an empty word, tags that are not legal in the scheme.
    """
    if not len(words):
        raise ValueError("the sentence is empty: expected at least one word")
    if len(words) != len(tags):
        raise ValueError(f"{len(tags)} tags for {len(words)} words: expected one tag a word")
    if not all(words):
        raise ValueError(f"word {list(map(bool, words)).index(False)} is empty: expected at least one character")
    if subwords != "all":
        table = get_scheme(scheme)
        for tag in tags:
            parse_tag(tag, table)
        units = word_units(word_ids, offsets, subwords, words=words)
        return [None if unit < 0 else tags[unit] for unit in units]
    begins = [0, *accumulate(map(len, words))]
    spans = [Span(span.type, begins[span.start], begins[span.end]) for span in tags_to_spans(tags, scheme)]
    return align_spans(token_offsets(word_ids, offsets, words), spans, scheme).tags


def align_spans(
    offsets: Sequence[Offset], spans: Iterable[tuple[str, int, int]], scheme: str | Scheme = "IOB2"
) -> TokenTags:
    """Give tokens the tags of spans of characters.

    A span whose edge lies inside a token takes the whole token, where no earlier span has it, and is reported.

    Args:
        offsets: (tokens,); characters `[start, end)` of each token, None for special tokens; tokens of one window of
            a long document will do.
        spans: (type, start, end) in characters, flat.
        scheme: the tagging scheme.

    Raises:
        ValueError: overlapping spans, an unknown scheme, a span of several tokens in a scheme of single tags.
    """
    table = get_scheme(scheme)
    listed = [Span(*span) for span in spans]
    ends = [end for _, end in map(_bounds, offsets)]
    ordered = check_flat_spans(listed, length=max([*ends, *(span.end for span in listed)], default=0))
    tags: list[str | None] = [None if offset is None else OUTSIDE for offset in offsets]
    misaligned = []
    owner: dict[int, Span] = {}
    number = 0
    for token, offset in enumerate(offsets):
        if offset is None or offset[0] == offset[1]:
            continue
        start, end = offset
        while number < len(ordered) and ordered[number].end <= start:
            number += 1
        touched = [span for span in ordered[number : number + end - start] if span.start < end]
        misaligned += [
            Misalignment(span, token, start, end)
            for span in touched
            if start < span.start < end or start < span.end < end
        ]
        if touched:
            owner[token] = touched[0]
    seen = [offset for offset in offsets if offset is not None and offset[0] < offset[1]]
    reported = {misalignment.span for misalignment in misaligned} | set(owner.values())
    misaligned += [
        Misalignment(span, -1, span.start, span.end)
        for span in ordered
        if seen and seen[0][0] <= span.start and span.end <= seen[-1][1] and span not in reported
    ]
    for token, span in owner.items():
        tags[token] = _tag_of(token, span, owner, offsets, table)
    return TokenTags(tags, misaligned)


def _tag_of(token: int, span: Span, owner: dict[int, Span], offsets: Sequence[Offset], table: Scheme) -> str:
    start, end = _bounds(offsets[token])
    before, after = _neighbour(token, -1, offsets), _neighbour(token, 1, offsets)
    # A token inside of the span that stands first in its window does not begin the span.
    is_first = owner.get(before) != span and (start <= span.start or before >= 0)
    is_last = owner.get(after) != span and (end >= span.end or after >= 0)
    prefix = {(True, True): table.single, (True, False): table.first, (False, True): table.last}.get(
        (is_first, is_last), table.inner
    )
    if not table.prefixed and not (is_first and is_last):
        raise ValueError(f"{span} has several tokens: in {table.name} every token has its own tag")
    if is_first and table.touching_first and before in owner and owner[before].type == span.type:
        prefix = table.touching_first
    if is_last and table.touching_last and after in owner and owner[after].type == span.type:
        prefix = table.touching_last
    return format_tag(prefix, span.type, table)


def _neighbour(token: int, step: int, offsets: Sequence[Offset]) -> int:
    """Return the next token with characters in a direction, -1 at the window's edge."""
    token += step
    while 0 <= token < len(offsets):
        start, end = _bounds(offsets[token])
        if start < end:
            return token
        token += step
    return -1


def _bounds(offset: Offset) -> tuple[int, int]:
    return (0, 0) if offset is None else offset


def merge_windows(
    scores: Sequence[ArrayLike],
    units: Sequence[Sequence[int]],
    num_units: int,
    *,
    overlap: Literal["mean", "max_context"] = "mean",
) -> MergedScores:
    """Bring the scores of overlapping windows, and of several sub-words, together at the words.

    Args:
        scores: for each window (tokens, labels): logits or probabilities.
        units: for each window (tokens,): the word, character or token of the document that a token stands for, -1
            for none; `word_units` gives it.
        num_units: words of the document.
        overlap: where a unit is in several windows, "mean" averages all its tokens' scores; "max_context" takes them
            from the window with the most tokens on the shorter side of it, the first among equals (Devlin et al.,
            2019, take answers so).

    Raises:
        ValueError: no windows, other numbers of windows or tokens, other labels, a unit out of range, an unknown way.
    """
    if overlap not in ("mean", "max_context"):
        raise ValueError(f"overlap must be 'mean' or 'max_context', got {overlap!r}")
    if not len(scores) or len(scores) != len(units):
        raise ValueError(f"{len(scores)} windows of scores and {len(units)} of units: expected as many, at least one")
    tables = [np.asarray(table, dtype=np.float64) for table in scores]
    numbers = [np.asarray(window, dtype=np.int64) for window in units]
    labels = tables[0].shape[-1]
    for place, (table, window) in enumerate(zip(tables, numbers, strict=True)):
        if table.shape != (len(window), labels):
            raise ValueError(f"window {place} has scores of shape {table.shape}: expected {(len(window), labels)}")
        if len(window) and not -1 <= window.min() <= window.max() < num_units:
            raise ValueError(
                f"window {place} has units {window.min()} to {window.max()}: expected -1 to {num_units - 1}"
            )
    if overlap == "max_context":
        numbers = _keep_most_context(numbers, num_units)
    total = np.zeros((num_units, labels))
    count = np.zeros(num_units, dtype=np.int64)
    for table, window in zip(tables, numbers, strict=True):
        kept = window >= 0
        np.add.at(total, window[kept], table[kept])
        np.add.at(count, window[kept], 1)
    return MergedScores(total / np.maximum(count, 1)[:, None], count > 0)


def _keep_most_context(windows: Sequence[NDArray[np.int64]], num_units: int) -> list[NDArray[np.int64]]:
    """Set a unit to -1 in every window but the one where its shorter side has the most tokens."""
    best = np.full(num_units, -1.0)
    chosen = np.full(num_units, -1)
    for place, window in enumerate(windows):
        position = np.arange(len(window))
        # A long window breaks a tie, as in BERT's own script.
        context = np.minimum(position, len(window) - 1 - position) + 0.01 * len(window)
        for token in np.flatnonzero(window >= 0):
            if context[token] > best[window[token]]:
                best[window[token]], chosen[window[token]] = context[token], place
    return [np.where((window >= 0) & (chosen[window] == place), window, -1) for place, window in enumerate(windows)]


def _check_subwords(subwords: str) -> None:
    if subwords not in SUBWORDS:
        raise ValueError(f"subwords must be one of {', '.join(SUBWORDS)}, got {subwords!r}")
