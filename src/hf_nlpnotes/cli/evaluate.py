"""`hf-nlpnotes eval`: a model by prompts on a benchmark."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ._arguments import natural, positive, positive_number
from ._models import device_of, loading_options, make_pipeline
from ._options import add_json, add_model, add_output, add_quiet, new_command
from ._output import output_path, print_table, say, write_json

_LEARNING_RATE = 2e-4

_EVAL_EPILOG = """\
DIR has one folder a task, with train_0.json … train_4.json, train_few_all.json and test_public.json, one JSON object a
line, as https://github.com/CLUEbenchmark/FewCLUE has them under datasets. Zero-shot classifies the test texts by the
task's prompt. Few-shot trains the model in that prompt anew for each split and seed; the table gives mean and standard
deviation over them. The measure is the accuracy, in percent; "majority" is the best constant answer.

Other prompts: --prompts FILE, a JSON file with a template, a verbalizer or both for some tasks,
  {"eprstmt": {"template": "{text}这是{label}评。", "verbalizer": {"Negative": "差", "Positive": "好"}}}

examples:
  hf-nlpnotes eval fewclue --data FewCLUE/datasets --shots zero
  hf-nlpnotes eval fewclue --data FewCLUE/datasets --tasks eprstmt -o eprstmt.json
  hf-nlpnotes eval fewclue --data FewCLUE/datasets --model hfl/chinese-roberta-wwm-ext --learning-rate 2e-5
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    evaluate = new_command(
        commands,
        "eval",
        run,
        summary="measure a model by prompts on a benchmark, without training and on a few examples",
        description="Measure a masked language model by prompts, without training and trained on a few examples.",
        epilog=_EVAL_EPILOG,
    )
    evaluate.add_argument("benchmark", choices=["fewclue"], help="the benchmark")
    evaluate.add_argument("--data", required=True, metavar="DIR", help="folder with one folder a task")
    add_model(evaluate, "a masked language model", embedded=True)
    evaluate.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks (default: all that DIR has)")
    evaluate.add_argument(
        "--shots", nargs="+", choices=["zero", "few"], default=["zero", "few"], help="what to measure (default: both)"
    )
    evaluate.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="training splits, 0 to 4 or few_all (default: 0 to 4, if there)"
    )
    evaluate.add_argument(
        "--seeds", nargs="+", type=natural, default=[0], metavar="SEED", help="of the training (default: 0)"
    )
    evaluate.add_argument("--limit", type=positive, metavar="N", help="test on a fixed random sample of N texts")
    evaluate.add_argument("--prompts", metavar="FILE", help="JSON file with prompts that replace the tasks' own")
    evaluate.add_argument(
        "--calibration",
        default="contextual",
        choices=["none", "contextual", "domain", "batch"],
        help="of zero-shot: see classify (default: contextual)",
    )
    evaluate.add_argument("--epochs", type=positive, default=20, metavar="N", help="of few-shot (default: 20)")
    evaluate.add_argument(
        "--learning-rate",
        type=positive_number,
        default=_LEARNING_RATE,
        metavar="X",
        help=f"of few-shot (default: {_LEARNING_RATE:g}, for small models; base models want 1e-5 to 5e-5)",
    )
    evaluate.add_argument(
        "--train-batch-size", type=positive, metavar="N", help="of few-shot (default: 8 of < 100 texts, 32 of more)"
    )
    evaluate.add_argument("--batch-size", type=positive, default=32, metavar="N", help="of testing (default: 32)")
    evaluate.add_argument("--max-length", type=positive, metavar="N", help="cut texts so that a prompt has N tokens")
    evaluate.add_argument("--device", help="cpu, cuda:0, … (default: the first accelerator); few-shot: cpu or default")
    add_output(evaluate, "a JSON report with everything that was measured")
    add_json(evaluate, "print the report instead of the table")
    add_quiet(evaluate)


def run(args: argparse.Namespace) -> None:
    """Measure a model."""
    from tqdm import tqdm

    from hf_nlpnotes import fewclue
    from hf_nlpnotes.fewclue.results import HEADER, TaskResult, table

    # Whatever may be wrong with options and files is told before anything is computed.
    path = output_path(args.output)
    zero, few = "zero" in args.shots, "few" in args.shots
    prompts = fewclue.read_prompts(args.prompts) if args.prompts else {}
    names = fewclue.find_tasks(args.data, args.tasks)
    splits = args.splits if few else ()
    loaded = [fewclue.load_task(args.data, name, splits, **prompts.get(name, {})) for name in names]
    for task in loaded:
        if few and not task.splits:
            raise ValueError(f"{task.name} has no training split: add train_0.json, or leave it out with --shots zero")

    pipe = make_pipeline("zero-shot-prompt", args, device=device_of(args))
    from hf_nlpnotes.fewclue import runs

    model = pipe.model.name_or_path
    options = runs.FewShotOptions(
        epochs=args.epochs,
        learning_rate=args.learning_rate,
        batch_size=args.train_batch_size,
        max_length=args.max_length,
        use_cpu=pipe.device.type == "cpu",
    )
    seeds = list(dict.fromkeys(args.seeds))
    tasks = [runs.limited(task, args.limit) for task in loaded]
    for task in tasks:
        runs.spelled_words(task, pipe.tokenizer)
    results: list[TaskResult] = []
    total = sum(runs.texts_to_read(task, zero, len(seeds), options.epochs) for task in tasks)
    with tqdm(total=total, unit="text", disable=args.quiet, file=sys.stderr) as bar:
        running = {"batch_size": args.batch_size, "advance": bar.update}
        for task in tasks:
            bar.set_description(task.name)
            score = None
            if zero:
                score = runs.zero_shot(pipe, task, calibration=args.calibration, max_length=args.max_length, **running)
            trained = [
                runs.few_shot(model, task, split, seed, options, **running, **loading_options(args))
                for split in task.splits
                for seed in seeds
            ]
            results.append(runs.result_of(task, score, trained))
    report = _evaluation_report(args, model, tasks, results)
    if args.json:
        say(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print_table(HEADER, table(results))
    if path is not None:
        write_json(path, report)


def _evaluation_report(args: argparse.Namespace, model: str, tasks: Any, results: Any) -> dict[str, Any]:
    """All that was measured, and what is needed to measure it again."""
    import torch
    import transformers

    from hf_nlpnotes import __version__
    from hf_nlpnotes.fewclue import means

    names = "revision shots seeds limit calibration epochs learning_rate train_batch_size max_length"
    return {
        "benchmark": args.benchmark,
        "model": model,
        "versions": {"hf_nlpnotes": __version__, "transformers": transformers.__version__, "torch": torch.__version__},
        "options": {name: getattr(args, name) for name in names.split()},
        "tasks": {
            result.task: {"template": task.template, "verbalizer": dict(task.words), **result.to_dict()}
            for task, result in zip(tasks, results, strict=True)
        },
        "mean": means(results),
    }
