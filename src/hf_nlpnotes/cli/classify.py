"""`hf-nlpnotes classify`: the lines of a file, by a prompt or with a model that was trained to classify."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from itertools import tee
from pathlib import Path
from typing import Any

from ._arguments import positive, shares
from ._inputs import name_of, text_lines
from ._models import device_of, head_of, make_pipeline, stored_labels
from ._options import add_encoding, add_json, add_model, add_output, add_quiet, add_running, new_command
from ._output import note, output_path, padded, results_to, say, shortened, text_width

Answer = dict[str, Any]
Classify = Callable[[Iterator[str]], tuple[list[str], Iterator[Answer]]]
"""Texts -> all labels, and an answer a text: `{"sequence", "labels", "scores"}`, best first."""

_CALIBRATIONS = ("contextual", "none", "domain", "batch", "prior")
_OF_PROMPTS = ("labels", "template", "verbalizer", "calibration", "prior")
_OTHER_HEADS = {
    "": "",
    "TokenClassification": "sequence tagging",
    "QuestionAnswering": "question answering",
    "MultipleChoice": "multiple choice",
}

_EPILOG = """\
The text is put into the template with masks in place of {label}; the label whose words the model expects most is the
answer. Words: "ready" (the default) takes words that come with the package for the labels it knows, and the label
itself for others; "names" takes the labels themselves; a JSON file maps labels to words,
  {"体育": ["体育", "足球"], "财经": {"财经": 2, "股市": 1}}
Calibration takes out what the model prefers before reading: "contextual" and "domain" judge each text alone, "batch"
and "prior" compare all texts of the file, and are more accurate when there are many and no label is rare.

A --model with a stored prompt (prompt.json) brings template, labels, words and calibration, where no others are given.
A --model that was trained to classify (`hf-nlpnotes train classify`) has labels of its own, and takes no prompt.

examples:
  hf-nlpnotes classify --labels 体育,财经,科技 titles.txt
  hf-nlpnotes classify --verbalizer words.json --calibration batch --json titles.txt > answers.jsonl
  hf-nlpnotes classify --labels 体育,财经 --encoding gb18030 old.txt
  hf-nlpnotes classify --model FOLDER --output answers.txt reviews.txt
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    classify = new_command(
        commands,
        "classify",
        run,
        summary="classify the lines of a file, by a prompt or with a trained model",
        description="Classify every line of a text file, blank lines excepted.",
        epilog=_EPILOG,
    )
    classify.add_argument("file", metavar="FILE", help="text file, one text a line; '-' for standard input")
    classify.add_argument("--labels", help="labels separated by commas (default: those of the verbalizer, or stored)")
    classify.add_argument("--template", help="prompt with the slots {label} and {text}")
    classify.add_argument("--verbalizer", help="words of the labels: ready, names or a JSON file (see above)")
    classify.add_argument(
        "--calibration", choices=_CALIBRATIONS, help=f"see above (default: {_CALIBRATIONS[0]}, or as stored)"
    )
    classify.add_argument(
        "--prior", type=shares, metavar="SHARES", help="of the labels, for --calibration prior: such as 0.5,0.3,0.2"
    )
    classify.add_argument(
        "--top", type=positive, default=1, metavar="N", help="labels to show for a text (default: 1)"
    )
    add_model(classify, "a masked language model, or of one trained to classify", embedded=True)
    add_running(classify, batch_size=32, batch_of="texts", max_length="cut texts so that a prompt has N tokens")
    add_encoding(classify)
    add_output(classify)
    add_json(classify, "print one JSON object a line, with all labels")
    add_quiet(classify)


