"""The directive `command-help`: what `hf-nlpnotes` and its commands print when they are asked for help."""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hf_nlpnotes.cli import main


def help_of(command: list[str]) -> str:
    """Return the help of a command; that of the program itself for an empty list."""
    printed = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "84"  # as wide as a block of the page
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*command, "--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return printed.getvalue()


def commands(command: list[str]) -> list[list[str]]:
    """Return the commands that the help of a command lists, and below each what it lists itself."""
    listed = re.search(r"^(?:commands|tasks):\n(.*?)(?:\n\n|\Z)", help_of(command), re.MULTILINE | re.DOTALL)
    names = re.findall(r"^ {2,4}([a-z][\w-]*)(?:\s|$)", listed[1], re.MULTILINE) if listed else []
    return [entry for name in names for entry in ([*command, name], *commands([*command, name]))]


class CommandHelp(SphinxDirective):
    """Show the help of the program, and of each command in a section of its own."""

    def run(self) -> list[nodes.Node]:
        """Return the blocks and sections."""
        found = commands([])
        if not found:
            raise self.error("hf-nlpnotes --help lists no commands")
        return [_block([]), *map(self._section, found)]

    def _section(self, command: list[str]) -> nodes.section:
        name = " ".join(command)
        section = nodes.section("", nodes.title(name, name), _block(command), ids=[nodes.make_id(name)], names=[name])
        self.state.document.note_implicit_target(section, section)
        return section


def _block(command: list[str]) -> nodes.literal_block:
    text = help_of(command)
    return nodes.literal_block(text, text, language="text")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
