"""Against the outputs of the reference programs for span extraction and sequence tagging.

The folder is `$HF_NLPNOTES_GOLDEN/span`; every case comes from what its manifest lists. How an entry of a kind is
checked stands in the `span_*.py` files beside this one: each has a table `CHECKS`, kind -> function(entry, folder).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Entry = dict[str, Any]
Check = Callable[[Entry, Path], None]


def tables() -> dict[str, Check]:
    """Collect the tables of all `span_*.py` files."""
    table: dict[str, Check] = {}
    for path in sorted(Path(__file__).parent.glob("span_*.py")):
        spec = importlib.util.spec_from_file_location(f"golden_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        twice = table.keys() & module.CHECKS.keys()
        assert not twice, f"{path.name} checks kinds that another file checks: {sorted(twice)}"
        table.update(module.CHECKS)
    return table


CHECKS = tables()


@pytest.fixture(scope="module")
def folder(golden_folder):
    if not (golden_folder / "span").is_dir():
        pytest.skip(f"no folder span in {golden_folder}")
    return golden_folder / "span"


@pytest.fixture(scope="module")
def entries(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["entries"]


@pytest.mark.parametrize("kind", sorted(CHECKS))
def test_every_entry_of_a_kind(kind, entries, folder, subtests):
    cases = [(number, entry) for number, entry in enumerate(entries) if entry["kind"] == kind]
    if not cases:
        pytest.skip(f"the manifest lists no entry of the kind {kind}")
    for number, entry in cases:
        with subtests.test(f"entry {number}"):
            CHECKS[kind](entry, folder)
