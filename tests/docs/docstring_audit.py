"""What docstrings in Google style leave out: parameters of a signature, options of a class, errors that are raised."""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

OURS = "hf_nlpnotes."
_SECTION = re.compile(r"(?:Args|Attributes):$")
_SAME_ARGUMENTS = re.compile(r"[Aa]rguments(?: and errors)? as (?:of|in) `(?P<function>\w+)`")
_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \(.*\))?:(?: |$)")


def described(docstring: str | None) -> set[str]:
    """Return the names that the sections `Args` and `Attributes` have entries with a text for."""
    names: set[str] = set()
    lines = inspect.cleandoc(docstring or "").splitlines()
    for number, line in enumerate(lines):
        if _SECTION.match(line):
            names |= _entries(_section(lines[number + 1 :]))
    return names


def _section(lines: list[str]) -> list[str]:
    """Return the lines below a section's name that belong to it, without what they are indented by."""
    end = next((i for i, line in enumerate(lines) if line and not line.startswith(" ")), len(lines))
    return inspect.cleandoc("\n" + "\n".join(lines[:end])).splitlines()


def _entries(lines: list[str]) -> set[str]:
    names: set[str] = set()
    for number, line in enumerate(lines):
        match = _ENTRY.match(line)
        below = lines[number + 1] if number + 1 < len(lines) else ""
        if match and (line[match.end() :].strip() or below.startswith(" ")):
            names |= {name.lstrip("*") for name in match["names"].split(", ")}
    return names


def gaps(value: Any) -> Iterator[str]:
    """What a public class or function leaves undescribed, as `name: what is missing`."""
    name = value.__qualname__
    if not inspect.isclass(value):
        yield from _gaps(name, value.__doc__, _parameters(value), frozenset(_described_elsewhere(value)))
        yield from _silent_errors(name, value.__doc__, value)
        return
    docstring = vars(value).get("__doc__")
    yield from _gaps(name, docstring, _options(value))
    for made_by in ("__init__", "__post_init__"):
        if _is_ours(vars(value).get(made_by)):
            yield from _silent_errors(name, docstring, vars(value)[made_by])
    for attribute, member in vars(value).items():
        if attribute.startswith("_"):
            continue
        if isinstance(member, property):
            if _is_ours(member.fget):
                yield from _gaps(f"{name}.{attribute}", member.__doc__, [])
            continue
        function = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        if inspect.isfunction(function) and function.__qualname__ == f"{value.__qualname__}.{attribute}":
            yield from _method_gaps(value, attribute, function)
            yield from _silent_errors(f"{name}.{attribute}", function.__doc__, function)


def _gaps(
    name: str, docstring: str | None, parameters: list[str], told: frozenset[str] = frozenset()
) -> Iterator[str]:
    if not (docstring or "").strip():
        yield f"{name}: no docstring"
    elif missing := [parameter for parameter in parameters if parameter not in described(docstring) | told]:
        yield f"{name}: {', '.join(missing)}"


def _method_gaps(owner: type, attribute: str, function: Callable[..., Any]) -> Iterator[str]:
    """Of a method, which may name its parameters in its text, and leave to the one that it overrides what that has."""
    docstring, told = function.__doc__, set[str]()
    for base in owner.__mro__[1:]:
        overridden = vars(base).get(attribute)
        if overridden is None:
            continue
        overridden = getattr(overridden, "__func__", overridden)
        docstring = docstring or overridden.__doc__ or "inherited"
        if _is_ours(overridden):
            told |= described(overridden.__doc__)
        elif _takes_keywords(overridden):
            told |= set(_parameters(function))  # what transformers passes, which its own page describes
        else:
            told |= {*_parameters(overridden), *_variable(function)}
    if not described(docstring):
        told |= set(re.findall(r"`\*{0,2}(\w+)`", docstring or ""))
    yield from _gaps(f"{owner.__qualname__}.{attribute}", docstring, _parameters(function), frozenset(told))


def _silent_errors(name: str, docstring: str | None, function: Callable[..., Any]) -> Iterator[str]:
    """Errors that a function raises itself and its docstring does not name."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except OSError:  # made by a decorator, without a source of its own
        return
    raised = {
        node.exc.func.id
        for node in _own_nodes(tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name)
    }
    told = docstring or ""
    if "rrors as of `" not in told:
        yield from (f"{name}: raises {error}" for error in sorted(raised - _NO_ERRORS) if error not in told)


_NO_ERRORS = {"NotImplementedError", "StopIteration"}
"""What abstract methods and iterators raise by their nature."""


def _own_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes of a function, without those of functions inside of it."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            yield node
            yield from _own_nodes(node)


def _described_elsewhere(function: Callable[..., Any]) -> set[str]:
    """What the function describes whose arguments these are, as the docstring says."""
    match = _SAME_ARGUMENTS.search(function.__doc__ or "")
    return described(function.__globals__[match["function"]].__doc__) if match else set()


def _options(value: type) -> list[str]:
    """What a class is made with, as far as it is ours: fields, and parameters that bases of others do not have."""
    if issubclass(value, enum.Enum):
        return []
    if issubclass(value, tuple) and hasattr(value, "_fields"):
        return list(value._fields)
    ours = [base for base in value.__mro__ if _is_ours(base)]
    if dataclasses.is_dataclass(value):
        annotated = {name for base in ours for name in vars(base).get("__annotations__", {})}
        theirs = {
            field.name
            for base in value.__mro__
            if not _is_ours(base) and dataclasses.is_dataclass(base)
            for field in dataclasses.fields(base)
        }  # another default of an option that is described there
        return [f.name for f in dataclasses.fields(value) if f.init and f.name in annotated - theirs]
    constructors = [vars(base)["__init__"] for base in ours if "__init__" in vars(base)]
    if not constructors:
        return []
    others = [base for base in value.__mro__ if not _is_ours(base) and base is not object and "__init__" in vars(base)]
    known = {name for base in others for name in _parameters(vars(base)["__init__"])}
    known |= _variable(constructors[0]) if others else set()
    return [name for name in _parameters(constructors[0]) if name not in known]


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of C
        return []
    return [name for name in names if name not in {"self", "cls"} and not name.startswith("_")]


def _variable(function: Callable[..., Any]) -> set[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name for name, parameter in inspect.signature(function).parameters.items() if parameter.kind in kinds}


def _takes_keywords(function: Callable[..., Any]) -> bool:
    return any(
        parameter.kind == parameter.VAR_KEYWORD for parameter in inspect.signature(function).parameters.values()
    )


def _is_ours(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").startswith(OURS)
