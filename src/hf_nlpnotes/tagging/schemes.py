"""Tagging schemes: how spans of tokens are written as one tag a token, and read again.

A scheme is a small table: which prefixes it has, which prefix may follow which (with the same type or with any), which
may stand first and last, and how a span is written. Everything here follows from the table: reading, writing, checks,
repair, conversion, and the legal transitions that a decoder or a CRF needs. A tag is `PREFIX-TYPE`, a bare `PREFIX`
where spans have no type (word segmentation; the type is then the empty string), or `O` outside of every span.

Spans are half-open `[start, end)` and flat: a tag a token cannot write nested or overlapping spans, which are refused.

Sources: IOB1 is Ramshaw and Marcus (1995), "Text Chunking using Transformation-Based Learning"; IOB2, IOE1 and IOE2
are Tjong Kim Sang and Veenstra (1999), "Representing Text Chunks"; BIOES is Uchimoto et al. (2000); BILOU is Ratinov
and Roth (2009); BMES is Xue (2003), "Chinese Word Segmentation as Character Tagging".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

OUTSIDE = "O"
DELIMITER = "-"

# In every scheme these prefixes begin a span, or end one, whatever stands beside them.
_OPENING = frozenset("BSU")
_CLOSING = frozenset("ELSU")

IllegalTags = Literal["error", "repair", "drop"]
"""What to do with tags that break their scheme: refuse them, read every piece as a span, or keep whole spans only."""


class Span(NamedTuple):
    """A typed piece of a sentence: tokens (or characters) `[start, end)`.

    Attributes:
        type: such as `PER`; the empty string where spans have no types.
        start: the first token or character.
        end: the one after the last.
    """

    type: str
    start: int
    end: int


class AllowedTransitions(NamedTuple):
    """Which tag may follow which, as boolean arrays in the order of the labels that they were made for.

    Attributes:
        transitions: (num_tags, num_tags); `transitions[i, j]`: tag j may follow tag i.
        start: (num_tags,); the tag may be the first of a sentence.
        end: (num_tags,); the tag may be the last of a sentence.
    """

    transitions: NDArray[np.bool_]
    start: NDArray[np.bool_]
    end: NDArray[np.bool_]


class Violation(NamedTuple):
    """A place where tags break their scheme; position `len(tags)` is the sentence's end.

    Attributes:
        position: the tag's number, from 0.
        reason: what is wrong there, in words.
    """

    position: int
    reason: str


@dataclass(frozen=True, eq=False)
class Scheme:
    """The table of one scheme.

    Attributes:
        name: its name here; `SCHEME_ALIASES` has the other names it goes by.
        follows: prefix -> the prefixes that may come next; `I=` only with the same type, `I` with any.
        starts, ends: prefixes that may stand first and last in a sentence.
        single, first, inner, last: the prefix of a span's only, first, middle and last token.
        touching_first: the first token's prefix where the span before ends there and has the same type.
        touching_last: the last token's prefix where the span after begins there and has the same type.
        prefixed: False where a tag is the type itself, as for parts of speech.
        needs_outside: whether a tag set without `O` is taken for a mistake.
    """

    name: str
    follows: Mapping[str, frozenset[str]]
    starts: frozenset[str]
    ends: frozenset[str]
    single: str
    first: str
    inner: str
    last: str
    touching_first: str | None = None
    touching_last: str | None = None
    prefixed: bool = True
    needs_outside: bool = True

    @property
    def prefixes(self) -> frozenset[str]:
        """All prefixes, `O` among them."""
        return frozenset(self.follows)

    def may_follow(self, tag: tuple[str, str], after: tuple[str, str]) -> bool:
        """Whether `tag` may come right after `after`; both are (prefix, type)."""
        options = self.follows[after[0]]
        return tag[0] in options or (tag[1] == after[1] and f"{tag[0]}=" in options)


def _scheme(
    name: str,
    follows: Mapping[str, str],
    starts: str,
    ends: str,
    written: tuple[str, str, str, str],
    **options: str | bool | None,
) -> Scheme:
    single, first, inner, last = written
    return Scheme(
        name,
        {prefix: frozenset(row.split()) for prefix, row in follows.items()},
        frozenset(starts.split()),
        frozenset(ends.split()),
        single,
        first,
        inner,
        last,
        **options,  # type: ignore[arg-type]  # only this file calls it
    )


def _bounded(name: str, inner: str, last: str, single: str, *, needs_outside: bool = False) -> Scheme:
    """A scheme that marks both ends of a span: BIOES under its several sets of letters."""
    open_row, free_row = f"{inner}= {last}=", f"O B {single}"
    follows = {"O": free_row, "B": open_row, inner: open_row, last: free_row, single: free_row}
    written = (single, "B", inner, last)
    return _scheme(name, follows, free_row, f"O {last} {single}", written, needs_outside=needs_outside)


SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        _scheme("IOB2", {"O": "O B", "B": "O B I=", "I": "O B I="}, "O B", "O B I", ("B", "B", "I", "I")),
        _bounded("BIOES", "I", "E", "S"),
        _bounded("BMES", "M", "E", "S"),
        _bounded("BMESO", "M", "E", "S", needs_outside=True),
        _bounded("BILOU", "I", "L", "U"),
        _scheme("IOE2", {"O": "O I E", "I": "I= E=", "E": "O I E"}, "O I E", "O E", ("E", "I", "I", "E")),
        # B only parts a span from one of the same type right before it.
        _scheme(
            "IOB1",
            {"O": "O I", "I": "O I B=", "B": "O I B="},
            "O I",
            "O I B",
            ("I", "I", "I", "I"),
            touching_first="B",
        ),
        # E only parts a span from one of the same type right after it.
        _scheme(
            "IOE1", {"O": "O I E", "I": "O I E", "E": "I= E="}, "O I E", "O I", ("I", "I", "I", "I"), touching_last="E"
        ),
        # Every token is a span of its own and its tag is the type: parts of speech.
        _scheme(
            "SINGLE", {"O": "O S", "S": "O S"}, "O S", "O S", ("S", "S", "S", "S"), prefixed=False, needs_outside=False
        ),
    )
}
"""Name → scheme, in the order in which `detect_scheme` tries them."""

SCHEME_ALIASES: Mapping[str, str] = {
    "BIO": "IOB2",
    "IOB": "IOB2",
    "IOBES": "BIOES",
    "BIOUL": "BILOU",
    "BMEO": "BMESO",
    "POS": "SINGLE",
}


def get_scheme(scheme: str | Scheme) -> Scheme:
    """Return the scheme of that name, in any case, aliases such as `BIO`, `IOBES` and `POS` included.

    Args:
        scheme: a name, or a `Scheme`, which is returned as it is.

    Raises:
        ValueError: no scheme has that name.
        TypeError: it is neither a name nor a `Scheme`.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if not isinstance(scheme, str):
        raise TypeError(f"scheme must be a name or a Scheme, got {type(scheme).__name__}: {scheme!r}")
    name = scheme.upper()
    found = SCHEMES.get(SCHEME_ALIASES.get(name, name))
    if found is None:
        raise ValueError(f"no tagging scheme {scheme!r}: expected one of {', '.join([*SCHEMES, *SCHEME_ALIASES])}")
    return found


