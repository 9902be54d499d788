"""A run of several stages: its options, its folder of caches and checkpoints, and a stage of the stock Trainer."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from hf_nlpnotes.pretraining.trainer import PretrainingTrainer
from hf_nlpnotes.recipes.fine_tuning import ProgressRows
from hf_nlpnotes.training import last_whole_checkpoint, whole_folder

from .options import ModelOptions, PretrainingArguments, TextOptions, check_options, stated_options
from .text import PretrainingData

logger = logging.getLogger(__name__)

_HISTORY = "log_history.json"


class PretrainingRun:
    """What the steps of a pretraining share.

    Args:
        text: what to train on.
        model: what to train.
        arguments: of the stock Trainer; `output_dir` is the folder of the finished model.
        callbacks: of every stage, in place of the stock ones that print; None: the stock ones.

    Attributes:
        work: folder of caches and checkpoints (`ModelOptions.work_dir`; default: `output_dir` with ``.work`` behind).
        stated: the options that the weights depend on.
        logs: `state.log_history` of each stage that is over, by its name.

    Raises:
        ValueError, OSError, ImportError: as of `check_options`; nothing has been read or written then.
    """

    def __init__(
        self,
        text: TextOptions,
        model: ModelOptions,
        arguments: PretrainingArguments,
        *,
        callbacks: Sequence[TrainerCallback] | None = None,
    ) -> None:
        check_options(text, model, arguments)
        self.text, self.model, self.arguments, self.callbacks = text, model, arguments, callbacks
        self.work = Path(model.work_dir or f"{str(arguments.output_dir).rstrip('/')}.work")
        self.stated = stated_options(text, model, arguments)
        self.logs: dict[str, list[dict[str, Any]]] = {}


def train_stage(
    run: PretrainingRun,
    data: PretrainingData,
    name: str,
    model: Any,
    collate: Any,
    *,
    trained: Any = None,
    muon: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    **changes: Any,
) -> None:
    """Train; go on where the stage was, or load its result where it is done.

    Args:
        run: whose work folder has a folder of the stage, with checkpoints and at last ``done``.
        data: to train and to measure on.
        name: of the stage.
        model: all of it is saved at the end, and measured.
        collate: makes batches of the rows.
        trained: module to train, whose output has a `loss`; None: the model itself.
        muon: whether to train with Muon.
        callbacks: of this stage, besides those of the run.
        changes: training arguments of this stage.
    """
    arguments = copy.copy(run.arguments)
    arguments.output_dir = str(run.work / name.replace(" ", "-"))
    for key, value in changes.items():
        setattr(arguments, key, value)
    done = Path(arguments.output_dir) / "done"
    if done.exists():
        model.load_state_dict(type(model).from_pretrained(done).state_dict())
        run.logs[name] = json.loads((done / _HISTORY).read_text(encoding="utf-8"))
        return
    trainer = PretrainingTrainer(
        model if trained is None else trained,
        arguments,
        collate,
        data.rows,
        measure=lambda: data.accuracy(model),
        muon=muon,
        callbacks=list(callbacks),
    )
    if run.callbacks is not None:
        for stock in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(stock)
        for own in run.callbacks:  # not before: one may be a kind of what is removed
            trainer.add_callback(own)
    last = last_whole_checkpoint(arguments.output_dir, world_size=arguments.world_size)
    if last:
        logger.info("%s goes on from %s", name, last)
    trainer.train(resume_from_checkpoint=last)
    trainer.evaluate()
    run.logs[name] = trainer.state.log_history
    if trainer.is_world_process_zero():
        with whole_folder(done) as made:
            model.save_pretrained(made)
            (made / _HISTORY).write_text(json.dumps(run.logs[name]), encoding="utf-8")
    trainer.accelerator.wait_for_everyone()


class PretrainingRows(ProgressRows):
    """A bar in a terminal and a row an evaluation, on standard error: for `PretrainingRun(…, callbacks=[…])`."""

    def __init__(self) -> None:
        super().__init__("single")
        self._last: tuple[int, int] | None = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Once a step: a stage is evaluated at its end, whatever was evaluated before."""
        place = (state.max_steps, state.global_step)
        if place != self._last:
            super().on_evaluate(args, state, control, **kwargs)
        self._last = place

    def row(self, state: Any, loss: str, metrics: dict[str, float]) -> str:
        """Step, training loss, and accuracy on the held-out lines; `state`, `loss` and `metrics` are the Trainer's."""
        held_out = f"single {metrics['eval_single']:.1f} %  whole words {metrics['eval_whole_words']:.1f} %"
        return f"step {state.global_step} of {state.max_steps}  {loss}held out: {held_out}"
