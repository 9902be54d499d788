"""The command line: `hf-nlpnotes COMMAND …`.

Results go to standard output, or whole or not at all to a file; everything else goes to standard error. Exit codes:
0 done; 1 an error, told on one line; 2 wrong usage; 130 interrupted; 141 the reader of the output left (`| head`).

A command is a module here with `add_parser(commands)`, which adds its options and `set_defaults(run=…)`; it imports
the standard library and its neighbours alone, and everything else where it runs, so that help comes at once. One line
in `COMMANDS` makes it known.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

__all__ = ["main"]

COMMANDS = (
    "demo",
    "classify",
    "tag",
    "answer",
    "attention",
    "app",
    "train",
    "evaluate",
    "convert",
)
"""Modules of this package, in the order of the help."""

_EPILOG = """\
examples:
  hf-nlpnotes demo
  hf-nlpnotes classify --labels 体育,财经,科技 titles.txt
  cat reviews.txt | hf-nlpnotes classify --labels 好评,差评 --template '{text}总之是{label}。' --json -
  hf-nlpnotes answer --model MODEL --question '谁写了《红楼梦》？' article.txt
  hf-nlpnotes tag --model MODEL news.txt
  hf-nlpnotes attention '国足今晚出战' -o page.html
  hf-nlpnotes train classify --data reviews.tsv --output FOLDER
  hf-nlpnotes eval fewclue --data FewCLUE/datasets --tasks eprstmt tnews
  hf-nlpnotes convert-chinesebert ShannonAI/ChineseBERT-base ./chinesebert-base
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        argv: the arguments; None: those of the process.
    """
    _write_utf8()
    parser = _parser()
    args, more = parser.parse_known_args(argv)
    if more and not getattr(args, "takes_more", False):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    args.more = more
    try:
        args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter would flush stdout again on its way out, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not isinstance(error, _expected_errors()):
            raise
        message = " ".join(str(error).split())  # libraries tell on many lines
        sys.stderr.write(f"hf-nlpnotes: error: {message or type(error).__name__}\n")
        return 1
    return 0


def _expected_errors() -> tuple[type[Exception], ...]:
    """What is told on a line, without a traceback."""
    safetensors = sys.modules.get("safetensors")  # where no command has loaded it, it cannot have failed
    # A full disk is an error of its own where tensors are written.
    full_disk = () if safetensors is None else (safetensors.SafetensorError,)
    return (OSError, TypeError, ValueError, *full_disk)


def _write_utf8() -> None:
    """Files and pipes get UTF-8 wherever they are; a terminal that cannot show Chinese gets escapes, and no crash."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            chosen = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=None if chosen else "utf-8", errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hf-nlpnotes",
        description=(
            "Chinese text techniques on transformers: classify, tag, answer questions, show attention; train and"
            " measure models, convert checkpoints."
        ),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=["bash", "zsh", "tcsh"],
        help="print what a shell needs to complete commands and options, and exit",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f".{name}", __name__).add_parser(commands)
    return parser


class _Version(argparse.Action):
    """`--version`, asked for only when it is wanted."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        sys.stdout.write(f"hf-nlpnotes {metadata.version('hf-nlpnotes')}\n")
        parser.exit()


class _Completion(argparse.Action):
    """`--print-completion SHELL`, by shtab, which reads the parser."""

    def __call__(self, parser: argparse.ArgumentParser, _namespace: Any, shell: Any, *_: Any) -> None:
        try:
            import shtab
        except ImportError:
            parser.error("--print-completion needs shtab: pip install 'hf-nlpnotes[completion]'")
        sys.stdout.write(f"{shtab.complete(parser, shell)}\n")
        parser.exit()
