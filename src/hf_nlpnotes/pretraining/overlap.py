"""Keep the text that a model is evaluated on out of the text that it is trained on.

A line of training text is dropped when it shares long character windows with the evaluation texts: public corpora and
public test sets are often copies of the same pages. Characters are compared after NFKC and case folding, letters and
digits alone: copies differ in blanks, in the width and kind of punctuation, and in case.

Windows are compared by 64-bit hashes. With n windows in the training and m in the evaluation texts, n·m / 2⁶⁴ of them
are expected to be taken for equal by mistake: 10⁻⁵ for 30 and 6 million. A mistaken window drops no line by itself.
What this does not find: translations, paraphrases, and traditional characters for simplified ones.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Features, IterableDataset, Value
from datasets import Sequence as ListOf

from .texts import Lines, check_encoding, encoding_of, keep_lines, source_codes

logger = logging.getLogger(__name__)

SUFFIXES = (".txt", ".tsv", ".csv", ".json", ".jsonl")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a character is shifted out


@dataclass(frozen=True)
class OverlapRule:
    """When a text counts as found in others.

    Attributes:
        window: characters of a window.
        share: a text is found when more than this share of its windows is found,
        count: or at least this many of them.
        short_texts: whether texts shorter than a window are found when the whole of one is the whole of another;
            otherwise never.
        shortest: evaluation texts of fewer characters are left out: labels, identifiers, "yes".

    Raises:
        ValueError: `window`, `count` or `shortest` is less than 1; `share` is not from 0 to less than 1.
    """

    window: int = 13
    share: float = 0.15
    count: int = 25
    short_texts: bool = True
    shortest: int = 6

    def __post_init__(self) -> None:
        for name in ("window", "count", "shortest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected 1 or more")
        if not 0 <= self.share < 1:
            raise ValueError(f"share={self.share}: expected a number from 0 to less than 1")

    def found(self, hits: np.ndarray, windows: np.ndarray) -> np.ndarray:
        """Which texts are found, (texts,) bool.

        Args:
            hits: (texts,) how many windows of each were found.
            windows: (texts,) how many each has.
        """
        return (hits > self.share * windows) | (hits >= self.count)


# ------------------------------------------------------------------------------------------------------------- windows


@lru_cache(maxsize=1)
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """For each code point: whether it is compared, (0x110000,) bool, and a random number, (0x110000,) uint64."""
    compared = np.fromiter((chr(code).isalnum() for code in range(sys.maxunicode + 1)), bool, sys.maxunicode + 1)
    # Random numbers for characters: sums of code points themselves would collide far more often than by chance.
    return compared, np.random.default_rng(0).integers(0, 2**64, sys.maxunicode + 1, np.uint64)


def normalized(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Characters that are compared: NFKC, case folded, letters and digits alone.

    Returns:
        (characters,) uint32 code points of all texts, one after the other; (texts,) int64, how many each has.
    """
    joined = "\n".join(text.replace("\n", " ") for text in texts) + "\n"
    folded = unicodedata.normalize("NFKC", joined).casefold()
    codes = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32, copy=False)
    compared = _tables()[0][codes]
    before = np.append(0, np.cumsum(compared))
    ends = before[np.flatnonzero(codes == ord("\n"))]
    return codes[compared], np.diff(np.append(0, ends))[: len(texts)]


