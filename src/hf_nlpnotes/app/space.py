"""A folder that the hub runs as a Space: `app.py`, `requirements.txt`, and a `README.md` that says what it is."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # PyYAML has no type information

import hf_nlpnotes

from .models import AppOptions

_PROGRAM = '''\
"""The app of hf_nlpnotes, as a Space of the Hugging Face Hub."""

from functools import partial

from hf_nlpnotes.app import AppOptions, serve

if __name__ == "__main__":
    serve(AppOptions({options}), on_ready=partial(print, flush=True))
'''

_REQUIREMENTS = """\
# A build of torch without CUDA, which is smaller; leave the line out on a GPU.
--extra-index-url https://download.pytorch.org/whl/cpu
{requirement}
"""

_README = """\
---
{header}---

# hf_nlpnotes

Classify Chinese text by your own labels, fill masks with their pinyin, segment and tag, answer questions, and look at
attention.

It runs {models}. On your own machine: `pip install 'hf-nlpnotes[app]'`, then `hf-nlpnotes app`.
"""


def export_space(folder: str | Path, options: AppOptions | None = None, requirement: str | None = None) -> Path:
    """Write a Space that shows the app, whole or not at all, and return its folder.

    Args:
        folder: Where to: a folder that does not exist, or an empty one.
        options: Which models it has, by their names on the hub; None for the embedded one alone.
        requirement: How pip finds the package, such as `hf-nlpnotes[app] @ git+https://…`; None for this version of it
            from the package index.

    Raises:
        ValueError: The folder has files, a model is a folder of this machine, or gradio is not installed.
    """
    options = options or AppOptions()
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{str(target)!r} is there already and is not an empty folder: name another one")
    named = {kind: name for kind in ("model", "tagger", "reader") if (name := getattr(options, kind)) is not None}
    for kind, name in named.items():
        if Path(name).exists():
            raise ValueError(
                f"the {kind} {name!r} is a folder of this machine, which a Space cannot read: push it to the hub and"
                " give its name there"
            )
    if options.choose_models:
        raise ValueError("a Space does not let its readers name models: leave choose_models out")
    header = {
        "title": "hf_nlpnotes",
        "emoji": "🀄",
        "colorFrom": "red",
        "colorTo": "yellow",
        "sdk": "gradio",
        "sdk_version": _gradio_version(),
        "python_version": f"{sys.version_info.major}.{sys.version_info.minor}",
        "app_file": "app.py",
        "pinned": False,
        "license": "apache-2.0",
        "short_description": "ChineseBERT: classify, fill, tag, answer, look",
        "tags": ["hf_nlpnotes", "chinese", "chinesebert", "pinyin", "transformers"],
        **({"models": list(dict.fromkeys(named.values()))} if named else {}),
    }
    arguments = ", ".join(f"{kind}={name!r}" for kind, name in named.items())
    models = " and ".join(f"`{name}`" for name in named.values()) or "on the small model that comes with the package"
    files = {
        "app.py": _PROGRAM.format(options=arguments),
        "requirements.txt": _REQUIREMENTS.format(
            requirement=requirement or f"hf-nlpnotes[app]=={hf_nlpnotes.__version__}"
        ),
        "README.md": _README.format(
            header=yaml.safe_dump(header, allow_unicode=True, sort_keys=False),
            models=f"on {models}" if named else models,
        ),
    }
    parent = target.absolute().parent
    if not parent.is_dir():
        raise ValueError(f"there is no folder {str(parent)!r}: make it first")
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=parent))
    try:
        for name, content in files.items():
            (part / name).write_text(content, encoding="utf-8")
        part.chmod(0o755)  # mkdtemp's are for their owner alone
        os.replace(part, target)  # also over an empty folder
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def _gradio_version() -> str:
    try:
        return metadata.version("gradio")
    except metadata.PackageNotFoundError:
        raise ValueError("the Space names its version of gradio: pip install 'hf-nlpnotes[app]'") from None
