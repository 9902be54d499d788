"""`hf-nlpnotes classify`: the lines of a file, by a prompt."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ._arguments import positive, shares
from ._inputs import make_pipeline, name_of, text_lines
from ._output import padded, say, shortened, text_width

_CLASSIFY_EPILOG = """\
The text is put into the template with masks in place of {label}; the label whose words the model expects most is the
answer. Words: "ready" (the default) takes words that come with the package for the labels it knows, and the label
itself for others; "names" takes the labels themselves; a JSON file maps labels to words,
  {"体育": ["体育", "足球"], "财经": {"财经": 2, "股市": 1}}
Calibration takes out what the model prefers before reading: "contextual" and "domain" judge each text alone, "batch"
and "prior" compare all texts of the file, and are more accurate when there are many and no label is rare.

examples:
  hf-nlpnotes classify --labels 体育,财经,科技 titles.txt
  hf-nlpnotes classify --verbalizer words.json --calibration batch --json titles.txt > answers.jsonl
  hf-nlpnotes classify --labels 体育,财经 --encoding gb18030 old.txt
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    classify = commands.add_parser(
        "classify",
        help="classify the lines of a file by a prompt",
        description="Classify every line of a text file, blank lines excepted.",
        epilog=_CLASSIFY_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    classify.add_argument("file", metavar="FILE", help="text file, one text a line; '-' for standard input")
    classify.add_argument("--labels", help="labels separated by commas (default: those of the verbalizer file)")
    classify.add_argument("--template", help="prompt with the slots {label} and {text}")
    classify.add_argument("--verbalizer", default="ready", help="words of the labels: ready, names or a JSON file")
    classify.add_argument(
        "--calibration", default="contextual", choices=["none", "contextual", "domain", "batch", "prior"]
    )
    classify.add_argument(
        "--prior", type=shares, metavar="SHARES", help="of the labels, for --calibration prior: such as 0.5,0.3,0.2"
    )
    classify.add_argument("--model", help="folder or hub name of a masked language model (default: the embedded one)")
    classify.add_argument("--device", help="where to run: cpu, cuda:0, … (default: the first accelerator)")
    classify.add_argument("--batch-size", type=positive, default=32, metavar="N")
    classify.add_argument("--max-length", type=positive, metavar="N", help="cut texts so that a prompt has N tokens")
    classify.add_argument("--top", type=positive, default=1, metavar="N", help="labels to show for a text")
    classify.add_argument("--encoding", default="utf-8", help="of the file (default: utf-8)")
    classify.add_argument("--json", action="store_true", help="print one JSON object a line, with all labels")
    classify.add_argument("--no-progress", action="store_true", help="show no progress bar on stderr")
    classify.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Classify a file."""
    verbalizer, labels = _labels_and_words(args)
    texts = list(text_lines(args.file, args.encoding))
    if not texts:
        sys.stderr.write(f"hf-nlpnotes: {name_of(args.file)} has no text\n")
        return
    from tqdm import tqdm

    pipe = make_pipeline("zero-shot-prompt", args.model, device=args.device)
    options = {
        "candidate_labels": labels,
        "template": args.template,
        "verbalizer": verbalizer,
        "calibration": args.calibration,
        "label_prior": args.prior,
        "max_length": args.max_length,
        "batch_size": args.batch_size,
    }
    with tqdm(texts, desc="classify", unit="text", disable=args.no_progress, file=sys.stderr) as bar:
        answers = pipe((text for _, text in bar), **options)
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


def _labels_and_words(args: argparse.Namespace) -> tuple[Any, list[str]]:
    """The verbalizer and the labels that the options ask for."""
    labels = [label.strip() for label in (args.labels or "").replace("，", ",").split(",") if label.strip()]
    if args.prior and args.calibration != "prior":
        raise ValueError(f"--prior is for --calibration prior, and the calibration is {args.calibration}")
    if args.verbalizer in ("ready", "names"):
        if not labels:
            raise ValueError("no labels: give --labels 体育,财经,科技, or --verbalizer FILE with words for each label")
        return ("ready" if args.verbalizer == "ready" else None), labels
    path = Path(args.verbalizer)
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"--verbalizer is ready, names or a JSON file, and there is no file {str(path)!r}") from None
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(words, dict):
        raise ValueError(f'{path} must map labels to words, such as {{"体育": ["体育", "足球"]}}, got {words!r}')
    return words, labels or list(words)
