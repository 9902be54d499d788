"""The page that compares strategies says what the pages with the measurements say, and its picture what it says."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "which-strategy.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (?:\*\*)?(.+?)(?:\*\*)? \| ([\d. ±]+) \| \[.+?\]\((.+?)\) \|$", PAGE, re.MULTILINE)
SETTINGS = {
    "No labelled text, two opinions": "eprstmt, zero-shot",
    "No labelled text, ten topics": "THUCNews, zero-shot",
    "16 texts a class, two opinions": "eprstmt, ",
    "16 texts a class, ten topics": "THUCNews, 16 a class",
    "600 texts": "ChnSentiCorp, 600 texts",
    "4,800 texts": "ChnSentiCorp, 4,800 texts",
    "400 sentences": "Weibo NER, 400 sentences",
    "200 sentences": "Resume NER",
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def measured(page: str, setting: str, way: str) -> list[str]:
    """Every score that `page` has for a way: a row below a heading, or a column in the row of a task."""
    found, heading, columns = [], "", []
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            columns = []
            continue
        row = cells(line)
        columns = columns or row
        if heading.startswith(setting) and row[0] == way:
            found.append(row[1] if " ± " in row[1] or len(row) < 5 else f"{row[1]} ± {row[2]}")
        if row[0] == setting and way in columns:
            found.append(row[columns.index(way)])
    return found


def test_there_are_rows_for_every_setting() -> None:
    headings = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    assert len(headings) == len(SETTINGS)
    assert len(ROWS) > 4 * len(SETTINGS)


@pytest.mark.parametrize(("heading", "setting"), SETTINGS.items())
def test_every_figure_is_that_of_the_page_it_names(heading: str, setting: str) -> None:
    section = re.search(rf"^### {re.escape(heading)}.*?(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert section
    rows = [
        row for row in ROWS if f"{row[0]}** | {row[1]} |" in section[0] or f"| {row[0]} | {row[1]} |" in section[0]
    ]
    assert len(rows) >= 3
    for way, score, page in rows:
        assert score in measured(page, setting, way), (way, score, page)


def test_the_picture_has_the_figures_of_the_page() -> None:
    picture = (DOCS / "_static" / "which-strategy.svg").read_text(encoding="utf-8")
    assert len(picture) < 60_000
    drawn = re.findall(r">(\d+\.\d)</text>", picture)
    assert sorted(drawn) == sorted(score.split()[0] for _, score, _ in ROWS)
