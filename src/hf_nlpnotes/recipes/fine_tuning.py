"""The stock Trainer from a recipe to a folder: train, evaluate on what was held out, keep the model whole or not."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from hf_nlpnotes.training import correct_loss_scaling, layer_wise_optimizer, whole_folder

Arguments = TypeVar("Arguments", bound="type[TrainingArguments]")

REPORT = "training.json"
"""File in the folder of the model: what it was measured at, and with which options."""


def with_stock_help(arguments: Arguments) -> Arguments:
    """Give fields that have another default the help of the stock ones, which a dataclass forgets."""
    stock = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    for field in dataclasses.fields(arguments):
        if not field.metadata and field.name in stock:
            field.metadata = stock[field.name].metadata
    return arguments


@with_stock_help
@dataclass
class FineTuningArguments(TrainingArguments):
    """The stock arguments with defaults for small encoders: 4 epochs at 3e-4, an evaluation after each.

    Base and large models want a `learning_rate` of 1e-5 to 5e-5.
    """

    num_train_epochs: float = 4
    per_device_train_batch_size: int = 16
    per_device_eval_batch_size: int = 32
    learning_rate: float = 3e-4
    warmup_steps: float = 0.1
    weight_decay: float = 0.01
    eval_strategy: str = "epoch"
    logging_strategy: str = "epoch"
    save_strategy: str = "no"
    report_to: str = "none"
    ddp_find_unused_parameters: bool | None = False
    dataloader_pin_memory: bool = torch.cuda.is_available()
    use_cpu: bool = not torch.accelerator.is_available()


@dataclass(frozen=True)
class Recipe:
    """What a task gives to the Trainer.

    Attributes:
        model, tokenizer: a model with a head for the task, and its tokenizer.
        train, held_out: `datasets.Dataset` of features with labels.
        collate: makes a batch of them.
        metrics: `compute_metrics`.
        main_metric: the one of its names that matters most.
        best_predictions: `preprocess_logits_for_metrics`.
        label_names: columns of labels that the Trainer does not find by itself; None: it does.
        sizes: how many examples there are, for reports.
    """

    model: Any
    tokenizer: Any
    train: Any
    held_out: Any
    collate: Any
    metrics: Callable[[Any], dict[str, Any]]
    main_metric: str
    sizes: dict[str, int]
    best_predictions: Callable[[Any, Any], Any] | None = None
    label_names: list[str] | None = None


class ProgressRows(ProgressCallback):
    """A bar in a terminal, a row an evaluation, all on standard error: standard output is for results."""

    def __init__(self, main_metric: str) -> None:
        super().__init__()
        self.main_metric = main_metric

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin the bar; a file would fill with its steps."""
        self.current_step = 0
        if state.is_world_process_zero:
            self.training_bar = tqdm(total=state.max_steps, dynamic_ncols=True, disable=not sys.stderr.isatty())

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Nothing: evaluations are short."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Nothing: the losses are told with the evaluation."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After each evaluation: losses and the main metric."""
        super().on_evaluate(args, state, control, **kwargs)
        if state.is_world_process_zero:
            losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
            loss = f"loss {losses[-1]:.3f}  " if losses else ""
            tqdm.write(self.row(state, loss, kwargs["metrics"]), file=sys.stderr)

    def row(self, state: Any, loss: str, metrics: dict[str, float]) -> str:
        """The row of an evaluation, from `state`, the training `loss` as text, and `metrics`."""
        held_out = f"loss {metrics['eval_loss']:.3f}  {self.main_metric} {metrics[f'eval_{self.main_metric}']:.4g}"
        return f"epoch {state.epoch or 0:.3g}  {loss}held out: {held_out}"


def fine_tune(
    recipe: Recipe,
    arguments: TrainingArguments,
    output: str | os.PathLike[str],
    *,
    head_learning_rate: float | None = None,
    progress: bool = True,
    about: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Train, evaluate, save.

    Args:
        recipe: of the task.
        arguments: of the Trainer, all of which hold; checkpoints go to its `output_dir`.
        output: folder of the finished model with its tokenizer, whole or not there; replaced where it exists.
        head_learning_rate: rate of the head, which has not been pretrained; None: `arguments.learning_rate`.
        progress: whether to show a bar and a row an evaluation on standard error.
        about: what else `training.json` in the folder shall tell.

    Returns:
        The metrics on the held-out examples, and `loss`.

    Raises:
        ValueError: as of `layer_wise_optimizer`.
    """
    if recipe.label_names is not None:
        arguments.label_names = recipe.label_names
    if getattr(type(recipe.model), "accepts_loss_kwargs", None) is None:  # else the model says how its loss counts
        correct_loss_scaling(recipe.model)
    optimizer = None
    if head_learning_rate is not None:
        optimizer = layer_wise_optimizer(arguments, layer_decay=1.0, head_learning_rate=head_learning_rate)
    trainer = Trainer(
        recipe.model,
        arguments,
        recipe.collate,
        recipe.train,
        recipe.held_out,
        processing_class=recipe.tokenizer,
        compute_metrics=recipe.metrics,
        preprocess_logits_for_metrics=recipe.best_predictions,
        optimizer_cls_and_kwargs=optimizer,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    if arguments.num_train_epochs > 0 or arguments.max_steps > 0:
        if progress:
            trainer.add_callback(ProgressRows(recipe.main_metric))
        trainer.train(resume_from_checkpoint=arguments.resume_from_checkpoint)
        trainer.remove_callback(ProgressRows)
    found = trainer.evaluate()
    measured = {name.removeprefix("eval_"): value for name, value in found.items() if _is_measure(name)}
    _save(trainer, Path(output), {**(about or {}), "examples": recipe.sizes, "metrics": measured})
    return measured


def _is_measure(name: str) -> bool:
    return name != "epoch" and not name.endswith(("_runtime", "_per_second", "_time"))


def _save(trainer: Trainer, output: Path, report: dict[str, Any]) -> None:
    """Every process helps to save (sharded weights are gathered), the first puts the folder in its place."""
    first = trainer.is_world_process_zero()
    part = output.parent / f".{output.name}.saving"
    if first:
        shutil.rmtree(part, ignore_errors=True)
        output.parent.mkdir(parents=True, exist_ok=True)
    trainer.accelerator.wait_for_everyone()
    try:
        trainer.save_model(str(part))
        if first:
            # A pickle of the arguments, which nobody should load; the report says what matters in plain text.
            (part / "training_args.bin").unlink(missing_ok=True)
            (part / REPORT).write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            with whole_folder(output) as made:
                for child in list(part.iterdir()):
                    os.replace(child, made / child.name)
    finally:
        if first:
            shutil.rmtree(part, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
