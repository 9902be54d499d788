"""A font for the labels of a plot that has every character in them.

Matplotlib's own font has no Chinese: it draws empty boxes and warns. Here the installed fonts are asked for the
characters that a text really has.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

PREFERRED = (
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "Microsoft YaHei",
    "PingFang SC",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Noto Serif CJK SC",
    "Hiragino Sans GB",
    "SimHei",
    "LXGW WenKai",
)
"""Fonts for the screen with simplified Chinese, tried before all others."""


class NoFontError(RuntimeError):
    """No installed font has the characters of a text."""


def families_for(texts: Iterable[str], font: str | Path | None = None) -> list[str]:
    """Return the font families that draw `texts`, for matplotlib's `fontfamily`: its own font, then one for the rest.

    Args:
        texts: The labels.
        font: A font file to use; None for an installed font that has the characters.

    Raises:
        NoFontError: No font has all the characters; the message says which are missing, and what to do.
        FileNotFoundError: There is no such font file.
    """
    from matplotlib import font_manager

    own = "DejaVu Sans"
    if font is not None:
        if not Path(font).is_file():
            raise FileNotFoundError(f"font {str(font)!r} is not a file: expected a .ttf, .otf or .ttc")
        font_manager.fontManager.addfont(str(font))
        candidates = [(font_manager.FontProperties(fname=str(font)).get_name(), str(font))]
    else:
        candidates = _installed()
    own_file = font_manager.findfont(own)
    missing = {character for text in texts for character in text if not character.isspace()} - characters(own_file)
    if not missing:
        return [own]
    for name, file in candidates:
        if missing <= characters(file):
            return [own, name]
    missing -= set() if font is None else characters(str(font))
    raise NoFontError(
        f"no font has {' '.join(sorted(missing)[:10])}: "
        + (f"{font} lacks some of them" if font is not None else "install one with Chinese (Debian: fonts-noto-cjk)")
        + ", or give another file as font="
    )


def characters(file: str) -> set[str]:
    """Return the characters that a font file has; none where it can't be read."""
    from matplotlib import font_manager

    try:
        return {chr(code) for code in font_manager.get_font(file).get_charmap()}
    except (RuntimeError, OSError):  # FreeType reads no bitmap fonts
        return set()


def _installed() -> list[tuple[str, str]]:
    """Return name and file of the fonts that matplotlib knows, the preferred ones first, then of those new to it."""
    from matplotlib import font_manager

    known = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist}
    ranked = sorted(
        known.items(), key=lambda item: PREFERRED.index(item[0]) if item[0] in PREFERRED else len(PREFERRED)
    )
    seen = set(known.values()) | {entry.fname for entry in font_manager.fontManager.ttflist}
    # Matplotlib keeps a list of fonts from its first run: fonts installed later are not in it.
    for file in sorted(set(font_manager.findSystemFonts()) - seen):
        try:
            font_manager.fontManager.addfont(file)
        except (RuntimeError, OSError):
            continue
        ranked.append((font_manager.FontProperties(fname=file).get_name(), file))
    return ranked
