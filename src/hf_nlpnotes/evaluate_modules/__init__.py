"""Modules for Hugging Face's `evaluate`: thin shells around this package's metric functions.

    evaluate.load(module_path("cmrc2018")).compute(predictions=predictions, references=references)

They load without a network. `evaluate.load` wants a script's path and copies the script, hence `module_path`.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["module_path"]


def module_path(name: str) -> str:
    """The path of a module's script, for `evaluate.load`.

    Args:
        name: `cmrc2018`, `drcd`, `span_f1`, `squad_v1`, `squad_v2` or `word_segmentation`.

    Raises:
        ValueError: No module has that name.
    """
    folder = Path(__file__).parent
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    if name not in names:
        raise ValueError(f"no evaluate module is called {name!r}; there are {', '.join(names)}")
    return str(folder / f"{name}.py")
