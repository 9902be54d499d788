r"""Render a vocabulary's characters to a glyph table for ChineseBERT, and a picture to judge it by.

    python examples/render_glyphs.py --vocab vocab.txt --output glyphs.npz --sheet glyphs.png \
        --fonts LXGWWenKai-Regular.ttf NotoSerifCJK-Regular.ttc#2 NotoSansCJK-Regular.ttc#2

prints what each font covers and the size of the table, for example

    9940 characters
     98.93%  LXGW WenKai, lacks 106: ابةتدرسعلمنهوي۩กงนมย…
     99.19%  Noto Serif CJK SC, lacks 81: ŋɔəʰˈˍː˚ˢіابةتدرسعلم…
     99.19%  Noto Sans CJK SC, lacks 81: ŋɔəʰˈˍː˚ˢіابةتدرسعلم…
    (23236, 3, 24, 24) -> glyphs.npz, 1.2 MB

Three styles (here kai, song, hei) say more than three fonts of one style. On Debian these are the packages
fonts-lxgw-wenkai and fonts-noto-cjk (both under the SIL Open Font License 1.1); ``#2`` is the simplified Chinese
face of the collection. Give the table to a model with ``model.set_glyphs(load_glyphs("glyphs.npz").pixels)``.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import HfArgumentParser

from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import (
    glyph_coverage,
    is_drawable,
    render_glyphs,
    save_glyphs,
)


@dataclass
class Arguments:
    """Command-line arguments."""

    vocab: str = field(metadata={"help": "vocabulary, one token a line"})
    fonts: list[str] = field(metadata={"help": "font files, one layer each; FILE#INDEX for a face of a collection"})
    output: str = field(default="glyphs.npz", metadata={"help": "table to write"})
    sheet: str | None = field(default=None, metadata={"help": "contact sheet to write (PNG)"})
    size: int = field(default=24, metadata={"help": "pixels a side"})
    missing: str = field(default="fallback", metadata={"help": "blank, fallback (first font that has it) or error"})
    columns: int = field(default=40, metadata={"help": "characters in a row of the contact sheet"})
    rows: int = field(default=12, metadata={"help": "rows of the contact sheet"})


def contact_sheet(glyphs: np.ndarray, columns: int) -> Image.Image:
    """Grid of characters, one picture a font below each other, white on black with grey lines, twice enlarged."""
    characters, fonts, size, _ = glyphs.shape
    cells = np.full((-(-characters // columns) * columns, fonts, size + 2, size + 2), 90, dtype=np.uint8)
    cells[:characters, :, 1:-1, 1:-1] = glyphs.astype(np.uint8) * 255
    grid = cells.reshape(-1, columns, fonts, size + 2, size + 2).transpose(0, 2, 3, 1, 4)
    sheet = Image.fromarray(grid.reshape(-1, columns * (size + 2)))
    return sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST)


def main() -> None:
    """Render, save and show."""
    (args,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    # split, not splitlines: a blank line counts, and a vocabulary holds characters that splitlines cuts at
    tokens = Path(args.vocab).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    print(glyph_coverage(tokens, args.fonts))
    glyphs = render_glyphs(tokens, args.fonts, args.size, missing=args.missing)
    save_glyphs(args.output, glyphs, tokens, args.fonts)
    print(f"{glyphs.shape} -> {args.output}, {Path(args.output).stat().st_size / 1e6:.1f} MB")
    if args.sheet:
        shown = [row for row, token in enumerate(tokens) if is_drawable(token)]
        step = max(1, len(shown) // (args.columns * args.rows))  # spread over the vocabulary
        contact_sheet(glyphs[shown[::step][: args.columns * args.rows]], args.columns).save(args.sheet)


if __name__ == "__main__":
    main()
