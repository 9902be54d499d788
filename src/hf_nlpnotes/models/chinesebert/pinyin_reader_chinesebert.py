"""Reads text in pinyin, exactly as pypinyin 0.55 does and an order of magnitude faster.

pypinyin cuts each run of Chinese characters from the left into the longest phrases of its dictionary. A phrase is
read as the dictionary says, every other character takes its first reading. Only the phrases that are read otherwise
than their characters matter, but the others decide where those may begin. One exception is kept: where the rest of a
run is the beginning of a phrase and no phrase begins there, all of it is cut into single characters. (Before 0.55
pypinyin missed a phrase that was the beginning of a longer one left unfinished; that is not imitated.)

`PinyinReader` is a small immutable value that can be hashed and pickled. The dictionaries stand behind it as a trie
that is built once per process, at the first reading; a change that is made to pypinyin's own dictionaries afterwards
is not seen. Short texts walk the trie in Python, long ones and batches as arrays: all positions at once, one level of
the trie after the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .pinyin_chinesebert import PinyinTable, is_han, to_tone3

_CODES = 0x32400
"""One more than the last code point that may be read; all above are one entry of the dense tables."""

READABLE, SPLIT = 1, 2
"""Bits of a character's kind: pypinyin takes it for Chinese; BERT splits it off as a word of its own."""

# Where BERT's normalizer puts blanks around characters. The seventh block begins late, as it does in the original.
_SPLIT_BLOCKS = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)

SMALL = 256
"""Texts with fewer characters in all are walked in Python."""

_EDGE = 21
"""Bits of a code point in the key of an edge of the trie: (node << 21) | code."""

_SLOT_BITS = 19
"""Size of the hash table of edges; about a sixth of it is filled."""

_PAIR_BITS = 19
"""Size of the table that tells which pairs of characters are worth a closer look; it fits a processor's cache."""

_FEW = 8
"""Stretches that are cut one by one, because arrays of this size no longer pay."""


class PinyinReader:
    """Readings of characters in context: pypinyin's dictionaries and the user's phrases, over a table of readings.

    Args:
        table (`PinyinTable`): The rows that readings are numbered by.
        phrases (`Mapping[str, Sequence[str] | str]`, *optional*):
            Phrases with one reading a character, which add to pypinyin's and replace them:
            `{"重庆": ["chong2", "qing4"]}`. Readings are syllables with a tone digit or a tone mark, also as one
            string with blanks between them. A phrase of one character is the reading of that character alone.

    Raises:
        ValueError: A phrase is not made of Chinese characters, has another number of readings than characters, or a
            reading that the table lacks.
    """

    def __init__(self, table: PinyinTable, phrases: Mapping[str, Sequence[str] | str] | None = None) -> None:
        self._table = table
        checked = {phrase: _checked_readings(phrase, readings, table) for phrase, readings in (phrases or {}).items()}
        self._phrases = tuple(sorted(checked.items()))
        self._hash = hash((table, self._phrases))

    @property
    def table(self) -> PinyinTable:
        """The rows that readings are numbered by."""
        return self._table

    @property
    def phrases(self) -> dict[str, list[str]]:
        """The user's phrases, in `TONE3` style."""
        return {phrase: list(readings) for phrase, readings in self._phrases}

    def read(self, texts: Iterable[str]) -> np.ndarray:
        """Row numbers of every character of the texts, one text after the other, (sum of lengths,) int16.

        0 stands for characters that pypinyin has no reading for. Texts do not see each other.
        """
        texts = list(texts)
        if sum(map(len, texts)) < SMALL:
            return np.array([row for text in texts for row in self.read_text(text)], dtype=np.int16)
        codes = to_codes(texts)
        separators = np.cumsum([len(text) + 1 for text in texts]) - 1
        return np.delete(self.read_codes(codes), separators)

    def read_text(self, text: str) -> list[int]:
        """As `read`, of one text, as a list; the fast way for a short one."""
        return _lexicon(self).read(text)

    def read_codes(self, codes: np.ndarray) -> np.ndarray:
        """As `read`, of texts given by `to_codes`; the line feeds have row 0. (len(codes),) int16."""
        return _lexicon(self).arrays.read(codes)

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, PinyinReader) and self._phrases == other._phrases and self._table == other._table
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._table!r}, <{len(self._phrases)} phrases>)"

    def __reduce__(self) -> tuple[Any, ...]:
        # A string's hash differs between processes, so that this one must not travel.
        return type(self), (self._table, dict(self._phrases))


