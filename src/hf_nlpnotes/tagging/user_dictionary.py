"""Words that the user knows: forced upon a tagger, or put together from its pieces.

- `force`: where a word of the dictionary stands in the text (the longest from the left), it is a span, whatever the
  model says; what stands around it is decoded so that the whole stays legal. For names that must never be cut.
- `combine`: neighbouring spans that together are a word of the dictionary become one (the longest from the left). The
  model decides where the text is cut, the dictionary only how finely: 美国/总统 stays apart where only 美国 was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from .decoding import TagDecoder
from .schemes import Span, spans_to_tags


class UserDictionary:
    """Words with their types.

    Args:
        words: the words, or a mapping from each to the type of its span; `""` for spans without types.

    Raises:
        ValueError: no words, or an empty one.
        TypeError: one string, or words that are no strings.
    """

    def __init__(self, words: Iterable[str] | Mapping[str, str]) -> None:
        if isinstance(words, str):
            raise TypeError(f"a dictionary is a list of words, or a mapping from words to types, got {words!r}")
        self.types = dict(words) if isinstance(words, Mapping) else dict.fromkeys(words, "")
        if not self.types:
            raise ValueError("the dictionary has no words: leave it out")
        for word, name in self.types.items():
            if not isinstance(word, str) or not isinstance(name, str):
                raise TypeError(f"words and types are strings, got {word!r}: {name!r}")
            if not word:
                raise ValueError("the dictionary has an empty word")
        self._longest = max(map(len, self.types))

    def find(self, text: str, units: Sequence[tuple[int, int]]) -> list[Span]:
        """Find words in a text, the longest from the left; none overlaps another.

        Args:
            text: the text.
            units: (start, end) of what has a tag each; a word that begins or ends inside of one is not found.

        Returns:
            Spans of units.
        """
        found = []
        place = 0
        while place < len(units):
            start = units[place][0]
            end = place
            for last in range(place, len(units)):
                if units[last][1] - start > self._longest:
                    break
                if text[start : units[last][1]] in self.types:
                    end = last + 1
            if end > place:
                found.append(Span(self.types[text[start : units[end - 1][1]]], place, end))
            place = max(end, place + 1)
        return found

    def combine(self, text: str, spans: Sequence[Span]) -> list[Span]:
        """Put neighbouring spans together where they are a word of the dictionary.

        Args:
            text: the text.
            spans: spans of characters, in order.
        """
        combined = []
        place = 0
        while place < len(spans):
            end = place + 1
            for last in range(place + 1, len(spans)):
                touches = spans[last].start == spans[last - 1].end
                if not touches or spans[last].end - spans[place].start > self._longest:
                    break
                if text[spans[place].start : spans[last].end] in self.types:
                    end = last + 1
            span = Span(spans[place].type, spans[place].start, spans[end - 1].end)
            if end > place + 1:
                span = span._replace(type=self.types[text[span.start : span.end]] or span.type)
            combined.append(span)
            place = end
        return combined


def force_spans(logits: torch.Tensor, spans: Iterable[Span], decoder: TagDecoder) -> torch.Tensor:
    """Return logits under which the given spans are the only possible ones where they stand.

    Args:
        logits: (positions, labels), of one sentence.
        spans: flat spans of positions.
        decoder: the labels and their scheme.

    Raises:
        ValueError: a type that the labels do not have.
    """
    forced, length = logits.clone(), len(logits)
    number = {label: place for place, label in enumerate(decoder.labels)}
    ordered = list(spans)
    tags = spans_to_tags(ordered, length, decoder.scheme)
    inside = [position for span in ordered for position in range(span.start, span.end)]
    for span in ordered:
        unknown = [tag for tag in tags[span.start : span.end] if tag not in number]
        if unknown:
            raise ValueError(
                f"the dictionary's type {span.type!r} needs the tag {unknown[0]!r}, which the model does not have: "
                f"expected one of the types {', '.join(map(repr, decoder.types[:-1]))}"
            )
    for position in inside:
        tag = number[tags[position]]
        forced[position] = -torch.inf
        forced[position, tag] = logits[position, tag].clamp(min=torch.finfo(logits.dtype).min)
    # In schemes that do not mark both ends the tokens beside a span could belong to it.
    free = set(range(length)) - set(inside)
    for span in ordered:
        first, last = number[tags[span.start]], number[tags[span.end - 1]]
        if span.start - 1 in free:
            joined = [tag for tag in number.values() if decoder.goes_on(tag, first)]
            forced[span.start - 1, joined] = -torch.inf
        if span.end in free:
            joined = [tag for tag in number.values() if decoder.goes_on(last, tag)]
            forced[span.end, joined] = -torch.inf
    return forced


__all__ = ["UserDictionary", "force_spans"]