def run(args: argparse.Namespace) -> None:
    """Classify a file."""
    target = output_path(args.output)
    trained = args.model is not None and _is_trained(args)
    asked = None if trained else _labels_and_words(args)
    texts = [(number, line.strip()) for number, line in text_lines(args.file, args.encoding)]
    if not texts:
        note(f"{name_of(args.file)} has no text", quiet=args.quiet)
        if target is None:
            return
    from tqdm import tqdm

    classify = _by_labels(args) if asked is None else _by_prompt(args, *asked)
    with (
        results_to(target),
        tqdm(texts, desc="classify", unit="text", disable=args.quiet, file=sys.stderr) as bar,
    ):
        labels, answers = classify(text for _, text in bar)
        width = max(map(text_width, labels))
        for (number, text), answer in zip(texts, answers, strict=True):
            if args.json:
                row = json.dumps({"line": number, **answer}, ensure_ascii=False)
            else:
                best = list(zip(answer["labels"], answer["scores"], strict=True))[: args.top]
                row = "  ".join(f"{padded(label, width)} {score:.2f}" for label, score in best)
                row = shortened(f"{row}  {text}")
            if sys.stdout.isatty():
                bar.write(row, file=sys.stdout)  # around the bar
            else:
                say(row)


def _is_trained(args: argparse.Namespace) -> bool:
    """Whether the model has labels of its own.

    Raises:
        ValueError: it is for something else, or options of prompts are given to a model that needs no prompt.
    """
    head = head_of(args)
    if head in _OTHER_HEADS:
        kind = f"a model for {_OTHER_HEADS[head]}" if head else "an encoder without a head"
        raise ValueError(
            f"the model {args.model!r} is {kind}: name a masked language model, or train one to classify with"
            f" `hf-nlpnotes train classify --model {args.model} --data DATA --output FOLDER`"
        )
    if head != "SequenceClassification":
        return False
    given = [name for name in _OF_PROMPTS if getattr(args, name) is not None]
    if given:
        raise ValueError(
            f"--{given[0]} is for prompts, and the model {args.model!r} has learnt labels of its own: leave it out, or"
            " name a masked language model"
        )
    return True


def _by_labels(args: argparse.Namespace) -> Classify:
    """With the labels that a model has learnt."""
    from hf_nlpnotes.model_inputs import longest_input

    pipe = make_pipeline("text-classification", args, device=device_of(args))
    limits = [limit for limit in (longest_input(pipe.model, pipe.tokenizer), args.max_length) if limit is not None]
    cut = {"truncation": True, "max_length": min(limits)} if limits else {}

    def classify(texts: Iterator[str]) -> tuple[list[str], Iterator[Answer]]:
        read, kept = tee(texts)
        stream = (text for text in read)  # the pipeline streams generators, and no other iterators
        found = pipe(stream, batch_size=args.batch_size, top_k=None, **cut)
        rows = (
            {"sequence": text, **{f"{name}s": [each[name] for each in one] for name in ("label", "score")}}
            for text, one in zip(kept, found, strict=True)
        )
        return list(pipe.model.config.id2label.values()), rows

    return classify


def _by_prompt(args: argparse.Namespace, verbalizer: Any, labels: list[str]) -> Classify:
    """With any labels, by a prompt."""
    pipe = make_pipeline("zero-shot-prompt", args, device=device_of(args))
    options = {
        "candidate_labels": labels,
        "template": args.template,
        "verbalizer": verbalizer,
        "calibration": args.calibration,
        "label_prior": args.prior,
        "max_length": args.max_length,
        "batch_size": args.batch_size,
    }
    return lambda texts: (labels, pipe(texts, **options))


def _labels_and_words(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The verbalizer and the labels that the options ask for, or a prompt that is stored with the model."""
    labels = [label.strip() for label in (args.labels or "").replace("，", ",").split(",") if label.strip()]
    calibration = args.calibration or _CALIBRATIONS[0]
    if args.prior and calibration != "prior":
        raise ValueError(f"--prior is for --calibration prior, and the calibration is {calibration}")
    stored = stored_labels(args) if args.verbalizer is None else ()
    if stored:
        return None, labels or list(stored)
    if args.verbalizer in (None, "ready", "names"):
        if not labels:
            raise ValueError("no labels: give --labels 体育,财经,科技, or --verbalizer FILE with words for each label")
        return ({label: label for label in labels} if args.verbalizer == "names" else "ready"), labels
    path = Path(args.verbalizer)
    try:
        words = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"--verbalizer is ready, names or a JSON file, and there is no file {str(path)!r}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(words, dict):
        raise ValueError(f'{path} must map labels to words, such as {{"体育": ["体育", "足球"]}}, got {words!r}')
    return words, labels or list(words)
