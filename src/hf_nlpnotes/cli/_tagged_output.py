"""How `hf-nlpnotes tag` writes what the pipeline finds: segmented text, a table, CoNLL columns, JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from ._output import print_table, say

FORMATS = ("segmented", "table", "conll", "json")
Row = tuple[int, dict[str, Any], Any]
"""Number of a line, the pipeline's input and its answer."""

_TYPE = {"entities": "entity_group", "tagged_words": "tag", "arguments": "role", "slots": "slot"}
_TEXTS_OF_WORDS = ("words", "tagged_words")

# Characters of scripts that have no spaces stand alone; letters and digits of others stay together.
_UNIT = re.compile(r"[^\W\u2e80-\U0003ffff]+|\S")


def printer(form: str | None, view: str, pipe: Any, scheme: str | None) -> Callable[[Iterable[Row]], None]:
    """A function that prints rows.

    Args:
        form: one of `FORMATS`; None: segmented text for words, else a table.
        view: the pipeline's.
        pipe: the pipeline.
        scheme: of CoNLL's tags; None: the model's, or IOB2 where that has no spans.

    Raises:
        ValueError: a form that a view cannot take.
    """
    form = form or ("segmented" if view in _TEXTS_OF_WORDS else "table")
    if form == "segmented" and view not in _TEXTS_OF_WORDS:
        raise ValueError(f"--format segmented is for --view words and tagged_words, and the view is {view}")
    if form == "conll":
        if view in ("keywords", "arguments"):
            raise ValueError(
                f"--format conll has one tag a character, which --view {view} has not: choose table or json"
            )
        name = _scheme(scheme, pipe)
        return lambda rows: _print_conll(rows, view, name)
    if form == "json":
        return lambda rows: _print_json(rows, view)
    return _print_segmented if form == "segmented" else lambda rows: _print_spans(rows, view)


def _print_segmented(rows: Iterable[Row]) -> None:
    for _, _, words in rows:
        # A space would be a word's end: none stands in a word.
        say(" ".join("".join(word["word"].split()) + (f"/{word['tag']}" if "tag" in word else "") for word in words))


def _print_json(rows: Iterable[Row], view: str) -> None:
    for number, item, answer in rows:
        found = answer if isinstance(answer, dict) else {_JSON_KEY.get(view, view): answer}
        say(json.dumps({"line": number, "text": item["text"], **found}, ensure_ascii=False))


_JSON_KEY = {"tagged_words": "words", "arguments": "frames"}


class _Found(NamedTuple):
    type: str
    score: float
    word: str
    place: str


def _print_spans(rows: Iterable[Row], view: str) -> None:
    if view == "arguments":
        header = ["line", "predicate", "role", "score", "place", "text"]
    else:
        header = ["line", *([] if view in ("words", "keywords") else ["type"]), "score", "place", "text"]
    cells = []
    for number, _, answer in rows:
        for first, found in _found(answer, view):
            row = [str(number), *first, *([found.type] if found.type else []), f"{found.score:.2f}"]
            cells.append([*row, found.place, " ".join(found.word.split())])
    if cells:
        print_table(header, cells)


def _found(answer: Any, view: str) -> Iterator[tuple[list[str], _Found]]:
    if view == "arguments":
        for frame in answer:
            for each in frame["arguments"]:
                yield [frame["predicate"]["word"]], _span(each, view)
        return
    if view == "slots":
        intent = answer["intent"]
        if intent is not None:
            yield [], _Found(f"intent {intent['label']}", intent["score"], "", "-")
        answer = answer["slots"]
    for each in answer:
        yield [], _span(each, view)


def _span(each: dict[str, Any], view: str) -> _Found:
    offsets = each.get("offsets") or [(each["start"], each["end"])]
    places = ",".join(f"{start}:{end}" for start, end in offsets)
    return _Found(each.get(_TYPE.get(view, ""), ""), each["score"], each["word"], places)


def _scheme(given: str | None, pipe: Any) -> str:
    from hf_nlpnotes.tagging import detect_scheme, get_scheme

    if given is not None:
        return get_scheme(given).name
    config = pipe.model.config
    own = getattr(config, "tagging_scheme", None) or detect_scheme(list(config.id2label.values()))
    return own if get_scheme(own).prefixed else "IOB2"


def _print_conll(rows: Iterable[Row], view: str, scheme: str) -> None:
    from hf_nlpnotes.tagging import spans_to_tags

    for _, item, answer in rows:
        spans = answer["slots"] if view == "slots" else answer
        if view == "tagged_words":
            pairs = [("".join(word["word"].split()), word["tag"]) for word in spans]
        else:
            units = _units(item["text"], spans)
            number = {start: place for place, (start, _) in enumerate(units)}
            written = []
            for span in spans:
                inside = [number[place] for place in range(span["start"], span["end"]) if place in number]
                if inside:
                    written.append((span.get(_TYPE.get(view, ""), ""), inside[0], inside[-1] + 1))
            tags = spans_to_tags(written, len(units), scheme)
            pairs = [(item["text"][start:end], tag) for (start, end), tag in zip(units, tags, strict=True)]
        for token, tag in pairs:
            say(f"{token}\t{tag}")
        say()


def _units(text: str, spans: Iterable[dict[str, Any]]) -> list[tuple[int, int]]:
    """Characters, and words of letters and digits where no span begins or ends inside of them."""
    borders = {0, len(text)}
    for span in spans:
        borders |= {span["start"], span["end"]}
    return [
        (first + match.start(), first + match.end())
        for first, last in pairwise(sorted(borders))
        for match in _UNIT.finditer(text[first:last])
    ]
