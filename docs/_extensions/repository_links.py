"""Links of the pages to files of the repository that are no pages: on the site their path stands beside the text.

The Markdown is also read where it lies, where such links lead to the files; the site holds no more than the pages.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#\s]+)(?:#[^)\s]*)?\)")


def _name_files(app: Sphinx, docname: str, content: list[str]) -> None:
    folder, pages = Path(app.env.doc2path(docname)).parent, Path(app.srcdir).resolve()

    def replace(match: re.Match[str]) -> str:
        target = (folder / match["target"]).resolve()
        if target.is_relative_to(pages):
            return match.group()
        path = target.relative_to(pages.parent).as_posix()
        return match["text"] if match["text"].strip("`") == path else f"{match['text']} (`{path}`)"

    content[0] = _LINK.sub(replace, content[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Take part when a page is read."""
    app.connect("source-read", _name_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
