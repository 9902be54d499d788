"""Options that commands share, so that the same thing has the same name, short form and help everywhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ._arguments import positive


def new_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], *, summary: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    """A command with its help: what it does, details, and examples."""
    # No abbreviations: an option that is added later would change what they mean.
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_model(parser: argparse.ArgumentParser, kind: str, *, embedded: bool) -> None:
    """`--model` and what belongs to loading one.

    Args:
        parser: of the command.
        kind: what the model must be, for the help.
        embedded: whether the embedded model is the default; without a default the option must be given.
    """
    default = " (default: the embedded one)" if embedded else ""
    parser.add_argument("--model", required=not embedded, help=f"folder or hub name of {kind}{default}")
    parser.add_argument("--revision", help="of a model on the hub: a branch, a tag or a commit")
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that the model's folder brings; refused else"
    )


def add_running(parser: argparse.ArgumentParser, *, batch_size: int, batch_of: str, max_length: str | None) -> None:
    """`--device`, `--batch-size`, and `--max-length` where `max_length` says what it does."""
    parser.add_argument("--device", help="where to run: cpu, cuda:0, … (default: the first accelerator)")
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=batch_size,
        metavar="N",
        help=f"{batch_of} at once (default: {batch_size})",
    )
    if max_length is not None:
        parser.add_argument("--max-length", type=positive, metavar="N", help=max_length)


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """`--encoding` of the input."""
    parser.add_argument("--encoding", default="utf-8", help="of the file: utf-8, gb18030, … (default: utf-8)")


def add_output(
    parser: argparse.ArgumentParser, what: str = "the results; default: standard output", default: str | None = None
) -> None:
    """`-o`, `--output`."""
    parser.add_argument("-o", "--output", default=default, metavar="FILE", help=f"file to write, whole or not: {what}")


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help=what)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """`-q`, `--quiet`; `--no-progress` is another name of it."""
    parser.add_argument(
        "-q", "--quiet", "--no-progress", action="store_true", help="no progress bar and no notes on standard error"
    )
