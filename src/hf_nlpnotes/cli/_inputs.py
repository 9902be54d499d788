"""What the commands read: lines of text files, and models."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def whole_text(file: str, encoding: str) -> str:
    """The text of a file, or of standard input for `-`.

    Raises:
        ValueError: The file is not text in this encoding, or there is no such encoding.
    """
    data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    try:
        text = data.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name_of(file)}, line {line}: not {encoding} text ({error.reason}); name its encoding, such as"
            " --encoding gb18030"
        ) from None
    except LookupError:
        raise ValueError(f"unknown encoding {encoding!r}; try utf-8, gb18030, big5, utf-16") from None
    return io.StringIO(text, newline=None).getvalue()


def text_lines(file: str, encoding: str) -> Iterator[tuple[int, str]]:
    """Lines of a file that are not blank, with their numbers from 1."""
    for number, line in enumerate(whole_text(file, encoding).split("\n"), 1):
        if line.strip():
            yield number, line.strip()


def name_of(file: str) -> str:
    """What a file is called in messages."""
    return "standard input" if file == "-" else file


def quiet_libraries() -> None:
    """Turn the libraries' own reports off."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def make_pipeline(task: str, model: str | None, **options: Any) -> Any:
    """A pipeline on the named model, or on the embedded one."""
    import transformers

    import hf_nlpnotes

    quiet_libraries()
    hf_nlpnotes.register()  # the command starts without it
    make: Any = transformers.pipeline  # its overloads know the stock tasks only
    model = model or hf_nlpnotes.EMBEDDED_MODEL
    try:
        return make(task, model=model, **options)
    except OSError as error:
        raise OSError(f"the model {model!r} cannot be loaded: {error}") from error
