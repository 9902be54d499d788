"""Where the states of a frozen trunk are kept: in memory, or in a folder that processes and trainings share."""

from __future__ import annotations

import os
import uuid
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import logging

logger = logging.get_logger(__name__)

_SEGMENT_BYTES = 256 * 2**20


class StateStore(Protocol):
    """States of examples by key: CPU tensors of shape (length, …)."""

    def open(self, fingerprint: str) -> None:
        """Keep the states of the trunk with this fingerprint, and give no others."""

    def get(self, key: bytes) -> Tensor | None:
        """Return the state of a key."""

    def put(self, key: bytes, state: Tensor) -> None:
        """Keep a state, unless the store is full."""

    def sync(self) -> None:
        """Write what is not written, and find what other processes wrote."""


class MemoryStore:
    """States in this process's memory.

    Args:
        max_bytes: No state is added beyond this many bytes; those that are there stay.
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._fingerprint: str | None = None
        self._states: dict[bytes, Tensor] = {}

    def __deepcopy__(self, memo: dict[int, object]) -> MemoryStore:
        """A copy of the model that trains does not need the memory twice."""
        return self

    def open(self, fingerprint: str) -> None:
        """Forget the states of any other trunk."""
        if fingerprint != self._fingerprint:
            self._fingerprint, self.bytes = fingerprint, 0
            self._states.clear()

    def get(self, key: bytes) -> Tensor | None:
        """Return the state of a key."""
        return self._states.get(key)

    def put(self, key: bytes, state: Tensor) -> None:
        """Keep a state, unless the store is full."""
        if key not in self._states and (self.max_bytes is None or self.bytes + state.nbytes <= self.max_bytes):
            self._states[key] = state
            self.bytes += state.nbytes

    def sync(self) -> None:
        """Nothing is written, and nobody else writes."""


class FolderStore:
    """States in files that are mapped into memory, under `folder/FINGERPRINT`.

    States are collected and written together, as one file that is there whole or not at all, at the latest when `sync`
    is called; then other processes find them. Nothing is ever removed: delete the folder when it is no longer needed.

    A file that is damaged, as a whole or in the state that is asked for, is set aside under `NAME.damaged` with a
    warning, and what it held is computed again. Where the folder cannot be written to (read-only, or the disk is
    full), a warning says so once and this process only reads.

    Args:
        max_bytes: No state is added by this process once the files it sees hold this many bytes.
    """

    def __init__(self, folder: str | os.PathLike[str], max_bytes: int | None = None) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self.bytes = 0
        self._place: Path | None = None
        self._states: dict[bytes, Tensor] = {}
        self._unwritten: dict[bytes, Tensor] = {}
        self._waiting = 0  # bytes that are not written
        self._read: set[str] = set()
        self._unchecked: dict[bytes, tuple[Path, int]] = {}  # file and checksum of states that nobody asked for yet
        self._writable = True

    def __deepcopy__(self, memo: dict[int, object]) -> FolderStore:
        """A copy of the model that trains does not need the memory twice."""
        return self

    def open(self, fingerprint: str) -> None:
        """Find the files of this trunk."""
        place = self.folder / fingerprint
        if place == self._place:
            return
        if self._place is not None:
            self._write()
        self._place, self.bytes = place, 0
        self._states.clear()
        self._read.clear()
        self._unchecked.clear()
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._only_read(error)
        self._find()

    def get(self, key: bytes) -> Tensor | None:
        """Return the state of a key, a view of its file."""
        state = self._states.get(key)
        if key not in self._unchecked:
            return state
        path, checksum = self._unchecked.pop(key)
        assert state is not None
        if _checksum(state) == checksum:
            return state
        self._set_aside(path, "a state has another checksum")
        del self._states[key]
        self.bytes -= state.nbytes
        return None

    def put(self, key: bytes, state: Tensor) -> None:
        """Keep a state, unless the store is full."""
        full = self.max_bytes is not None and self.bytes + state.nbytes > self.max_bytes
        if key in self._states or full or not self._writable:
            return
        self._states[key] = self._unwritten[key] = state
        self.bytes += state.nbytes
        self._waiting += state.nbytes
        if self._waiting >= _SEGMENT_BYTES:
            self._write()

    def sync(self) -> None:
        """Write what is not written, and find what other processes wrote."""
        if self._place is not None:
            self._write()
            self._find()

    def _write(self) -> None:
        if not self._unwritten:
            return
        assert self._place is not None
        keys, states = list(self._unwritten), list(self._unwritten.values())
        content = {
            "keys": torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).reshape(len(keys), -1),
            "ends": torch.tensor([len(state) for state in states]).cumsum(0),
            "checksums": torch.tensor([_checksum(state) for state in states]),
            "states": torch.cat(states),
        }
        name = f"{uuid.uuid4().hex}.safetensors"
        temporary = self._place / f".{name}.{os.getpid()}.tmp"
        try:
            save_file(content, temporary)
            os.replace(temporary, self._place / name)
        except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
            self._only_read(error)
        finally:
            _remove(temporary)
        self._unwritten.clear()
        self._waiting = 0
        if self._writable:
            self._load(self._place / name)  # from now on the file's pages instead of this process's memory
            return
        for key, state in zip(keys, states, strict=True):  # memory is not what was asked for
            del self._states[key]
            self.bytes -= state.nbytes

    def _find(self) -> None:
        assert self._place is not None
        for path in sorted(self._place.glob("*.safetensors")):
            if path.name not in self._read:
                self._load(path)

    def _load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                keys, ends, sums, states = (file.get_tensor(name) for name in ("keys", "ends", "checksums", "states"))
        except FileNotFoundError:  # another process has set it aside
            return
        except (SafetensorError, OSError) as error:
            self._set_aside(path, error)
            return
        self._read.add(path.name)
        if not _fit(keys, ends, sums, states):
            self._set_aside(path, "its parts do not fit each other")
            return
        start = 0
        for key, end, checksum in zip(keys, ends.tolist(), sums.tolist(), strict=True):
            key = bytes(key.tolist())
            known = self._states.get(key)
            if known is None:
                self.bytes += states[start:end].nbytes
            self._states[key] = states[start:end]
            self._unchecked[key] = (path, checksum)
            start = end

    def _set_aside(self, path: Path, reason: object) -> None:
        logger.warning("%s is damaged (%s): what it held is computed again.", path, reason)
        self._read.add(path.name)
        with suppress(OSError):  # a folder that is only read, or another process was first
            os.replace(path, path.with_name(f"{path.name}.damaged"))

    def _only_read(self, error: Exception) -> None:
        if self._writable:
            logger.warning("%s cannot be written to (%s): states are computed again from now on.", self.folder, error)
        self._writable = False


def _checksum(state: Tensor) -> int:
    return zlib.crc32(state.detach().contiguous().view(torch.uint8).numpy().data)


def _fit(keys: Tensor, ends: Tensor, checksums: Tensor, states: Tensor) -> bool:
    """Whether what a file holds are keys, and for each of them a piece of the states."""
    if keys.dtype != torch.uint8 or keys.dim() != 2 or ends.dtype != torch.int64 or checksums.dtype != torch.int64:
        return False
    if not ends.shape == checksums.shape == (len(keys),) or not len(keys) or not states.dim():
        return False
    steps = torch.diff(ends, prepend=ends.new_zeros(1))
    return bool((steps >= 0).all()) and int(ends[-1]) == len(states)


def _remove(path: Path) -> None:
    with suppress(OSError):  # where nothing can be written, nothing was left either
        path.unlink(missing_ok=True)
