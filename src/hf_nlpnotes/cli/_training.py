"""What the tasks of `hf-nlpnotes train` share: their options, the stock arguments, the folder that they write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ._arguments import positive, positive_number
from ._options import add_json, add_quiet, new_command

SHARED_HELP = """\
All options of transformers' TrainingArguments are taken too, under their names there (--save-strategy epoch,
--gradient-accumulation-steps 4, --bf16 true, …): --help-training lists them."""


def new_task(
    tasks: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    *,
    summary: str,
    description: str,
    epilog: str,
    defaults: str,
    several: bool = False,
) -> argparse.ArgumentParser:
    """A task with `--data`, and the folder that it writes.

    Args:
        tasks: subparsers of `train`.
        name: of the task.
        run: what runs it.
        summary, description, epilog: for the help.
        defaults: class of `hf_nlpnotes.recipes`, or of `hf_nlpnotes.recipes.pretraining`, with the stock arguments.
        several: whether `--data` takes several names.
    """

    def run_and_leave(args: argparse.Namespace) -> None:
        from hf_nlpnotes.training import leave_process_group

        run(args)
        leave_process_group()

    task = new_command(tasks, name, run_and_leave, summary=summary, description=description, epilog=epilog)
    task.set_defaults(task=name, defaults=defaults, takes_more=True)
    task.add_argument("--data", required=True, nargs="+" if several else None, help="what to learn from; see below")
    task.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the folder of the model to write")
    task.add_argument("--overwrite", action="store_true", help="replace FOLDER where it holds a model")
    return task


def add_training(
    task: argparse.ArgumentParser, *, examples: str, learning_rate: str, epochs: int, batch_size: int
) -> None:
    """Options of a training, with their defaults as the help tells them; `examples` are what `--limit` counts."""
    task.add_argument("--limit", type=positive, metavar="N", help=f"learn from a fixed random sample of N {examples}")
    task.add_argument("--learning-rate", metavar="X", help=f"default: {learning_rate}")
    task.add_argument("--epochs", type=positive_number, metavar="N", help=f"default: {epochs}")
    task.add_argument("--batch-size", type=positive, metavar="N", help=f"of a process (default: {batch_size})")
    task.add_argument("--device", choices=["cpu"], help="cpu (default: the first accelerator)")
    task.add_argument("--help-training", action=_HelpTraining, nargs=0, help="list the options of TrainingArguments")
    add_json(task, "print the metrics as one JSON object")
    add_quiet(task)


def output_folder(args: argparse.Namespace) -> Path:
    """The folder to write, told to be impossible before hours of work rather than after."""
    path = Path(args.output)
    if path.is_file():
        raise ValueError(f"--output {args.output!r} is a file: name a folder")
    if path.is_dir() and any(path.iterdir()):
        if path.resolve() in (Path.cwd(), *Path.cwd().parents) or not (path / "config.json").is_file():
            raise ValueError(f"--output {args.output!r} holds other files and would be replaced: name a new folder")
        if not args.overwrite:
            raise ValueError(f"--output {args.output!r} holds a model: name a new folder, or give --overwrite")
    return path


class _HelpTraining(argparse.Action):
    """`--help-training`, which takes the seconds that importing transformers takes."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        _stock_parser(parser.prog, namespace.defaults).print_help(sys.stdout)
        parser.exit()


def _stock_parser(prog: str, defaults: str) -> Any:
    """A parser of the options of TrainingArguments."""
    import hf_nlpnotes

    hf_nlpnotes.register()  # the command starts without it
    from transformers import HfArgumentParser

    from hf_nlpnotes import recipes
    from hf_nlpnotes.recipes import pretraining

    kind: Any = getattr(pretraining if hasattr(pretraining, defaults) else recipes, defaults)
    usage = f"{prog} --data DATA --output FOLDER [options below]"
    return HfArgumentParser(kind, prog=prog, usage=usage, allow_abbrev=False)


def training_arguments(args: argparse.Namespace, more: Sequence[str] = ()) -> Any:
    """The Trainer's arguments, from what our own options left over and those that have another name there.

    Args:
        args: the command's options.
        more: further options under their names there.
    """
    parser = _stock_parser(f"hf-nlpnotes train {args.task}", args.defaults)
    own = ["--output_dir", f"{str(args.output).rstrip('/')}.work", *more]
    if args.epochs is not None:
        own += ["--num_train_epochs", str(args.epochs)]
    if args.batch_size is not None:
        own += ["--per_device_train_batch_size", str(args.batch_size)]
    if args.learning_rate is not None:
        own += ["--learning_rate", args.learning_rate]
    if args.device == "cpu":
        own += ["--use_cpu", "true"]
    arguments, unknown = parser.parse_args_into_dataclasses(
        [*own, *args.more], look_for_args_file=False, return_remaining_strings=True
    )
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}; see --help and --help-training")
    return arguments


def quiet_data_sets() -> None:
    """Turn the bars of `datasets` off."""
    from datasets import disable_progress_bars

    disable_progress_bars()


def versions() -> dict[str, str]:
    """What made the model."""
    import torch
    import transformers

    from hf_nlpnotes import __version__

    return {"hf_nlpnotes": __version__, "transformers": transformers.__version__, "torch": torch.__version__}
