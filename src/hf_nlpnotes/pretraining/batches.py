"""Batches of windows of a token stream, a pure function of seed, step, process and number of processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .packing import TokenStream, cut_windows, read_windows

_FILES = {"input_ids": np.int16, "continues_word": np.bool_, "pinyin_ids": np.int16}


def save_stream(stream: TokenStream, folder: Path) -> None:
    """Write the stream's arrays as ``.npy`` files, which processes share as memory maps."""
    for name, dtype in _FILES.items():
        array = getattr(stream, name)
        if array is not None:
            np.save(folder / f"{name}.npy", array.astype(dtype))


def load_stream(folder: Path) -> TokenStream:
    """Open what `save_stream` wrote; nothing is read before it is needed."""
    arrays = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _FILES if (folder / f"{name}.npy").exists()
    }
    return TokenStream(**arrays)


@dataclass(frozen=True)
class WindowBatches:
    """Windows of the stream in another random order each epoch, shared out over the processes.

    Each epoch cuts the stream at other places. At odd steps the windows are halved, for twice as many rows of half the
    length: a model that only ever saw full rows would be worse on short texts.

    Attributes:
        stream: the tokens.
        length: tokens in a full row, with ``[CLS]`` and ``[SEP]``.
        rows: full rows a process and step.
        processes: number of processes; together they read each window once an epoch.
        cls_token_id, sep_token_id: ids of the two.
        seed: fixes the order, together with the epoch.
    """

    stream: TokenStream
    length: int
    rows: int
    processes: int
    cls_token_id: int
    sep_token_id: int
    seed: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps that read the whole stream once, whatever the offset of the first window."""
        return (len(self.stream) // (self.length - 2) - 1) // (self.rows * self.processes)

    def batch(self, step: int, rank: int) -> dict[str, torch.Tensor]:
        """Rows of one step for one process: `input_ids`, `continues_word` and, if the stream has it, `pinyin_ids`."""
        epoch, index = divmod(step, self.steps_per_epoch)
        first = (index * self.processes + rank) * self.rows
        starts, length = self._order(epoch)[first : first + self.rows], self.length
        if step % 2:
            length //= 2
            starts = np.concatenate([starts, starts + length - 1])
        continues = self._read(self.stream.continues_word, starts, length, 0, 0).bool()
        continues[:, 1] = False
        batch = {
            "input_ids": self._read(self.stream.input_ids, starts, length, self.cls_token_id, self.sep_token_id),
            "continues_word": continues,
        }
        if self.stream.pinyin_ids is not None:
            batch["pinyin_ids"] = self._read(self.stream.pinyin_ids, starts, length, 0, 0)
        return batch

    def _order(self, epoch: int) -> np.ndarray:
        # Some ten milliseconds for a hundred thousand windows: kept out of the object, so that it stays stateless.
        rng = np.random.default_rng([self.seed, epoch])
        return rng.permutation(cut_windows(self.stream, self.length, offset=int(rng.integers(self.length - 2))))

    @staticmethod
    def _read(array: np.ndarray, starts: np.ndarray, length: int, first: int, last: int) -> torch.Tensor:
        return torch.from_numpy(read_windows(array, starts, length, first, last).astype(np.int64))
