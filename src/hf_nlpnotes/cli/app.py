"""`hf-nlpnotes app`: a page in the browser to try all of it."""

from __future__ import annotations

import argparse
import ipaddress
import sys
from typing import Any

from ._arguments import positive
from ._models import device_of, quiet_libraries
from ._options import new_command
from ._output import say

_EPILOG = """\
The page classifies by your own labels, fills masks, tags, answers questions, and shows attention. It needs no network;
a model that is named and not on this machine is fetched from the hub when it is first used. It listens to this machine
alone unless --host or --share says otherwise, and only then may not name models in the page itself.

Tagging and question answering need models that were trained for it: examples/ner.py and
examples/question_answering.py train some in about a minute.

--export writes a folder to push as a Space of the hub, and starts nothing.

examples:
  hf-nlpnotes app
  hf-nlpnotes app --model MODEL --tagger TAGGER --reader READER --port 8000
  hf-nlpnotes app --export space && hf upload NAME/space space . --repo-type space
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    app = new_command(
        commands,
        "app",
        run,
        summary="try all of it on a page in the browser",
        description="Serve a page to try all of it in the browser. Needs gradio: pip install 'hf-nlpnotes[app]'.",
        epilog=_EPILOG,
    )
    app.add_argument("--model", help="folder or hub name of a masked language model (default: the embedded one)")
    app.add_argument("--tagger", metavar="MODEL", help="one that was trained to tag")
    app.add_argument("--reader", metavar="MODEL", help="one that was trained to answer questions")
    app.add_argument("--device", help="where to run: cpu, cuda:0, … (default: the first accelerator)")
    app.add_argument("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine)")
    app.add_argument("--port", type=positive, metavar="N", help="port (default: the first free one from 7860)")
    app.add_argument("--share", action="store_true", help="also get a public address from gradio's servers")
    app.add_argument("--export", metavar="FOLDER", help="write a folder for a Space of the hub, and start nothing")
    app.add_argument(
        "--requirement", metavar="LINE", help="with --export: how pip finds this package (default: this version)"
    )


def run(args: argparse.Namespace) -> None:
    """Serve the page, or write the Space."""
    if args.requirement is not None and args.export is None:
        raise ValueError("--requirement is for --export, which is not given")
    from hf_nlpnotes.app import AppOptions, check_models, export_space, serve

    options = AppOptions(args.model, args.tagger, args.reader, args.device)
    if args.export is not None:
        folder = export_space(args.export, options, args.requirement)
        say(f"Wrote {folder}: hf upload NAME/space {folder} . --repo-type space")
        return
    quiet_libraries()
    options = AppOptions(
        args.model, args.tagger, args.reader, device_of(args), choose_models=not args.share and _is_local(args.host)
    )
    check_models(options)
    serve(
        options,
        host=args.host,
        port=args.port,
        share=args.share,
        on_ready=_tell,
    )


def _tell(address: str) -> None:
    say(f"{address}  (Ctrl-C ends it)")
    sys.stdout.flush()  # a log file has it now, not at the end


def _is_local(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
