"""Reading the official ChineseBERT checkpoints.

The released layout (ShannonAI/ChineseBERT-base and -large, https://github.com/ShannonAI/ChineseBert) is a BERT folder
(`model_type: bert`) with extra weights in a legacy `pytorch_model.bin`, the pinyin tables as JSON and the bitmaps of
three fonts as `.npy` in `config/`. Stock classes load it as plain BERT and only mention unexpected weights.

[`official_layout`] reads what such a folder or hub name states beside its weights; the models' `from_pretrained` asks
it, so that `ChineseBertModel.from_pretrained(official)` needs no conversion. Every file is checked before its content
is used, because what lies there is often a Git LFS pointer or half a download.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError  # NumPy reads the header of an array as Python's tokens
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file, logging

from .paddle_chinesebert import read_paddle_weights
from .pinyin_chinesebert import PinyinTable, default_readings

logger = logging.get_logger(__name__)

GLYPHS = "bert.embeddings.glyph_embeddings.embedding.weight"
GLYPH_SIZE = 24
"""Pixels a side of every released table; a checkpoint states only the product with the number of fonts."""

_OFFICIAL_FONTS = ("STFANGSO.TTF24.npy", "STXINGKA.TTF24.npy", "方正古隶繁体.ttf24.npy")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
# What torch, pickle and zipfile raise for bytes that are not what they should be.
_DAMAGE = (
    *(RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError, EOFError, OSError, AssertionError),
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, SafetensorError),
)


@dataclass(frozen=True)
class OfficialLayout:
    """What an official folder states, in this package's terms.

    Attributes:
        source: the folder or hub name.
        config: arguments of `ChineseBertConfig(**config)`.
        tokens: the vocabulary by id; a blank line is the token `""` and counts.
        pinyin_table: the folder's readings.
        default_pinyin_ids: (vocab,) int64, row of each token's reading out of context.
        weights: the files that hold the weights, all of them safe to load without running code.
        glyphs: (vocab, fonts, size, size) uint8 where the weights lack the bitmaps and the `.npy` files have them;
            `None` where they are among the weights, as in the released checkpoints.
    """

    source: str
    config: dict[str, Any]
    tokens: tuple[str, ...]
    pinyin_table: PinyinTable
    default_pinyin_ids: np.ndarray
    weights: tuple[Path, ...]
    glyphs: np.ndarray | None


def is_official_folder(path_or_name: Any, **hub_options: Any) -> bool:
    """Whether a folder or hub name holds a ChineseBERT that says `model_type: bert`."""
    return _official_config(FolderOrHub(path_or_name, hub_options)) is not None


def official_layout(path_or_name: Any, **hub_options: Any) -> OfficialLayout | None:
    """Read an official folder, all but its weights.

    Args:
        path_or_name: folder or hub name. Also read: folders of the PyPI package `chinesebert`, which keep the pinyin
            tables in `tokenizer_config.json`.
        **hub_options: `revision`, `cache_dir`, `token`, `local_files_only`, … as of `from_pretrained`; others are
            ignored.

    Returns:
        The layout; `None` when it is something else: plain BERT, a folder of this package, or nothing readable.

    Raises:
        FileNotFoundError: it is a ChineseBERT, but a file it needs is absent.
        ValueError: a file is a Git LFS pointer, damaged, or contradicts another one.
    """
    files = FolderOrHub(path_or_name, hub_options)
    config = _official_config(files)
    if config is None:
        return None
    return read_layout(files, config, _weight_files(files))


def read_layout(files: FolderOrHub, config: dict[str, Any], weights: tuple[Path, ...]) -> OfficialLayout:
    """Read the vocabulary and the tables that belong to `weights`, and check that they fit each other."""
    tokens = _read_vocabulary(files.require("vocab.txt"))
    shape, storage = _glyph_summary(tuple((str(path), path.stat().st_mtime_ns) for path in weights))
    glyphs = None
    if shape is None:
        glyphs = _read_fonts(files)
        shape, storage = (len(glyphs), glyphs[0].size), "uint8"
    _check_vocabulary(files, len(tokens), config, shape)
    table = _read_pinyin_table(files)
    return OfficialLayout(
        source=files.source,
        config=_translate_config(config, table, shape, storage),
        tokens=tokens,
        pinyin_table=table,
        default_pinyin_ids=default_readings(tokens, table),
        weights=weights,
        glyphs=glyphs,
    )


def read_weights(paths: Sequence[str | os.PathLike[str]]) -> dict[str, torch.Tensor]:
    """Load `.bin`, `.safetensors` or `.pdparams` files without running code from them.

    Raises:
        ValueError: a file is truncated, damaged, or holds something else than tensors.
    """
    state: dict[str, torch.Tensor] = {}
    for path in map(Path, paths):
        if path.suffix == ".safetensors":
            with _open_safetensors(path) as archive:
                state |= {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (no mapping)
        elif path.suffix == ".pdparams":
            state |= read_paddle_weights(path)
        else:
            state |= _read_bin(path)
    return state


class FolderOrHub:
    """Files of a local folder or of the hub."""

    def __init__(self, path_or_name: Any, hub_options: dict[str, Any]) -> None:
        self.source = os.fspath(path_or_name) if isinstance(path_or_name, (str, os.PathLike)) else ""
        self.options = {name: hub_options[name] for name in _HUB_OPTIONS if hub_options.get(name) is not None}

    def check(self) -> None:
        """Raise `FileNotFoundError` or, for a hub name, the hub's `OSError` when there is nothing to read."""
        if not Path(self.source).is_dir():
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", self.source):
                raise FileNotFoundError(f"there is no folder {self.source}")
            if not any(map(self.find, ("config.json", "model_config.json"))):
                cached_file(self.source, "config.json", **self.options)  # raises the hub's own error

    def find(self, name: str) -> Path | None:
        """Local path of a file, downloaded where needed; `None` when there is none of this name."""
        path = cached_file(
            self.source,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **self.options,
        )
        if path is None:
            return None
        refuse_pointer(Path(path))
        return Path(path)

    def require(self, name: str) -> Path:
        """Local path of a file that a ChineseBERT cannot do without."""
        path = self.find(name)
        if path is None:
            raise FileNotFoundError(
                f"{self.source} is a ChineseBERT in the official layout but has no {name}. Expected: config.json, "
                "vocab.txt, pytorch_model.bin, config/pinyin_map.json, config/pinyin2tensor.json and, unless the "
                "weights hold the bitmaps, config/*.npy. A fine-tuned model saved without them needs those of the "
                "checkpoint it started from: copy them into the folder."
            )
        return path


