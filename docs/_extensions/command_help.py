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
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*command, "--help"])
    finally:
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
    return printed.getvalue()


def commands() -> list[str]:
    """Return the commands that the help of the program lists."""
    listed = help_of([]).partition("\ncommands:\n")[2].partition("\n\n")[0]
    return re.findall(r"^ {2,4}([a-z][\w-]*)(?:\s|$)", listed, re.MULTILINE)


class CommandHelp(SphinxDirective):
    """Show the help of the program, and of each command in a section of its own."""

    def run(self) -> list[nodes.Node]:
        """Return the blocks and sections."""
        names = commands()
        if not names:
            raise self.error("hf-nlpnotes --help lists no commands")
        return [_block([]), *(self._section(name) for name in names)]

    def _section(self, name: str) -> nodes.section:
        section = nodes.section("", nodes.title(name, name), _block([name]), ids=[nodes.make_id(name)], names=[name])
        self.state.document.note_implicit_target(section, section)
        return section


def _block(command: list[str]) -> nodes.literal_block:
    text = help_of(command)
    return nodes.literal_block(text, text, language="text")


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