def parse_tag(tag: str, scheme: str | Scheme = "IOB2") -> tuple[str, str]:
    """Split a tag into (prefix, type): `("B", "PER")`, `("B", "")` for a bare prefix, `("O", "")` outside.

    Raises:
        ValueError: the tag has a prefix that the scheme does not know, or none.
        TypeError: the tag is not a string.
    """
    try:
        return _parse(tag, get_scheme(scheme))
    except TypeError:  # an unhashable tag never reaches the function behind the cache
        raise _not_a_tag(tag) from None


def format_tag(prefix: str, type_: str, scheme: str | Scheme = "IOB2") -> str:
    """Join what `parse_tag` splits."""
    if prefix == OUTSIDE:
        return OUTSIDE
    if not get_scheme(scheme).prefixed:
        return type_
    return f"{prefix}{DELIMITER}{type_}" if type_ else prefix


def scheme_labels(types: Iterable[str], scheme: str | Scheme = "IOB2", *, outside: bool = True) -> list[str]:
    """List every tag that a model needs for these types, `O` first; `types=[""]` for untyped segmentation.

    Args:
        types: the spans' types, in the order wanted.
        scheme: the tagging scheme.
        outside: whether `O` is one of them; False where every token belongs to a span.
    """
    table = get_scheme(scheme)
    order = dict.fromkeys(
        p for p in (table.touching_first, table.first, table.inner, table.last, table.touching_last, table.single) if p
    )
    return [OUTSIDE] * outside + [format_tag(prefix, name, table) for name in types for prefix in order]