def to_codes(texts: Sequence[str]) -> np.ndarray:
    """Code points of texts, each with a line feed behind it, (sum of lengths + 1,) int32."""
    joined = "\n".join([*texts, ""])
    return np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.int32)


def kinds_of(codes: np.ndarray) -> np.ndarray:
    """`READABLE` and `SPLIT` bits of code points, of the same shape, uint8."""
    return _kinds()[np.minimum(codes, _CODES)]


def _checked_readings(phrase: str, readings: Sequence[str] | str, table: PinyinTable) -> tuple[str, ...]:
    if not isinstance(phrase, str):
        raise TypeError(f"A phrase must be a string, got {type(phrase).__name__}.")
    if not phrase or not is_han(phrase):
        raise ValueError(f"The phrase {phrase!r} must be made of Chinese characters only.")
    syllables = readings.split() if isinstance(readings, str) else list(readings)
    if len(syllables) != len(phrase):
        raise ValueError(
            f"The phrase {phrase!r} has {len(phrase)} characters but {len(syllables)} readings ({syllables}); give one"
            " a character."
        )
    checked = []
    for syllable in syllables:
        if not isinstance(syllable, str):
            raise TypeError(f"The readings of the phrase {phrase!r} must be strings, got {type(syllable).__name__}.")
        reading = to_tone3(syllable.strip().lower()).replace("ü", "v")
        if not table.index(reading):
            raise ValueError(
                f"The phrase {phrase!r} has the reading {syllable!r}, which the pinyin table lacks. Write a syllable"
                " with its tone as a digit or a mark, such as 'chong2' or 'chóng'; v or ü for ü; no digit, or 5, for"
                " the neutral tone."
            )
        checked.append(reading)
    return tuple(checked)


@lru_cache(maxsize=1)
def _kinds() -> np.ndarray:
    """Kind of every code point below `_CODES`, and of all above as one, (_CODES + 1,) uint8."""
    from pypinyin.constants import RE_HANS

    # Once per character the expression takes 60 ms; without its anchors it finds whole runs.
    runs = re.compile(RE_HANS.pattern.removeprefix("^").removesuffix("$"))
    kinds = np.zeros(_CODES + 1, dtype=np.uint8)
    for run in runs.finditer("".join(map(chr, range(_CODES)))):
        kinds[run.start() : run.end()] |= READABLE
    for first, last in _SPLIT_BLOCKS:
        kinds[first : last + 1] |= SPLIT
    return kinds


@lru_cache(maxsize=4)
def _lexicon(reader: PinyinReader) -> _Lexicon:
    return _Lexicon(reader)


