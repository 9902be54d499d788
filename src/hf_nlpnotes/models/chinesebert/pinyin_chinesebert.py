"""Pinyin as ChineseBERT sees it: a table of readings, each at most eight letters.

ChineseBERT (Sun et al., ACL 2021, https://arxiv.org/abs/2106.16038, section 3.2) embeds the romanised reading of a
character as a sequence of eight letters: Latin letters, then the tone as a digit, then zeros. Few rows of eight are
possible, so a token carries one integer, the number of its reading in a :class:`PinyinTable`, and the table carries
the letters. Row 0 is "no pinyin" and serves as padding.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .pinyin_syllables_chinesebert import SYLLABLES

LETTERS = "012345abcdefghijklmnopqrstuvwxyz"
"""The released models' letters; a letter's id is its position. Id 0 doubles as padding."""

PINYIN_LENGTH = 8
"""Letters in a row of the table."""

PINYIN_FILE_NAME = "pinyin.json"
"""File of a saved tokenizer that holds the table and the user's phrases."""


class PinyinTable:
    """An immutable table of readings: reading → row number, row number → eight letter ids.

    Args:
        spellings (`Sequence[str]`):
            The letters of each row. The first is `""`; the others are distinct and at most eight letters long.
        respelled (`Mapping[str, str]`, *optional*):
            Readings whose letters differ from the reading itself: the neutral tone `"de"` is spelled `"de5"`. Readings
            that are written with other symbols may be mapped to `""`; they are without pinyin anyway.
        letters (`str`, defaults to `LETTERS`):
            The alphabet, in the order of the letter ids.

    Raises:
        ValueError: Letters or rows that repeat, a first row that is not empty, a row of too many or unknown letters,
            or a respelling that is no row.

    A *reading* is a syllable in pypinyin's `TONE3` style: `"zhong1"`, `"lv4"`, and `"de"` for a neutral tone.
    """

    def __init__(
        self, spellings: Sequence[str], respelled: Mapping[str, str] | None = None, letters: str = LETTERS
    ) -> None:
        self._spellings = tuple(spellings)
        self._respelled = dict(sorted((respelled or {}).items()))
        self._letters = letters
        if len(set(letters)) != len(letters) or not 0 < len(letters) <= 256:
            raise ValueError(f"The letters of a pinyin table must be distinct, 1 to 256 of them, got {letters!r}.")
        if not self._spellings or self._spellings[0] != "":
            raise ValueError('Row 0 of a pinyin table must be "", which means no pinyin.')
        if len(set(self._spellings)) != len(self._spellings):
            repeated = sorted({s for s in self._spellings if self._spellings.count(s) > 1})
            raise ValueError(f"The rows of a pinyin table must be distinct, these are repeated: {repeated[:5]}.")

        letter_id = {letter: number for number, letter in enumerate(letters)}
        rows = np.zeros((len(self._spellings), PINYIN_LENGTH), dtype=np.uint8)
        for number, spelling in enumerate(self._spellings):
            if len(spelling) > PINYIN_LENGTH or any(letter not in letter_id for letter in spelling):
                raise ValueError(
                    f"Row {number} of the pinyin table is {spelling!r}; expected at most {PINYIN_LENGTH} letters of"
                    f" {letters!r}."
                )
            rows[number, : len(spelling)] = [letter_id[letter] for letter in spelling]
        rows.flags.writeable = False
        self._rows = rows

        index = {spelling: number for number, spelling in enumerate(self._spellings)}
        try:
            index.update({reading: index[spelling] for reading, spelling in self._respelled.items()})
        except KeyError as error:
            raise ValueError(f"A reading is respelled as {error}, which is no row of the pinyin table.") from None
        self._index = index

    @classmethod
    def default(cls) -> PinyinTable:
        """The package's table: a constant, whatever version of pypinyin is installed."""
        return _default_table()

    @classmethod
    def from_official(cls, folder: str | os.PathLike[str]) -> PinyinTable:
        """Reads `config/pinyin_map.json` and `config/pinyin2tensor.json` of a checkpoint in the released layout.

        The released code looks a reading up in `pinyin2tensor.json` and else spells it letter by letter. Where that
        gives every reading of the default table its letters there, the default table is returned, so that row numbers
        agree between checkpoints; otherwise a table of its own, which also covers the default table's readings.

        Args:
            folder: The checkpoint's folder.

        Raises:
            ValueError: A file is absent, is no JSON, or does not have the released layout.
        """
        config = Path(folder) / "config"
        return cls.from_official_files(config / "pinyin_map.json", config / "pinyin2tensor.json")

    @classmethod
    def from_official_files(cls, map_file: str | os.PathLike[str], tensor_file: str | os.PathLike[str]) -> PinyinTable:
        """As `from_official`, from `pinyin_map.json` and `pinyin2tensor.json`, wherever they are.

        Args:
            map_file: `pinyin_map.json`: the letters.
            tensor_file: `pinyin2tensor.json`: the letters' ids of each reading.

        Raises:
            ValueError: As `from_official`.
        """
        map_path, tensor_path = Path(map_file), Path(tensor_file)
        pinyin_map, tensors = read_json(map_path), read_json(tensor_path)
        idx2char = pinyin_map.get("idx2char")
        if not isinstance(idx2char, list) or not all(isinstance(c, str) and len(c) == 1 for c in idx2char):
            raise ValueError(f"{map_path}: expected a list of single letters under 'idx2char'.")
        letters = "".join(idx2char)
        if pinyin_map.get("char2idx") != {letter: number for number, letter in enumerate(letters)}:
            raise ValueError(f"{map_path}: 'char2idx' and 'idx2char' contradict each other.")

        spelling_of: dict[str, str] = {}
        for reading, ids in tensors.items():
            if (
                not isinstance(ids, list)
                or len(ids) != PINYIN_LENGTH
                or not all(isinstance(i, int) and 0 <= i < len(letters) for i in ids)
            ):
                raise ValueError(
                    f"{tensor_path}: {reading!r} has {ids!r}, expected {PINYIN_LENGTH} integers"
                    f" from 0 to {len(letters) - 1}."
                )
            # Zeros at the end are padding; a zero between letters is the letter of id 0.
            length = max((place + 1 for place, letter in enumerate(ids) if letter), default=0)
            spelling_of[reading] = "".join(letters[i] for i in ids[:length])

        default = cls.default()
        for reading in default.readings:
            if reading not in spelling_of:
                spelled = reading if set(reading) <= set(letters) else ""
                spelling_of[reading] = spelled
        if letters == LETTERS and all(default.spell(r) == spelling for r, spelling in spelling_of.items()):
            return default
        spellings = sorted({*spelling_of.values(), ""})
        respelled = {reading: spelling for reading, spelling in spelling_of.items() if reading != spelling}
        return cls(spellings, respelled, letters)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PinyinTable:
        """The inverse of `to_dict`; other keys are ignored. Raises `ValueError` for another layout.

        Args:
            data: What `to_dict` returned.
        """
        spellings, respelled = data.get("rows"), data.get("respelled", {})
        if not isinstance(spellings, list) or not all(isinstance(s, str) for s in spellings):
            raise ValueError("A pinyin table needs a list of strings under 'rows'.")
        if not isinstance(respelled, dict) or not all(isinstance(s, str) for s in respelled.values()):
            raise ValueError("The 'respelled' readings of a pinyin table must map strings to strings.")
        letters = data.get("letters", LETTERS)
        if not isinstance(letters, str):
            raise ValueError(f"The 'letters' of a pinyin table are one string, got {letters!r}.")
        return cls(spellings, respelled, letters)

    @classmethod
    def from_json_file(cls, path: str | os.PathLike[str]) -> PinyinTable:
        """Reads what `to_json_file`, or a tokenizer's `save_pretrained`, has written.

        Args:
            path: The file.

        Raises:
            ValueError: Another layout; names the file.
        """
        try:
            return cls.from_dict(read_json(Path(path)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON values."""
        return {"letters": self._letters, "rows": list(self._spellings), "respelled": dict(self._respelled)}

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Writes the table as JSON; the file appears complete or not at all.

        Args:
            path: The file.
        """
        write_json(Path(path), self.to_dict())

    @property
    def rows(self) -> np.ndarray:
        """Letter ids of all rows, (len(self), 8) uint8, read-only; row 0 is all zeros."""
        return self._rows

    @property
    def letters(self) -> str:
        """The alphabet, in the order of the letter ids."""
        return self._letters

    @property
    def readings(self) -> list[str]:
        """Every reading that has letters, in `TONE3` style, as pypinyin would give it."""
        taken = set(self._respelled.values())
        readings = [spelling for spelling in self._spellings[1:] if spelling not in taken]
        return readings + [reading for reading, spelling in self._respelled.items() if spelling]

    def index(self, reading: str) -> int:
        """Row number of a reading in `TONE3` style; 0 where it has no letters in this table.

        Args:
            reading: In `TONE3` style, the neutral tone without a number: `"wo3"`, `"de"`.
        """
        return self._index.get(reading, 0)

    def spell(self, reading: str) -> str:
        """Letters of a reading: `"de"` → `"de5"`, `"wo3"` → `"wo3"`, `""` where it has none.

        Args:
            reading: As of `index`.
        """
        return self._spellings[self.index(reading)]

    def spelling(self, row: int) -> str:
        """Letters of a row: `""` for row 0.

        Args:
            row: Its number.
        """
        return self._spellings[row]

    def __len__(self) -> int:
        return len(self._spellings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PinyinTable) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self)} rows>)"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._spellings, self._respelled, self._letters)

    def _key(self) -> tuple[Any, ...]:
        return self._spellings, tuple(self._respelled.items()), self._letters


