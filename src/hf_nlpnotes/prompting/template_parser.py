"""The parser of templates: left to right, by looking for braces only. The grammar is at `Template`.

Every error shows the template with an arrow under the character that it is about.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from .template_parts import LABEL_SLOT, Cut, Demonstrations, Literal, Options, Part, Separator, Slot, SlotOptions, Soft


def parse(source: str) -> tuple[Part, ...]:
    """Split a template into its parts.

    Raises:
        `ValueError`: the string is no template; the message shows where.
    """
    parts: list[Part] = []
    literal = ""
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
            if literal:
                parts.append(Literal(literal))
                literal = ""
            parts.append(_slot(source, position + 1, end))
            _check_repeated(source, position, parts)
            position = end + 1
        elif char == "}":
            raise _error(source, position, "A lone '}'", "write '}}' for a brace, or open a slot with '{'")
        else:
            literal += char
            position += 1
    if literal:
        parts.append(Literal(literal))
    slots = [part for part in parts if isinstance(part, Slot)]
    if not any(slot.is_label for slot in slots):
        raise _error(source, None, "No '{label}'", "put it where the label word goes, as in '{label}新闻：{text}'")
    if all(slot.is_label for slot in slots):
        raise _error(source, None, "No slot for the text", "add '{text}', or the name of a column of your data")
    return tuple(parts)


def _check_repeated(source: str, position: int, parts: list[Part]) -> None:
    """What may stand once only, and already does: the last part, at `position`."""
    last, before = parts[-1], parts[:-1]
    if isinstance(last, Slot) and last.is_label and last in before:
        raise _error(source, position, "A second '{label}'", "a prompt asks for one label word")
    if isinstance(last, Demonstrations) and any(isinstance(part, Demonstrations) for part in before):
        raise _error(source, position, "A second '{demos}'", "name the number of all demonstrations in one slot")
    if isinstance(last, Separator) and last.pair and last in before:
        raise _error(source, position, "A second '{sep:pair}'", "tokenizers know pairs of texts: write '{sep}' here")


def _slot(source: str, start: int, end: int) -> Part:
    """The part whose inside is `source[start:end]`."""
    inside = source[start:end]
    name, colon, options = inside.partition(":")
    at = start + len(name) + 1  # of the options
    if "{" in inside:
        raise _error(source, start + inside.index("{"), "A brace inside a slot", "close the slot first, with '}'")
    if not name:
        raise _error(source, start, "A slot without a name", "write '{label}', '{text}' or a column, '{{' for a brace")
    if name != name.strip():
        raise _error(source, start, f"Spaces around the slot name {name!r}", f"write '{{{name.strip()}}}'")
    if "：" in name:
        raise _error(
            source, start + name.index("："), "A full-width colon in a slot", "options come after the ASCII ':'"
        )
    if name == "mask":
        raise _error(source, start, "The slot name 'mask' is reserved", "the masks stand where '{label}' is")
    if name == "sep":
        return _separator(source, at, options if colon else None)
    if name == "options":
        if colon and not options:
            raise _error(source, at, "No separator after 'options:'", "write '{options}' or '{options:/}'")
        return Options(options if colon else None)
    if name == "demos":
        return _demonstrations(source, at, options if colon else None)
    if name == "soft":
        return _soft(source, at, options if colon else None)
    if colon and name == LABEL_SLOT:
        raise _error(source, at, f"Unknown option {options!r} of the slot 'label'", "write '{label}'")
    return Slot(name, _slot_options(source, at, name, options) if colon else SlotOptions())


def _separator(source: str, at: int, options: str | None) -> Separator:
    if options not in (None, "pair"):
        raise _error(source, at, f"Unknown option {options!r} of the slot 'sep'", "write '{sep}' or '{sep:pair}'")
    return Separator(pair=options == "pair")


def _demonstrations(source: str, at: int, options: str | None) -> Demonstrations:
    if options is None:
        raise _error(source, at - 1, "'demos' without a number", "write '{demos:2}' for two demonstrations")
    count, seed, nearest = None, None, False
    for place, option in _options(options, at):
        key, equals, value = option.partition("=")
        if count is None:
            count = _number(source, place, option, "the number of demonstrations", least=1)
        elif option == "nearest" and seed is None and not nearest:
            nearest = True
        elif key == "seed" and equals and seed is None and not nearest:
            seed = _number(source, place + len("seed="), value, "a seed", least=0, most=2**32 - 1)
        else:
            hint = "write '{demos:2}', '{demos:2,seed=7}' or '{demos:2,nearest}'"
            raise _error(source, place, f"Unknown option {option!r} of the slot 'demos'", hint)
    assert count is not None
    return Demonstrations(count, nearest, seed or 0)


def _soft(source: str, at: int, options: str | None) -> Soft:
    if not (options or "").strip():
        hint = "write '{soft:5}' for five tokens, or '{soft:请判断}' to begin with words"
        raise _error(source, at - (options is None), "'soft' without tokens", hint)
    assert options is not None
    if options.isdecimal():
        return Soft(length=_number(source, at, options, "the number of soft tokens", least=1))
    return Soft(text=options)


def _slot_options(source: str, at: int, name: str, options: str) -> SlotOptions:
    cut: Cut | None = None
    max_tokens = None
    for place, option in _options(options, at):
        key, equals, value = option.partition("=")
        if option in ("tail", "head", "whole"):
            if cut is not None:
                hint = "a text is cut at one end: choose 'tail' or 'head', or 'whole' for never"
                raise _error(source, place, f"The option {option!r} beside {cut!r}", hint)
            cut = option  # type: ignore[assignment]
        elif key == "max" and equals and max_tokens is None:
            max_tokens = _number(source, place + len("max="), value, "a number of tokens", least=1)
        else:
            known = f"write '{{{name}}}', or one of 'tail', 'head', 'whole' and 'max=200'"
            raise _error(source, place, f"Unknown option {option!r} of the slot {name!r}", known)
    if cut == "whole" and max_tokens is not None:
        raise _error(
            source, at, "'whole' beside 'max'", "a text that is never cut has no limit: leave out one of both"
        )
    return SlotOptions(cut or "tail", max_tokens)


def _options(options: str, at: int) -> Iterator[tuple[int, str]]:
    """The options between commas, with their places; spaces around them do not count."""
    for option in options.split(","):
        yield at + len(option) - len(option.lstrip()), option.strip()
        at += len(option) + 1


def _number(source: str, at: int, digits: str, what: str, least: int, most: int = 1_000_000) -> int:
    # Python itself reads no more than some thousand digits.
    if not (digits.isdecimal() and len(digits) <= 10 and least <= int(digits) <= most):
        shown = digits if len(digits) <= 30 else f"{digits[:30]}…"
        raise _error(source, at, f"{shown!r} instead of {what}", f"write a whole number from {least} to {most}")
    return int(digits)


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
