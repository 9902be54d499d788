"""`hf-nlpnotes train pretrain`: on with a model on plain text, or a new one from scratch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._arguments import positive, positive_number, share
from ._models import find_model
from ._options import add_encoding
from ._output import note, print_table, say
from ._training import (
    SHARED_HELP,
    add_training,
    new_task,
    output_folder,
    quiet_data_sets,
    training_arguments,
    versions,
)

_LENGTH = 128
_MEASURED = {"single": "single characters", "whole_words": "whole words", "scattered": "scattered"}

_EPILOG = f"""\
DATA are text files with a sentence or paragraph a line, folders (their *.txt), globs, or data sets of the hub. A part
of the lines is held out, the same every time: of these the model finds hidden characters, before and after.
Words are hidden whole, which needs jieba: pip install "hf-nlpnotes[pretrain]", or --segmenter none.

{SHARED_HELP}
Caches and checkpoints go to --output-dir (default: OUTPUT.work), which may be removed afterwards. Killed, and started
again with the same command, a training goes on from its last checkpoint (every --save-steps, default: 250) and comes
to the same weights. On several processes:
  torchrun --nproc_per_node 2 -m hf_nlpnotes train pretrain …

From scratch the default rate is 6e-4, and a warm start of 2300 steps comes before those of --epochs or --max-steps.
OUTPUT appears whole, at the end, with a card, a learning curve (with matplotlib) and training.json.

examples:
  hf-nlpnotes train pretrain --data texts --output encoder
  hf-nlpnotes train pretrain --data 'texts/*.txt' --exclude test.tsv --model bert-base-chinese --output encoder \\
      --learning-rate 5e-5 --epochs 1
  hf-nlpnotes train pretrain --data texts --from-scratch --max-steps 10000 --output encoder
  hf-nlpnotes train classify --data reviews.tsv --model encoder --output classifier
