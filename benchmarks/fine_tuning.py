"""Ways to fine-tune one model, side by side: the same examples, seeds and steps.

    python benchmarks/fine_tuning.py --data DIR --threads 2 --json FILE --page docs/fine-tuning.md

DIR holds `classification/chnsenticorp`, `classification/fewclue/eprstmt`, `classification/thucnews10`, `ner/weibo` and
`ner/resume`; HF_NLPNOTES_DATA names it too. `--tasks weibo`, `--ways LoRA "fine-tuning"` and `--seeds 1` make it
shorter, `--model` takes another encoder. A row is the score on the test examples, mean ± deviation over the seeds, the
CPU time of a training in seconds and the number of parameters that are ever trained. Nothing is chosen on test
examples: all learning rates stand below, one a way for all tasks. It has no ratio and no goal: it is the table of
docs/fine-tuning.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _fine_tuning_tasks import Task, chnsenticorp, eprstmt, weibo
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.adapters import BottleneckAdapterConfig
from hf_nlpnotes.models.layer_selection import (
    LayerSelectionForSequenceClassification,
    LayerSelectionForTokenClassification,
)
from hf_nlpnotes.training.frozen_trunk import FeatureExtraction
from hf_nlpnotes.training.multi_task import MultiTaskModel
from hf_nlpnotes.training.multi_task_data import MultiTaskDataset
from hf_nlpnotes.training.parameter_groups import layer_wise_optimizer
from hf_nlpnotes.training.self_distillation import SelfDistillation
from hf_nlpnotes.training.self_ensemble import SelfEnsemble
from hf_nlpnotes.training.slanted_triangular import SlantedTriangular
from hf_nlpnotes.training.two_stage import carry_encoder
from hf_nlpnotes.training.unfreezing import ChainThaw, GradualUnfreeze

FEW_RATE = 2e-3  # of modules beside a frozen model
HEAD_RATE = 5e-3  # of a head on a frozen encoder
EVALUATED = 64  # examples at once
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
TASKS = {"chnsenticorp": chnsenticorp, "eprstmt": eprstmt, "weibo": weibo}


@dataclass
class Run:
    """What one training needs; ways change what is theirs.

    Attributes:
        model: the encoder's folder or hub name.
        task: with the examples.
        seed: of heads, order and dropout.
        arguments: changes to the stock `TrainingArguments`.
        callbacks: of the Trainer.
        layer_decay: learning rate of a layer over that of the layer above it.
    """

    model: str
    task: Task
    seed: int
    arguments: dict[str, Any]
    callbacks: list[Any]
    layer_decay: float = 1.0


@dataclass(frozen=True)
class Result:
    """Score in percent, CPU seconds of the training, number of parameters that were trained at some time."""

    score: float
    seconds: float
    trained: int


def fit(model: Any, run: Run, data: Any = None, collate: Any = None) -> tuple[float, int]:
    """Train with the stock Trainer; CPU seconds and the number of trained parameters."""
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "output_dir": folder,
            "learning_rate": run.task.rate,
            "num_train_epochs": run.task.epochs,
            "per_device_train_batch_size": run.task.batch_size,
            "warmup_steps": 0.1,
            "lr_scheduler_type": "linear",
            "seed": run.seed,
            "report_to": "none",
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
            "bf16": True,
            "dataloader_pin_memory": False,
            **run.arguments,
        }
        arguments = TrainingArguments(**options)
        head_rate = None if "learning_rate" in run.arguments else run.task.head_rate
        trainer = Trainer(
            model,
            arguments,
            collate or run.task.collate,
            run.task.train if data is None else data,
            callbacks=run.callbacks,
            optimizer_cls_and_kwargs=layer_wise_optimizer(arguments, run.layer_decay, head_rate),
        )
        trainer.remove_callback(PrinterCallback)
        start = time.process_time()
        trainer.train()
        seconds = time.process_time() - start
    trained = sum(
        value.numel() for name, value in model.named_parameters() if not torch.equal(value.detach(), before[name])
    )
    return seconds, trained


@torch.inference_mode()
def measure(model: Any, task: Task) -> float:
    """The score on the test examples."""
    model.eval()
    predicted, labels = [], []
    order = np.argsort([len(row) for row in task.test["input_ids"]], kind="stable")
    for start in range(0, len(order), EVALUATED):
        batch = task.collate([task.test[int(i)] for i in order[start : start + EVALUATED]])
        labels += list(batch.pop("labels").numpy())
        predicted += list(model(**batch).logits.argmax(-1).numpy())
    if np.ndim(labels[0]):
        return task.score(predicted, labels)
    return task.score(np.array(predicted), np.array(labels))


def stock(run: Run) -> Any:
    """The stock model with a new head."""
    return run.task.auto_class.from_pretrained(run.model, num_labels=len(run.task.labels))


def trained(model: Any, run: Run) -> Result:
    """Train and test."""
    seconds, count = fit(model, run)
    return Result(measure(model, run.task), seconds, count)


# ------------------------------------------------------------------------------------------------------------ the ways


def features(selection: str) -> Callable[[Run], Result]:
    """A head on a frozen encoder in evaluation mode."""

    def way(run: Run) -> Result:
        text = run.task.auto_class is AutoModelForSequenceClassification
        kind: Any = LayerSelectionForSequenceClassification if text else LayerSelectionForTokenClassification
        pooling = {"token_pooling": "mean"} if text else {}
        model = kind.from_encoder(run.model, selection=selection, num_labels=len(run.task.labels), **pooling)
        run.arguments |= {"learning_rate": HEAD_RATE, "num_train_epochs": run.task.frozen_epochs}
        run.callbacks += [FeatureExtraction()]
        return trained(model, run)

    return way


def fine_tuning(run: Run) -> Result:
    """All parameters, one rate."""
    return trained(stock(run), run)


def gradual_unfreezing(run: Run) -> Result:
    """ULMFiT's bundle: top down within the first half, rates that fall with depth, slanted triangular schedule."""
    run.callbacks += [GradualUnfreeze(phase_steps=0.1), SlantedTriangular()]
    run.layer_decay = 0.9
    return trained(stock(run), run)


