"""Classification by one's own labels: what stands in the form's fields, and the scores of the labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ._bounds import bounded, chosen

WORDS = ("ready", "names", "own")
"""Where the words of a label come from: the package's table, the label itself, or the reader's own list."""

CALIBRATIONS = ("contextual", "domain", "none")
"""Those that judge one text alone; the others compare many texts, which is the pipeline's and the shell's work."""

MOST_LABELS = 50
MOST_WORDS = 20
LONGEST_WORD = 20

_BETWEEN = re.compile(r"[,，、;；\n]+")


def parse_labels(text: str | None) -> list[str]:
    """Return the labels that stand in a field, separated by commas (of either width), semicolons or lines.

    Args:
        text: The field; None: empty.

    Raises:
        ValueError: There are none, too many or too long ones, or one stands twice.

    >>> parse_labels("体育，财经, 科技")
    ['体育', '财经', '科技']
    """
    labels = [label.strip() for label in _BETWEEN.split(bounded("labels", text, needed=False)) if label.strip()]
    if not labels:
        raise ValueError("There are no labels: write some, separated by commas, such as 体育，财经，科技.")
    _check_words("labels", labels, MOST_LABELS)
    return labels


def parse_label_words(text: str | None, labels: Sequence[str]) -> dict[str, list[str]]:
    """Return the words of each label, from lines such as `体育: 足球 篮球 比赛`.

    A label without a line has itself for its word.

    Args:
        text: The field; None: empty.
        labels: The labels, from `parse_labels`.

    Raises:
        ValueError: A line has no colon or no words, is of a label that there is not, or of one that was before.

    >>> parse_label_words("体育：足球、比赛", ["体育", "财经"])
    {'体育': ['足球', '比赛'], '财经': ['财经']}
    """
    words = {label: [label] for label in labels}
    seen = set()
    for line in filter(None, map(str.strip, bounded("label words", text).splitlines())):
        label, colon, rest = map(str.strip, line.replace("：", ":", 1).partition(":"))
        found = [word for word in re.split(r"[,，、;；\s]+", rest) if word]
        if not colon or not found:
            raise ValueError(f"The line {line!r} has no words for a label: write lines such as 体育: 足球 篮球.")
        if label not in words:
            raise ValueError(f"The line {line!r} is of no label: expected one of {', '.join(labels)}.")
        if label in seen:
            raise ValueError(f"The label {label!r} has two lines: write all its words into one.")
        _check_words(f"words of {label!r}", found, MOST_WORDS)
        seen.add(label)
        words[label] = found
    return words


def classify_text(
    pipe: Any,
    text: str,
    labels: str,
    words: str = "ready",
    own_words: str = "",
    template: str = "",
    calibration: str = "contextual",
) -> dict[str, float]:
    """Return the score of each label, best first; together they are 1.

    Args:
        pipe: The pipeline `zero-shot-prompt`.
        text: The text.
        labels: The labels, as `parse_labels` reads them.
        words: One of `WORDS`.
        own_words: For "own": the words of the labels, as `parse_label_words` reads them.
        template: The prompt, with `{label}` and `{text}`; empty for the pipeline's own.
        calibration: One of `CALIBRATIONS`.

    Raises:
        ValueError: A field is empty, too long or wrong; the message says what was expected.
    """
    text = bounded("text", text)
    names = parse_labels(labels)
    chosen("words", words, WORDS)
    options: dict[str, Any] = {"calibration": chosen("calibration", calibration, CALIBRATIONS)}
    if words == "ready":
        options["verbalizer"] = "ready"
    elif words == "own":
        options["verbalizer"] = parse_label_words(own_words, names)
    if prompt := bounded("template", template, needed=False):
        if "{text}" not in prompt:
            raise ValueError(f"The template {prompt!r} has no {{text}}: write one such as {{label}}：{{text}}.")
        options["template"] = prompt
    answer = pipe(text, candidate_labels=names, **options)
    return dict(zip(answer["labels"], answer["scores"], strict=True))


def _check_words(what: str, words: Sequence[str], most: int) -> None:
    if len(words) > most:
        raise ValueError(f"There are {len(words)} {what}, and this page takes up to {most}.")
    long = [word for word in words if len(word) > LONGEST_WORD]
    if long:
        raise ValueError(f"{long[0]!r} is too long: {what} have up to {LONGEST_WORD} characters.")
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands twice among the {what}.")
