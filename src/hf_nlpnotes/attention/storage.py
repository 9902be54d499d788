"""One file with a JSON header and arrays: a NumPy archive that is read without unpickling anything."""

from __future__ import annotations

import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError  # NumPy reads the header of an array as Python's tokens
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADER = "header.json"

_DAMAGE = (  # what numpy, zipfile, zlib and json raise for bytes that are not what they should be
    *(ValueError, KeyError, TypeError, AttributeError, NotImplementedError, EOFError, OSError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, MemoryError, SyntaxError, TokenError),
)


def write_archive(path: Path, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Path:
    """Write `header` and `arrays` to `path`, complete or not at all; return the path."""
    text = np.frombuffer(json.dumps(header, ensure_ascii=False).encode(), dtype=np.uint8)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, **{HEADER: text, **arrays})  # type: ignore[arg-type]  # names are ours
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def read_archive(path: Path, newest: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the header and the arrays of a file that `write_archive` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is something else, or its header's "format" is above `newest`.
    """
    try:
        # Opened here: of a file that is no archive, NumPy leaves its own handle open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop(HEADER).tobytes())
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise ValueError(f"{path} is not a file of attention maps: expected what AttentionMaps.save wrote") from error
    version = header.get("format") if isinstance(header, dict) else None
    if not isinstance(version, int) or not 1 <= version <= newest:
        raise ValueError(f"{path} has a layout that this version cannot read: expected format {newest} or older")
    return header, arrays
