"""Spans of a whole corpus at once, read from tag codes as seqeval 1.2.2 reads them.

Two readings. The default one is conlleval's: a span begins wherever a tag cannot continue the one before, whatever the
scheme. The strict one has, for each scheme, patterns of neighbouring tags that begin, continue and close a span, and
drops spans that are not closed. Both are kept to the letter, so that scores can be compared with published ones:
the default reading does not know U and L, and strict IOE1 misses spans (a "to do" of seqeval). `tags_to_spans` has
readings without these gaps.

Each is a table over (class of a tag, class of the next, same type or not), looked up for all pairs of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .schemes import DELIMITER, OUTSIDE, get_scheme
from .tag_codes import Codes

UNTYPED = "_"
"""The name that seqeval gives the type of tags without one."""

# Of a pair of neighbours: a span begins at the second, the piece of the first ends, it ends whole; or it goes on.
_START, _END, _WHOLE, _INSIDE = 1, 2, 4, 8
_EVENTS = _START | _END | _WHOLE

# Seven classes at most: two of them and the comparison of types fit into a byte, the bits `.bbb ccc=`.
_CLASSES = {letter: number for number, letter in enumerate("OBIESUL")}
_DOT, _OTHER = _CLASSES["U"], _CLASSES["L"]  # default reading only, which knows neither U nor L


class _Row(NamedTuple):
    """Pairs of neighbours, written `before:tag`, `=` same type, `!` another type, `*` any letter."""

    start: str
    inside: str
    end: str


_PATTERNS: Mapping[str, _Row] = {
    "IOB1": _Row("O:I I:I! B:I I:B= B:B=", "B:I= I:I=", "I:I! I:O I:B B:O B:I! B:B="),
    "IOB2": _Row("*:B", "B:I= I:I=", "I:O I:I! I:B B:O B:I! B:B"),
    "IOE1": _Row("O:I I:I! E:I E:E=", "I:I= I:E=", "I:I! I:O I:E! E:I= E:E="),
    "IOE2": _Row("O:I O:E E:I E:E I:I! I:E!", "I:E= I:I=", "E:*"),
    "BIOES": _Row("*:B *:S", "B:I= B:E= I:I= I:E=", "S:* E:*"),
    "BILOU": _Row("*:B *:U", "B:I= B:L= I:I= I:L=", "U:* L:*"),
}

STRICT_SCHEMES: Mapping[str, str] = {
    **{name: "".join(sorted(get_scheme(name).prefixes)) for name in _PATTERNS},
    "BMES": "BEMOS",
    "BMESO": "BEMOS",
}
"""Scheme -> its letters in the strict reading. BMES is BIOES with M for I; seqeval itself has no BMES."""


@dataclass(frozen=True)
class Chunks:
    """Spans of a corpus in the order of their positions.

    Attributes:
        type_names: all types of the label set, in no order.
        types: (spans,); index into `type_names`.
        starts, ends: (spans,); half-open positions in the stream of tag codes.
    """

    type_names: tuple[str, ...]
    types: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


Reading = Callable[[Codes], Chunks]


def default_reading(labels: Sequence[str], *, suffix: bool = False) -> Reading:
    """Return the function that reads spans from codes of these labels as conlleval does.

    Args:
        labels: the tags that the codes stand for.
        suffix: whether the prefix stands behind the type, `PER-B`.
    """
    letters = [_letter(label, suffix=suffix) for label in labels]
    known = {**{letter: _CLASSES[letter] for letter in "OBIES"}, ".": _DOT}
    types, names = _number(_default_type(label, suffix=suffix) for label in labels)
    table = _LabelTable(_default_table(), [known.get(letter, _OTHER) for letter in letters], types)

    def read(codes: Codes) -> Chunks:
        events, flags = table.events(codes)
        starts, ends = _whole(events, flags)
        orphans = (flags & _END).astype(np.bool_)
        orphans[1:] &= (flags[:-1] & _START) == 0
        if orphans.any():
            # Odd tags can end a span that nothing began: it then begins where the last one did, or at the first token.
            starts, ends = (events[(flags & flag).astype(np.bool_)] + 1 for flag in (_START, _END))
            last = np.searchsorted(starts, ends, side="left")
            starts = np.append(1, starts)[last]
        return Chunks(names, table.types[codes[ends - 1]], starts, ends)

    return read


def strict_reading(labels: Sequence[str], scheme: str, *, suffix: bool = False) -> Reading:
    """Return the function that reads the spans that are written whole in the scheme.

    Args:
        labels: the tags that the codes stand for.
        scheme: one of `STRICT_SCHEMES`.
        suffix: whether the prefix stands behind the type, `PER-B`.

    Raises:
        ValueError: a label whose prefix the scheme does not have, or a scheme without a strict reading.
    """
    foreign = foreign_tags(labels, scheme, suffix=suffix)
    name = get_scheme(scheme).name
    if foreign:
        raise ValueError(
            f"tag {foreign[0]!r} is not a tag of {name}: expected one of the prefixes "
            f"{', '.join(STRICT_SCHEMES[name])}. Pass the scheme that the tags are written in"
        )
    inner = {"M": "I"}
    letters = [_letter(label, suffix=suffix) for label in labels]
    classes = [_CLASSES[inner.get(letter, letter)] for letter in letters]
    # Not the type that the default reading takes: dashes at either end are no part of it.
    bare = (label[:-1] if suffix else label[1:] for label in labels)
    types, names = _number(rest.strip(DELIMITER) or UNTYPED for rest in bare)
    table = _LabelTable(_strict_table("BIOES" if name in ("BMES", "BMESO") else name), classes, types)

    def read(codes: Codes) -> Chunks:
        starts, ends = _whole(*table.events(codes))
        return Chunks(names, table.types[codes[starts]], starts, ends)

    return read


def foreign_tags(labels: Iterable[str], scheme: str, *, suffix: bool = False) -> list[str]:
    """List the tags whose prefix the scheme does not have in the strict reading.

    Raises:
        ValueError: the scheme has no strict reading.
    """
    name = get_scheme(scheme).name
    if name not in STRICT_SCHEMES:
        raise ValueError(f"no strict reading of {name}: expected one of {', '.join(STRICT_SCHEMES)}")
    return [label for label in labels if _letter(label, suffix=suffix) not in STRICT_SCHEMES[name]]


def detect_strict_scheme(labels: Iterable[str], *, suffix: bool = False) -> str:
    """Name the scheme that seqeval's strict mode takes for these tags: IOB2, IOE2, BIOES, BILOU; or BMES.

    Raises:
        ValueError: the prefixes fit none of them (IOB1 and IOE1 have to be named).
    """
    letters = {_letter(label, suffix=suffix) for label in labels}
    for name, needed, alone in (
        ("IOB2", "B", ""),
        ("IOE2", "E", ""),
        ("BIOES", "BE", "S"),
        ("BILOU", "BL", "U"),
        ("BMES", "BE", ""),
    ):
        if letters <= set(STRICT_SCHEMES[name]) and (set(needed) <= letters or letters == {alone}):
            return name
    raise ValueError(
        f"cannot tell the scheme of tags with the prefixes {', '.join(sorted(letters))}: name it with scheme=, one of "
        f"{', '.join(STRICT_SCHEMES)}"
    )


def unknown_to_default(labels: Iterable[str], *, suffix: bool = False) -> list[str]:
    """List the tags that the default reading does not take for a span's tag or `O`: seqeval warns of them."""
    marks = tuple(f"{DELIMITER}{letter}" if suffix else f"{letter}{DELIMITER}" for letter in "BIES")
    known = {OUTSIDE, *"BIES"}
    return [
        label
        for label in labels
        if label not in known and not (label.endswith(marks) if suffix else label.startswith(marks))
    ]