class _Lexicon:
    """pypinyin's dictionaries and a user's phrases as a trie.

    `roots` maps the code point of a first character to a node, `edges` maps (node << 21) | code point to the next.
    `ends[node]` tells whether a phrase ends there: `None` where none does, an empty tuple where it is read as its
    characters are, else its rows. `alone` maps a character to the row it has outside of phrases.
    """

    def __init__(self, reader: PinyinReader) -> None:
        from pypinyin.constants import PHRASES_DICT, PINYIN_DICT

        table, row_of = reader.table, {}
        for marked in {marked for readings in PINYIN_DICT.values() for marked in readings.split(",")}:
            row_of[marked] = table.index(to_tone3(marked))

        kinds = _kinds().tolist()
        self.alone: dict[str, int] = {
            chr(code): row_of[readings.partition(",")[0]]
            for code, readings in PINYIN_DICT.items()
            if code < _CODES and kinds[code] & READABLE
        }
        phrases: dict[str, tuple[int, ...]] = {}
        for phrase, readings in PHRASES_DICT.items():
            firsts = [of_character[0] for of_character in readings]
            if len(firsts) != len(phrase):
                raise ValueError(
                    f"pypinyin's dictionary gives the phrase {phrase!r} {len(firsts)} readings for {len(phrase)}"
                    " characters; correct what was loaded with load_phrases_dict."
                )
            try:
                phrases[phrase] = tuple([row_of[first] for first in firsts])
            except KeyError:  # a reading that only phrases have
                phrases[phrase] = tuple([table.index(to_tone3(first)) for first in firsts])
        for phrase, checked in reader.phrases.items():
            phrases[phrase] = tuple(map(table.index, checked))
        self.alone.update({phrase: rows[0] for phrase, rows in phrases.items() if len(phrase) == 1})

        self.roots: dict[int, int] = {}
        self.edges: dict[int, int] = {}
        self.ends: list[tuple[int, ...] | None] = [None]
        self.deviating: list[str] = []
        for phrase, rows in phrases.items():
            self._insert(phrase, rows)
        # Both things a character is asked for in one look-up: (its node << 16) | its row.
        self._heads = {ord(character): row for character, row in self.alone.items()}
        for code, node in self.roots.items():
            self._heads[code] = self._heads.get(code, 0) | node << 16
        self._kinds = _kinds().tobytes()

    def _insert(self, phrase: str, rows: tuple[int, ...]) -> None:
        edges, ends = self.edges, self.ends
        node = self.roots.setdefault(ord(phrase[0]), len(ends))
        if node == len(ends):
            ends.append(None)
        for character in phrase[1:]:
            node = edges.setdefault((node << _EDGE) | ord(character), len(ends))
            if node == len(ends):
                ends.append(None)
        if rows == tuple(map(self.alone.get, phrase)):
            ends[node] = ()
        else:
            ends[node] = rows
            self.deviating.append(phrase)

    def read(self, text: str) -> list[int]:
        """Row of each character."""
        edges, ends, head = self.edges, self.ends, self._heads.get
        codes = list(map(ord, text))
        heads = [head(code, 0) for code in codes]
        rows = [value & 0xFFFF for value in heads]
        # Most pairs of characters begin no phrase: they are done with here, and only the others walk on.
        pairs = [(value >> 16) << _EDGE | code for value, code in zip(heads, codes[1:], strict=False)]
        cut, length = 0, len(codes)
        for start, node in enumerate(map(edges.get, pairs)):
            if node is None or start < cut:
                continue
            cut, after, phrase = start + 1, start + 1, ends[heads[start] >> 16]
            while node:
                after += 1
                if ends[node] is not None:
                    cut, phrase = after, ends[node]
                node = edges.get((node << _EDGE) | codes[after], 0) if after < length else 0
            if phrase:
                rows[start:cut] = phrase
            elif phrase is None and (after == length or not self._is_readable(codes[after])):
                cut = after  # the run ends within a phrase: single characters
        return rows

    def _is_readable(self, code: int) -> bool:
        return bool(self._kinds[min(code, _CODES)] & READABLE)

    @cached_property
    def arrays(self) -> _LexiconArrays:
        return _LexiconArrays(self)


