"""Freezing layers, and caching what they give, against full fine-tuning: 12 layers, the stock Trainer, one thread.

A layer's backward pass costs twice its forward pass, so that a step of full fine-tuning costs 3 n layer-forwards. With
the lowest k layers frozen it costs k + 3 (n - k), and with their outputs cached 3 (n - k): those are the gains that
theory promises; what is reached is divided by them. All epochs are the same examples, shuffled; the cache is filled in
an epoch that is not timed. Losses with the cache must be those without it, to the bit, before anything is timed.

    python benchmarks/frozen_trunk.py
    python benchmarks/frozen_trunk.py --layers 8 11
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from _harness import Ratio, median_ratio, parser, report
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from hf_nlpnotes.training.frozen_trunk import FeatureExtraction

LAYERS, BATCH, LENGTH, STEPS = 12, 8, 128, 3
GOAL = 0.85


class Texts(Dataset):
    """Random token ids, all of one length."""

    def __init__(self) -> None:
        random = torch.Generator().manual_seed(0)
        self.ids = torch.randint(5, 1000, (BATCH * STEPS, LENGTH), generator=random)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index][0] % 2}


@dataclass
class Epochs(TrainerCallback):
    """CPU seconds of each epoch, and the losses."""

    seconds: list[float]
    losses: list[float]

    def on_epoch_begin(self, *_: object, **__: object) -> None:
        """Start the clock."""
        self.start = time.process_time()

    def on_epoch_end(self, *_: object, **__: object) -> None:
        """Stop the clock."""
        self.seconds.append(time.process_time() - self.start)

    def on_log(self, *_: object, logs: dict[str, float] | None = None, **__: object) -> None:
        """Note the loss."""
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


def run(extraction: FeatureExtraction | None, epochs: int, hidden: int) -> Epochs:
    """Train a new model; its first epoch warms up and fills the cache."""
    torch.manual_seed(0)
    sizes = {"hidden_size": hidden, "num_attention_heads": hidden // 64, "intermediate_size": 4 * hidden}
    model = BertForSequenceClassification(BertConfig(vocab_size=1000, num_hidden_layers=LAYERS, **sizes))
    model.accepts_loss_kwargs = False
    noted = Epochs([], [])
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=epochs,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        callbacks = [noted, *([extraction] if extraction else [])]
        trainer = Trainer(model, arguments, train_dataset=Texts(), callbacks=callbacks)
        trainer.remove_callback(next(c for c in trainer.callback_handler.callbacks if "Printer" in type(c).__name__))
        trainer.train()
    return noted


def measure(depths: Sequence[int], rounds: int, hidden: int) -> dict[tuple[int, str], list[float]]:
    """Seconds of the second epoch: a run of each way in every round, in turn."""
    ways = [(0, "full"), *((depth, way) for depth in depths for way in ("frozen", "cached"))]
    times: dict[tuple[int, str], list[float]] = {way: [] for way in ways}
    for number in range(rounds):
        for depth, way in sorted(ways, reverse=bool(number % 2)):
            cache = "memory" if way == "cached" else None
            extraction = None if way == "full" else FeatureExtraction(depth, cache=cache)
            times[depth, way].append(run(extraction, 2, hidden).seconds[1])
    return times


def main() -> int:
    """Compare losses, time, report."""
    options = parser(__doc__)
    options.add_argument("--layers", type=int, nargs="+", default=[6, 11], help="how many of 12 are frozen")
    options.add_argument("--hidden", type=int, default=256, help="hidden size, a multiple of 64 (default: 256)")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    for depth in chosen.layers:
        plain = run(FeatureExtraction(depth), 2, chosen.hidden).losses
        cached = run(FeatureExtraction(depth, cache="memory"), 2, chosen.hidden).losses
        if plain != cached:
            raise SystemExit(f"{depth} layers frozen: losses differ with the cache: {plain} {cached}")
    times = measure(chosen.layers, max(chosen.rounds, 5), chosen.hidden)
    ratios = []
    for depth in sorted(chosen.layers, reverse=True):
        for way, theory in (
            ("cached", LAYERS / (LAYERS - depth)),
            ("frozen", 3 * LAYERS / (depth + 3 * (LAYERS - depth))),
        ):
            gain = median_ratio(times[0, "full"], times[depth, way])
            details = {"gain": gain, "theory": theory, "loss_difference": 0.0}
            if not chosen.json:
                print(f"{way} {depth} of {LAYERS}: {gain:.2f} times as fast, theory {theory:.2f}, losses equal")
            ratios.append(Ratio(f"{way}_{depth}_of_theory", gain / theory, goal=GOAL, at_most=False, details=details))
    return report(ratios, as_json=chosen.json, packages=["torch", "transformers"])


if __name__ == "__main__":
    sys.exit(main())