def window_hashes(texts: Sequence[str], rule: OverlapRule) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all windows of texts; of a text shorter than a window, one of the whole.

    Returns:
        (windows,) uint64, text by text; (texts,) int64, how many each has.
    """
    codes, lengths = normalized(texts)
    numbers = _tables()[1][codes]
    size = rule.window
    rolling = np.zeros(max(0, len(numbers) - size + 1), np.uint64)
    for place in range(size):  # Horner's rule, all windows at once, modulo 2⁶⁴
        rolling = rolling * _MULTIPLIER + numbers[place : place + len(rolling)]
    windows = np.maximum(lengths - size + 1, 0)
    short = np.flatnonzero((windows == 0) & (lengths > 0)) if rule.short_texts else np.zeros(0, np.int64)
    first = np.cumsum(lengths) - lengths
    counts = windows.copy()
    counts[short] = 1
    at = np.cumsum(counts) - counts
    hashes = np.empty(counts.sum(), np.uint64)
    whole = np.zeros(len(hashes), bool)
    whole[at[short]] = True
    many = np.repeat(first - (np.cumsum(windows) - windows), windows) + np.arange(windows.sum())
    hashes[~whole] = rolling[many]
    hashes[at[short]] = [_whole_hash(codes[first[i] : first[i] + lengths[i]]) for i in short.tolist()]
    return hashes, counts


def _whole_hash(codes: np.ndarray) -> int:
    """Hash of a text that is shorter than a window; no window has the same, but by chance."""
    return int.from_bytes(hashlib.blake2b(codes.astype("<u4").tobytes(), digest_size=8).digest(), "little")


# ---------------------------------------------------------------------------------------------------- evaluation texts


@dataclass(frozen=True, eq=False)
class EvaluationText:
    """The windows of texts that a model is to be evaluated on.

    Attributes:
        rule: what counts as found.
        hashes: (distinct windows,) uint64, sorted.
        places: (windows,) int32, index into `hashes` of each window of each text.
        counts: (texts,) int64, how many windows each text has.
        files: (texts,) int64, index into `names`.
        names: of the files.
    """

    rule: OverlapRule
    hashes: np.ndarray
    places: np.ndarray
    counts: np.ndarray
    files: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def from_files(
        cls, paths: str | Path | Sequence[str | Path], *, rule: OverlapRule | None = None, encoding: str = "utf-8"
    ) -> EvaluationText:
        """Read evaluation files without a knowledge of their formats.

        Of ``.json`` and ``.jsonl`` every string at any depth is a text, of ``.csv`` and ``.tsv`` every field, of other
        files every line; a line that is JSON, as JSON. Files with a token a line, blank lines between sentences, are
        read as sentences.

        Args:
            paths: files, and folders, of which every file with one of `SUFFIXES` is read, at any depth.
            rule: what counts as found; None: the usual one.
            encoding: of all files.

        Raises:
            ValueError: a path is not there; a folder has no such file; there is no text at all; a file is not in
                `encoding`.
        """
        paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
        files: dict[Path, str] = {}
        for path in map(Path, paths):
            if path.is_dir():
                inside = sorted(file for file in path.rglob("*") if file.is_file())
                files.update({file: str(file.relative_to(path.parent)) for file in inside if file.suffix in SUFFIXES})
                if left := [str(file.relative_to(path)) for file in inside if file.suffix not in SUFFIXES]:
                    logger.warning("%s: not read, name them if they hold text: %s", path, ", ".join(left))
                if len(left) == len(inside):
                    raise ValueError(f"{path}: the folder holds no file with one of {', '.join(SUFFIXES)}")
            elif path.is_file():
                files[path] = path.name
            else:
                raise ValueError(f"{path}: no such file or folder of evaluation texts")
        often = Counter(files.values())  # files of one name in several folders are told apart by their paths
        names = {file: name if often[name] == 1 else str(file) for file, name in files.items()}
        return cls.from_texts({names[file]: list(_texts_of(file, encoding)) for file in files}, rule=rule)

    @classmethod
    def from_texts(cls, texts: Mapping[str, Sequence[str]], *, rule: OverlapRule | None = None) -> EvaluationText:
        """Take texts by the name of the file or data set that they are from.

        Args:
            texts: name of a file or data set → its texts.
            rule: what counts as found; None: the usual one.

        Raises:
            ValueError: no text is as long as the rule's `shortest`.
        """
        rule = rule or OverlapRule()
        hashes, counts, files = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for number, (name, own) in enumerate(texts.items()):
            long = [text for text, size in zip(own, normalized(own)[1].tolist(), strict=True) if size >= rule.shortest]
            found, count = window_hashes(long, rule)
            if not len(found):
                logger.warning("%s holds no text to be kept out", name)
            hashes.append(found)
            counts.append(count[count > 0])
            files.append(np.full(np.count_nonzero(count), number))
        distinct, places = np.unique(np.concatenate(hashes), return_inverse=True)
        if not len(distinct):
            raise ValueError(f"no text of {rule.shortest} letters or more in {', '.join(texts) or 'no files'}")
        return cls(
            rule,
            distinct,
            places.astype(np.int32),
            np.concatenate(counts),
            np.concatenate(files),
            tuple(texts),
        )

    def find(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Look texts up.

        Args:
            texts: of the training text.

        Returns:
            (texts,) bool, whether each is found; (hits,) int64, index into `hashes` of each window that is there,
            text by text; (texts,) int64, how many hits each text has.
        """
        hashes, counts = window_hashes(texts, self.rule)
        # A table of the leading bits refuses nearly all windows: a search in the sorted hashes costs 50 times as much.
        candidates = np.flatnonzero(_leading_bits(self)[hashes >> _shift(self)])
        at = np.searchsorted(self.hashes, hashes[candidates])
        right = self.hashes[np.minimum(at, len(self.hashes) - 1)] == hashes[candidates]
        owners = np.repeat(np.arange(len(texts)), counts)[candidates[right]]
        hits = np.bincount(owners, minlength=len(texts))
        return self.rule.found(hits, counts), at[right], hits

    def found_texts(self, seen: np.ndarray) -> dict[str, tuple[int, int]]:
        """For each file the number of its texts, and of those that are found.

        Args:
            seen: (distinct windows,) bool, which of `hashes` the training text has.
        """
        owners = np.repeat(np.arange(len(self.counts)), self.counts)
        hits = np.bincount(owners[seen[self.places]], minlength=len(self.counts))
        found = self.rule.found(hits, self.counts)
        size = len(self.names)
        texts, of_these = np.bincount(self.files, minlength=size), np.bincount(self.files[found], minlength=size)
        return {name: (int(texts[i]), int(of_these[i])) for i, name in enumerate(self.names)}