def chain_thaw(run: Run) -> Result:
    """Head, each layer alone, all: one phase after the other in equal parts."""
    model = stock(run)
    phases = model.config.num_hidden_layers + 3  # head, embeddings, every layer, all
    run.callbacks += [ChainThaw(phase_steps=1 / phases)]
    return trained(model, run)


def two_stage(run: Run) -> Result:
    """The related task first, then a new head on its encoder."""
    related = run.task.related
    assert related is not None
    first = replace(run, task=related, callbacks=[], arguments={})
    intermediate = stock(first)
    before, _ = fit(intermediate, first)
    model, _ = carry_encoder(intermediate, run.task.auto_class, num_labels=len(run.task.labels))
    result = trained(model, run)
    return replace(result, seconds=result.seconds + before)


def multi_task(run: Run) -> Result:
    """Both tasks at once over one encoder, for the epochs of the first over the examples of both."""
    related = run.task.related
    assert related is not None
    tasks = {"target": run.task, "related": related}
    model = MultiTaskModel.from_encoder(
        run.model, {name: (task.auto_class, {"num_labels": len(task.labels)}) for name, task in tasks.items()}
    )
    epochs = run.task.epochs
    run.arguments |= {"train_sampling_strategy": "sequential", "remove_unused_columns": False}
    options = TrainingArguments(
        output_dir="unused", per_device_train_batch_size=run.task.batch_size, num_train_epochs=epochs,
        seed=run.seed, use_cpu=True, report_to="none", **run.arguments,
    )  # fmt: skip
    data = MultiTaskDataset.for_trainer({name: task.train for name, task in tasks.items()}, options)
    collate = model.data_collator(AutoTokenizer.from_pretrained(run.model))
    seconds, count = fit(model, run, data, collate)
    with tempfile.TemporaryDirectory() as folder:
        model.save_task(folder, "target")
        score = measure(run.task.auto_class.from_pretrained(folder), run.task)
    return Result(score, seconds, count)


