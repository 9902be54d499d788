"""What the commands print and write: tables that line up in a terminal, rows that fit, files whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


def say(text: str = "") -> None:
    """Print a line to standard output."""
    sys.stdout.write(f"{text}\n")


def note(text: str, *, quiet: bool) -> None:
    """Tell on standard error what is no result."""
    if not quiet:
        sys.stderr.write(f"hf-nlpnotes: {text}\n")


def text_width(text: str) -> int:
    """Columns that a terminal gives a text: two for Han characters and full-width punctuation."""
    wide = sum(unicodedata.east_asian_width(char) in ("W", "F") for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)


def padded(text: str, width: int) -> str:
    """Fill up to so many columns of a terminal."""
    return text + " " * (width - text_width(text))


def shortened(text: str) -> str:
    """Cut to the terminal's width; a file or a pipe gets everything."""
    if not sys.stdout.isatty() or text_width(text) <= (room := shutil.get_terminal_size().columns - 1):
        return text
    while text_width(text) > room - 1:
        text = text[:-1]
    return text + "…"


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a header, each column as wide as its widest cell."""
    table = [list(header), *map(list, rows)]
    widths = [max(text_width(row[column]) for row in table) for column in range(len(header))]
    table.insert(1, ["-" * width for width in widths])
    for row in table:
        line = "  ".join(padded(cell, width) for cell, width in zip(row, widths, strict=True))
        say(f"  {line.rstrip()}")


def output_path(file: str | None, option: str = "--output") -> Path | None:
    """The file to write, told to be impossible before hours of work rather than after."""
    if file is None:
        return None
    path = Path(file)
    if path.is_dir():
        raise ValueError(f"{option} is a file to write, and {file!r} is a folder: add the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"{option} {file!r}: there is no folder {str(path.parent)!r}; make it first")
    return path


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    with whole_file(path) as file:
        file.write(json.dumps(report, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def results_to(path: Path | None) -> Iterator[None]:
    """Let `say` write to a file, whole or not at all, instead of standard output."""
    if path is None:
        yield
        return
    with whole_file(path) as file, contextlib.redirect_stdout(file):
        yield
