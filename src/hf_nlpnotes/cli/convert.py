"""`hf-nlpnotes convert-chinesebert`: an official checkpoint as a folder that the Auto classes load."""

from __future__ import annotations

import argparse
from typing import Any

from ._output import say


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    convert = commands.add_parser(
        "convert-chinesebert",
        help="write an official ChineseBERT checkpoint as a folder that AutoModel loads",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("src", metavar="SRC", help="official folder, or its name on the hub")
    convert.add_argument("dst", metavar="DST", help="folder to write")
    convert.add_argument("--overwrite", action="store_true", help="replace DST where it holds a model")
    convert.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Convert a checkpoint."""
    from hf_nlpnotes.models.chinesebert.convert_chinesebert import convert_official

    folder = convert_official(args.src, args.dst, overwrite=args.overwrite)
    say(f"Wrote {folder}. Load it with AutoModel.from_pretrained({str(folder)!r}) after `import hf_nlpnotes`.")
