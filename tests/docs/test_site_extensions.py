"""Docstrings in Markdown become reStructuredText that docutils reads as it was meant. Needs the extra `docs`."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the extra docs is not installed")
sys.path.append(str(Path(__file__).resolve().parents[2] / "docs" / "_extensions"))

from command_help import commands, help_of
from docutils.core import publish_doctree
from docutils.nodes import Element
from markdown_docstrings import converted


def read(docstring: str) -> Element:
    """Read a docstring as Sphinx would; a warning of docutils is an error."""
    return publish_doctree("\n".join(converted(docstring.splitlines())), settings_overrides={"halt_level": 2})


def shape(node: Element) -> list[tuple[str, str]]:
    """Return the blocks below a node by their kinds, with their texts."""
    return [(child.tagname, child.astext()) for child in node.children if isinstance(child, Element)]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Give `x` and\nmore.", [("paragraph", "Give x and\nmore.")]),
        ("A [page](https://example.org/a_b) of it.", [("paragraph", "A page of it.")]),
        ("It is:\n- one\n- two,\n  long\nand on.", None),
        ("As it is:\n\n    p = |a| * `b`\n    q = *x\n\nThen.", None),
        ("Mean |x| of |y|.", [("paragraph", "Mean |x| of |y|.")]),
        ("See [`Name`], [`~a.Name`] and [`f`][a.f].", [("paragraph", "See Name, a.Name and f.")]),
        ("Pieces `##`s.", [("paragraph", "Pieces ##s.")]),
    ],
)
def test_prose(docstring: str, expected: list[tuple[str, str]] | None) -> None:
    found = shape(read(docstring))
    if expected is not None:
        assert found == expected
    elif "- one" in docstring:
        assert [kind for kind, _ in found] == ["paragraph", "bullet_list", "paragraph"]
    else:
        assert found[1] == ("literal_block", "p = |a| * `b`\nq = *x")
        assert [kind for kind, _ in found] == ["paragraph", "literal_block", "paragraph"]


def test_code_over_two_lines_and_its_inside() -> None:
    literals = [
        node.astext() for node in read("Write `a_b*\n  | c` here and `*args`.").findall() if node.tagname == "literal"
    ]
    assert literals == ["a_b* | c", "*args"]


def test_a_table() -> None:
    table = read("| form | what |\n|---|---|\n| `a` | one |\n| `b` | a|b |".replace("a|b", "two"))
    cells = [node.astext() for node in table.findall() if node.tagname == "entry"]
    assert cells == ["form", "what", "a", "one", "b", "two"]


def test_fences_and_doctests_are_left_as_they_are() -> None:
    lines = converted("```python\nx = `1` | 2\n```\n\n>>> a | `b`\n|c|".splitlines())
    code = lines.index(".. code-block:: python")
    assert lines[code + 1 : code + 3] == ["", "    x = `1` | 2"]
    doctest = lines.index(">>> a | `b`")
    assert lines[doctest + 1] == "|c|"


def test_sections_stay_where_napoleon_finds_them() -> None:
    docstring = "Do.\n\nArgs:\n    a: `x` of\n        more.\n\n        Even more.\n\nRaises:\n    ValueError: no."
    assert "\n".join(converted(docstring.splitlines())) == docstring.replace("`", "``")


def test_every_command_is_found() -> None:
    found = commands([])
    assert ["demo"] in found
    assert ["train", "classify"] in found
    assert all(help_of(command).startswith(f"usage: hf-nlpnotes {' '.join(command)}") for command in found)