def adapted(config: Callable[[Any], Any]) -> Callable[[Run], Result]:
    """Modules of PEFT beside the frozen model."""

    def way(run: Run) -> Result:
        text = run.task.auto_class is AutoModelForSequenceClassification
        kind = TaskType.SEQ_CLS if text else TaskType.TOKEN_CLS
        run.arguments |= {"learning_rate": FEW_RATE}
        return trained(get_peft_model(stock(run), config(kind)), run)

    return way


def self_ensemble(run: Run) -> Result:
    """Fine-tuning; in the end the average of the parameters after the last tenth of the steps."""
    steps = -(-len(run.task.train) // run.task.batch_size) * run.task.epochs
    run.callbacks += [SelfEnsemble(window=max(steps // 10, 2), evaluate=False)]
    return trained(stock(run), run)


def self_distillation(run: Run) -> Result:
    """Fine-tuning towards the labels and the logits of the parameters of the last steps."""
    run.callbacks += [SelfDistillation(weight=1.0, window=5)]
    return trained(stock(run), run)


WAYS: dict[str, Callable[[Run], Result]] = {
    "feature extraction, top layer": features("top"),
    "feature extraction, all layers mixed": features("mix"),
    "fine-tuning": fine_tuning,
    "gradual unfreezing (ULMFiT's bundle)": gradual_unfreezing,
    "chain-thaw": chain_thaw,
    "two-stage": two_stage,
    "multi-task": multi_task,
    "LoRA": adapted(lambda kind: LoraConfig(task_type=kind, r=8, lora_alpha=16)),
    "bottleneck adapters (Houlsby)": adapted(
        lambda kind: BottleneckAdapterConfig(task_type=kind, placement="houlsby", bottleneck_size=32)
    ),
    "self-ensemble": self_ensemble,
    "self-distillation": self_distillation,
}


# ---------------------------------------------------------------------------------------------------------- the tables


def row(name: str, results: list[Result]) -> str:
    """A line of a table."""
    scores = [result.score for result in results]
    deviation = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    seconds = statistics.median(result.seconds for result in results)
    return f"| {name} | {statistics.fmean(scores):.1f}{deviation} | {seconds:.0f} | {results[0].trained:,} |"


def tables(found: dict[str, dict[str, list[Result]]], metrics: dict[str, str]) -> str:
    """All tables as Markdown."""
    parts = []
    for title, rows in found.items():
        head = [f"### {title}", "", f"| | {metrics[title]} | CPU s | trained parameters |", "|---|---|---|---|"]
        parts.append("\n".join([*head, *(row(name, results) for name, results in rows.items())]))
    return "\n\n".join(parts)


def write_page(path: Path, text: str) -> None:
    """Put the tables between the marks of a page."""
    page = path.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise SystemExit(f"{path}: expected the lines {BEGIN} and {END}, once each.")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("HF_NLPNOTES_DATA"))
    parser.add_argument("--model", default=hf_nlpnotes.EMBEDDED_MODEL)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if not options.data or not Path(options.data).is_dir():
        print("no data: give --data DIR or set HF_NLPNOTES_DATA", file=sys.stderr)
        raise SystemExit(2)
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from datasets import disable_progress_bars

    disable_progress_bars()
    warnings.simplefilter("ignore")
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    found: dict[str, dict[str, list[Result]]] = {}
    metrics: dict[str, str] = {}
    for read in (TASKS[name] for name in options.tasks):
        tasks = [read(Path(options.data), tokenizer, seed) for seed in range(options.seeds)]
        metrics[tasks[0].title] = tasks[0].metric
        rows = found.setdefault(tasks[0].title, {})
        print(f"\n{tasks[0].title}", flush=True)
        for name in options.ways:
            rows[name] = []
            for seed, task in enumerate(tasks):
                set_seed(seed)
                rows[name].append(WAYS[name](Run(options.model, task, seed, {}, [])))
            print(row(name, rows[name]), flush=True)
    if options.json:
        content = {title: {name: [vars(r) for r in results] for name, results in rows.items()}
                   for title, rows in found.items()}  # fmt: skip
        options.json.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    if options.page:
        write_page(options.page, tables(found, metrics))


if __name__ == "__main__":
    main()
