"""A picture of the attention page in a browser."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from hf_nlpnotes.attention import AttentionMaps, head_view

BROWSER = "chromium"
SIZE = (1000, 620)
COLOURS = 64
"""Of the palette: a page of text and lines needs few, and the file is a third as large."""


def take(maps: AttentionMaps, path: Path) -> None:
    """Open the attention page without a window, and write what it shows.

    Args:
        maps: what the page shows.
        path: of a PNG.

    Raises:
        subprocess.CalledProcessError: The browser failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        head_view(maps, layer=0, head=0).save(page)
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000"]
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        command = [BROWSER, *options, size, f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)  # noqa: S603  (our own page)
        small = Image.open(shot).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
