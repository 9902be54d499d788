"""A training step with self-distillation (T = 1) against a plain one, both by the stock Trainer with AdamW.

The model is a BERT of 12 layers and hidden size 256 with a classifier, the batch 16 texts of 64 tokens. Before
anything is timed, the training with λ = 0 must end with the weights of the plain one, bit for bit, and the loss with
λ = 1 must exceed that on the labels by the mean squared distance of the student's logits from those of a copy of the
model with the weights of the step before.

    python benchmarks/self_distillation.py
"""

from __future__ import annotations

import copy
import sys
import tempfile
from typing import Any

import torch
from _harness import Ratio, interleave, median_ratio, parser, report
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hf_nlpnotes.training.self_distillation import SelfDistillation

LAYERS, HIDDEN, BATCH, LENGTH, STEPS = 12, 256, 16, 64, 4


def build(dropout: float = 0.1) -> BertForSequenceClassification:
    """The model, always with the same weights."""
    torch.manual_seed(0)
    config = BertConfig(
        num_hidden_layers=LAYERS,
        hidden_size=HIDDEN,
        num_attention_heads=HIDDEN // 64,
        intermediate_size=4 * HIDDEN,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=2,
    )
    model = BertForSequenceClassification(config)
    model.accepts_loss_kwargs = False
    return model


def rows() -> list[dict[str, torch.Tensor]]:
    """Texts of random tokens, enough for all steps."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, BertConfig().vocab_size, (BATCH * STEPS, LENGTH), generator=generator)
    return [{"input_ids": row, "labels": torch.tensor(number % 2)} for number, row in enumerate(ids)]


def trainer_of(model: nn.Module, folder: str, callbacks: list[TrainerCallback]) -> Trainer:
    """The stock Trainer, for a few steps."""
    options: dict[str, Any] = {"report_to": "none", "save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    arguments = TrainingArguments(
        folder,
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        logging_steps=1,
        dataloader_pin_memory=False,
        learning_rate=1e-3,
        **options,
    )
    trainer = Trainer(model, arguments, train_dataset=rows(), callbacks=callbacks)
    trainer.remove_callback(PrinterCallback)
    return trainer


class Distances:
    """Notes how far a model without dropout is from that of the step before, on each batch it is trained on."""

    def __init__(self, model: nn.Module) -> None:
        self.last, self.now = copy.deepcopy(model), copy.deepcopy(model)
        self.distances: list[float] = []
        model.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Measure before the step."""
        self.last.load_state_dict(self.now.state_dict())
        self.now.load_state_dict(module.state_dict())
        with torch.no_grad():
            last, now = (model.eval()(kwargs["input_ids"]).logits for model in (self.last, self.now))
        self.distances.append(nn.functional.mse_loss(now, last).item())


def check(folder: str) -> None:
    """Refuse to time unlike work."""
    plain, silent = build(), build()
    trainer_of(plain, folder, []).train()
    trainer_of(silent, folder, [SelfDistillation(weight=0.0)]).train()
    for one, other in zip(plain.parameters(), silent.parameters(), strict=True):
        assert torch.equal(one, other), "λ = 0 is not the plain training"
    model = build(dropout=0.0)
    noted, on_labels = Distances(model), []
    model.register_forward_hook(lambda *call: on_labels.append(call[-1]["loss"].item()))
    trainer = trainer_of(model, folder, [SelfDistillation(weight=1.0)])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    expected = [loss + distance for loss, distance in zip(on_labels, noted.distances, strict=True)]
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=0, atol=1e-5)
    assert noted.distances[0] == 0, "at the first step there is no past"
    assert min(noted.distances[1:]) > 1e-4, "the teacher must differ for the check to tell"


def main() -> int:
    """Time both and report."""
    options = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        check(folder)
        trainers = [trainer_of(build(), folder, callbacks) for callbacks in ([SelfDistillation()], [])]
        times = interleave([trainer.train for trainer in trainers], rounds=max(options.rounds, 5))
    return report(
        [Ratio("self_distillation_step", median_ratio(*times), goal=1.4, at_most=True)],
        as_json=options.json,
        packages=["torch", "transformers"],
    )


if __name__ == "__main__":
    sys.exit(main())
