"""Texts cut at their spans, as they are shown with colours."""

from __future__ import annotations

from collections.abc import Iterable

Piece = tuple[str, str | None]
"""Characters of a text and what they are; None for those outside of every span."""


def pieces(text: str, spans: Iterable[tuple[int, int, str]]) -> list[Piece]:
    """Return the whole text as pieces.

    Args:
        text: The text.
        spans: (start, end, type) of characters, in order; they do not overlap.

    >>> pieces("国足今晚出战", [(0, 2, "ORG")])
    [('国足', 'ORG'), ('今晚出战', None)]
    """
    found: list[Piece] = []
    place = 0
    for start, end, name in spans:
        assert place <= start < end <= len(text), "spans are in order and do not overlap"
        if place < start:
            found.append((text[place:start], None))
        found.append((text[start:end], name))
        place = end
    if place < len(text):
        found.append((text[place:], None))
    return found
