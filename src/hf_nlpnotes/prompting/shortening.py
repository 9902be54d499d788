"""Fitting long texts into an input: cutting tokens where the slot says, and not tokenizing what is cut anyway.

Of 100,000 characters a model reads some 500 tokens. Tokenizing all of them takes half a second with ChineseBERT's
pinyin, so the middle of such a text is left out beforehand, by characters, and the tokens that are kept must come out
as if it had not been. They do where the tokenizer is local: its words (what the pre-tokenizer makes, which merges and
word pieces never cross) depend on the text before them back to the last place where a word must begin, and on little
after them. `shorten` leaves text out up to such a place only, and `is_exact` looks whether enough whole words lie
between the kept tokens and the seam. Where they do not (a SentencePiece tokenizer reads Chinese without blanks as one
word), more of the text is taken, in the end all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MARGIN = 64
"""Characters beside the seam whose tokens are not relied on; longer than any phrase that pinyin are looked up by."""

_REACH = 4096
"""How far back a place to go on is looked for."""

MARKS = "，。！？；：、"
"""Punctuation that begins a word of its own in most tokenizers, for text without blanks."""


@dataclass(frozen=True)
class Shortened:
    """A text with its middle left out at `seam`, an index into it; `None`: nothing is left out."""

    text: str
    seam: int | None = None


def shorten(text: str, head: int, tail: int, marks: Sequence[str] = ()) -> Shortened:
    """Keep about `head` characters of the beginning and `tail` of the end.

    The end begins at a blank or at one of `marks`, after a letter or digit: what stands there is read alike whatever
    came before. A text without such a place is kept whole.

    >>> shorten("第一句。" * 100, 5, 5, "。")
    Shortened(text='第一句。第。第一句。', seam=5)
    """
    latest = len(text) - tail
    lowest = max(head, latest - _REACH)
    start = -1
    for mark in (" ", *marks):
        found = text.rfind(mark, lowest, latest + 1) if lowest < latest else -1
        while found > 0 and not text[found - 1].isalnum():
            found = text.rfind(mark, lowest, found)
        start = max(start, found)
    return Shortened(text) if start < 0 else Shortened(text[:head] + text[start:], head)


def is_exact(
    offsets: Sequence[tuple[int, int]],
    words: Sequence[int | None],
    start: int,
    end: int,
    seam: int,
    left: int,
    right: int,
) -> bool:
    """Whether the outer tokens of a shortened text are those of the whole text.

    Args:
        offsets (`Sequence[tuple[int, int]]`):
            Character span of each token.
        words (`Sequence[int | None]`):
            The word of each token, counted from the left.
        start, end, seam (`int`):
            Where the text begins and ends and where its middle was left out, as offsets.
        left, right (`int`):
            How many tokens at its beginning and at its end will be relied on.
    """
    near = [
        word
        for (a, b), word in zip(offsets, words, strict=True)
        if a < seam + MARGIN and b > seam - MARGIN and word is not None
    ]
    first, last = min(near, default=len(words)), max(near, default=-1)
    before = after = 0
    for (a, b), word in zip(offsets, words, strict=True):
        if word is not None and a < b:
            before += a >= start and b <= seam - MARGIN and word < first
            after += a >= seam + MARGIN and b <= end and word > last
    # One at least: it parts the seam from what the template writes beside the text.
    return before >= max(left, 1) and after >= max(right, 1)


def share(lengths: Mapping[int, int], room: int) -> dict[int, int]:
    """How many tokens each text may keep so that all fit into `room`: the longest are shortened first.

    >>> share({0: 10, 1: 300}, 100)
    {0: 10, 1: 90}
    >>> share({0: 90, 1: 70}, 101)
    {0: 51, 1: 50}
    """
    # By no more than the room, so that it does not matter how much longer a text is.
    capped = {text: min(length, room) for text, length in lengths.items()}
    allowed: dict[int, int] = {}
    waiting = sorted(capped, key=lambda text: capped[text])
    for done, text in enumerate(waiting):
        allowed[text] = min(capped[text], room // (len(waiting) - done))
        room -= allowed[text]
    return {text: allowed[text] for text in lengths}
