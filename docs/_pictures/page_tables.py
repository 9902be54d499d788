"""Tables of the pages, so that no figure is typed a second time."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]

Rows = dict[str, dict[str, str]]
"""A table: first cell of a row -> column -> cell."""


def table(page: str, column: str, heading: str = "") -> Rows:
    """Return the first table of a page that has a column of this name.

    Args:
        page: file name, such as "prompts.md".
        column: name of one of its columns.
        heading: the heading that stands right above it; "" for any.

    Raises:
        LookupError: The page has no such table.
    """
    above, columns, rows = "", [""], {}
    for line in [*(DOCS / page).read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("#"):
            above = line.lstrip("# ")
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("| ").split("|")]
            if line.startswith("| |"):  # the first column has no name
                cells.insert(0, "")
            if columns == [""]:
                columns = cells
            elif not set(line) <= set("|-"):
                rows[cells[0]] = dict(zip(columns, cells, strict=False))
            continue
        if column in columns and rows and heading in {"", above}:
            return rows
        columns, rows = [""], {}
    raise LookupError(f"{page} has no table with a column {column!r}" + (f" below {heading!r}" if heading else ""))


def number(cell: str) -> float:
    """Return the first number in a cell: 82.4 of "82.4 ± 0.4".

    Raises:
        ValueError: There is none.
    """
    if found := re.search(r"\d[\d,]*(?:\.\d+)?", cell):
        return float(found[0].replace(",", ""))
    raise ValueError(f"no number in the cell {cell!r}")


def deviation(cell: str) -> float:
    """Return what stands behind ±, or 0."""
    return number(cell.split("±")[1]) if "±" in cell else 0.0
