"""Files of a data set: which is for training and which for testing, their lines, their rows."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SPLITS = {"train": ("train",), "validation": ("dev", "valid"), "test": ("test",)}
"""Names of splits -> the words that the names of their files contain."""


def files_of(folder: Path, suffixes: Sequence[str] = ()) -> dict[str, Path]:
    """The first file of every split, by the words in the files' names; hidden files do not count.

    Args:
        folder: where they lie.
        suffixes: of the files that count, such as `.tsv`; none: all files.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = _split_of(path.name)
        if split and path.is_file() and (not suffixes or path.suffix in suffixes):
            found.setdefault(split, path)
    return found


def _split_of(name: str) -> str | None:
    """The one split of a file: its last such word, of those at the beginning of a word if there are any.

    So `contest_train.tsv`, with "test" inside, is for training alone.
    """
    if name.startswith("."):  # what systems and editors leave beside a file
        return None
    splits = {word: split for split, words in SPLITS.items() for word in words}
    words = "|".join(splits)
    found = re.findall(rf"(?<![a-z])(?:{words})", name.lower()) or re.findall(words, name.lower())
    return splits[found[-1]] if found else None


def lines_of(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file without their ends; `str.splitlines` would also break at characters that a token may be.

    Raises:
        ValueError: the file is not UTF-8 text.
    """
    with path.open(encoding="utf-8-sig") as file:
        try:
            for line in file:
                yield line.removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error.reason}): convert it, such as with iconv") from None


def objects_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file of JSON lines, with the numbers of the lines from 1.

    Raises:
        ValueError: a line is no JSON object, or has half of a surrogate pair, which no text can hold.
    """
    for number, line in enumerate(lines_of(path), 1):
        if line.strip():
            try:
                row = json.loads(line)
                if "\\ud" in line.lower():  # only escapes can write halves of pairs
                    json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"{path}, line {number}: {error.object[error.start]!a} is half of a surrogate pair, whose other "
                    "half was cut off: take it out"
                ) from None
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: no JSON ({error}); expected an object a line") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path}, line {number}: expected a JSON object, got {line[:60]}")
            yield number, row


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file: `.tsv` (tabs, quotes are text), `.csv`, or `.json` / `.jsonl` with an object a line.

    Raises:
        ValueError: a file of another kind, or one whose lines are none of these.
    """
    if path.suffix in (".json", ".jsonl"):
        return [row for _, row in objects_of(path)]
    try:
        if path.suffix == ".tsv":
            return list(csv.DictReader(lines_of(path), delimiter="\t", quoting=csv.QUOTE_NONE))
        if path.suffix == ".csv":
            # A quoted cell may go over several lines, whose ends belong to it.
            return list(csv.DictReader(f"{line}\n" for line in lines_of(path)))
    except csv.Error as error:  # above all a cell of more than 131,072 characters, mostly a quote that is never closed
        raise ValueError(f"{path} is no table: {error}") from error
    raise ValueError(f"{path} is neither .tsv, .csv, .json nor .jsonl: name it by what it holds")