def refuse_pointer(path: Path) -> None:
    """Raise `ValueError` when a file is the stand-in that a clone without Git LFS leaves."""
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise ValueError(
                f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its folder, or download it "
                "again"
            )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; `ValueError` when it holds something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}): download it again") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} should hold a JSON object, it holds a {type(data).__name__}")
    return data


def _official_config(files: FolderOrHub) -> dict[str, Any] | None:
    """`config.json`, or `None` when the folder is not in the official layout (or has none: not ours to report)."""
    if not files.source:
        return None
    try:
        path = files.find("config.json")
    except OSError:
        return None
    config = read_json(path) if path else {}
    if config.get("model_type") != "bert":
        return None
    named = any(name.startswith(("Glyce", "ChineseBert")) for name in _architectures(config))
    if named or "glyph_embedding_dim" in config or files.find("config/pinyin_map.json"):
        return config
    return None


def _architectures(config: dict[str, Any]) -> list[str]:
    stated = config.get("architectures")
    return [name for name in stated if isinstance(name, str)] if isinstance(stated, list) else []


def _read_vocabulary(path: Path) -> tuple[str, ...]:
    try:
        # Not splitlines(): the vocabulary holds characters at which that cuts.
        tokens = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): download it again") from error
    return tuple(tokens[:-1] if tokens[-1] == "" else tokens)


def _check_vocabulary(files: FolderOrHub, tokens: int, config: dict[str, Any], glyphs: tuple[int, ...]) -> None:
    stated = config.get("vocab_size", tokens)
    if not tokens == stated == glyphs[0]:
        raise ValueError(
            f"{files.source} contradicts itself: vocab.txt has {tokens} lines, config.json says vocab_size {stated}, "
            f"the glyph table has {glyphs[0]} rows; expected the same number. A blank line in vocab.txt counts: was "
            "it lost in copying?"
        )


def _read_pinyin_table(files: FolderOrHub) -> PinyinTable:
    with tempfile.TemporaryDirectory() as folder:
        gather_pinyin_tables(files, Path(folder))
        try:
            return PinyinTable.from_official(folder)
        except ValueError as error:
            raise ValueError(str(error).replace(folder, files.source)) from error


def gather_pinyin_tables(files: FolderOrHub, folder: Path) -> None:
    """Put the pinyin tables into `folder`/config, wherever the original keeps them."""
    (folder / "config").mkdir()
    names = ("pinyin_map", "pinyin2tensor")
    path = files.find("tokenizer_config.json")
    tables = read_json(path) if path else {}
    for name in names:
        copy = folder / "config" / f"{name}.json"
        # The PyPI package and the Paddle port keep them in the tokenizer's configuration.
        if name in tables and not files.find(f"config/{name}.json"):
            copy.write_text(json.dumps(tables[name]), encoding="utf-8")
        else:
            shutil.copyfile(files.require(f"config/{name}.json"), copy)


def _read_fonts(files: FolderOrHub) -> np.ndarray:
    """The bitmaps of `config/*.npy`, (vocab, fonts, size, size) uint8, in alphabetical order of the file names."""
    folder = Path(files.source, files.options.get("subfolder", ""), "config")
    names = sorted(path.name for path in folder.glob("*.npy")) or list(_OFFICIAL_FONTS)
    fonts = [_read_font(files.require(f"config/{name}")) for name in names]
    if any(font.shape != fonts[0].shape for font in fonts):
        raise ValueError(f"the font bitmaps of {files.source} differ in shape: {[font.shape for font in fonts]}")
    logger.warning(
        "The weights of %s hold no bitmaps: they are read from %s, in this order. The official code trains with the "
        "order in which the file system lists them.",
        files.source,
        ", ".join(names),
    )
    return np.stack(fonts, axis=1)


