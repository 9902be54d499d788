"""Filling a template: from its parts and the input's columns to what stands in the prompt, one thing after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .template import Template
from .template_parts import Demonstrations, Literal, Options, Part, Separator, Slot, SlotOptions, Soft

TEMPLATE = -1
"""Owner of a piece of the template itself; any other owner is the number of a text, in the order of the prompt."""

Demonstration: TypeAlias = tuple[Mapping[str, str], str]
"""The columns of an example, and the word of its label."""


@dataclass(frozen=True)
class Piece:
    """Running text, and whose it is."""

    text: str
    owner: int = TEMPLATE


@dataclass(frozen=True)
class LabelPlace:
    """Where the masks go."""


@dataclass(frozen=True)
class SoftPlace:
    """Where the soft tokens of the template's part number `part` go."""

    part: int


Atom: TypeAlias = Piece | LabelPlace | SoftPlace | Separator


@dataclass(frozen=True)
class FilledPrompt:
    """What stands in a prompt, and for each of its texts how it may be cut."""

    atoms: tuple[Atom, ...]
    cuts: tuple[SlotOptions, ...]


def fill(
    template: Template,
    values: Mapping[str, str],
    labels: Sequence[str] = (),
    demonstrations: Sequence[Demonstration] = (),
) -> FilledPrompt:
    """Fill a template.

    A demonstration is the template itself with the word of its label, without `{demos}`. A separator stands between
    it and whatever is beside it, as in the demonstrations of LM-BFF (Gao et al., ACL 2021,
    https://arxiv.org/abs/2012.15723, section 6).

    Args:
        template (`Template`):
            The template.
        values (`Mapping[str, str]`):
            The text of each column.
        labels (`Sequence[str]`, *optional*):
            What `{options}` lists.
        demonstrations (`Sequence[tuple[Mapping[str, str], str]]`, *optional*):
            What `{demos}` shows: columns, and the word of the label.
    """
    atoms: list[Atom] = []
    cuts: list[SlotOptions] = []
    shown = _shown_places(template.parts)
    for place, part in enumerate(template.parts):
        if not isinstance(part, Demonstrations):
            atoms.append(_atom(template, place, values, labels, cuts))
            continue
        for columns, word in demonstrations:
            if atoms and not isinstance(atoms[-1], Separator):
                atoms.append(Separator())
            atoms += [_atom(template, k, columns, labels, cuts, word) for k in shown]
        following = template.parts[place + 1 : place + 2]
        if demonstrations and following and not isinstance(following[0], Separator):
            atoms.append(Separator())
    return FilledPrompt(tuple(atoms), tuple(cuts))


def _atom(
    template: Template,
    place: int,
    values: Mapping[str, str],
    labels: Sequence[str],
    cuts: list[SlotOptions],
    word: str | None = None,
) -> Atom:
    """What stands at a place of the template; a text is entered in `cuts`. `word`: in a demonstration of that word."""
    match part := template.parts[place]:
        case Literal():
            return Piece(part.text)
        case Options():
            return Piece(part.text(labels))
        case Separator():
            return part if word is None else Separator()
        case Soft():
            return SoftPlace(place)
        case Slot() if not part.is_label:
            cuts.append(part.options)
            return Piece(values[part.name], len(cuts) - 1)
        case _:
            return LabelPlace() if word is None else Piece(word)


def _shown_places(parts: Sequence[Part]) -> list[int]:
    """The parts that a demonstration repeats: without `{demos}`, and without separators at its ends."""
    places = [k for k, part in enumerate(parts) if not isinstance(part, Demonstrations)]
    while isinstance(parts[places[0]], Separator):
        places = places[1:]
    while isinstance(parts[places[-1]], Separator):
        places = places[:-1]
    return places
