"""The command line: `hf-nlpnotes demo`, `classify`, `answer`, `attention`, `eval`, `convert-chinesebert`.

Exit codes: 0 done; 1 an error, told on stderr; 2 wrong usage; 130 interrupted; 141 the reader of the output went away
(`| head`). Text and tables go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from . import answer, attention, classify, convert, demo, evaluate

__all__ = ["main"]

_COMMANDS = (demo, classify, answer, attention, evaluate, convert)
"""Each has `add_parser`, in the order of the help."""

_EPILOG = """\
examples:
  hf-nlpnotes demo
  hf-nlpnotes classify --labels 体育,财经,科技 titles.txt
  cat reviews.txt | hf-nlpnotes classify --labels 好评,差评 --template '{text}总之是{label}。' --json -
  hf-nlpnotes answer --model MODEL --question '谁写了《红楼梦》？' article.txt
  hf-nlpnotes attention MODEL '国足今晚出战' -o page.html
  hf-nlpnotes eval fewclue --data FewCLUE/datasets --tasks eprstmt tnews
  hf-nlpnotes convert-chinesebert ShannonAI/ChineseBERT-base ./chinesebert-base
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show Chinese gets escapes instead of a crash.
            stream.reconfigure(errors="backslashreplace")
    args = _parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter would flush stdout again on its way out, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except (OSError, TypeError, ValueError) as error:
        sys.stderr.write(f"hf-nlpnotes: error: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-nlpnotes",
        description=(
            "Chinese text techniques on transformers: classify text by a prompt, answer questions about a text,"
            " show attention, convert checkpoints."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


class _Version(argparse.Action):
    """`--version`, asked for only when it is wanted: importing the package takes a moment."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from hf_nlpnotes import __version__

        sys.stdout.write(f"hf-nlpnotes {__version__}\n")
        parser.exit()
