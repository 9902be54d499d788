"""Where the states of a frozen trunk are kept: in memory, or in a folder that processes and trainings share."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

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
        place.mkdir(parents=True, exist_ok=True)
        self._find()

    def get(self, key: bytes) -> Tensor | None:
        """Return the state of a key, a view of its file."""
        return self._states.get(key)

    def put(self, key: bytes, state: Tensor) -> None:
        """Keep a state, unless the store is full."""
        if key in self._states or (self.max_bytes is not None and self.bytes + state.nbytes > self.max_bytes):
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
            "states": torch.cat(states),
        }
        name = f"{uuid.uuid4().hex}.safetensors"
        temporary = self._place / f".{name}.{os.getpid()}.tmp"
        try:
            save_file(content, temporary)
            os.replace(temporary, self._place / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._unwritten.clear()
        self._waiting = 0
        self._load(self._place / name)  # from now on the file's pages instead of this process's memory

    def _find(self) -> None:
        assert self._place is not None
        for path in sorted(self._place.glob("*.safetensors")):
            if path.name not in self._read:
                self._load(path)

    def _load(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                keys, ends, states = (file.get_tensor(name) for name in ("keys", "ends", "states"))
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is no file of cached states ({error}). Remove it: it will be computed again"
            ) from error
        start = 0
        for key, end in zip(keys, ends.tolist(), strict=True):
            key = bytes(key.tolist())
            known = self._states.get(key)
            if known is None:
                self.bytes += states[start:end].nbytes
            self._states[key] = states[start:end]
            start = end
        self._read.add(path.name)
