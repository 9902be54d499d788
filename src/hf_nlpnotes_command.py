"""Where the command `hf-nlpnotes` begins: help and completion without the seconds that torch and transformers take.

`import hf_nlpnotes` registers its models, for which it imports transformers. Python runs a package before any module
in it, the command line's too. So this module, which stands outside, puts the package in place without running it:
that happens at the first name that is asked of it, such as `hf_nlpnotes.register`. The modules of `hf_nlpnotes.cli`
import the standard library alone, and the rest where a command runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec, module_from_spec
from typing import Any

__all__ = ["main"]

_PACKAGE = "hf_nlpnotes"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code, as `hf_nlpnotes.cli.main`, which starts more slowly."""
    if _PACKAGE not in sys.modules:
        _put_in_place()
    from hf_nlpnotes.cli import main as run

    return run(argv)


def _put_in_place() -> None:
    """Make the package importable from, unrun."""
    spec = find_spec(_PACKAGE)
    assert spec is not None
    assert spec.loader is not None
    package, loader = module_from_spec(spec), spec.loader

    def run_and_get(name: str) -> Any:
        del package.__dict__["__getattr__"]
        loader.exec_module(package)  # defines a __getattr__ of its own
        return getattr(package, name)

    package.__dict__["__getattr__"] = run_and_get
    sys.modules[_PACKAGE] = package


if __name__ == "__main__":
    sys.exit(main())
