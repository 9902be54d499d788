"""`hf-nlpnotes convert-chinesebert`: an official checkpoint as a folder that the Auto classes load."""

from __future__ import annotations

import argparse
from typing import Any

from ._options import new_command
from ._output import say

_EPILOG = """\
The folder is written whole or not at all.

examples:
  hf-nlpnotes convert-chinesebert ShannonAI/ChineseBERT-base chinesebert-base
  hf-nlpnotes convert-chinesebert --overwrite downloads/ChineseBERT-large chinesebert-large
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    convert = new_command(
        commands,
        "convert-chinesebert",
        run,
        summary="write an official ChineseBERT checkpoint as a folder that AutoModel loads",
        description="Write an official ChineseBERT checkpoint as a folder that the Auto classes load.",
        epilog=_EPILOG,
    )
    convert.add_argument("src", metavar="SRC", help="official folder, or its name on the hub")
    convert.add_argument("dst", metavar="DST", help="folder to write")
    convert.add_argument("--overwrite", action="store_true", help="replace DST where it holds a model")


def run(args: argparse.Namespace) -> None:
    """Convert a checkpoint."""
    import hf_nlpnotes
    from hf_nlpnotes.models.chinesebert.convert_chinesebert import convert_official

    hf_nlpnotes.register()  # the command starts without it
    folder = convert_official(args.src, args.dst, overwrite=args.overwrite)
    say(f"Wrote {folder}. Load it with AutoModel.from_pretrained({str(folder)!r}) after `import hf_nlpnotes`.")
