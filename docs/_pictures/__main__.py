"""Draw the pictures of these pages anew, into docs/images.

    python docs/_pictures [NAME …] [--folder FOLDER]

They come from the package's own functions, the embedded model, and tables of the pages. Needed: the extra `plots`, a
font with Chinese (drawn with Noto Sans CJK SC), and, for the screenshot alone, Chromium. With the same matplotlib and
the same fonts the files are the same, byte by byte.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import canvas
import encoder
import fine_tuning
import matplotlib as mpl
import outputs
import screenshot
from matplotlib.figure import Figure
from page_tables import DOCS

PICTURES: dict[str, tuple[Callable[[], Figure], str]] = {
    "adapters.svg": (fine_tuning.placements, ""),
    "attention-heads.png": (encoder.heads, ""),
    "attention-rollout.svg": (encoder.rollout, encoder.SENTENCE),
    "chinesebert.svg": (encoder.fusion, "猫"),
    "crf.svg": (outputs.transitions, ""),
    "feature-extraction.svg": (fine_tuning.frozen_layers, ""),
    "glyphs.svg": (encoder.glyphs, encoder.CHARACTERS),
    "label-words.svg": (outputs.label_words, ""),
    "layers.svg": (encoder.selections, ""),
    "learning-rates.svg": (fine_tuning.learning_rates, ""),
    "loss-scaling.svg": (fine_tuning.loss_scaling, ""),
    "multi-task.svg": (fine_tuning.task_shares, ""),
    "pretraining.svg": (outputs.pretraining, ""),
    "prompts.svg": (outputs.calibration, ""),
    "question-answering.svg": (outputs.windows, outputs.CONTEXT),
    "self-ensemble.svg": (fine_tuning.averaged_steps, ""),
    "sequence-tagging.svg": (outputs.decoding, ""),
    "two-stage.svg": (fine_tuning.two_stages, ""),
    "unfreezing.svg": (fine_tuning.schedules, ""),
    "warm-starts.svg": (encoder.offsets, ""),
}
"""File name -> what draws it, and the Chinese that stands in it."""
SCREENSHOT = "attention-views.png"


def draw(name: str, folder: Path) -> Path:
    """Draw one picture.

    Args:
        name: a key of `PICTURES`, or `SCREENSHOT`.
        folder: where it goes.
    """
    path = folder / name
    if name == SCREENSHOT:
        screenshot.take(encoder.maps(), path)
        return path
    make, chinese = PICTURES[name]
    with mpl.rc_context(canvas.style(chinese)):
        canvas.write(make(), path, chinese)
    return path


def main() -> None:
    """Draw all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation anew.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="file names; all pictures by default")
    parser.add_argument(
        "--folder", type=Path, default=DOCS / "images", help="where to write them; docs/images by default"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - {*PICTURES, SCREENSHOT}:
        parser.error(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join([*PICTURES, SCREENSHOT])}")
    for name in options.names or [*PICTURES, SCREENSHOT]:
        if name == SCREENSHOT and not shutil.which(screenshot.BROWSER):
            print(f"{name}: left as it is, for {screenshot.BROWSER} is not installed", file=sys.stderr)
            continue
        path = draw(name, options.folder)
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