def allowed_transitions(
    labels: Sequence[str], scheme: str | Scheme = "IOB2", *, require_outside: bool | None = None
) -> AllowedTransitions:
    """Which label may follow which in the scheme, and which may begin and end a sentence.

    A set that lacks tags of the scheme (a type that never has inner tokens) is fine as long as each label can occur
    in a legal sentence.

    Args:
        labels: the labels in the order of their ids, such as `[config.id2label[i] for i in range(num_labels)]`.
        scheme: the tagging scheme.
        require_outside: whether a set without `O` is an error. None: as the scheme has it, which is no for the
            schemes that mark both ends of a span (word segmentation needs no `O`) and for SINGLE, else yes.

    Raises:
        ValueError: a label that the scheme does not know, one given twice, a set without `O` where it is required, or
            a label that no legal sentence can hold.
        TypeError: one string in place of the labels.
    """
    table = get_scheme(scheme)
    if isinstance(labels, str):
        raise TypeError(f"labels must be a sequence of tags, got one string: {labels!r}")
    if not labels:
        raise ValueError("labels is empty: expected every tag of the model, in the order of their ids")
    twice = sorted({label for label in labels if list(labels).count(label) > 1})
    if twice:
        raise ValueError(f"labels given twice: {', '.join(twice)}")
    parsed = [parse_tag(label, table) for label in labels]
    if (table.needs_outside if require_outside is None else require_outside) and OUTSIDE not in labels:
        raise ValueError(
            f"no {OUTSIDE!r} among the {len(labels)} labels ({', '.join(labels)}), so a token outside of every span "
            f"has no tag: add {OUTSIDE!r}, or pass require_outside=False where every token belongs to a span"
        )
    allowed = AllowedTransitions(
        np.array([[table.may_follow(tag, after) for tag in parsed] for after in parsed], dtype=np.bool_),
        np.array([prefix in table.starts for prefix, _ in parsed], dtype=np.bool_),
        np.array([prefix in table.ends for prefix, _ in parsed], dtype=np.bool_),
    )
    _check_usable(labels, allowed, table)
    return allowed


def find_violations(tags: Sequence[str], scheme: str | Scheme = "IOB2") -> list[Violation]:
    """List where the tags of one sentence break the scheme; empty for legal tags.

    Args:
        tags: one tag a token.
        scheme: the tagging scheme.

    Raises:
        ValueError: an unknown tag, or no tags at all.
        TypeError: not a sequence of strings.
    """
    table = get_scheme(scheme)
    parsed = _parse_all(tags, table)
    found = []
    if parsed[0][0] not in table.starts:
        found.append(Violation(0, f"{tags[0]} cannot begin a sentence"))
    found += [
        Violation(position, f"{tags[position]} cannot follow {tags[position - 1]}")
        for position in range(1, len(parsed))
        if not table.may_follow(parsed[position], parsed[position - 1])
    ]
    if parsed[-1][0] not in table.ends:
        found.append(Violation(len(tags), f"{tags[-1]} cannot end a sentence"))
    return found


