"""`hf-nlpnotes attention`: a model's attention on a text, as a page for the browser."""

from __future__ import annotations

import argparse
from typing import Any

from ._models import load
from ._options import add_model, add_output, add_quiet, new_command
from ._output import note, output_path

_EPILOG = """\
The page is one file that loads nothing else: it needs no network, and can be sent as it is. It shows lines between the
tokens of one head, its weights as a matrix, all heads at a glance, and queries and keys neuron by neuron.

An encoder-decoder shows its encoder; with --decoder-text its decoder and what that looks at too.

examples:
  hf-nlpnotes attention '国足今晚出战' -o page.html
  hf-nlpnotes attention '国足今晚出战' '对手是韩国队' --layer 4 --head 3 -o page.html
  hf-nlpnotes attention '中国人民银行宣布下调存款准备金率' --words --view model --model MODEL
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    attention = new_command(
        commands,
        "attention",
        run,
        summary="show a model's attention on a text as a page for the browser",
        description="Show a model's attention on a text, or on two, as one HTML page.",
        epilog=_EPILOG,
    )
    attention.add_argument("text", metavar="TEXT", help="the text")
    attention.add_argument("text_pair", metavar="TEXT2", nargs="?", help="a second text, for models that take pairs")
    add_model(attention, "any model with attention", embedded=True)
    add_output(attention, "the page; default: attention.html", default="attention.html")
    attention.add_argument("--layer", type=int, default=0, metavar="N", help="layer to show first (default: 0)")
    attention.add_argument("--head", type=int, default=0, metavar="N", help="head to show first (default: 0)")
    attention.add_argument(
        "--view", choices=["head", "matrix", "model", "neuron"], default="head", help="what to show first"
    )
    attention.add_argument("--words", action="store_true", help="words in place of tokens; Chinese needs jieba")
    attention.add_argument("--decoder-text", metavar="TEXT", help="what an encoder-decoder's decoder reads")
    attention.add_argument("--truncate", action="store_true", help="cut a text that is too long for the model")
    attention.add_argument("--title", help="heading of the page (default: the model's name and the text)")
    attention.add_argument(
        "--theme", choices=["auto", "light", "dark"], default="auto", help="colours (default: the reader's)"
    )
    add_quiet(attention)


def run(args: argparse.Namespace) -> None:
    """Write a page."""
    target = output_path(args.output)
    assert target is not None  # it has a default
    if args.words and args.view == "neuron":
        raise ValueError("--words and --view neuron: words have no queries and keys; choose one of the two")
    words = _words() if args.words else None

    from hf_nlpnotes.attention import capture_attention, head_view

    model, tokenizer = load("AutoModel", args)
    maps = capture_attention(
        model,
        tokenizer,
        args.text,
        args.text_pair,
        decoder_text=args.decoder_text,
        truncation=args.truncate,
        words=words,
    )
    page = head_view(maps, args.layer, args.head, view=args.view, words=args.words, title=args.title, theme=args.theme)
    page.save(target)
    note(f"wrote {target}, {len(page.html.encode()) / 1e6:.2f} MB: {maps!r}", quiet=args.quiet)


def _words() -> Any:
    try:
        import jieba
    except ImportError:
        raise ValueError("--words needs jieba: pip install 'hf-nlpnotes[pretrain]'") from None
    jieba.setLogLevel("WARNING")
    return jieba.lcut
