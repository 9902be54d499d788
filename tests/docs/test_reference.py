"""The reference has every public name once, and every public name says what it takes, gives and refuses."""

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from docstring_audit import gaps

import hf_nlpnotes

DOCS = Path(__file__).resolve().parents[2] / "docs"
ENTRY = re.compile(r"^\.\. auto(?P<kind>class|function|data):: (?P<name>[\w.]+)$", re.MULTILINE)
PACKAGES = [
    "hf_nlpnotes",
    *sorted(m.name for m in pkgutil.walk_packages(hf_nlpnotes.__path__, "hf_nlpnotes.") if m.ispkg),
]


class Entry(NamedTuple):
    """A line of the reference, such as `.. autoclass:: hf_nlpnotes.layers.ScalarMix`."""

    kind: str
    name: str


def entries() -> list[Entry]:
    pages = sorted((DOCS / "reference").glob("*.md"))
    return [Entry(**match.groupdict()) for page in pages for match in ENTRY.finditer(page.read_text("utf-8"))]


def value_of(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def same_place(name: str) -> tuple[str, int]:
    """What names of one object have in common: packages list some names of others again."""
    return name.rpartition(".")[2], id(value_of(name))


def public_names() -> list[str]:
    modules = map(importlib.import_module, PACKAGES)
    return [f"{module.__name__}.{name}" for module in modules for name in getattr(module, "__all__", ())]


def home_of(module: ModuleType, name: str) -> ModuleType:
    """Return the module that a package takes a constant from."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            package = module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]
            return home_of(
                importlib.import_module(f"{package}.{node.module}" if node.level else str(node.module)), name
            )
    return module


def has_docstring(module: ModuleType, constant: str) -> bool:
    """Whether a string stands below a constant."""
    body = ast.parse(inspect.getsource(module)).body
    for statement, below in itertools.pairwise(body):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == constant for target in targets):
            return isinstance(below, ast.Expr) and isinstance(getattr(below.value, "value", None), str)
    return False


def imports_of_the_pages() -> set[str]:
    """Names of ours that the snippets of the pages import."""
    names = set()
    for page in DOCS.glob("*.md"):
        for code in re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hf_nlpnotes"):
                    names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_public_name_has_one_entry() -> None:
    found = Counter(same_place(entry.name) for entry in entries())
    missing = [name for name in public_names() if found[same_place(name)] == 0]
    assert not missing, "add them to a page of docs/reference"
    assert not [name for name in public_names() if found[same_place(name)] > 1]


def test_names_that_the_pages_import_have_an_entry() -> None:
    found = {same_place(entry.name) for entry in entries()}
    assert not [name for name in sorted(imports_of_the_pages()) if same_place(name) not in found]


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_an_entry_is_described(entry: Entry) -> None:
    value = value_of(entry.name)
    kind = "class" if inspect.isclass(value) else "function" if inspect.isroutine(value) else "data"
    assert entry.kind == kind
    if kind == "data":
        module, _, name = entry.name.rpartition(".")
        assert name.startswith("__") or has_docstring(home_of(importlib.import_module(module), name), name)
    else:
        assert not list(gaps(value))


def test_every_page_of_the_reference_is_in_its_table_of_contents() -> None:
    index = (DOCS / "reference" / "index.md").read_text("utf-8")
    pages = {page.stem for page in (DOCS / "reference").glob("*.md")} - {"index"}
    contents = re.search(r"^```\{toctree\}\n:hidden:\n\n(.*?)^```", index, re.MULTILINE | re.DOTALL)
    assert contents
    assert sorted(contents[1].split()) == sorted(pages)
    assert pages <= set(re.findall(r"\]\(([\w-]+)\.md\)", index))


def test_every_page_is_in_one_table_of_contents_of_the_start_page() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    contents = re.findall(r"^```\{toctree\}\n(?::[^\n]*\n)*\n(.*?)^```", index, re.MULTILINE | re.DOTALL)
    listed = [page for part in contents for page in part.split()]
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"} | {"reference/index"}
    assert sorted(listed) == sorted(pages), "list it in a toctree at the end of docs/index.md"


def test_every_evaluate_module_has_a_line() -> None:
    page = (DOCS / "reference" / "evaluate-modules.md").read_text("utf-8")
    folder = Path(importlib.import_module("hf_nlpnotes.evaluate_modules").__file__ or "").parent
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {path.stem for path in folder.glob("[!_]*.py")}