class _LexiconArrays:
    """A `_Lexicon` for many characters at once."""

    def __init__(self, lexicon: _Lexicon) -> None:
        self._readable = (_kinds() & READABLE).astype(bool)
        self._alone = np.zeros(_CODES + 1, dtype=np.int16)
        self._alone[list(map(ord, lexicon.alone))] = list(lexicon.alone.values())

        self._first = np.zeros(_CODES + 1, dtype=np.int32)
        self._first[list(lexicon.roots)] = list(lexicon.roots.values())

        # A hash table of the edges: slot → edge, edges of the same slot are chained, edge 0 is none.
        self._keys = np.array([-1, *lexicon.edges], dtype=np.int64)
        self._nodes = np.array([0, *lexicon.edges.values()], dtype=np.int32)
        slots = _slot(self._keys)
        slots[0] = -1  # sorts first, matches no other
        order = np.argsort(slots, kind="stable")
        same = slots[order[1:]] == slots[order[:-1]]
        self._next = np.zeros(len(order), dtype=np.int32)
        self._next[order[:-1][same]] = order[1:][same]
        heads = order[1:][~same]
        self._slots = np.zeros(1 << _SLOT_BITS, dtype=np.int32)
        self._slots[slots[heads]] = heads

        self._is_end = np.array([rows is not None for rows in lexicon.ends])
        self._deviates = np.array([bool(rows) for rows in lexicon.ends])
        deviating = [rows for rows in lexicon.ends if rows]
        self._place = np.zeros(len(lexicon.ends), dtype=np.int64)
        self._place[self._deviates] = np.cumsum([0, *map(len, deviating)])[:-1]
        self._rows = np.array([row for rows in deviating for row in rows], dtype=np.int16)

        # Whether a phrase that deviates may begin with two characters; true of some other pairs as well.
        codes = [list(map(ord, phrase)) for phrase in lexicon.deviating if len(phrase) > 1]
        self._may_deviate = np.zeros(1 << _PAIR_BITS, dtype=bool)
        self._may_deviate[_pair(np.array([c[0] for c in codes]), np.array([c[1] for c in codes]))] = True

    def read(self, codes: np.ndarray) -> np.ndarray:
        """Row of each character; the last must not be Chinese. (n,) int32 → (n,) int16."""
        codes = np.minimum(codes, _CODES)
        rows = self._alone[codes]
        places = self._runs_to_cut(codes)
        if len(places):
            codes = codes[places]
            lengths, nodes = self._longest(codes, np.arange(len(codes)))
            starts = _word_starts(lengths, self._deviates[nodes])
            size = lengths[starts]
            within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
            phrases = self._rows[np.repeat(self._place[nodes[starts]], size) + within]
            rows[places[np.repeat(starts, size) + within]] = phrases
        return rows

    def _runs_to_cut(self, codes: np.ndarray) -> np.ndarray:
        """Places of the characters in runs that hold a phrase that deviates, with the character after each run."""
        at = np.flatnonzero(self._may_deviate[_pair(codes[:-1], codes[1:])])
        at = at[self._deviates[self._longest(codes, at)[1]]]
        if not len(at):
            return at
        breaks = np.concatenate([[-1], np.flatnonzero(~self._readable[codes])])
        runs = np.unique(np.searchsorted(breaks, at))
        first, size = breaks[runs - 1] + 1, breaks[runs] - breaks[runs - 1]
        return np.repeat(first - np.cumsum(size) + size, size) + np.arange(size.sum())

    def _longest(self, codes: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Length and node of the longest phrase that begins at each place, whether or not it is cut off there.

        Where none begins the node is 0 and the length 1, or all of the run when its rest is the beginning of a phrase.
        """
        lengths = np.ones(len(at), dtype=np.int64)
        ends = np.zeros(len(at), dtype=np.int32)
        nodes = self._first[codes[at]]
        alive, depth = np.flatnonzero(nodes), 1
        nodes = nodes[alive]
        while len(alive):
            is_end = self._is_end[nodes]
            phrases = alive[is_end]
            lengths[phrases] = depth
            ends[phrases] = nodes[is_end]

            following = codes[at[alive] + depth]
            run_ends = alive[~self._readable[following]]
            lengths[run_ends[ends[run_ends] == 0]] = depth

            nodes = self._step(nodes, following)
            onward = np.flatnonzero(nodes)
            alive, nodes, depth = alive[onward], nodes[onward], depth + 1
        return lengths, ends

    def _step(self, nodes: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """The nodes that edges lead to, 0 where there is no such edge."""
        keys = (nodes.astype(np.int64) << _EDGE) | codes
        edges = self._slots[_slot(keys)]
        missed = np.flatnonzero((self._keys[edges] != keys) & (edges != 0))
        while len(missed):
            edges[missed] = self._next[edges[missed]]
            missed = missed[(self._keys[edges[missed]] != keys[missed]) & (edges[missed] != 0)]
        return self._nodes[edges]


def _word_starts(lengths: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Those of the wanted characters at which cutting from the left begins a word.

    No word crosses a character that all words before it end at or before: from there on the text is cut alone. So only
    the stretches between such characters that hold a wanted one are cut, all at once, a word a turn.

    Args:
        lengths (`np.ndarray`): Length of the word that would begin at each character, (n,).
        wanted (`np.ndarray`): Which beginnings are asked for, (n,) bool.
    """
    places = np.arange(len(lengths))
    reach = np.maximum.accumulate(places + lengths)
    safe = np.concatenate([[0], np.flatnonzero(reach[:-1] <= places[1:]) + 1, [len(lengths)]])
    stretches = np.unique(np.searchsorted(safe, np.flatnonzero(wanted), side="right"))
    at, stop = safe[stretches - 1], safe[stretches]

    found = [at[:0]]
    while len(at) > _FEW:
        found.append(at[wanted[at]])
        at = at + lengths[at]
        inside = at < stop
        at, stop = at[inside], stop[inside]
    for place, end in zip(at.tolist(), stop.tolist(), strict=True):
        while place < end:
            if wanted[place]:
                found.append(places[place : place + 1])
            place += int(lengths[place])
    return np.concatenate(found)


def _pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Place of a pair of code points in a small table."""
    return (first * 40503 + second) & ((1 << _PAIR_BITS) - 1)


def _slot(keys: np.ndarray) -> np.ndarray:
    """Multiplicative hash of an edge's key (Knuth, TAOCP 3, section 6.4)."""
    return ((keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
