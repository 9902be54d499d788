"""A tagged sentence, however its file wrote it: tokens with a tag each, and what else is said of the whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from hf_nlpnotes.tagging import detect_scheme, detect_scheme_in, repair_tags, spans_to_tags, tags_to_spans


class TaggedSentence(NamedTuple):
    """Words or characters with a tag each.

    Attributes:
        tokens: what has a tag each; none of it blank.
        tags: as many.
        predicate: first and last + 1 token of the predicate whose arguments are tagged.
        text_class: class of the whole text, such as an intent.
        keywords: as its authors gave them, whether they stand in the text or not.
    """

    tokens: list[str]
    tags: list[str]
    predicate: tuple[int, int] | None = None
    text_class: str | None = None
    keywords: tuple[str, ...] = ()


def of_text(text: str, spans: Iterable[tuple[str, int, int]], scheme: str) -> TaggedSentence:
    """The characters of a text, blanks left out, with the tags of spans of them.

    Args:
        text: with a character that is not blank.
        spans: (type, start, end) in characters of the text, half-open, none overlapping another.
        scheme: of the tags.

    Raises:
        ValueError: a span outside of the text, and as of `spans_to_tags`.
    """
    places = [place for place, character in enumerate(text) if not character.isspace()]
    number = {place: index for index, place in enumerate(places)}
    written = []
    for name, start, end in spans:
        if not 0 <= start <= end <= len(text):
            raise ValueError(f"the span {(name, start, end)} does not lie in a text of {len(text)} characters")
        inside = [number[place] for place in range(start, end) if place in number]
        if inside:
            written.append((name, inside[0], inside[-1] + 1))
    return TaggedSentence([text[place] for place in places], spans_to_tags(written, len(places), scheme))


def of_words(words: Sequence[str], tags: Sequence[str]) -> TaggedSentence:
    """The characters of tagged words; words and tags are written together, `B-NOUN`, or `B` for an empty tag.

    Args:
        words: the words of a sentence, in order.
        tags: one a word.
    """
    spans, place = [], 0
    for word, tag in zip(words, tags, strict=True):
        spans.append((tag, place, place + len(word)))
        place += len(word)
    return of_text("".join(words), spans, "BMES")


def of_roles(words: Sequence[str], roles: Sequence[str | None], predicate: int) -> TaggedSentence:
    """The characters of words, arguments tagged, the predicate named.

    Args:
        words: of the sentence.
        roles: of each word that is an argument, else None.
        predicate: number of its word.
    """
    spans, place, marked = [], 0, (0, 0)
    for number, (word, role) in enumerate(zip(words, roles, strict=True)):
        if role is not None:
            spans.append((role, place, place + len(word)))
        if number == predicate:
            marked = (place, place + len(word))
        place += len(word)
    return TaggedSentence(list("".join(words)), spans_to_tags(spans, place, "BIOES"), marked)


def of_keywords(text: str, keywords: Iterable[str]) -> TaggedSentence:
    """The characters of a text, every place of a keyword tagged; of keywords that overlap, the first and longest.

    Args:
        text: the text.
        keywords: its keywords; empty ones do not count.
    """
    known = tuple(dict.fromkeys(keyword.strip() for keyword in keywords if keyword.strip()))
    longest_first = sorted(known, key=len, reverse=True)
    found = re.finditer("|".join(map(re.escape, longest_first)) or "(?!)", text)
    sentence = of_text(text, [("KEY", match.start(), match.end()) for match in found], "BIOES")
    return sentence._replace(keywords=tuple("".join(keyword.split()) for keyword in known))


def scheme_of(tags: Sequence[Sequence[str]]) -> str:
    """The scheme that all sentences keep, or that their tags look like where some break it, as in most real data."""
    try:
        return detect_scheme_in(tags)
    except ValueError:
        return detect_scheme(tag for row in tags for tag in row)


def cleaned(sentence: TaggedSentence, scheme: str) -> TaggedSentence:
    """The sentence without blank tokens, its tags legal in their scheme.

    Raises:
        ValueError: other numbers of tokens and tags, or nothing but blanks.
    """
    tokens, tags = sentence.tokens, sentence.tags
    if len(tokens) != len(tags):
        raise ValueError(f"{len(tags)} tags for {len(tokens)} tokens: {' '.join(tokens)!r}")
    if scheme != "SINGLE" and not all(token.strip() for token in tokens):
        kept = [number for number, token in enumerate(tokens) if token.strip()]
        before = list(accumulate((bool(token.strip()) for token in tokens), initial=0))  # tokens kept before each
        spans = [
            (span.type, before[span.start], before[span.end]) for span in tags_to_spans(tags, scheme, illegal="repair")
        ]
        if not kept:
            raise ValueError("a sentence has nothing but blank tokens")
        tags = spans_to_tags([span for span in spans if span[1] < span[2]], len(kept), scheme)
        tokens = [tokens[number] for number in kept]
        if sentence.predicate is not None:
            start, end = sentence.predicate
            sentence = sentence._replace(predicate=(before[start], before[end]))
    return sentence._replace(tokens=tokens, tags=repair_tags(tags, scheme))
