"""`hf-nlpnotes tag`: words, parts of speech, entities, roles, slots or keywords of the lines of a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ._inputs import name_of, text_lines
from ._models import device_of, load_trained
from ._options import add_encoding, add_json, add_model, add_output, add_quiet, add_running, new_command
from ._output import note, output_path, results_to
from ._tagged_output import FORMATS, printer

VIEWS = ("words", "tagged_words", "entities", "arguments", "slots", "keywords")

_EPILOG = """\
What is made of the tags, --view (default: what the model's labels are of):
  words         all words of the text              tagged_words  the same with their parts of speech
  entities      names with their types             slots         what an utterance asks for, and its intent
  arguments     who did what to whom               keywords      ranked
  Arguments are those of a predicate: name its words with --predicate, or give JSON lines with
  {"text": …, "predicates": [[start, end], …]}.

How it is written, --format:
  segmented     words with spaces between them, with /TAG in the view tagged_words; the default of these two views
  table         a row a span: line of the file, type, score, characters of the line; the default of the other views
  conll         a line a character (a word in the view tagged_words) and its tag, a blank line after a text
  json          one object a line, with everything; also --json

MODEL is one that was trained to tag, as `hf-nlpnotes train tag` does it.

examples:
  hf-nlpnotes tag --model MODEL news.txt
  echo '国足今晚在北京出战' | hf-nlpnotes tag --model MODEL --json -
  hf-nlpnotes tag --model SEGMENTER --words 大学生,中国银行 novel.txt -o novel.segmented.txt
  hf-nlpnotes tag --model ROLES --predicate 参观 news.txt
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    tag = new_command(
        commands,
        "tag",
        run,
        summary="segment and tag the lines of a file: words, entities, roles, slots, keywords",
        description="Tag every line of a text file, blank lines excepted.",
        epilog=_EPILOG,
    )
    tag.add_argument("file", metavar="FILE", help="text file, one text a line, or JSON lines; '-' for standard input")
    add_model(tag, "a model for sequence tagging", embedded=False)
    tag.add_argument("--view", choices=VIEWS, help="what is made of the tags (default: what the labels are of)")
    tag.add_argument("--format", choices=FORMATS, help="how it is written (default: segmented for words, else table)")
    tag.add_argument("--scheme", metavar="NAME", help="of --format conll: IOB2, BIOES, BMES, … (default: the model's)")
    tag.add_argument(
        "--words", type=_separated, metavar="W,W,…", help="words that are spans wherever they stand; W=TYPE with types"
    )
    tag.add_argument("--predicate", type=_separated, metavar="W,W,…", help="predicates whose arguments are looked for")
    add_running(tag, batch_size=16, batch_of="windows", max_length="tokens of a window (default: as the model takes)")
    add_encoding(tag)
    add_output(tag)
    add_json(tag, "print one JSON object a line: --format json")
    add_quiet(tag)


def _separated(text: str) -> list[str]:
    words = [word.strip() for word in text.replace("，", ",").split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError(f"expected words separated by commas, got {text!r}")
    return words


def run(args: argparse.Namespace) -> None:
    """Tag a file."""
    target = output_path(args.output)
    form = _format(args)
    view = args.view or ("arguments" if args.predicate else None)
    if args.predicate and view != "arguments":
        raise ValueError(f"--predicate is for --view arguments, and the view is {view}")
    texts = list(_texts(args))
    if not texts:
        note(f"{name_of(args.file)} has no text", quiet=args.quiet)
    if not texts and target is None:
        return
    view = _view(view, texts)
    pipe = _pipeline(args, view)
    view = view or pipe.view
    write = printer(form, view, pipe, args.scheme)
    from tqdm import tqdm

    with (
        results_to(target),
        tqdm(texts, desc="tag", unit="text", disable=args.quiet, file=sys.stderr) as bar,
    ):
        items = (item for _, item in bar)
        answers = pipe(items, batch_size=args.batch_size)
        write((number, item, answer) for (number, item), answer in zip(texts, answers, strict=True))


def _format(args: argparse.Namespace) -> str | None:
    if args.json and args.format not in (None, "json"):
        raise ValueError(f"--json and --format {args.format}: choose one of the two")
    form: str | None = "json" if args.json else args.format
    if args.scheme and form != "conll":
        raise ValueError("--scheme is for --format conll, whose tags it is of")
    return form


def _view(view: str | None, texts: Sequence[tuple[int, dict[str, Any]]]) -> str | None:
    """The view of texts, those with predicates being asked for arguments; None: what the labels are of.

    Raises:
        ValueError: some of the texts have predicates and others none, or the view does not go with them.
    """
    without = [number for number, item in texts if "predicates" not in item]
    if len(without) == len(texts) and view != "arguments":
        return view
    if without:
        raise ValueError(
            f"--view arguments needs predicates, and line {without[0]} has none: name their words, --predicate"
            ' 参观,购买, or give JSON lines with {"text": …, "predicates": [[start, end], …]}, [] where there are none'
        )
    if view not in (None, "arguments"):
        raise ValueError(f'"predicates" are for --view arguments, and the view is {view}')
    return "arguments"


def _texts(args: argparse.Namespace) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines with their numbers, as inputs of the pipeline."""
    for number, line in text_lines(args.file, args.encoding):
        item: dict[str, Any] = {"text": line}
        place = f"{name_of(args.file)}, line {number}"
        if line.lstrip().startswith("{"):
            item = _object(line, place)
        if args.predicate:
            if "predicates" in item:
                raise ValueError(f"{place} has predicates of its own: leave out --predicate")
            item["predicates"] = _places(item["text"], args.predicate)
        yield number, item


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except ValueError:
        return {"text": line}  # a text may begin with a brace
    if not isinstance(item.get("text"), str) or not item["text"].strip():
        raise ValueError(f'{place}: expected {{"text": …}}, with "predicates" or without, got {line[:80]}')
    return {name: item[name] for name in ("text", "predicates") if name in item}


def _places(text: str, words: list[str]) -> list[tuple[int, int]]:
    """Every place of the words in a text."""
    return sorted(
        {(start, start + len(word)) for word in words for start in range(len(text)) if text.startswith(word, start)}
    )


def _pipeline(args: argparse.Namespace, view: str | None) -> Any:
    device = device_of(args)
    model, tokenizer = load_trained(
        "TokenClassification", args, work="tag", teacher="train tag --data DATA --output FOLDER"
    )
    import transformers

    from hf_nlpnotes.tagging import UserDictionary

    make: Any = transformers.pipeline
    words = None
    if args.words:
        typed = [word.partition("=") for word in args.words]
        words = UserDictionary(
            {word: type_ for word, _, type_ in typed} if any(t for _, _, t in typed) else args.words
        )
    return make(
        "sequence-tagging",
        model=model,
        tokenizer=tokenizer,
        device=device,
        view=view,
        max_length=args.max_length,
        force_words=words,
    )
