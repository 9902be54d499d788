"""Headings of the pages: one title, and no level left out, which the site's builder refuses."""

import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md"]


def levels(text: str) -> list[int]:
    """Return the levels of the headings outside of code, in the page's order."""
    prose = re.sub(r"^(```+).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)
    return [len(marks) for marks in re.findall(r"^(#+) ", prose, flags=re.MULTILINE)]


def test_code_has_no_headings() -> None:
    assert levels("# A\n\n```python\n# no\n```\n\n## B\n\n````\n```\n# no\n```\n````\n\n### C\n") == [1, 2, 3]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_levels_follow_each_other(page: Path) -> None:
    found = levels(page.read_text(encoding="utf-8"))
    assert found[:1] == [1], "a page starts with its title"
    assert found.count(1) == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(found)), found