def _read_font(path: Path) -> np.ndarray:
    try:
        bitmaps = np.load(path, allow_pickle=False)
    except (*_DAMAGE, SyntaxError, TokenError, MemoryError, OverflowError) as error:
        raise ValueError(f"{path} is not a whole .npy file ({error}): download it again") from error
    if bitmaps.ndim != 3 or bitmaps.shape[1:] != (GLYPH_SIZE, GLYPH_SIZE) or not _is_whole(torch.from_numpy(bitmaps)):
        raise ValueError(
            f"{path} should hold whole values 0 to 255 of shape (vocab, {GLYPH_SIZE}, {GLYPH_SIZE}), it holds "
            f"{bitmaps.dtype} of shape {bitmaps.shape}"
        )
    return bitmaps.astype(np.uint8)


def _translate_config(
    config: dict[str, Any], table: PinyinTable, glyphs: tuple[int, ...], storage: str
) -> dict[str, Any]:
    """Arguments of `ChineseBertConfig`: BERT's own, and the sizes that the official code derives from the files."""
    fonts, rest = divmod(glyphs[1], GLYPH_SIZE**2)
    if rest or not fonts:
        raise ValueError(
            f"the glyph table has {glyphs[1]} columns, expected a multiple of {GLYPH_SIZE} x {GLYPH_SIZE}"
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"position_embedding_type is {config['position_embedding_type']!r}, expected 'absolute'")
    # The first two: names of the ports for what the tables state; the others no longer mean anything to BERT.
    dropped = {
        "glyph_embedding_dim",
        "pinyin_map_len",
        "directionality",
        "gradient_checkpointing",
        "output_past",
        "position_embedding_type",
    }
    kept = {name: value for name, value in config.items() if name not in dropped and not name.startswith("pooler_")}
    return {
        **kept,
        "model_type": "chinesebert",
        "architectures": [re.sub(r"^GlyceBert", "ChineseBert", name) for name in _architectures(config)],
        "vocab_size": glyphs[0],
        "pinyin_table_size": len(table),
        "pinyin_letters": len(table.letters),
        "pinyin_length": table.rows.shape[1],
        "glyph_fonts": fonts,
        "glyph_size": GLYPH_SIZE,
        "glyph_storage": storage,
    }


# -- weights ----------------------------------------------------------------------------------------------------------


def _weight_files(files: FolderOrHub) -> tuple[Path, ...]:
    for name in _WEIGHTS:
        if path := files.find(name):
            return (path,)
        if index := files.find(f"{name}.index.json"):
            return tuple(files.require(shard) for shard in _shards(index))
    return (files.require("pytorch_model.bin"),)


def _shards(index: Path) -> list[str]:
    """Names of the weight files that an index lists: files beside it, nothing elsewhere on the disk."""
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not names or not all(isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*", name) for name in names):
        raise ValueError(f"{index} should map weights to names of files beside it under 'weight_map'")
    return sorted(set(names))


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as archive:
            yield archive
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): download it again") from error


def _read_bin(path: Path) -> dict[str, torch.Tensor]:
    try:
        # The released files are of the format before torch 1.6, which can't be mapped into memory.
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a torch checkpoint ({path.stat().st_size} bytes; {reason}). Expected a whole "
            "file that holds tensors only: compare its size with the original's and download it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(
            f"{path} should hold a dictionary of tensors (a state_dict), it holds a {type(state).__name__}"
        )
    return state


@lru_cache(maxsize=4)  # loading a model asks three times, and a legacy file can only be read whole
def _glyph_summary(files: tuple[tuple[str, int], ...]) -> tuple[tuple[int, ...] | None, str]:
    """Shape and storage of the glyph table in weight files (path, time of change); (None, "") where it is absent."""
    for path in (Path(name) for name, _ in files):
        if path.suffix == ".safetensors":
            with _open_safetensors(path) as archive:
                tables = [archive.get_tensor(name) for name in archive.keys() if full_name(name) == GLYPHS]  # noqa: SIM118 (no mapping)
        else:
            tables = [value for name, value in read_weights([path]).items() if full_name(name) == GLYPHS]
        for table in tables:
            if table.dim() != 2:
                raise ValueError(f"{path}: {GLYPHS} should have the shape (vocab, pixels), got {tuple(table.shape)}")
            return tuple(table.shape), "uint8" if _is_whole(table) else "float32"
    return None, ""


def _is_whole(table: torch.Tensor) -> bool:
    """Whether bytes hold the values exactly: all whole and from 0 to 255."""
    return not table.is_complex() and bool((table == table.clamp(0, 255).round()).all())


def full_name(name: str) -> str:
    """Name of a weight within a model with a head, in today's spelling."""
    name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