@lru_cache(maxsize=1)
def _default_table() -> PinyinTable:
    spellings, respelled = [""], {}
    for entry in SYLLABLES.split():
        base = entry.rstrip("012345")
        spellings += [base if tone == "0" else base + tone for tone in entry[len(base) :]]
        if entry.endswith("5"):
            respelled[base] = base + "5"
    return PinyinTable(spellings, respelled)


@lru_cache(maxsize=4096)
def to_tone3(reading: str) -> str:
    """A reading with a tone mark in pypinyin's `TONE3` style: `"zhōng"` → `"zhong1"`, `"lǜ"` → `"lv4"`."""
    from pypinyin import Style  # here, because it loads dictionaries
    from pypinyin.style import convert

    return str(convert(reading, Style.TONE3, True, default=reading))


def default_readings(tokens: Sequence[str], table: PinyinTable) -> np.ndarray:
    """Row number of each vocabulary token's reading out of context, (len(tokens),) int64.

    That is pypinyin's first reading of a token of one character, also behind the `##` of a word piece; 0 for every
    other token. Used where a model is given no pinyin.
    """
    from pypinyin.constants import PINYIN_DICT

    rows = np.zeros(len(tokens), dtype=np.int64)
    for number, token in enumerate(tokens):
        character = token.removeprefix("##")
        if len(character) == 1 and (readings := PINYIN_DICT.get(ord(character))) and is_han(character):
            rows[number] = table.index(to_tone3(readings.split(",")[0]))
    return rows


