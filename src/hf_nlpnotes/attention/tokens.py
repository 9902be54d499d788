"""The tokens that attention runs over: their text, their pieces, which of two sentences each belongs to."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

Span = tuple[int, int]
"""Characters `[start, end)` of one of the texts."""


@dataclass(frozen=True)
class TokenSequence:
    """One sequence of tokens, in the order in which the model saw them.

    Every field but `texts` has one entry a token.

    Attributes:
        texts: The texts as the user wrote them: none, one, or two.
        tokens: What to show: the characters that the token stands for; its piece where it stands for none ("[CLS]").
        pieces: The tokenizer's own spelling: "##ing", "Ġof", "▁the".
        segments: 0 for the first text, 1 for the second, None for special tokens.
        spans: Characters `[start, end)` in the token's own text; None for special tokens.
        words: Number of the token's word, counted through both texts; None for special tokens.
        pinyin: The reading that the model was given, with its tone ("guó"); None where it has none.

    Raises:
        ValueError: A field has another number of entries than there are tokens.
    """

    texts: tuple[str, ...]
    tokens: tuple[str, ...]
    pieces: tuple[str, ...]
    segments: tuple[int | None, ...]
    spans: tuple[Span | None, ...]
    words: tuple[int | None, ...]
    pinyin: tuple[str | None, ...]

    def __post_init__(self) -> None:
        for field in fields(self)[2:]:
            entries = len(getattr(self, field.name))
            if entries != len(self.tokens):
                raise ValueError(f"{field.name} has {entries} entries, expected one a token: {len(self.tokens)}")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def is_pair(self) -> bool:
        """Whether tokens of two texts stand here."""
        return {0, 1} <= set(self.segments)

    def of_segment(self, segment: int | None) -> tuple[int, ...]:
        """Positions of the first text's tokens (0), the second's (1) or the special tokens (None).

        Args:
            segment: 0, 1 or None.
        """
        return tuple(place for place, found in enumerate(self.segments) if found == segment)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in what JSON knows; `from_dict` reads it back."""
        return {field.name: list(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TokenSequence:
        """Return the sequence that `to_dict` wrote.

        Args:
            values: What `to_dict` returned, also after a round through JSON.
        """
        spans = tuple(None if span is None else (int(span[0]), int(span[1])) for span in values["spans"])
        return cls(
            **{field.name: tuple(values[field.name]) for field in fields(cls) if field.name != "spans"}, spans=spans
        )

    @classmethod
    def of_positions(cls, length: int) -> TokenSequence:
        """Return nameless tokens "0", "1", …: image patches, audio frames, whatever has no text.

        Args:
            length: How many.
        """
        numbers = tuple(map(str, range(length)))
        nothing = (None,) * length
        return cls((), numbers, numbers, (0,) * length, nothing, tuple(range(length)), nothing)
