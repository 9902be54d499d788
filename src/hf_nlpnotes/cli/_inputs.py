"""What the commands read: text files, and standard input."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path


def whole_text(file: str, encoding: str) -> str:
    """The text of a file, or of standard input for `-`.

    Raises:
        OSError: There is no such file.
        ValueError: The file is not text in this encoding, or there is no such encoding.
    """
    data = sys.stdin.buffer.read() if file == "-" else _bytes(Path(file))
    try:
        text = data.decode(encoding).removeprefix("\ufeff")  # the byte order mark that some editors write
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name_of(file)}, line {line}: not {encoding} text ({error.reason}); name its encoding, such as"
            " --encoding gb18030"
        ) from None
    except LookupError:
        raise ValueError(f"unknown encoding {encoding!r}; try utf-8, gb18030, big5, utf-16") from None
    return io.StringIO(text, newline=None).getvalue()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {str(path)!r}; '-' reads standard input") from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{str(path)!r} is a folder: name a file in it") from None


def text_lines(file: str, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines of a file that are not blank, with their numbers from 1 and the spaces around them."""
    for number, line in enumerate(whole_text(file, encoding).split("\n"), 1):
        if line.strip():
            yield number, line


def name_of(file: str) -> str:
    """What a file is called in messages."""
    return "standard input" if file == "-" else file
