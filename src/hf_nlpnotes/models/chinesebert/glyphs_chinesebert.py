"""Pictures of characters for ChineseBERT: rendering, packing, files.

ChineseBERT (Sun et al. 2021, https://aclanthology.org/2021.acl-long.161) sees each character as bitmaps of 24 x 24
pixels, one a font. This module draws such a table for any vocabulary from any TrueType or OpenType fonts, packs it
to one bit a pixel, and keeps it in a small checked file. Use it to train from scratch or to give an extended
vocabulary its pictures; official checkpoints carry their own table.

How it fails: a font that lacks a character draws a blank (or another font's picture, see ``missing=``), never a
"tofu" box, so look at :func:`glyph_coverage` before a long training. Styles matter more than number: three fonts of
the same style say one thing three times.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tokenize import TokenError  # NumPy reads the header of an array as Python's tokens
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

FontPath: TypeAlias = "str | os.PathLike[str] | tuple[str | os.PathLike[str], int]"
"""A font file; ``(file, index)`` or ``"file#index"`` names one face of a collection (.ttc, .otc)."""

GLYPH_SIZE = 24
_FORMAT = "chinesebert-glyphs-1"
_UNMAPPED = "\U0010ffff"  # a noncharacter: no font maps it, so it always draws .notdef
_REFERENCE = "国永田口一鬱龍我中東"  # their common ink box tells where a font puts its ideographs
_INK = 128  # of 255: a pixel at least half covered counts as ink


@dataclass(frozen=True)
class GlyphFont:
    """Where one layer of a glyph table came from.

    Attributes:
        name: full name of the face as the font states it, for example ``"Noto Serif CJK SC Regular"``.
        licence: what the font states about its licence (its copyright line where it states none); check the
            package it came from before you publish pictures made from it.
        file: file name, without its folder.
        index: face within a collection.
    """

    name: str
    licence: str
    file: str
    index: int = 0


@dataclass(frozen=True)
class GlyphCoverage:
    """Which characters of a vocabulary each font can draw.

    Attributes:
        fonts: the fonts, in the order of the table.
        drawable: number of tokens that ask for a picture (visible single characters).
        missing: for each font, the tokens it lacks.
    """

    fonts: tuple[GlyphFont, ...]
    drawable: int
    missing: tuple[tuple[str, ...], ...]

    @property
    def fractions(self) -> tuple[float, ...]:
        """Fraction of the drawable tokens that each font has (1.0 for a vocabulary with none)."""
        return tuple(1.0 - len(lacking) / self.drawable if self.drawable else 1.0 for lacking in self.missing)

    @property
    def missing_everywhere(self) -> tuple[str, ...]:
        """Tokens that no font has: no fallback can give them a picture."""
        if not self.missing:
            return ()
        elsewhere = [set(lacking) for lacking in self.missing[1:]]
        return tuple(token for token in self.missing[0] if all(token in lacking for lacking in elsewhere))

    def __str__(self) -> str:
        lines = [f"{self.drawable} characters"]
        for font, fraction, lacking in zip(self.fonts, self.fractions, self.missing, strict=True):
            sample = "".join(lacking[:20]) + ("…" if len(lacking) > 20 else "")
            lines.append(f"{fraction:7.2%}  {font.name}" + (f", lacks {len(lacking)}: {sample}" if lacking else ""))
        return "\n".join(lines)


@dataclass(frozen=True)
class GlyphTable:
    """A glyph table with its origin, as :func:`save_glyphs` writes and :func:`load_glyphs` reads it.

    Attributes:
        pixels: (vocab, fonts, size, size), bool (ink or not) or uint8 (0 to 255), row by row from the top.
        fonts: origin of each layer, ``len(fonts) == pixels.shape[1]``.
        vocabulary: SHA-256 of the tokens that the rows stand for, see :func:`vocabulary_digest`.
    """

    pixels: NDArray[np.bool_] | NDArray[np.uint8]
    fonts: tuple[GlyphFont, ...]
    vocabulary: str


# -- drawing ----------------------------------------------------------------------------------------------------------


def is_drawable(token: str) -> bool:
    """Whether a token gets a picture: one visible character (no special token, word piece, space or control)."""
    return len(token) == 1 and unicodedata.category(token)[0] not in "CZ"


def render_glyphs(
    tokens: Iterable[str],
    fonts: Sequence[FontPath],
    size: int = GLYPH_SIZE,
    *,
    antialias: bool = False,
    missing: Literal["blank", "fallback", "error"] = "blank",
) -> NDArray[np.bool_] | NDArray[np.uint8]:
    """Draw the picture of every token in every font.

    Ideographs sit in the cell as the font sets them in its em square (the sum over a few reference characters is
    centred, not each picture for itself, so that ``。`` stays below ``·``); narrow characters are centred by their
    advance width. Tokens that are not one visible character are blank, as is ``[PAD]``.

    Args:
        tokens: the vocabulary, in the order of its ids.
        fonts: one layer each; several styles (song, kai, hei) complement each other.
        size: pixels a side, also the font size.
        antialias: False: bool, a pixel is ink when at least half covered. True: uint8, 0 to 255.
        missing: what a character that a font lacks gets: ``"blank"``, the picture of the first font that has it
            (``"fallback"``), or a ValueError (``"error"``).

    Returns:
        (vocab, fonts, size, size), bool or uint8.

    Raises:
        ImportError: Pillow is not installed.
        FileNotFoundError, ValueError: a font file is absent or no font; ``size`` or ``missing`` makes no sense.
    """
    if missing not in ("blank", "fallback", "error"):
        raise ValueError(f"missing must be 'blank', 'fallback' or 'error', got {missing!r}")
    faces = _open_faces(fonts, size)
    tokens = list(tokens)
    table = np.zeros((len(tokens), len(faces), size, size), dtype=np.uint8)
    for row, token in enumerate(tokens):
        if not is_drawable(token):
            continue
        having = [face.has(token) for face in faces]
        if missing == "error" and not all(having):
            raise ValueError(
                f"{faces[having.index(False)].font.name} has no glyph for {token!r} (U+{ord(token):04X}); "
                "pass missing='blank' or missing='fallback', or choose a font that covers the vocabulary"
            )
        for layer, face in enumerate(faces):
            if having[layer]:
                table[row, layer] = face.draw(token)
            elif missing == "fallback" and any(having):
                table[row, layer] = faces[having.index(True)].draw(token)
    return table if antialias else binarize(table)


def glyph_coverage(tokens: Iterable[str], fonts: Sequence[FontPath]) -> GlyphCoverage:
    """Which visible single characters among ``tokens`` each font lacks. ``print`` it for a readable summary.

    Args:
        tokens: The vocabulary; entries that are not one visible character are passed over.
        fonts: Font files, as of `render_glyphs`.
    """
    faces = _open_faces(fonts, GLYPH_SIZE)
    drawable = [token for token in tokens if is_drawable(token)]
    lacking = tuple(tuple(token for token in drawable if not face.has(token)) for face in faces)
    return GlyphCoverage(tuple(face.font for face in faces), len(drawable), lacking)


def read_glyph_font(font: FontPath) -> GlyphFont:
    """Name and licence that a font file states for itself (its ``name`` table)."""
    path, index = _split(font)
    names = _read_names(path, index)
    licence = names.get(13) or names.get(14) or names.get(0) or ""
    return GlyphFont(
        name=names.get(4) or " ".join(filter(None, (names.get(1), names.get(2)))) or path.stem,
        licence=licence.partition("\n")[0].strip(),  # some fonts state the whole text; its first line names it
        file=path.name,
        index=index,
    )


def binarize(glyphs: NDArray[np.uint8], threshold: int = _INK) -> NDArray[np.bool_]:
    """Ink or not: a pixel of 0..255 counts as ink from ``threshold`` on. Same shape, bool."""
    return np.asarray(glyphs) >= threshold


class _Face:
    """One opened font with the offset that centres its ideographs in the cell."""

    def __init__(self, source: FontPath, size: int) -> None:
        self.size = size
        self._type = _open_type(source, size)
        self.font = read_glyph_font(source)
        self._notdef = self._mask(self._type, _UNMAPPED)
        self._large = _open_type(source, 4 * size)
        self._notdef_large = self._mask(self._large, _UNMAPPED)
        boxes = [self._type.getbbox(char, anchor="ls") for char in _REFERENCE if self.has(char)]
        if boxes:
            top, bottom = min(box[1] for box in boxes), max(box[3] for box in boxes)
        else:  # no ideographs: the font's own line
            ascent, descent = self._type.getmetrics()
            top, bottom = -ascent, descent
        self._baseline = round((size - bottom - top) / 2)

    @staticmethod
    def _mask(font: FreeTypeFont, char: str) -> tuple[tuple[int, int], tuple[float, float, float, float], bytes]:
        mask = font.getmask(char)
        return mask.size, font.getbbox(char, anchor="ls"), bytes(mask)

    def has(self, char: str) -> bool:
        """Whether the font draws something else than its picture for unmapped characters."""
        if self._mask(self._type, char) != self._notdef:
            return True
        # At a small size □ can fall together with the font's tofu box: look again, larger.
        return self._mask(self._large, char) != self._notdef_large

    def draw(self, char: str) -> NDArray[np.uint8]:
        """(size, size) uint8; ink is moved back into the cell where it would be cut off and fits."""
        from PIL import Image, ImageDraw

        left, top, right, bottom = self._type.getbbox(char, anchor="ls")
        x = _into_cell(round((self.size - self._type.getlength(char)) / 2), int(left), int(right), self.size)
        y = _into_cell(self._baseline, int(top), int(bottom), self.size)
        cell = Image.new("L", (self.size, self.size))
        ImageDraw.Draw(cell).text((x, y), char, fill=255, font=self._type, anchor="ls")
        return np.asarray(cell)


def _into_cell(origin: int, start: int, end: int, size: int) -> int:
    """Origin moved as little as needed so that [origin + start, origin + end) lies in [0, size), or is centred."""
    if end - start > size:
        return round((size - start - end) / 2)
    return min(max(origin, -start), size - end)


def _open_faces(fonts: Sequence[FontPath], size: int) -> list[_Face]:
    if isinstance(fonts, (str, os.PathLike)) or not fonts:
        raise ValueError(f"fonts must be a non-empty list of font files, got {fonts!r}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    return [_Face(font, size) for font in fonts]


def _open_type(font: FontPath, size: int) -> FreeTypeFont:
    try:
        from PIL import ImageFont
    except ImportError as error:
        raise ImportError('drawing glyphs needs Pillow: pip install "hf-nlpnotes[glyphs]"') from error
    path, index = _split(font)
    try:
        # BASIC: one character, one glyph, whatever shaping library is installed.
        return ImageFont.truetype(os.fspath(path), size, index=index, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise ValueError(
            f"{path} (face {index}) cannot be read as a font ({error}); expected a scalable TrueType or OpenType "
            "file, or a collection with a face of that index"
        ) from error


def _split(font: FontPath) -> tuple[Path, int]:
    if isinstance(font, tuple):
        path, index = Path(font[0]), font[1]
    else:
        text = os.fspath(font)
        stem, mark, digits = text.rpartition("#")
        path, index = (Path(stem), int(digits)) if mark and digits.isdigit() else (Path(text), 0)
    if not path.is_file():
        raise FileNotFoundError(f"no font file at {path}")
    return path, index


def _read_names(path: Path, index: int) -> dict[int, str]:
    """The ``name`` table of a face: name id -> text, English where there is a choice (OpenType 1.9, chapter name)."""
    data = path.read_bytes()
    try:
        start = struct.unpack_from(">I", data, 12 + 4 * index)[0] if data[:4] == b"ttcf" else 0
        tables = struct.unpack_from(">H", data, start + 4)[0]
        records = (struct.unpack_from(">4s4xII", data, start + 12 + 16 * i) for i in range(tables))
        offset, length = next((offset, length) for tag, offset, length in records if tag == b"name")
        table = data[offset : offset + length]
        count, strings = struct.unpack_from(">HH", table, 2)
        names: dict[int, str] = {}
        for i in range(count):
            platform, _, language, name, size, at = struct.unpack_from(">6H", table, 6 + 12 * i)
            if platform not in (0, 3):  # the others are not Unicode
                continue
            text = table[strings + at : strings + at + size].decode("utf-16-be", errors="replace")
            if name not in names or (platform, language) == (3, 0x409):
                names[name] = text.strip()
    except (struct.error, StopIteration):  # a format FreeType reads but that states no names
        return {}
    return names


# -- packing ----------------------------------------------------------------------------------------------------------


def pack_bits(glyphs: NDArray[Any]) -> NDArray[np.uint8]:
    """Pack a table of ink and no ink to one bit a pixel.

    Args:
        glyphs: (vocab, fonts, size, size) bool, or integers that are all 0 or 1.

    Returns:
        (vocab, ceil(fonts·size·size / 8)) uint8. The first pixel is the highest bit of the first byte, rows are
        filled up with 0. :func:`unpack_bits` is the exact inverse.
    """
    glyphs = _four_dimensions(glyphs)
    if glyphs.dtype != np.bool_ and not np.isin(glyphs, (0, 1)).all():
        raise ValueError(
            f"one bit holds 0 or 1, the table has values from {glyphs.min()} to {glyphs.max()}: binarize() it first"
        )
    return np.packbits(glyphs.astype(np.bool_).reshape(len(glyphs), math.prod(glyphs.shape[1:])), axis=1)


def unpack_bits(packed: NDArray[np.uint8], fonts: int, size: int = GLYPH_SIZE) -> NDArray[np.bool_]:
    """Undo :func:`pack_bits`: (vocab, bytes) uint8 -> (vocab, fonts, size, size) bool."""
    packed = np.asarray(packed)
    pixels = fonts * size * size
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != (pixels + 7) // 8:
        raise ValueError(
            f"packed glyphs of {fonts} fonts of {size} x {size} are uint8 of shape (vocab, {(pixels + 7) // 8}), "
            f"got {packed.dtype} of shape {packed.shape}"
        )
    return np.unpackbits(packed, axis=1, count=pixels).astype(np.bool_).reshape(len(packed), fonts, size, size)


def _four_dimensions(glyphs: NDArray[Any]) -> NDArray[Any]:
    glyphs = np.asarray(glyphs)
    if glyphs.ndim != 4 or glyphs.shape[2] != glyphs.shape[3]:
        raise ValueError(f"a glyph table has the shape (vocab, fonts, size, size), got {glyphs.shape}")
    return glyphs


# -- files ------------------------------------------------------------------------------------------------------------


def vocabulary_digest(tokens: Iterable[str]) -> str:
    """SHA-256 of a vocabulary in its order: tells whether a table belongs to it."""
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()


def save_glyphs(
    path: str | os.PathLike[str], glyphs: NDArray[Any], tokens: Iterable[str], fonts: Sequence[FontPath | GlyphFont]
) -> GlyphTable:
    """Write a table as a small ``.npz`` file, whole or not at all; the same table always gives the same bytes.

    Args:
        path: file to write; replaced when it exists.
        glyphs: (vocab, fonts, size, size), bool (stored one bit a pixel) or uint8 (stored as it is).
        tokens: the vocabulary of the rows.
        fonts: origin of the layers: font files, or their descriptions where the files are elsewhere.

    Raises:
        TypeError: a table of another type.
        ValueError: the table's rows or layers are not as many as the tokens and fonts.
    """
    glyphs, tokens = _four_dimensions(glyphs), list(tokens)
    if glyphs.dtype not in (np.bool_, np.uint8):
        raise TypeError(f"a glyph table is bool or uint8, got {glyphs.dtype}")
    if glyphs.shape[:2] != (len(tokens), len(fonts)):
        raise ValueError(
            f"the table has {glyphs.shape[0]} rows and {glyphs.shape[1]} layers, but {len(tokens)} tokens and "
            f"{len(fonts)} fonts were given"
        )
    origin = tuple(font if isinstance(font, GlyphFont) else read_glyph_font(font) for font in fonts)
    data = pack_bits(glyphs) if glyphs.dtype == np.bool_ else glyphs
    header = {
        "format": _FORMAT,
        "storage": "bits" if glyphs.dtype == np.bool_ else "uint8",
        "shape": glyphs.shape,
        "fonts": [asdict(font) for font in origin],
        "vocabulary": vocabulary_digest(tokens),
        "sha256": hashlib.sha256(data.tobytes()).hexdigest(),
    }
    text = np.frombuffer(json.dumps(header, ensure_ascii=False, sort_keys=True).encode(), dtype=np.uint8)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.savez_compressed(file, header=text, data=data)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return GlyphTable(glyphs, origin, header["vocabulary"])  # type: ignore[arg-type]


def load_glyphs(path: str | os.PathLike[str], tokens: Iterable[str] | None = None) -> GlyphTable:
    """Read and check a file of :func:`save_glyphs`.

    Args:
        path: the file.
        tokens: the vocabulary the table should belong to; None: not compared.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated, damaged or of another kind, or belongs to another vocabulary.
    """
    content = Path(path).read_bytes()
    try:
        table = _read_archive(content)
    except _DAMAGE as error:
        raise ValueError(
            f"{os.fspath(path)} is not a whole glyph file ({type(error).__name__}: {error}); expected what "
            "save_glyphs writes: copy it again or render it again"
        ) from error
    if tokens is not None and vocabulary_digest(tokens) != table.vocabulary:
        raise ValueError(
            f"{os.fspath(path)} was made for another vocabulary ({len(table.pixels)} rows); render it for this one"
        )
    return table


_DAMAGE = (  # what numpy, zipfile and zlib raise for bytes that are not what they should be
    *(ValueError, KeyError, TypeError, AttributeError, NotImplementedError, EOFError),
    *(zipfile.BadZipFile, zlib.error, RuntimeError, SyntaxError, TokenError, MemoryError, OverflowError, OSError),
)


def _read_archive(content: bytes) -> GlyphTable:
    # No pickles: the file may come from anywhere.
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        data = archive["data"]
    if header["format"] != _FORMAT:
        raise ValueError(f"format {header['format']!r}, expected {_FORMAT!r}")
    if hashlib.sha256(data.tobytes()).hexdigest() != header["sha256"]:
        raise ValueError("the checksum does not fit the data")
    shape = tuple(header["shape"])
    pixels = unpack_bits(data, *shape[1:3]) if header["storage"] == "bits" else data
    if pixels.shape != shape or pixels.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"the data is {pixels.dtype} of shape {pixels.shape}, the header states {shape}")
    return GlyphTable(pixels, tuple(GlyphFont(**font) for font in header["fonts"]), header["vocabulary"])