def _shift(evaluation: EvaluationText) -> np.uint64:
    """How far a hash is shifted for its leading bits: about one place in 16 of the table is taken."""
    return np.uint64(64 - max(8, (16 * len(evaluation.hashes)).bit_length()))


@lru_cache(maxsize=2)
def _leading_bits(evaluation: EvaluationText) -> np.ndarray:
    """Which leading bits the hashes have. Kept outside of the object, which is sent to other processes."""
    shift = _shift(evaluation)
    table = np.zeros(1 << (64 - int(shift)), dtype=bool)
    table[evaluation.hashes >> shift] = True
    return table


def _texts_of(path: Path, encoding: str) -> Iterator[str]:
    """All texts of a file."""
    encoding = encoding_of(path, encoding)
    check_encoding(path, encoding)
    content = path.read_text(encoding=encoding).removeprefix("\ufeff")
    if path.suffix in {".json", ".jsonl"}:
        try:
            yield from _strings(json.loads(content))
            return
        except ValueError:
            pass  # a value a line, whatever the suffix says
    if path.suffix == ".csv":
        limit = csv.field_size_limit(len(content) + 1)
        try:
            yield from (field for row in csv.reader(content.splitlines(keepends=True)) for field in row)
        finally:
            csv.field_size_limit(limit)
        return
    for text in _sentences(content.splitlines()):
        if text[:1] in {"{", "["}:
            try:
                yield from _strings(json.loads(text))
                continue
            except ValueError:
                pass
        yield from text.split("\t")


