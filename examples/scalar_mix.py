"""Classify texts by the top layer, by the embeddings, and by a learned mix of all layers; show what the mix reads.

    python examples/scalar_mix.py --seeds 2
    python examples/scalar_mix.py --data DATA/classification/chnsenticorp --limit 500 --plot weights.png

The encoder is frozen: only the head learns, and with "mix" one weight a layer, so that the choice of layers matters.
`--train_encoder true` fine-tunes all of it, where it matters little. `--data` is a folder with `train.tsv`,
`test.json`, … or a name on the hub; without it the script learns from a few sentences of its own, which are too few to
tell selections apart. The first command prints accuracies and the weights of the mix:

    embeddings     0.963 ± 0.000
    top            0.944 ± 0.079
    mix            0.944 ± 0.079

    weights of mix, mean over the seeds
    embeddings     0.102 ████
    layer 1        0.145 ██████
    layer 2        0.249 ██████████
    layer 3        0.241 ██████████
    layer 4        0.263 ███████████

Other selections: `--selections "last:2:concat" "layer:3" "all:max"`. `--plot` keeps a picture of the weights,
`--output_dir` the last model. With two processes:
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/scalar_mix.py` (without ACCELERATE_USE_CPU on GPUs).
"""

import statistics
import tempfile
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from datasets import ClassLabel, Dataset, DatasetDict, disable_progress_bars
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.corpora import read_texts
from hf_nlpnotes.layers.layer_selection import LayerSelection
from hf_nlpnotes.layers.scalar_mix import plot_weights
from hf_nlpnotes.models.layer_selection import LayerSelectionForSequenceClassification
from hf_nlpnotes.training import leave_process_group

GOOD, BAD = ["很好", "很满意", "值得推荐", "非常舒服", "好极了"], ["太差", "很失望", "不推荐", "一塌糊涂", "糟透了"]
THINGS = ["房间", "服务", "早餐", "床", "位置", "前台", "大堂", "浴室"]


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    limit: int | None = None
    test_limit: int | None = None
    selections: list[str] = field(default_factory=lambda: ["embeddings", "top", "mix"])
    train_encoder: bool = False
    epochs: float = 10
    learning_rate: float = 5e-4
    head_learning_rate: float = 5e-3
    mix_learning_rate: float = 5e-2
    batch_size: int = 16
    max_length: int = 128
    seeds: int = 3
    plot: str | None = None
    output_dir: str | None = None


def built_in() -> DatasetDict:
    """Sentences on hotels: two thirds to learn from, one third to test on."""
    rows = [
        {"text": f"{thing}{words}", "label": label}
        for thing, label in product(THINGS, (0, 1))
        for words in (BAD, GOOD)[label]
    ]
    data = Dataset.from_list(rows).cast_column("label", ClassLabel(names=["差评", "好评"]))
    return data.train_test_split(test_size=1 / 3, seed=0)


def fit(selection: str, data: DatasetDict, tokenizer: Any, options: Options, seed: int) -> tuple[Trainer, float]:
    """Train; the trainer and the accuracy on the test texts."""
    set_seed(seed)
    model = LayerSelectionForSequenceClassification.from_encoder(
        options.model,
        selection=selection,
        token_pooling="mean",
        num_labels=data["train"].features["label"].num_classes,
        dtype=torch.float32,
    )
    if not options.train_encoder:
        model.encoder_model.requires_grad_(False)
    # A softmax over a handful of scalars needs large steps to move, and a new head larger ones than the encoder.
    rates = {
        options.mix_learning_rate: [] if model.model.mix is None else list(model.model.mix.parameters()),
        options.head_learning_rate: list(model.classifier.parameters()),
        options.learning_rate: [p for p in model.encoder_model.parameters() if p.requires_grad],
    }
    groups = [{"params": parameters, "lr": rate} for rate, parameters in rates.items() if parameters]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=options.epochs,
            warmup_steps=0.1,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        arguments.per_device_train_batch_size = max(1, options.batch_size // arguments.world_size)
        trainer = Trainer(
            model,
            arguments,
            DataCollatorWithPadding(tokenizer),
            data["train"],
            optimizers=(torch.optim.AdamW(groups, weight_decay=0.0), None),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        predictions = trainer.predict(data["test"]).predictions.argmax(axis=1)
    return trainer, float((predictions == data["test"]["label"]).mean())


def main() -> None:
    """Compare selections; print and draw the weights of the mix."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    data = read_texts(options.data, options.limit) if options.data else built_in()
    if options.test_limit is not None:
        data["test"] = data["test"].select(range(min(options.test_limit, len(data["test"]))))
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tokens = data.map(
        lambda row: tokenizer(row["text"], truncation=True, max_length=options.max_length), remove_columns="text"
    )

    weights: dict[str, list[float]] = {}
    for selection in options.selections:
        accuracies, rows = [], []
        for seed in range(options.seeds):
            trainer, accuracy = fit(selection, tokens, tokenizer, options, seed)
            accuracies.append(accuracy)
            if trainer.model.model.mix is not None:
                rows.append(trainer.model.model.mix.weights())
        deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        if rows:
            weights[selection] = torch.stack(rows).mean(dim=0).tolist()
        if trainer.is_world_process_zero():
            print(f"{selection:<14} {statistics.fmean(accuracies):.3f} ± {deviation:.3f}", flush=True)

    for selection, row in weights.items() if trainer.is_world_process_zero() else ():
        indices = LayerSelection.parse(selection).indices(trainer.model.config.num_hidden_layers)
        names = [f"layer {index}" if index else "embeddings" for index in indices]
        print(f"\nweights of {selection}, mean over the seeds")
        for name, weight in zip(names, row, strict=True):
            print(f"{name:<14} {weight:.3f} {'█' * round(40 * weight)}")
        if options.plot:
            plot_weights({"": row}, options.plot, names)
    if options.output_dir:
        trainer.save_model(options.output_dir)
        tokenizer.save_pretrained(options.output_dir)


if __name__ == "__main__":
    main()
    leave_process_group()