def _letter(label: str, *, suffix: bool) -> str:
    return label[-1] if suffix else label[0]


def _default_type(label: str, *, suffix: bool) -> str:
    if suffix:
        return label[:-1].rsplit(DELIMITER, maxsplit=1)[0] or UNTYPED
    return label[1:].split(DELIMITER, maxsplit=1)[-1] or UNTYPED


def _number(names: Iterable[str]) -> tuple[list[int], tuple[str, ...]]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names], tuple(numbers)


class _LabelTable:
    """Looks up what happens between neighbours of a stream of codes."""

    def __init__(self, table: NDArray[np.uint8], classes: Sequence[int], types: Sequence[int]) -> None:
        """Take what happens between two classes, and the class and the type of each label."""
        self.table = table
        self.classes = np.asarray(classes, dtype=np.uint8)
        self.types: NDArray[np.int32] = np.asarray(types, dtype=np.int32)
        self.pairs: NDArray[np.uint8] | None = None
        if len(classes) <= 16:  # two labels fit into a byte themselves
            same = (self.types[:, None] == self.types).view(np.uint8)
            self.pairs = np.zeros((16, 16), dtype=np.uint8)
            self.pairs[: len(classes), : len(classes)] = table[self.classes[:, None] << 4 | self.classes << 1 | same]

    def events(self, codes: Codes) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return the positions before which spans begin or end, less one, and what happens there."""
        if self.pairs is not None and codes.dtype == np.uint8:
            flags = _look_up(codes[:-1] << 4 | codes[1:], self.pairs.ravel())
        else:
            classes = _look_up(codes, self.classes)
            types = _look_up(codes, self.types.astype(np.uint8) if len(self.types) <= 256 else self.types)
            same = (types[:-1] == types[1:]).view(np.uint8)
            flags = _look_up(classes[:-1] << 4 | classes[1:] << 1 | same, self.table)
        if (self.table & _INSIDE).any():
            # IOB1's I after B begins a span only where that B did not begin one itself.
            begun = flags[:-1] & _START
            flags[1:] &= ~(begun & (flags[1:] >> 3))
            flags &= _EVENTS
        events = np.flatnonzero(flags != 0)
        return events, flags[events]


def _look_up(codes: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    if codes.dtype == np.uint8 and table.dtype == np.uint8:
        # A byte for a byte: four times as fast as indexing. A bytearray leaves the result writable.
        full = np.zeros(256, dtype=np.uint8)
        full[: len(table)] = table
        return np.frombuffer(bytearray(codes).translate(full.tobytes()), dtype=np.uint8)
    return table[codes]


def _whole(events: NDArray[np.int64], flags: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and ends of the spans: between a beginning and its end nothing else happens."""
    chosen = np.flatnonzero((flags[:-1] & (flags[1:] >> 2) & _START).view(np.bool_))
    return events[chosen] + 1, events[chosen + 1] + 1