def is_legal(tags: Sequence[str], scheme: str | Scheme = "IOB2") -> bool:
    """Whether the tags of one sentence keep the scheme; unknown tags raise, as in `find_violations`.

    Args:
        tags: one tag a token.
        scheme: the tagging scheme.
    """
    return not find_violations(tags, scheme)


def validate_tags(tags: Sequence[str], scheme: str | Scheme = "IOB2") -> None:
    """Raise a ValueError that names the first place where the tags of one sentence break the scheme.

    Args:
        tags: one tag a token.
        scheme: the tagging scheme.
    """
    found = find_violations(tags, scheme)
    if found:
        more = f" ({len(found)} places in all)" if len(found) > 1 else ""
        raise ValueError(
            f"not legal {get_scheme(scheme).name}: {found[0].reason}, position {found[0].position}{more}. "
            "Pass illegal='repair' or illegal='drop', or the scheme that the tags are written in"
        )


def tags_to_spans(tags: Sequence[str], scheme: str | Scheme = "IOB2", *, illegal: IllegalTags = "error") -> list[Span]:
    """Read the spans of one sentence from its tags, in order.

    Args:
        tags: one tag a token.
        scheme: the tagging scheme.
        illegal: tags that break the scheme: `"error"` refuses them; `"repair"` reads every piece as a span, as
            conlleval does (a span begins wherever a tag cannot continue the one before); `"drop"` keeps only the
            spans that are written whole, a span that lacks its beginning or end is lost.

    Raises:
        ValueError: illegal tags under `"error"`, an unknown tag, no tags at all.
        TypeError: not a sequence of strings (a list of sentences, for instance).
    """
    table = get_scheme(scheme)
    if illegal not in ("error", "repair", "drop"):
        raise ValueError(f"illegal must be 'error', 'repair' or 'drop', got {illegal!r}")
    if illegal == "error":
        validate_tags(tags, table)
    parsed = _parse_all(tags, table)
    spans = _pieces(parsed)
    if illegal != "drop":
        return spans
    return [span for span in spans if _is_whole(span, parsed, table)]


def spans_to_tags(spans: Iterable[tuple[str, int, int]], length: int, scheme: str | Scheme = "IOB2") -> list[str]:
    """Write flat spans as one tag a token.

    Args:
        spans: (type, start, end), half-open, in any order.
        length: tokens of the sentence.
        scheme: the tagging scheme.

    Raises:
        ValueError: a span outside of the sentence or empty, spans that overlap or nest, a span of several tokens in a
            scheme of single tags, a sentence without tokens.
    """
    table = get_scheme(scheme)
    if length < 1:
        raise ValueError(f"length is {length}: a sentence needs at least one token")
    ordered = check_flat_spans(spans, length)
    tags = [OUTSIDE] * length
    for number, span in enumerate(ordered):
        if not table.prefixed and span.end - span.start > 1:
            raise ValueError(f"{span} has several tokens: in {table.name} every token has its own tag")
        before = ordered[number - 1] if number else None
        after = ordered[number + 1] if number + 1 < len(ordered) else None
        prefixes = [table.first, *[table.inner] * (span.end - span.start - 2), table.last]
        if span.end - span.start == 1:
            prefixes = [table.single]
        if table.touching_first and before and (before.type, before.end) == (span.type, span.start):
            prefixes[0] = table.touching_first
        if table.touching_last and after and (after.type, after.start) == (span.type, span.end):
            prefixes[-1] = table.touching_last
        tags[span.start : span.end] = [format_tag(prefix, span.type, table) for prefix in prefixes]
    return tags


def check_flat_spans(spans: Iterable[tuple[str, int, int]], length: int) -> list[Span]:
    """Return the spans in order, each inside `[0, length)` and none overlapping another.

    Raises:
        ValueError: naming the first span or pair of spans that breaks this.
    """
    ordered = sorted((Span(*span) for span in spans), key=lambda span: (span.start, span.end))
    for span in ordered:
        if not 0 <= span.start < span.end <= length:
            raise ValueError(
                f"{span} does not lie in a sentence of {length} tokens: expected 0 <= start < end <= {length}"
            )
    for before, span in pairwise(ordered):
        if span.start < before.end:
            kind = "nested in" if span.end <= before.end or span.start == before.start else "overlapping"
            raise ValueError(
                f"{span} is {kind} {before}: one tag a token can only write flat spans. "
                "Keep the outermost or the innermost spans, or tag each level on its own"
            )
    return ordered


