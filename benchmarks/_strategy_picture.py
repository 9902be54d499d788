"""Draw the tables of docs/which-strategy.md as docs/_static/which-strategy.svg: a panel a table, a point a way.

    python benchmarks/_strategy_picture.py

Needs matplotlib. A panel's title is the heading above its table; rows in bold are what the page recommends.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "which-strategy.md"
PICTURE = DOCS / "_static" / "which-strategy.svg"
ROW = re.compile(r"^\| (?P<way>.+?) \| (?P<mean>[\d.]+)(?: ± (?P<deviation>[\d.]+))? \| \[.+?\]\((?P<page>.+?)\) \|$")
COLUMNS = 2


class Way(NamedTuple):
    """A row: its name, mean and deviation in percent (0 where nothing is drawn by chance), and where it stands."""

    name: str
    mean: float
    deviation: float
    page: str
    recommended: bool


def tables(text: str) -> dict[str, list[Way]]:
    """The tables of ways on the page, by the headings above them."""
    found: dict[str, list[Way]] = {}
    heading = ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif match := ROW.match(line):
            way = match["way"]
            found.setdefault(heading, []).append(
                Way(
                    way.strip("*"),
                    float(match["mean"]),
                    float(match["deviation"] or 0),
                    match["page"],
                    way.startswith("**"),
                )
            )
    return found


def draw(panels: dict[str, list[Way]], path: Path) -> None:
    """Draw dots with deviations, a panel a table, and write the picture, whole or not at all."""
    import matplotlib as mpl

    mpl.use("Agg")
    # Text stays text, and the ids are the same in every run: the file is small, searchable and comparable.
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "which-strategy", "font.sans-serif": ["DejaVu Sans"]}
    from matplotlib import pyplot as plt

    rows = [list(panels.items())[start : start + COLUMNS] for start in range(0, len(panels), COLUMNS)]
    heights = [max(len(ways) for _, ways in row) + 1.2 for row in rows]
    figure, axes = plt.subplots(
        len(rows), COLUMNS, figsize=(13, 0.3 * sum(heights)), height_ratios=heights, squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (title, ways) in zip(axes.flat, panels.items(), strict=False):
        colours = ["#0b6e99" if way.recommended else "#666666" for way in ways]
        # Labels as text, deviations as one collection: ticks and error bars would make the file twice as large.
        for place, way in enumerate(ways):
            style = {"color": colours[place], "va": "center", "fontsize": 8}
            axis.text(-1.5, place, way.name, ha="right", weight="bold" if way.recommended else "normal", **style)
            axis.text(way.mean + way.deviation + 2.5, place, f"{way.mean:.1f}", **style)
        lows, highs = zip(*((way.mean - way.deviation, way.mean + way.deviation) for way in ways), strict=True)
        axis.hlines(range(len(ways)), lows, highs, colors=colours, linewidth=1.5)
        axis.scatter([way.mean for way in ways], range(len(ways)), c=colours, s=22, zorder=3)
        axis.set_xticks([0, 50, 100])
        axis.set_yticks([])
        axis.set_ylim(-0.6, len(ways) - 0.4)
        axis.set_xlim(0, 100)
        axis.tick_params(axis="x", labelsize=7)
        axis.set_title(title, fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    # Room for the names: what shows the picture may have a wider font than the one it was laid out with.
    figure.subplots_adjust(left=0.28, right=0.98, top=0.97, bottom=0.03, hspace=0.35, wspace=1.1)
    unfinished = path.with_suffix(".part.svg")
    figure.savefig(unfinished, format="svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)
    os.replace(unfinished, path)


if __name__ == "__main__":
    draw(tables(PAGE.read_text(encoding="utf-8")), PICTURE)
    print(f"{PICTURE.relative_to(DOCS.parent)}: {PICTURE.stat().st_size:,} bytes")