def _strings(value: Any) -> Iterator[str]:
    """All strings in a JSON value, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _sentences(lines: list[str]) -> Iterable[str]:
    """The lines; of a file with a token a line, the sentences that the tokens make up."""
    fields = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    if not fields or "" not in map(str.strip, lines):
        return lines
    # CoNLL-U has the token in the second column, behind its number; other formats have it in the first.
    column = int(sum(row[0].isdigit() for row in fields) > len(fields) / 2)
    tokens = [row[column] for row in fields if len(row) > column]
    # Every line as many columns, short tokens: not so the lines of a text that is cut into words by blanks.
    usual = Counter(map(len, fields)).most_common(1)[0][1]
    if min(usual, len(tokens)) < 0.9 * len(fields) or sum(map(len, tokens)) > 4 * len(tokens):
        return lines
    sentences, words = [], list[str]()
    for line in [*lines, ""]:
        row = line.split()
        if line.startswith("#") and len(row) > 2:
            sentences.append(line)
        elif len(row) > column:
            token = row[column]
            # Weibo NER writes a character's place in its word behind it: 国0 足1.
            words.append(token[0] if token[1:].isdigit() and not token[0].isascii() else token)
        elif words:
            sentences.append(" ".join(words))
            words = []
    return sentences


# -------------------------------------------------------------------------------------------------------------- report


@dataclass(frozen=True)
class SourceOverlap:
    """What was dropped of a source of training text.

    Attributes:
        lines: of the source.
        dropped_lines: those of them that were dropped.
        characters: of all lines, as they stood there.
        dropped_characters: of the dropped lines.
    """

    lines: int
    dropped_lines: int
    characters: int
    dropped_characters: int


@dataclass(frozen=True)
class FileOverlap:
    """How many texts of an evaluation file were found in the training text, before anything was dropped.

    Attributes:
        texts: of the file.
        found: those of them that were found.
    """

    texts: int
    found: int


@dataclass(frozen=True)
class OverlapReport:
    """What `drop_overlap` found: by source of training text, and by evaluation file. `str()` of it is a table.

    Attributes:
        rule: what counted as found.
        sources: source of training text → what was dropped of it.
        files: evaluation file → how many of its texts were found.
    """

    rule: OverlapRule
    sources: dict[str, SourceOverlap]
    files: dict[str, FileOverlap]

    @property
    def lines(self) -> int:
        """Lines of training text."""
        return sum(source.lines for source in self.sources.values())

    @property
    def dropped_lines(self) -> int:
        """Lines that were dropped."""
        return sum(source.dropped_lines for source in self.sources.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and numbers, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        sources = [
            [name, s.lines, s.dropped_lines, _percent(s.dropped_lines, s.lines), s.dropped_characters]
            for name, s in self.sources.items()
        ]
        files = [[name, f.texts, f.found, _percent(f.found, f.texts)] for name, f in self.files.items()]
        return (
            _table(["training text", "lines", "dropped", "%", "characters dropped"], sources)
            + "\n\n"
            + _table(["evaluation file", "texts", "found", "%"], files)
        )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f}" if whole else "-"


def _table(head: list[str], rows: list[list[Any]]) -> str:
    cells = [head, *([str(value) if not isinstance(value, int) else f"{value:,}" for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    )


def drop_overlap(
    lines: Lines, evaluation: EvaluationText, num_proc: int | None = None
) -> tuple[Lines, OverlapReport | None]:
    """Drop the lines that are found in the evaluation texts.

    Args:
        lines: with `text` and `source`.
        evaluation: the texts to keep out.
        num_proc: processes; not for streams.

    Returns:
        The other lines; and of a `Dataset` a report. A stream is filtered while it is read, by one worker or several:
        for it the report is None.
    """
    if isinstance(lines, IterableDataset):
        kept = lines.filter(_is_clean, batched=True, input_columns=["text"], fn_kwargs={"evaluation": evaluation})
        return kept, None
    found = lines.map(
        _judge,
        batched=True,
        input_columns=["text"],
        remove_columns=lines.column_names,
        fn_kwargs={"evaluation": evaluation},
        features=Features({"found": Value("bool"), "size": Value("int32"), "hits": ListOf(Value("int32"))}),
        num_proc=None if num_proc == 1 else num_proc,  # one worker beside us gains nothing and outlives a kill
        desc="Comparing with evaluation texts",
    ).with_format("numpy")
    size, dropped = len(lines), np.zeros(len(lines), bool)
    characters, seen = np.zeros(size, np.int64), np.zeros(len(evaluation.hashes), bool)
    for start in range(0, size, 10_000):
        batch: dict[str, Any] = found[start : start + 10_000]
        at = slice(start, start + len(batch["found"]))
        dropped[at], characters[at] = batch["found"], batch["size"]
        seen[np.concatenate([np.zeros(0, np.int64), *batch["hits"]]).astype(np.int64)] = True
    codes, names = source_codes(lines)
    counts = [
        np.bincount(codes[among], weights=weights, minlength=len(names)).astype(int).tolist()
        for among, weights in (
            (slice(None), None),
            (dropped, None),
            (slice(None), characters),
            (dropped, characters[dropped]),
        )
    ]
    report = OverlapReport(
        evaluation.rule,
        {name: SourceOverlap(*(count[i] for count in counts)) for i, name in enumerate(names)},
        {name: FileOverlap(*numbers) for name, numbers in evaluation.found_texts(seen).items()},
    )
    return (keep_lines(lines, ~dropped) if dropped.any() else lines), report


def _is_clean(texts: Sequence[str], evaluation: EvaluationText) -> list[bool]:
    clean: list[bool] = (~evaluation.find(texts)[0]).tolist()
    return clean


def _judge(texts: Sequence[str], evaluation: EvaluationText) -> dict[str, Any]:
    found, hits, counts = evaluation.find(texts)
    return {
        "found": found,
        "size": [len(text) for text in texts],
        "hits": np.split(hits.astype(np.int32), np.cumsum(counts)[:-1]),
    }