def repair_tags(tags: Sequence[str], scheme: str | Scheme = "IOB2") -> list[str]:
    """Return legal tags with the spans that conlleval reads from the given ones; legal tags come back unchanged.

    Args:
        tags: one tag a token.
        scheme: the tagging scheme.
    """
    return spans_to_tags(tags_to_spans(tags, scheme, illegal="repair"), len(tags), scheme)


def convert_tags(
    tags: Sequence[str], source: str | Scheme, target: str | Scheme, *, illegal: IllegalTags = "error"
) -> list[str]:
    """Write the spans of one sentence's tags in another scheme; `illegal` as in `tags_to_spans`.

    Args:
        tags: one tag a token.
        source: the scheme that they are written in.
        target: the scheme to write.
        illegal: what becomes of tags that break `source`: `"error"`, `"repair"` or `"drop"`, as in `tags_to_spans`.
    """
    return spans_to_tags(tags_to_spans(tags, source, illegal=illegal), len(tags), target)


def detect_scheme(labels: Iterable[str]) -> str:
    """Name the scheme of a label set, such as a model's; `SINGLE` where no label has a prefix.

    The first in the order of `SCHEMES` in which every label can occur: `{B, I, O}` is IOB2 and `{I, E, O}` is IOE2
    (a label set cannot tell them from IOB1 and IOE1, for which `detect_scheme_in` looks at sentences), `{I, O}` is
    IOB1, and so is a set with an `I-PER` that has no `B-PER`.

    Args:
        labels: every tag of the set; their order does not matter.

    Raises:
        ValueError: no labels, only `O`, or labels that no scheme has together.
    """
    seen = list(dict.fromkeys(labels))
    names = [label for label in seen if label != OUTSIDE]
    if not names:
        raise ValueError(f"cannot tell a tagging scheme from the labels {seen}: no label of a span among them")
    for name, table in SCHEMES.items():
        if table.prefixed and all(_has_prefix(label, table) for label in names) and _is_usable(seen, table):
            return name
    # A bare letter is no sign of a prefix: M and P are parts of speech.
    tables = [table for table in SCHEMES.values() if table.prefixed]
    if any(label[1:2] == DELIMITER and _has_prefix(label, table) for label in names for table in tables):
        raise ValueError(
            f"the labels fit no tagging scheme: {', '.join(sorted(names))}. Expected the prefixes of one of "
            f"{', '.join(SCHEMES)} with all the tags that its spans need, or labels without prefixes"
        )
    return "SINGLE"


def detect_scheme_in(sentences: Iterable[Sequence[str]]) -> str:
    """Name the first scheme, in the order of `SCHEMES`, under which every sentence is legal.

    Args:
        sentences: the tags of each sentence, one a token; empty sentences are passed over.

    Raises:
        ValueError: no scheme fits all sentences; the message says what breaks the likeliest one.
    """
    kept = [list(sentence) for sentence in sentences if len(sentence)]
    labels = list(dict.fromkeys(tag for sentence in kept for tag in sentence))
    likeliest = detect_scheme(labels)
    if likeliest == "SINGLE":
        return likeliest
    for name, table in SCHEMES.items():
        known = table.prefixed and all(label == OUTSIDE or _has_prefix(label, table) for label in labels)
        if known and all(is_legal(sentence, table) for sentence in kept):
            return name
    number, violation = next(
        (number, found[0]) for number, tags in enumerate(kept) if (found := find_violations(tags, likeliest))
    )
    raise ValueError(
        f"no tagging scheme fits every sentence; under {likeliest} sentence {number} breaks first: "
        f"{violation.reason}, position {violation.position}"
    )