"""


def add_task(tasks: Any) -> None:
    """Add the task to those of `train`."""
    task = new_task(
        tasks,
        "pretrain",
        run,
        summary="learn from plain text: on with a model, or from scratch",
        description=(
            "Train a model to find hidden words in plain text: on with one on the text of your domain, before"
            " `hf-nlpnotes train classify` and the others; or from scratch."
        ),
        epilog=_EPILOG,
        defaults="FurtherPretrainingArguments",
        several=True,
    )
    task.add_argument("--text-column", default="text", metavar="NAME", help="of data sets (default: text)")
    add_encoding(task)
    task.add_argument(
        "--exclude", nargs="+", default=[], metavar="FILE", help="files of test data, of which no line shall be learnt"
    )
    task.add_argument(
        "--held-out-percent", type=positive_number, default=5.0, metavar="X", help="of the lines (default: 5)"
    )
    start = task.add_mutually_exclusive_group()
    start.add_argument("--model", help="folder or hub name of a ChineseBERT or BERT (default: the embedded one)")
    start.add_argument("--from-scratch", action="store_true", help="begin a new ChineseBERT")
    task.add_argument("--revision", help="of a model on the hub: a branch, a tag or a commit")
    task.add_argument(
        "--max-length", type=positive, metavar="N", help=f"tokens a row (default: {_LENGTH}, or all the model takes)"
    )
    task.add_argument(
        "--segmenter", choices=["jieba", "none"], default="jieba", help="of words to hide whole (default: jieba)"
    )
    task.add_argument(
        "--mlm-probability", type=share, default=0.15, metavar="P", help="share of the tokens to hide (default: 0.15)"
    )
    add_training(task, examples="lines", learning_rate="1e-4", epochs=3, batch_size=32)
    task.add_argument("--optim", metavar="NAME", help="in place of Muon: adamw_torch, …; FSDP wants another")
    anew = task.add_argument_group("with --from-scratch")
    anew.add_argument("--vocab-size", type=positive, metavar="N", help="tokens at most (default: 8000)")
    anew.add_argument("--layers", type=positive, metavar="N", help="default: 4")
    anew.add_argument("--hidden-size", type=positive, metavar="N", help="default: 256")
    anew.add_argument(
        "--fonts", nargs=3, metavar="FONT", help="FILE or FILE#FACE, to draw the glyphs (default: blank)"
    )
    anew.add_argument("--no-warm-start", action="store_false", default=None, dest="warm_start", help="begin at random")


def run(args: argparse.Namespace) -> None:
    """Read the text, train, measure, publish."""
    output = output_folder(args)
    anew = _scratch_options(args)
    name = find_model(args.model)  # as `--model` of all commands, with the same errors
    if args.from_scratch:
        args.defaults = "PretrainingArguments"
    arguments = training_arguments(args, ["--optim", args.optim] if args.optim else [])
    from hf_nlpnotes.recipes import REPORT
    from hf_nlpnotes.recipes.pretraining import (
        ModelOptions,
        PretrainingRows,
        PretrainingRun,
        TextOptions,
        model_to_go_on_from,
        new_model,
        prepare_text,
        publish,
        train_masked_lm,
    )

    model = ModelOptions(
        None if args.from_scratch else args.model or Path(name).name,
        work_dir=arguments.output_dir,
        mlm_probability=args.mlm_probability,
        muon=args.optim is None,
        revision=args.revision,
        **anew,
    )
    text = TextOptions(
        args.data,
        text_column=args.text_column,
        encoding=args.encoding,
        exclude=args.exclude,
        held_out_percent=args.held_out_percent,
        length=args.max_length or (_LENGTH if args.from_scratch else _row_length(model.start_config())),
        segmenter=args.segmenter,
        limit=args.limit,
    )
    arguments.output_dir = str(output)
    quiet_data_sets()
    is_first = arguments.process_index == 0
    quiet = args.quiet or not is_first
    try:
        pretraining = PretrainingRun(text, model, arguments, callbacks=[] if args.quiet else [PretrainingRows()])
    except ImportError as error:  # of an extra, which it names
        raise ValueError(str(error)) from error
    data = prepare_text(pretraining)
    sizes = {"train": len(data.rows), "held_out": len(data.held_out.input_ids)}
    if data.overlap is not None:
        note(f"{data.overlap.dropped_lines} of {data.overlap.lines} lines are left out: see --exclude", quiet=quiet)
    note(f"{sizes['train']} rows to learn from, {sizes['held_out']} lines held out", quiet=quiet)
    network = new_model(pretraining, data) if args.from_scratch else model_to_go_on_from(pretraining)
    before = None if args.from_scratch or not is_first else data.accuracy(network)
    train_masked_lm(pretraining, data, network)
    about = {"task": args.task, "model": model.model_name_or_path, "versions": versions()}
    about |= {"options": pretraining.stated, "examples": sizes}
    publish(pretraining, data, network, before=before, about=about)
    if not is_first:
        return
    report = json.loads((output / REPORT).read_text(encoding="utf-8"))
    if args.json:
        told = {name: report[name] for name in ("task", "examples", "before", "metrics")}
        say(json.dumps({**told, "output": str(output)}))
    else:
        _print_accuracy(report["before"], report["metrics"])
    note(f"wrote {output}; `hf-nlpnotes train TASK --model {output}` begins with it", quiet=quiet)
    note(f"{pretraining.work} has its caches and checkpoints, and may be removed", quiet=quiet)


def _scratch_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was said about a new model; about one that is there nothing can be."""
    names = ("vocab_size", "layers", "hidden_size", "fonts", "warm_start")
    said = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if said and not args.from_scratch:
        option = f"--{next(iter(said)).replace('_', '-')}".replace("--warm", "--no-warm")
        raise ValueError(f"{option} is for --from-scratch: a model to go on from keeps its own")
    if args.from_scratch and args.revision:
        raise ValueError("--revision is of a --model, and --from-scratch has none")
    return said


def _row_length(config: Any) -> int:
    """The usual length of a row, or what the model takes where that is less."""
    return min(_LENGTH, getattr(config, "max_position_embeddings", None) or _LENGTH)


def _print_accuracy(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> None:
    """A table of what the model finds of what is hidden."""

    def percent(value: float | None) -> str:
        return "" if value is None else f"{value:.1f} %"

    columns = [("before", before), ("after", after)] if before else [("found", after)]
    rows = [
        [title, *(percent(found[name]) for _, found in columns), str(after[f"{name}_tokens"])]
        for name, title in _MEASURED.items()
    ]
    print_table(["hidden", *(title for title, _ in columns), "tokens"], rows)
