"""The stock `Trainer` for pretraining: our optimizer, and held-out accuracy as its evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]  # accelerate is not typed
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .muon import muon_adamw


class PretrainingTrainer(Trainer):
    """The stock `Trainer`, whose evaluation is a function of the caller's.

    Args:
        measure: gives the figures of the model as it is now, by name (`held_out.masked_accuracy`); called on the first
            process alone, which tells the others. They are logged as ``eval_<name>``.
        muon: train with `muon_adamw`; else with what ``optim`` says.
        arguments: all others are those of `Trainer`; there is no `eval_dataset`.
    """

    def __init__(
        self, *arguments: Any, measure: Callable[[], dict[str, float]], muon: bool = True, **options: Any
    ) -> None:
        # The Trainer evaluates nothing without a data set; ours is in `measure`.
        options["eval_dataset"] = [None]
        super().__init__(*arguments, **options)
        self.measure, self.muon = measure, muon

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Muon and Adam, or the stock optimizer."""
        if self.optimizer is None and self.muon:
            assert isinstance(self.model, nn.Module)
            self.optimizer = muon_adamw(self.model, self.args.learning_rate)
        return super().create_optimizer(model)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure, log, and tell the callbacks."""
        metrics: dict[str, float] = {}
        if self.is_world_process_zero():
            metrics = {f"eval_{name}": value for name, value in self.measure().items()}
        # All processes choose the best checkpoint and stop early by the same figures.
        (metrics,) = broadcast_object_list([metrics])
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class AllTokensAtTheEnd(TrainerCallback):
    """Compare with random tokens at first, and with the whole vocabulary for the last part of the steps.

    Args:
        model: of `sampled_masked_lm`.
        negatives: random tokens; None: the whole vocabulary always.
        share: of the steps that are sampled.
    """

    def __init__(self, model: Any, negatives: int | None, share: float = 0.75) -> None:
        self.model, self.negatives, self.share = model, negatives, share

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A function of the step alone, so that a resumed training does the same."""
        self.model.negatives = self.negatives if state.global_step < self.share * state.max_steps else None
