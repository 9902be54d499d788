"""The direction of imports inside the package, read from the source: rooms know only the rooms below them."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hf_nlpnotes

PACKAGE = Path(hf_nlpnotes.__file__).parent
ANYTHING = None

# Room (top-level module or subpackage) -> the rooms of ours that it may import.
MAY_IMPORT: dict[str, set[str] | None] = {
    "_compat": set(),
    "layers": set(),
    "model_inputs": set(),
    "_trained_models": set(),
    "question_answering": set(),
    "attention": set(),
    "models": {"layers"},
    "tagging": {"layers"},
    "prompting": {"model_inputs"},  # models come in through the Auto classes
    "fewclue": {"prompting"},
    "training": {"layers", "_compat"},
    "adapters": {"layers"},
    "pretraining": {"models"},
    "corpora": {"tagging"},
    # The root has the embedded model's folder.
    "recipes": {"corpora", "models", "pretraining", "tagging", "training", "question_answering", "__init__"},
    "pipelines": {"prompting", "tagging", "question_answering", "model_inputs"},
    "evaluate_modules": {"tagging", "question_answering"},
    # A page around pipelines, which come in through `pipeline()`; the root has the embedded model's folder.
    "app": {"_trained_models", "attention", "model_inputs", "models", "prompting", "tagging", "__init__"},
    "_registration": {"models", "pipelines", "layers", "adapters"},
    "__init__": ANYTHING,  # public names, loaded when they are asked for
    "__main__": {"cli"},
    "cli": ANYTHING,
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """Return the room that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return ".".join(("hf_nlpnotes", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imported_modules(source: str, package: str) -> Iterator[str]:
    """Yield the absolute dotted name of everything that `source`, a module inside `package`, imports.

    `from a import b` gives `a.b`, which is right whether `b` is a module or a name in one. Imports inside functions
    and under TYPE_CHECKING count too: the direction is one of knowledge, not of time.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> Iterator[str]:
    package = name_of(path) if path.name == "__init__.py" else name_of(path).rpartition(".")[0]
    return imported_modules(path.read_text(encoding="utf-8"), package)


def rooms_imported(path: Path) -> set[str]:
    """Return the rooms that a file imports; the root package itself counts as `__init__`."""
    ours = [name.split(".") for name in imports_of(path) if name.split(".")[0] == "hf_nlpnotes"]
    known = {entry.stem for entry in PACKAGE.iterdir() if entry.is_dir() or entry.suffix == ".py"}
    return {parts[1] if len(parts) > 1 and parts[1] in known else "__init__" for parts in ours}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_room_imports_only_the_rooms_below_it(path: Path) -> None:
    here = room(path)
    assert here in MAY_IMPORT, f"{here} is a new room: say in MAY_IMPORT what it may import"
    allowed = MAY_IMPORT[here]
    if allowed is not ANYTHING:
        assert rooms_imported(path) - {here} <= allowed


# Model folders that can be exported as remote code. A selection of layers stands on `layers` and needs the package.
EXPORTABLE = {"chinesebert"}


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room(path) == "models" and path.parent.name in EXPORTABLE], ids=name_of
)
def test_a_model_folder_is_flat(path: Path) -> None:
    """Remote code is one folder: `from .x import y` is the only way to a neighbour."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, f"line {node.lineno} leaves the folder"
            assert node.module is None or "." not in node.module, f"line {node.lineno} enters a subfolder"
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert all(name.split(".")[0] != "hf_nlpnotes" for name in names if name), f"line {node.lineno}"


def test_layers_need_torch_alone() -> None:
    for path in MODULES:
        if room(path) == "layers":
            roots = {name.split(".")[0] for name in imports_of(path)}
            # matplotlib is imported where a picture is drawn, accelerate where it has put a hook; both may be absent
            allowed = {"torch", "hf_nlpnotes", "matplotlib"} | ({"accelerate"} if path.stem == "offloading" else set())
            assert roots - sys.stdlib_module_names <= allowed, path


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import hf_nlpnotes.models", ["hf_nlpnotes.models"]),
        ("from hf_nlpnotes import models", ["hf_nlpnotes.models"]),
        ("from . import crf", ["hf_nlpnotes.layers.crf"]),
        ("from .crf import decode", ["hf_nlpnotes.layers.crf.decode"]),
        ("from ..models.chinesebert import x", ["hf_nlpnotes.models.chinesebert.x"]),
        ("from .. import models", ["hf_nlpnotes.models"]),
        ("def f():\n    import torch.nn as nn", ["torch.nn"]),
    ],
)
def test_the_reader_of_imports(source: str, expected: list[str]) -> None:
    assert list(imported_modules(source, "hf_nlpnotes.layers")) == expected
