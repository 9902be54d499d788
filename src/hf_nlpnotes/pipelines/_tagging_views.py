"""What a task makes of spans: words, words with tags, entities, arguments, slots, keywords."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

View = Literal["entities", "words", "tagged_words", "arguments", "slots", "keywords"]


class ScoredSpan(NamedTuple):
    """A span of characters with its type (None: outside of every span) and probability."""

    type: str | None
    start: int
    end: int
    score: float


def entities(text: str, spans: Sequence[ScoredSpan]) -> list[dict[str, Any]]:
    """As `token-classification` gives aggregated entities."""
    return _listed(text, spans, "entity_group")


def words(text: str, spans: Sequence[ScoredSpan]) -> list[dict[str, Any]]:
    """All words of a text; what is outside of every span is a word of its own."""
    return [
        {"score": span.score, "word": text[span.start : span.end], "start": span.start, "end": span.end}
        for span in spans
    ]


def tagged_words(text: str, spans: Sequence[ScoredSpan]) -> list[dict[str, Any]]:
    """All words of a text with their tags; O where they are outside of every span."""
    return [
        {
            "tag": "O" if span.type is None else span.type,
            "score": span.score,
            "word": text[span.start : span.end],
            "start": span.start,
            "end": span.end,
        }
        for span in spans
    ]


def arguments(text: str, spans: Sequence[ScoredSpan]) -> list[dict[str, Any]]:
    """Arguments of a predicate with their roles."""
    return _listed(text, spans, "role")


def slots(text: str, spans: Sequence[ScoredSpan]) -> list[dict[str, Any]]:
    """Slots of an utterance."""
    return _listed(text, spans, "slot")


def keywords(text: str, spans: Sequence[ScoredSpan]) -> list[dict[str, Any]]:
    """Keywords, most certain first: the probability that at least one of a keyword's places is one, 1 - Π (1 - p)."""
    places: dict[str, list[ScoredSpan]] = {}
    for span in spans:
        if span.type is not None:
            places.setdefault(text[span.start : span.end], []).append(span)
    ranked: list[dict[str, Any]] = [
        {
            "word": word,
            "score": 1 - math.prod(1 - span.score for span in found),
            "count": len(found),
            "offsets": [(span.start, span.end) for span in found],
        }
        for word, found in places.items()
    ]
    return sorted(ranked, key=lambda keyword: -float(keyword["score"]))


def _listed(text: str, spans: Sequence[ScoredSpan], key: str) -> list[dict[str, Any]]:
    return [
        {
            key: span.type,
            "score": span.score,
            "word": text[span.start : span.end],
            "start": span.start,
            "end": span.end,
        }
        for span in spans
        if span.type is not None
    ]


VIEWS: dict[str, Callable[[str, Sequence[ScoredSpan]], list[dict[str, Any]]]] = {
    "entities": entities,
    "words": words,
    "tagged_words": tagged_words,
    "arguments": arguments,
    "slots": slots,
    "keywords": keywords,
}

__all__ = ["VIEWS", "ScoredSpan", "View"]