def _has_prefix(label: str, table: Scheme) -> bool:
    return label[:1] in table.prefixes - {OUTSIDE} and label[1:2] in ("", DELIMITER)


def _is_usable(labels: Sequence[str], table: Scheme) -> bool:
    try:
        allowed_transitions(labels, table, require_outside=False)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1 << 14)  # tags may be a user's: ever new ones must not fill the memory
def _parse(tag: str, table: Scheme) -> tuple[str, str]:
    if not isinstance(tag, str):
        raise _not_a_tag(tag)
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if not table.prefixed and tag:
        return table.single, tag
    if not _has_prefix(tag, table):
        expected = ", ".join(sorted(table.prefixes - {OUTSIDE}))
        raise ValueError(
            f"tag {tag!r} is not a tag of {table.name}: expected {OUTSIDE}, or one of the prefixes {expected} with "
            f"{DELIMITER!r} and a type, or such a prefix alone"
        )
    return tag[0], tag[2:]


def _not_a_tag(tag: object) -> TypeError:
    return TypeError(f"a tag must be a string, got {type(tag).__name__}: {tag!r}. Tags of one sentence at a time")


def _parse_all(tags: Sequence[str], table: Scheme) -> list[tuple[str, str]]:
    if isinstance(tags, str):
        raise TypeError(f"tags must be a sequence of tags, got one string: {tags!r}")
    if not len(tags):
        raise ValueError("the sentence is empty: expected at least one tag")
    return [parse_tag(tag, table) for tag in tags]


def _pieces(parsed: Sequence[tuple[str, str]]) -> list[Span]:
    """Cut tags into spans; for legal tags of any scheme these are its spans, for others conlleval's reading."""
    spans = []
    begin = 0
    before = (OUTSIDE, "")
    for position, tag in enumerate([*parsed, (OUTSIDE, "")]):
        inside = before[0] != OUTSIDE
        goes_on = (
            inside
            and tag[0] != OUTSIDE
            and before[1] == tag[1]
            and before[0] not in _CLOSING
            and tag[0] not in _OPENING
        )
        if inside and not goes_on:
            spans.append(Span(before[1], begin, position))
        if not goes_on:
            begin = position
        before = tag
    return spans


def _is_whole(span: Span, parsed: Sequence[tuple[str, str]], table: Scheme) -> bool:
    """Whether a piece is a span as the scheme writes it between the neighbours that it has."""
    outside = (OUTSIDE, "")
    piece = parsed[span.start : span.end]
    before = parsed[span.start - 1] if span.start else outside
    after = parsed[span.end] if span.end < len(parsed) else outside
    # A neighbour of the same type matters to IOB1 and IOE1 only; one that is itself broken does not break this span.
    touching_before = before[0] != OUTSIDE and before[1] == span.type
    touching_after = after[0] != OUTSIDE and after[1] == span.type
    prefixes = [table.first, *[table.inner] * (len(piece) - 2), table.last] if len(piece) > 1 else [table.single]
    if table.touching_first and touching_before:
        prefixes[0] = table.touching_first
    if table.touching_last and touching_after:
        prefixes[-1] = table.touching_last
    return [prefix for prefix, _ in piece] == prefixes


def _check_usable(labels: Sequence[str], allowed: AllowedTransitions, table: Scheme) -> None:
    """Raise where a label lies on no legal path from a sentence's start to its end."""
    for edges, ends, what, verb in (
        (allowed.transitions, allowed.start, "begin", "before"),
        (allowed.transitions.T, allowed.end, "end", "after"),
    ):
        reached = ends
        while True:
            further = reached | (reached.astype(np.int64) @ edges).astype(np.bool_)
            if (further == reached).all():
                break
            reached = further
        if not reached.all():
            lost = [label for label, known in zip(labels, reached, strict=True) if not known]
            raise ValueError(
                f"the labels do not fit {table.name}: no legal sentence can {what} with what must stand {verb} "
                f"{', '.join(lost)}. Add the missing tags of these types (`scheme_labels` lists them) or name the "
                "scheme that the labels are written in"
            )
