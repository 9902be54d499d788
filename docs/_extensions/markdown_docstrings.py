"""Docstrings here are Google style with Markdown inside: this turns the Markdown into reStructuredText.

What differs is `code`, links, fenced and indented blocks, tables, and the blank lines around lists. Everything else is
read by napoleon and Sphinx as it stands. Constants, whose docstrings stand below them, keep these when a package lists
them again.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from itertools import takewhile
from typing import Any

from docutils import nodes
from peft import PeftConfig
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.pycode import ModuleAnalyzer
from transformers import PreTrainedConfig, TrainingArguments

_FENCE = re.compile(r" *```(?P<language>\w*)$")
_ITEM = re.compile(r"^(?P<indent> *)(?:[-*]|\d+\.) ")
_SECTION = re.compile(r"^(?:Args|Attributes|Example|Examples|Note|Raises|Returns|Yields):$")
# Code, which may go on in the next line and may be a reference in brackets; a link; a sign that has a meaning.
_INLINE = re.compile(
    r"\[`~?(?P<name>[^`]+)`\](?:\[[\w.]+\])?"
    r"|\[(?P<text>[^\]\n]+)\]\((?P<url>https?://[^)\s]+)\)"
    r"|(?<!`)`(?P<code>[^`]+)`(?!`)"
    r"|(?P<sign>\|)"
)


def converted(lines: list[str]) -> list[str]:
    """Return the lines of a docstring, which begin in the first column, as reStructuredText."""
    result: list[str] = []
    text: list[str] = []
    above = ""  # the last line that begins in the first column
    while lines:
        taken, block = _block(lines, above, text)
        if block:
            result += [*_prose(text), "", *block, ""]
            text = []
        else:
            text.append(lines[0])
        if lines[0][:1].strip():
            above = lines[0]
        lines = lines[taken:]
    return result + _prose(text)


def _block(lines: list[str], above: str, before: list[str]) -> tuple[int, list[str]]:
    """Return how many lines belong to a block that begins here, and the block; (1, []) where there is none."""
    indent = _indent_of(lines[0])
    if fence := _FENCE.match(lines[0]):
        code = list(takewhile(lambda line: line.strip() != "```", lines[1:]))
        return len(code) + 2, [f"{indent}.. code-block:: {fence['language'] or 'text'}", "", *_indented(code)]
    if lines[0].lstrip().startswith(">>> "):
        code = list(takewhile(str.strip, lines))
        return len(code), code
    if lines[0].startswith("|"):
        table = list(takewhile(lambda line: line.startswith("|"), lines))
        return len(table), _table(table)
    is_set_off = not before or not before[-1].strip()
    if len(indent) >= 4 and is_set_off and above and not _SECTION.match(above) and not _ITEM.match(above):
        code = list(takewhile(lambda line: not line or line.startswith(" "), lines))
        return len(code), ["::", "", *code]
    return 1, []


def _table(rows: list[str]) -> list[str]:
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip("| "))] for row in (rows[0], *rows[2:])]
    result = [".. list-table::", "   :header-rows: 1", ""]
    for row in cells:
        result += [f"   {'*' if number == 0 else ' '} - {_inline(cell)}" for number, cell in enumerate(row)]
    return result


def _prose(lines: list[str]) -> list[str]:
    return _inline("\n".join(_spaced(lines))).split("\n")


def _spaced(lines: list[str]) -> list[str]:
    """Set off lists by blank lines, as reStructuredText wants them."""
    result: list[str] = []
    item: int | None = None  # indent of the list's items
    for line in lines:
        match = _ITEM.match(line)
        leaves = item is not None and bool(line.strip()) and len(_indent_of(line)) <= item and match is None
        begins = item is None and match is not None
        if (leaves or begins) and result and result[-1].strip():
            result.append("")
        if match:
            item = len(match["indent"])
        elif leaves:
            item = None
        result.append(line)
    return result


def _inline(text: str) -> str:
    def replace(match: re.Match[str]) -> str:
        if match["sign"]:
            return f"\\{match['sign']}"
        if match["url"]:
            return f"`{match['text']} <{match['url']}>`__"
        code = re.sub(r"\s*\n\s*", " ", match["name"] or match["code"])
        # What touches a word is set off by an escaped blank, which is not printed.
        before = "\\ " if re.match(r"\w", text[match.start() - 1 : match.start()]) else ""
        after = "\\ " if re.match(r"\w", text[match.end() : match.end() + 1]) else ""
        return f"{before}``{code}``{after}"

    return _INLINE.sub(replace, text)


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" if line.strip() else "" for line in lines]


def _indent_of(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]


def _of_constant(name: str) -> list[str]:
    """Return the docstring below a constant, in the module that a package imports it from."""
    module, _, constant = name.rpartition(".")
    while module:
        documented = ModuleAnalyzer.for_module(module).find_attr_docs()
        if ("", constant) in documented:
            return [line for line in documented["", constant] if line] + [""]
        module = _imported_from(module, constant)
    return []


def _imported_from(module: str, name: str) -> str:
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            package = module if hasattr(sys.modules[module], "__path__") else module.rpartition(".")[0]
            return f"{package}.{node.module}" if node.level else str(node.module)
    return ""


def _without_type(line: str) -> str:
    """Let napoleon find an empty type in front of a description with a colon, which it takes for one behind a type."""
    indent = _indent_of(line)
    return f"{indent}: {line[len(indent) :]}" if ":" in line else line


def _made_of_its_fields(value: Any) -> bool:
    is_named_tuple = isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields")
    is_dataclass = dataclasses.is_dataclass(value) and all(field.init for field in dataclasses.fields(value))
    return (is_named_tuple or is_dataclass) and "\nArgs:\n" not in (inspect.getdoc(value) or "")


def _process(_app: Sphinx, what: str, name: str, value: Any, _options: Any, lines: list[str]) -> None:
    result = converted(_of_constant(name) if what == "data" else lines)
    if what == "class" and _made_of_its_fields(value):
        # Sphinx adds types to parameters alone: these attributes are the parameters.
        result = ["Args:" if line == "Attributes:" else line for line in result]
    if what in {"attribute", "data", "property"}:
        result[:1] = map(_without_type, result[:1])
    for number, line in enumerate(result[:-1]):
        if line == "Returns:":
            result[number + 1] = _without_type(result[number + 1])
    lines[:] = result


_HOOKS = {"config_class", "extra_repr", "post_init", "validate"}
"""Members that torch and transformers call, and readers do not."""


def _skip(_app: Sphinx, _what: str, name: str, value: Any, _skip: bool, _options: Any) -> bool | None:
    """Leave out hooks, and the fields of named tuples, which are described as parameters."""
    is_field = (getattr(value, "__doc__", None) or "").startswith("Alias for field number")
    return True if is_field or name in _HOOKS else None


def _own_options(_app: Sphinx, _what: str, _name: str, value: Any, _options: Any, *signature: str) -> Any:
    """Leave out of the signature of a configuration what it inherits: dozens of options that are documented there."""
    if not isinstance(value, type) or not issubclass(value, (PreTrainedConfig, PeftConfig, TrainingArguments)):
        return None
    parameters = inspect.signature(value).parameters
    ours = {name for cls in value.__mro__ if cls.__module__.startswith("hf_nlpnotes.") for name in _annotated(cls)}
    kept = [str(parameters[name].replace(annotation=inspect.Parameter.empty)) for name in parameters if name in ours]
    return f"({', '.join(['*', *kept, '**kwargs'])})", signature[1]


def _annotated(cls: type) -> set[str]:
    return set(vars(cls).get("__annotations__", {}))


def _without_plain_bases(_app: Sphinx, doctree: nodes.document) -> None:
    """Leave out the line of bases where there is nothing to say."""
    for paragraph in list(doctree.findall(nodes.paragraph)):
        if paragraph.astext().strip() in {"Bases:", "Bases: object", "Bases: tuple"}:
            paragraph.parent.remove(paragraph)


def _public_bases(_app: Sphinx, _name: str, value: type, _options: Any, bases: list[Any]) -> None:
    """Replace bases of ours that are no public names by their own bases."""
    bases[:] = [outer for base in value.__bases__ for outer in _public(base)]


def _public(base: type) -> list[type]:
    package = sys.modules.get(base.__module__.rpartition(".")[0])
    is_public = base.__name__ in getattr(package, "__all__", ())
    if is_public or not base.__module__.startswith("hf_nlpnotes."):
        return [base]
    return [outer for inner in base.__bases__ for outer in _public(inner)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Take part in what autodoc does with docstrings."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-bases", _public_bases)
    app.connect("autodoc-process-signature", _own_options)
    app.connect("doctree-read", _without_plain_bases)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # as the section is called in the docstrings
    return {"parallel_read_safe": True, "parallel_write_safe": True}
