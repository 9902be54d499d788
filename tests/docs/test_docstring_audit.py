"""The audit of docstrings finds what they leave out, and nothing else."""

import importlib.util
import sys
from types import ModuleType

import pytest
from docstring_audit import gaps

SAMPLES = '''
from dataclasses import dataclass
from typing import NamedTuple

from transformers import TrainerCallback

def whole(a, *, b=1, **rest):
    """Does it.

    Args:
        a (`dict`, *optional*): `(batch, seq)`,
            and more.
        b: what it is:
            c: no entry.
        **rest:
            Below.

    Raises:
        ValueError: where `a` is wrong.
    """
    raise ValueError("a")

def silent(a, b):
    """Does it.

    Args:
        a:
        other: no parameter.

    Returns:
        b: described in the wrong place.
    """

def nothing(a): ...

def thrower():
    """Does it."""
    def inner():
        raise KeyError("another's")
    raise TypeError("no")

def borrowed(a, b):
    """As the other. Arguments and errors as of `whole`."""
    raise ValueError("a")

@dataclass
class Fields:
    """Has fields.

    Attributes:
        a: the first.
    """

    a: int
    b: int = 0

    def __post_init__(self):
        if self.b:
            raise ValueError("b")

class Pair(NamedTuple):
    """Two."""

    a: int

class Base:
    """A base.

    Args:
        size: how large.
    """

    def __init__(self, size, more): ...

    def method(self, a, b):
        """Uses `a`."""

    @property
    def bare(self): ...

class Child(Base):
    """Another.

    Args:
        size: how large.
        more: what else.
    """

    def method(self, a, b):
        """Uses `b`."""

class Callback(TrainerCallback):
    """Takes what the Trainer gives."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Begin."""
'''


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("samples") / "samples.py"
    path.write_text(SAMPLES, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("hf_nlpnotes.samples", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and inspect look for it
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[spec.name]
    return module


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("whole", []),
        ("silent", ["silent: a, b"]),
        ("nothing", ["nothing: no docstring"]),
        ("thrower", ["thrower: raises TypeError"]),
        ("borrowed", []),
        ("Fields", ["Fields: b", "Fields: raises ValueError"]),
        ("Pair", ["Pair: a"]),
        ("Base", ["Base: more", "Base.method: b", "Base.bare: no docstring"]),
        ("Child", ["Child.method: a"]),
        ("Callback", []),
    ],
)
def test_the_audit(samples: ModuleType, name: str, expected: list[str]) -> None:
    assert list(gaps(getattr(samples, name))) == expected
