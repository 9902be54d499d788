"""What all pictures share: figures that come out the same in every run, colours, boxes and arrows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from hf_nlpnotes.attention.fonts import families_for

WIDTH = 7.4
"""Inches; 533 points, about as wide as the text of the site."""
LARGEST = 40_000
"""Bytes that a picture may have."""

BLUE, ORANGE, GREY, PALE, LINE = "#0b6e99", "#c8641b", "#8a8a8a", "#d9e6ec", "#33505c"
SHADES = ("#b5b5b5", "#6aa9c4", BLUE)
"""From the way to compare with to the way that the page is about."""

# Text stays text, which can be searched and copied, and ids do not differ from run to run.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hf_nlpnotes",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.linewidth": 0.7,
}


def style(chinese: str = "") -> dict[str, object]:
    """Return the settings to draw with.

    Args:
        chinese: every Chinese character of the picture, for which an installed font is looked up.

    Raises:
        NoFontError: No font has them.
    """
    return {**STYLE, "font.family": families_for(chinese)}


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of so many inches, made without pyplot."""
    return Figure(figsize=(width, height), layout="constrained")


def drawing(figure: Figure, width: float, height: float) -> Axes:
    """Return one field for boxes and arrows over the whole figure, with the origin at the top left."""
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def box(axes: Axes, place: tuple[float, float], size: tuple[float, float], text: str, colour: str = PALE) -> None:
    """Draw a box with its text; `place` is its centre."""
    (x, y), (width, height) = place, size
    corner, shape = (x - width / 2, y - height / 2), f"round,pad=0,rounding_size={min(0.8, width / 5)}"
    axes.add_patch(FancyBboxPatch(corner, width, height, shape, fc=colour, ec=LINE, lw=0.7))
    axes.text(x, y, text, ha="center", va="center", color="white" if colour == BLUE else "black", linespacing=1.3)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0) -> None:
    """Draw an arrow; `bend` curves it."""
    path = {"arrowstyle": "-|>", "lw": 0.9, "color": LINE, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8}
    axes.annotate("", end, start, arrowprops=path | ({"connectionstyle": f"arc3,rad={bend}"} if bend else {}))


def _smaller(svg: str) -> str:
    """Leave out what nobody sees: indentation, empty metadata, turns by 0 degrees, hundredths of a point."""
    svg = re.sub(r"^ +| +$", "", svg, flags=re.MULTILINE)
    svg = re.sub(r"<metadata>.*?</metadata>\n", "", svg, flags=re.DOTALL)
    svg = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", svg)
    return re.sub(r"(?<=\d\.\d\d)\d+", "", svg)  # pictures inside are in base64, which has no full stop


def write(figure: Figure, path: Path, chinese: str = "") -> None:
    """Write a picture, whole or not at all.

    Args:
        figure: the picture.
        path: a file name that ends in .svg or .png.
        chinese: as for `style`.

    Raises:
        ValueError: The picture is larger than `LARGEST`.
    """
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    nothing = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    try:
        with mpl.rc_context(style(chinese)):
            figure.savefig(temporary, dpi=110, facecolor="white", metadata=nothing)
        if path.suffix == ".svg":
            temporary.write_text(_smaller(temporary.read_text(encoding="utf-8")), encoding="utf-8")
        if (size := temporary.stat().st_size) > LARGEST:
            raise ValueError(f"{path.name} has {size:,} bytes, and a picture may have {LARGEST:,}")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