@cache
def _default_table() -> NDArray[np.uint8]:
    o, b, i, e, s = (_CLASSES[letter] for letter in "OBIES")
    table = np.zeros(128, dtype=np.uint8)
    for before in range(7):
        for tag in range(7):
            for same in (0, 1):
                differs = not same
                starts = tag in (b, s) or (before in (e, s, o) and tag in (e, i)) or (differs and tag not in (o, _DOT))
                ends = (
                    before in (e, s)
                    or (before in (b, i) and tag in (b, s, o))
                    or (differs and before not in (o, _DOT))
                )
                table[before << 4 | tag << 1 | same] = _START * starts | (_END | _WHOLE) * ends
    return table


@cache
def _strict_table(name: str) -> NDArray[np.uint8]:
    table = np.zeros(128, dtype=np.uint8)
    for rules, flag in zip(_PATTERNS[name], (_START, _INSIDE, _WHOLE), strict=True):
        for rule in rules.split():
            before, tag = rule.rstrip("=!").split(":")
            same: tuple[Literal[0, 1], ...] = {"=": (1,), "!": (0,)}.get(rule[-1], (0, 1))  # type: ignore[assignment]
            for first in _CLASSES if before == "*" else before:
                for second in _CLASSES if tag == "*" else tag:
                    for relation in same:
                        table[_CLASSES[first] << 4 | _CLASSES[second] << 1 | relation] |= flag
    outside = (np.arange(len(table)) >> 4) == _CLASSES[OUTSIDE]
    table[~outside & (table & _INSIDE == 0)] |= _END
    if name != "IOB1":  # only there a tag both continues a span and begins one
        table &= _EVENTS
    return table
