"""Pictures of the pages: all are there, described and small, and they show what the tables and the package say now."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
SHOWN = [
    (page, *match)
    for page in sorted(DOCS.glob("*.md"))
    for match in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
]
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
IDENTIFIER = re.compile(r"(?<=[\"#])[a-z][0-9a-f]{10}\b")  # a hash of coordinates
# Those of the tables and one of the package's functions: no model is loaded, no font but matplotlib's own is needed.
REDRAWN = (
    "crf",
    "feature-extraction",
    "label-words",
    "loss-scaling",
    "pretraining",
    "prompts",
    "sequence-tagging",
    "two-stage",
)


@pytest.mark.parametrize(("page", "description", "picture"), SHOWN, ids=[row[2] for row in SHOWN])
def test_a_picture_is_there_described_and_small(page: Path, description: str, picture: str) -> None:
    path = page.parent / picture
    assert path.is_file()
    assert len(description.split()) >= 5
    assert path.stat().st_size < 60_000


def test_every_picture_is_shown_and_all_together_are_small() -> None:
    pictures = set((DOCS / "images").iterdir())
    assert pictures == {page.parent / picture for page, _, picture in SHOWN if picture.startswith("images/")}
    assert sum(path.stat().st_size for path in pictures) < 400_000


@pytest.fixture(scope="module")
def folder_of_the_script() -> Iterator[None]:
    """Let the script's own modules be imported by their names, as they are when it runs."""
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    tested = re.search(
        r"^matplotlib==([\d.]+)", (REPOSITORY / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert tested
    if version("matplotlib") != tested[1]:
        pytest.skip(f"the pictures are drawn with matplotlib {tested[1]}; others set text and ticks otherwise")
    before = set(sys.modules)
    sys.path.insert(0, str(DOCS / "_pictures"))
    yield
    sys.path.remove(str(DOCS / "_pictures"))
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and "_pictures" in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.mark.usefixtures("folder_of_the_script")
@pytest.mark.parametrize("name", REDRAWN)
def test_a_picture_is_what_the_script_draws(name: str, tmp_path: Path) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("draw_pictures", DOCS / "_pictures" / "__main__.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    paths = (script.draw(f"{name}.svg", tmp_path), DOCS / "images" / f"{name}.svg")
    drawn, kept = (IDENTIFIER.sub("", path.read_text(encoding="utf-8")) for path in paths)
    assert NUMBER.sub("0", drawn) == NUMBER.sub("0", kept)
    # Coordinates are cut at hundredths: another processor may round to the next one.
    numbers = [list(map(float, NUMBER.findall(text))) for text in (drawn, kept)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.02)
