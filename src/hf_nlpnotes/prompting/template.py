"""Prompt templates: a plain string with slots, such as `"下面报道一则{label}新闻。{text}"`.

One `{label}` slot stands where the label word goes (as many masks as the word has tokens); every other slot is a
column of the input and takes its text. `{{` and `}}` are braces. The string is parsed, never evaluated, and an error
shows the place:

>>> Template("一条{label}新闻：{text").parts
Traceback (most recent call last):
    ...
ValueError: Unclosed slot in the template: write '}' after its name, or '{{' for a brace.
  一条{label}新闻：{text
  -----------------^

A slot may later take options after a colon (`{text:tail}`); none exists yet, so any is an error. The names `sep`,
`options`, `demos`, `soft` and `mask` are kept free.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

LABEL_SLOT = "label"
"""Name of the slot of the label word."""

RESERVED_NAMES = frozenset({"sep", "options", "demos", "soft", "mask"})
"""Names that no column may have: `{mask}` would be mistaken for `{label}`, the others are kept for the grammar."""


@dataclass(frozen=True)
class Literal:
    """Text of the template itself."""

    text: str


@dataclass(frozen=True)
class Slot:
    """A place to fill: the label word, or a column of the input."""

    name: str

    @property
    def is_label(self) -> bool:
        """Whether the label word goes here."""
        return self.name == LABEL_SLOT


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Args:
        source (`str`):
            The template: exactly one `{label}`, at least one other slot. Slots of a name may be repeated, except
            `{label}`.

    Raises:
        `ValueError`: the string is no template; the message shows where.

    >>> template = Template("{question}？{label}，{answer}")
    >>> template.columns
    ('question', 'answer')
    >>> template.fill({"question": "在吗", "answer": "我在"}, "对")
    '在吗？对，我在'
    """

    source: str
    parts: tuple[Literal | Slot, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise TypeError(f"A template is a string with slots, got {type(self.source).__name__}.")
        object.__setattr__(self, "parts", _parse(self.source))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the input's columns, in the order of their first slot."""
        names = (part.name for part in self.parts if isinstance(part, Slot) and not part.is_label)
        return tuple(dict.fromkeys(names))

    @property
    def label_position(self) -> int:
        """Index of the label slot in `parts`."""
        return next(i for i, part in enumerate(self.parts) if isinstance(part, Slot) and part.is_label)

    def fill(self, values: Mapping[str, str], label: str) -> str:
        """The prompt as one reads it, with `label` in the label slot."""
        texts = {**values, LABEL_SLOT: label}
        return "".join(part.text if isinstance(part, Literal) else texts[part.name] for part in self.parts)

    def __str__(self) -> str:
        return self.source


def _parse(source: str) -> tuple[Literal | Slot, ...]:
    """Split a template into literals and slots, left to right, by looking for braces only."""
    parts: list[Literal | Slot] = []
    literal = ""
    label_at: int | None = None
    position = 0
    while position < len(source):
        char = source[position]
        if source[position : position + 2] in ("{{", "}}"):
            literal += char
            position += 2
        elif char == "{":
            end = source.find("}", position)
            if end < 0:
                raise _error(source, position, "Unclosed slot", "write '}' after its name, or '{{' for a brace")
            slot = _slot(source, position + 1, end)
            if slot.is_label:
                if label_at is not None:
                    raise _error(source, position, "A second '{label}'", "a prompt asks for one label word")
                label_at = position
            if literal:
                parts.append(Literal(literal))
                literal = ""
            parts.append(slot)
            position = end + 1
        elif char == "}":
            raise _error(source, position, "A lone '}'", "write '}}' for a brace, or open a slot with '{'")
        else:
            literal += char
            position += 1
    if literal:
        parts.append(Literal(literal))
    if label_at is None:
        raise _error(source, None, "No '{label}'", "put it where the label word goes, as in '{label}新闻：{text}'")
    if sum(isinstance(part, Slot) for part in parts) == 1:
        raise _error(source, None, "No slot for the text", "add '{text}', or the name of a column of your data")
    return tuple(parts)


def _slot(source: str, start: int, end: int) -> Slot:
    """The slot whose inside is `source[start:end]`."""
    inside = source[start:end]
    name, colon, options = inside.partition(":")
    if "{" in inside:
        raise _error(source, start + inside.index("{"), "A brace inside a slot", "close the slot first, with '}'")
    if not name:
        raise _error(source, start, "A slot without a name", "write '{label}', '{text}' or a column, '{{' for a brace")
    if name != name.strip():
        raise _error(source, start, f"Spaces around the slot name {name!r}", f"write '{{{name.strip()}}}'")
    if name in RESERVED_NAMES:
        hint = "the masks stand where '{label}' is" if name == "mask" else "rename the column"
        raise _error(source, start, f"The slot name {name!r} is reserved", hint)
    if colon:
        at = start + len(name) + 1
        raise _error(source, at, f"Unknown option {options!r} of the slot {name!r}", f"write '{{{name}}}'")
    return Slot(name)


def _error(source: str, position: int | None, what: str, way_out: str) -> ValueError:
    """A `ValueError` that shows the template and, where there is a place, points at it."""
    message = f"{what} in the template: {way_out}.\n"
    if position is None:
        return ValueError(f"{message}  {source!r}")
    # One line is enough to find the place, and keeps the arrow under the character.
    line_start = source.rfind("\n", 0, position) + 1
    line = source[line_start:].partition("\n")[0]
    # Han characters and full-width punctuation take two columns of a terminal.
    before = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in source[line_start:position])
    return ValueError(f"{message}  {line}\n  {'-' * before}^")
