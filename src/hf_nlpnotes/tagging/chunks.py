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

# _STOP: a tag that nothing continues.
_START, _INSIDE, _END, _STOP = 1, 2, 4, 8

# Seven classes at most: two of them and the comparison of types fit into one byte, 0bPPPCCC S.
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
    types: NDArray[np.int64]
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
    classes = [known.get(letter, _OTHER) for letter in letters]
    codes_of, names = _number(_default_type(label, suffix=suffix) for label in labels)
    table = _default_table()

    def read(codes: Codes) -> Chunks:
        types, flags = _neighbours(codes, classes, codes_of, table)
        starts = _positions(flags, _START)
        ends = _positions(flags, _END)
        # A span that ends at an odd tag may have no beginning of its own: it then begins where the last one did.
        if len(starts) != len(ends) or (starts >= ends).any() or (starts[1:] < ends[:-1]).any():
            last = np.searchsorted(starts, ends, side="left") - 1
            starts = np.where(last >= 0, starts[last], 1) if len(starts) else np.ones_like(ends)
        return Chunks(names, types[ends - 1].astype(np.int64), starts, ends)

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
    name = get_scheme(scheme).name
    if name not in STRICT_SCHEMES:
        raise ValueError(f"no strict reading of {name}: expected one of {', '.join(STRICT_SCHEMES)}")
    for label in labels:
        if _letter(label, suffix=suffix) not in STRICT_SCHEMES[name]:
            raise ValueError(
                f"tag {label!r} is not a tag of {name}: expected one of the prefixes "
                f"{', '.join(STRICT_SCHEMES[name])}. Pass the scheme that the tags are written in"
            )
    inner = {"M": "I"}
    letters = [_letter(label, suffix=suffix) for label in labels]
    classes = [_CLASSES[inner.get(letter, letter)] for letter in letters]
    # Not the type that the default reading takes: dashes at either end are no part of it.
    bare = (label[:-1] if suffix else label[1:] for label in labels)
    codes_of, names = _number(rest.strip(DELIMITER) or UNTYPED for rest in bare)
    table = _strict_table("BIOES" if name in ("BMES", "BMESO") else name)
    overlapping = bool(((table & (_START | _INSIDE)) == (_START | _INSIDE)).any())

    def read(codes: Codes) -> Chunks:
        types, flags = _neighbours(codes, classes, codes_of, table)
        if overlapping:
            # IOB1's I after B begins a span only where that B did not begin one itself.
            continues = (flags[1:] & _INSIDE).astype(np.bool_) & (flags[:-1] & _START).astype(np.bool_)
            flags[1:][continues] &= ~np.uint8(_START)
        starts = _positions(flags, _START)
        stops = _positions(flags, _STOP)
        ends = stops[np.searchsorted(stops, starts, side="right")]
        closed = (flags[ends - 1] & _END).astype(np.bool_)
        return Chunks(names, types[starts].astype(np.int64)[closed], starts[closed], ends[closed])

    return read


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


def _neighbours(
    codes: Codes, classes: Sequence[int], types: Sequence[int], table: NDArray[np.uint8]
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return the type of each position, and the flags of each pair: `flags[i]` is about positions i and i + 1."""
    kind = _look_up(codes, np.asarray(classes, dtype=np.uint8))
    type_ = _look_up(codes, np.asarray(types, dtype=np.uint8 if max(types) < 256 else np.int32))
    pairs = kind[:-1] << 4
    pairs |= kind[1:] << 1
    pairs |= (type_[:-1] == type_[1:]).view(np.uint8)
    return type_, _look_up(pairs, table)


def _look_up(codes: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    if codes.dtype == np.uint8 and table.dtype == np.uint8:
        # A byte for a byte: four times as fast as indexing. A bytearray leaves the result writable.
        full = np.zeros(256, dtype=np.uint8)
        full[: len(table)] = table
        return np.frombuffer(bytearray(codes).translate(full.tobytes()), dtype=np.uint8)
    return table[codes]


def _positions(flags: NDArray[np.uint8], flag: int) -> NDArray[np.int64]:
    """Positions i + 1 of the pairs that have the flag."""
    marked: NDArray[np.int64] = np.flatnonzero((flags & flag).astype(np.bool_))
    marked += 1
    return marked


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
                table[before << 4 | tag << 1 | same] = _START * starts | _END * ends
    return table


@cache
def _strict_table(name: str) -> NDArray[np.uint8]:
    table = np.zeros(128, dtype=np.uint8)
    for rules, flag in zip(_PATTERNS[name], (_START, _INSIDE, _END), strict=True):
        for rule in rules.split():
            before, tag = rule.rstrip("=!").split(":")
            same: tuple[Literal[0, 1], ...] = {"=": (1,), "!": (0,)}.get(rule[-1], (0, 1))  # type: ignore[assignment]
            for first in _CLASSES if before == "*" else before:
                for second in _CLASSES if tag == "*" else tag:
                    for relation in same:
                        table[_CLASSES[first] << 4 | _CLASSES[second] << 1 | relation] |= flag
    outside = (np.arange(len(table)) >> 4) == _CLASSES[OUTSIDE]
    table[~outside & (table & _INSIDE == 0)] |= _STOP
    return table
