"""Fine-tune on an intermediate task, then on the target task with the encoder of the first, beside plain fine-tuning.

    python examples/two_stage.py
    cd DATA/classification
    python …/examples/two_stage.py --intermediate chnsenticorp --data fewclue/eprstmt

The first learns from a few sentences of its own. The second goes from 1,000 of ChnSentiCorp's reviews (hotels, books,
computers) to the 32 of EPRSTMT (a shop), whose 610 test texts it is measured on; `--data` and `--intermediate` are
folders of `train.tsv`, `test.json`, … or names on the hub. The first prints

    plain fine-tuning   0.575 ± 0.043
    two stages          0.792 ± 0.072
    81 tensors carried
    newly initialised: classifier.weight, classifier.bias
    dropped: classifier.weight, classifier.bias

Accuracy on the target's test texts, mean ± deviation over the seeds. `--output_dir FOLDER` keeps the last model and
names its first stage in the card. With two processes:
`ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/two_stage.py` (without ACCELERATE_USE_CPU on GPUs).
"""

import statistics
import tempfile
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from datasets import ClassLabel, Dataset, DatasetDict, disable_progress_bars
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.corpora import read_texts
from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.two_stage import carry_encoder, record_lineage

GOOD, BAD = ["很好", "很满意", "值得推荐", "非常舒服", "好极了"], ["太差", "很失望", "不推荐", "一塌糊涂", "糟透了"]
HOTEL = ["房间", "服务", "早餐", "床", "位置", "前台", "大堂", "浴室"]
SHOP = ["手机", "电池", "屏幕", "快递", "衣服", "鞋子", "客服", "包装"]


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    intermediate: str | None = None
    data: str | None = None
    intermediate_limit: int = 1000
    limit: int | None = None
    intermediate_epochs: float = 4
    epochs: float = 20
    learning_rate: float = 5e-4
    batch_size: int = 16
    max_length: int = 128
    seeds: int = 3
    output_dir: str | None = None


def built_in(things: list[str], train: int) -> DatasetDict:
    """Sentences on these things, as many of them for training."""
    rows = [
        {"text": f"{thing}{words}", "label": label}
        for thing, label in product(things, (0, 1))
        for words in (BAD, GOOD)[label]
    ]
    data = Dataset.from_list(rows).cast_column("label", ClassLabel(names=["差评", "好评"])).shuffle(seed=0)
    return DatasetDict(train=data.select(range(train)), test=data.select(range(len(rows) - 40, len(rows))))


def fit(model: Any, data: DatasetDict, tokenizer: Any, options: Options, epochs: float, seed: int) -> float:
    """Train in place; the accuracy on the test texts."""
    tokens = data.map(
        lambda row: tokenizer(row["text"], truncation=True, max_length=options.max_length), remove_columns="text"
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            learning_rate=options.learning_rate,
            warmup_steps=0.1,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        arguments.per_device_train_batch_size = max(1, options.batch_size // arguments.world_size)
        trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), tokens["train"])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        prediction = trainer.predict(tokens["test"])
    return float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())


def main() -> None:
    """Train both ways with every seed, and print a row for each."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    first_process = TrainingArguments(output_dir=tempfile.gettempdir(), report_to="none").process_index == 0
    tokenizer = AutoTokenizer.from_pretrained(options.model)

    accuracies: dict[str, list[float]] = {"plain fine-tuning": [], "two stages": []}
    for seed in range(options.seeds):
        if options.intermediate and options.data:
            stages = [
                read_texts(options.intermediate, options.intermediate_limit, seed),
                read_texts(options.data, options.limit, seed),
            ]
        else:
            stages = [built_in(HOTEL, 40), built_in(SHOP, 8)]
        names = [dict(enumerate(stage["train"].features["label"].names)) for stage in stages]

        set_seed(seed)
        plain, _ = carry_encoder(options.model, AutoModelForSequenceClassification, id2label=names[1])
        accuracies["plain fine-tuning"].append(fit(plain, stages[1], tokenizer, options, options.epochs, seed))

        set_seed(seed)
        model, _ = carry_encoder(options.model, AutoModelForSequenceClassification, id2label=names[0])
        fit(model, stages[0], tokenizer, options, options.intermediate_epochs, seed)
        model, report = carry_encoder(model, AutoModelForSequenceClassification, id2label=names[1])
        accuracies["two stages"].append(fit(model, stages[1], tokenizer, options, options.epochs, seed))

    if first_process:
        for way, found in accuracies.items():
            deviation = statistics.stdev(found) if len(found) > 1 else 0.0
            print(f"{way:<18}  {statistics.fmean(found):.3f} ± {deviation:.3f}")
        print(report)
        if options.output_dir:
            model.save_pretrained(options.output_dir)
            tokenizer.save_pretrained(options.output_dir)
            print(f"card: {record_lineage(options.output_dir)}")


if __name__ == "__main__":
    main()
    leave_process_group()
