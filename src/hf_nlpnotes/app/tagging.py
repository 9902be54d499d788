"""Words, parts of speech and entities of a text, by a trained tagger or by a list of words.

Without a tagger nothing is guessed: the words of the reader's own list are found in the text, the longest from the
left, and no model is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from hf_nlpnotes.tagging import UserDictionary

from ._bounds import bounded
from ._spans import Piece, pieces

LISTED = "word"
"""The type of a word that stands in the list without one."""

_TYPE = ("entity_group", "tag", "role", "slot")
"""Where the pipeline's answers have their type; words have none."""


class TaggedText(NamedTuple):
    """A text with its spans.

    Attributes:
        pieces: The whole text, cut at its spans: (characters, type) pairs, where None is outside of every span.
        rows: (characters, type, start, end, score) of each span; `start` and `end` are characters of the text, the
            score is a probability, None where no model was asked.
        note: What else there is to say, such as an intent; may be empty.
    """

    pieces: list[Piece]
    rows: list[tuple[str, str, int, int, float | None]]
    note: str = ""


def parse_word_list(text: str | None) -> dict[str, str]:
    r"""Return words with their types from lines `word` or `word TYPE`; the type is "" where there is none.

    Args:
        text: The field, one word a line; None: empty.

    Raises:
        ValueError: A line has more than two parts, or a word stands twice.

    >>> parse_word_list("北京大学 ORG\n大学生")
    {'北京大学': 'ORG', '大学生': ''}
    """
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, bounded("word list", text, needed=False).splitlines())):
        parts = re.split(r"[\s,，]+", line)
        if len(parts) > 2 or not all(parts):
            raise ValueError(
                f"The line {line!r} of the word list is no word with a type: write lines such as 国足 ORG."
            )
        if parts[0] in found:
            raise ValueError(f"The word {parts[0]!r} stands twice in the word list.")
        found[parts[0]] = "".join(parts[1:])
    return found


def tag_text(pipe: Any, text: str, word_list: str = "") -> TaggedText:
    """Return what a tagger finds in a text.

    Args:
        pipe: The pipeline `sequence-tagging`.
        text: The text.
        word_list: Words that are spans wherever they stand, as `parse_word_list` reads them.

    Raises:
        ValueError: The text is empty or too long, the list is wrong, or has a type that the model does not.
    """
    text = bounded("text to tag", text)
    words = parse_word_list(word_list)
    answer = pipe(text, **({"force_words": words} if words else {}))
    note = ""
    if isinstance(answer, dict):  # slots, with the intent of the whole text
        intent = answer["intent"]
        note = f"intent: {intent['label']} {intent['score']:.2f}" if intent else ""
        answer = answer["slots"]
    rows = [(one["word"], _type_of(one), one["start"], one["end"], one["score"]) for one in answer]
    # A tagger of words without types: the spans themselves are what it has to say.
    typed = [(start, end, type_ or LISTED) for _, type_, start, end, _ in rows if type_ != "O"]
    return TaggedText(pieces(text, typed), rows, note)


def find_words(text: str, word_list: str) -> TaggedText:
    """Return where the words of a list stand in a text, the longest from the left, without any model.

    Args:
        text: The text.
        word_list: What `parse_word_list` reads; at least one word.

    Raises:
        ValueError: A field is empty, too long or wrong.
    """
    text = bounded("text to tag", text)
    words = parse_word_list(word_list)
    if not words:
        raise ValueError(
            "There is no tagging model, and the word list is empty: name a model that was trained to tag, or write"
            " words to look for, one a line."
        )
    characters = [(place, place + 1) for place in range(len(text))]
    spans = UserDictionary(words).find(text, characters)
    rows: list[tuple[str, str, int, int, float | None]] = [
        (text[span.start : span.end], span.type or LISTED, span.start, span.end, None) for span in spans
    ]
    return TaggedText(pieces(text, [(start, end, type_) for _, type_, start, end, _ in rows]), rows)


def _type_of(answer: dict[str, Any]) -> str:
    return next((str(answer[key]) for key in _TYPE if key in answer), "")


def only_words(tagged: TaggedText) -> bool:
    """Whether a text is cut into words without types, for which a legend would say nothing."""
    types: Sequence[str | None] = [type_ for _, type_ in tagged.pieces]
    return set(types) <= {LISTED, None}