def is_han(text: str) -> bool:
    """Whether pypinyin takes all of the text for Chinese characters."""
    from pypinyin.constants import RE_HANS

    return bool(RE_HANS.match(text)) and not text.endswith("\n")


_TONE_MARKS = {1: "\u0304", 2: "\u0301", 3: "\u030c", 4: "\u0300"}
_SYLLABLE = re.compile(r"([a-zê]*?)([0-5]?)")


def to_tone_mark(spelling: str) -> str:
    """The letters of a row as one writes them: `"zhong1"` → `"zhōng"`, `"lv4"` → `"lǜ"`, `"de5"` → `"de"`.

    The mark goes on `a` or `e`, else on the `o` of `ou`, else on the last vowel (Scheme for the Chinese Phonetic
    Alphabet, 1958); a syllable without a vowel carries it on its first nasal.
    """
    match = _SYLLABLE.fullmatch(spelling)
    if match is None:
        return spelling
    syllable, tone = match[1].replace("v", "ü"), int(match[2] or 0)
    if tone not in _TONE_MARKS or not syllable:
        return syllable
    for vowel in ("a", "e", "ou", "ê"):
        if vowel in syllable:
            place = syllable.index(vowel)
            break
    else:
        vowels = [place for place, letter in enumerate(syllable) if letter in "iouü"]
        nasals = [place for place, letter in enumerate(syllable) if letter in "mn"]
        place = vowels[-1] if vowels else nasals[0] if nasals else len(syllable) - 1
    return unicodedata.normalize("NFC", syllable[: place + 1] + _TONE_MARKS[tone] + syllable[place + 1 :])


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; `ValueError` where there is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path} does not exist; it is one of the files a ChineseBERT tokenizer is read from."
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON ({error}); is it truncated, or a pointer to a large file?") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(data).__name__}.")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes JSON to a temporary sibling and moves it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
