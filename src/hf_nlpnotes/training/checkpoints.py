"""Folders that are there whole or not at all: finished models, and the Trainer's checkpoints after a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

_STATE = "trainer_state.json"  # transformers.trainer.TRAINER_STATE_NAME; importing it takes seconds


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a folder under another name, and give it its own when all of it is there.

    Yields the folder to write to, a sibling of `path`. Where the body raises (a full disk, Ctrl-C), it is removed and
    `path` is as it was. A process that is killed leaves `path` as it was, and the sibling beside it. A folder that
    stood at `path` is replaced as a whole, by two renames: a process that is killed between them leaves it, whole, in
    a sibling `.NAME.old.…`.

    Args:
        path: the folder's own name.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        made.chmod(0o755)  # mkdtemp makes it the user's alone
        yield made
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            try:
                os.replace(path, old / path.name)
                os.replace(made, path)
            except BaseException:
                if (old / path.name).exists() and not path.exists():
                    os.replace(old / path.name, path)
                old.rmdir()
                raise
            shutil.rmtree(old)
        else:
            os.replace(made, path)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def is_whole(checkpoint: str | os.PathLike[str], *, world_size: int = 1) -> bool:
    """Whether a checkpoint of the stock Trainer was written to its end.

    The Trainer writes a checkpoint file by file into its final folder, the state of the training last; a killed
    process leaves a folder without it, or with half of it. With several processes each writes its random numbers'
    state itself, before or after.

    Args:
        checkpoint: the checkpoint's folder.
        world_size: number of processes that wrote it.
    """
    folder = Path(checkpoint)
    try:
        json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    names = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    return all((folder / name).is_file() for name in names)


def last_whole_checkpoint(folder: str | os.PathLike[str], *, world_size: int = 1) -> str | None:
    """The checkpoint of the most steps in a Trainer's `output_dir` that `is_whole`, for `resume_from_checkpoint`.

    `transformers.trainer_utils.get_last_checkpoint` takes the newest, whole or not. A checkpoint that is not whole may
    stay: the training comes by and writes over it.

    Args:
        folder: the Trainer's `output_dir`; it need not exist.
        world_size: number of processes that train, the same as when the checkpoint was written.
    """
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)")
    found = [
        (int(match[1]), entry)
        for entry in (Path(folder).iterdir() if Path(folder).is_dir() else ())
        if (match := pattern.fullmatch(entry.name))
    ]
    for _, entry in sorted(found, reverse=True):
        if is_whole(entry, world_size=world_size):
            return str(entry)
    return None


def claim_folder(folder: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
    """Make a folder the one of a run with these options, or see that it is.

    A training that finds checkpoints goes on from them; those of a run with other options would be taken for its own.

    Args:
        folder: the folder, which need not exist.
        options: all that the weights depend on, compared as strings.

    Raises:
        ValueError: the folder is that of a run with other options; names them.
    """
    place, stated = Path(folder) / "options.json", {name: str(value) for name, value in options.items()}
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        temporary = place.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(stated, ensure_ascii=False, indent=1), encoding="utf-8")
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
    other = _options_in(place)
    changed = [name for name in sorted({*stated, *other}) if stated.get(name) != other.get(name)]
    if changed:
        differences = "; ".join(f"{name} was {other.get(name)!r} and is {stated.get(name)!r}" for name in changed)
        raise ValueError(f"{folder} holds a run with other options: {differences}. Take another folder, or remove it")


def _options_in(place: Path) -> dict[str, Any]:
    try:
        options = json.loads(place.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not valid JSON ({error}): take another folder, or remove the file") from error
    if not isinstance(options, dict):
        raise ValueError(f"{place} holds no options of a run: take another folder, or remove the file")
    return options
