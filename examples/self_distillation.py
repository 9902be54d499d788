"""Fine-tune plainly, with self-ensemble, with self-distillation and with both, on the same texts and seeds.

    python examples/self_distillation.py
    python examples/self_distillation.py --data DIR/classification/chnsenticorp --limit 500

The first learns from a few texts of its own. `--data` is a folder with `train.tsv`, `dev.tsv`, `test.tsv` (or json,
csv) or a name on the hub. Printed are accuracies on the test texts, mean ± deviation over the seeds, and the time of
a training. The first prints:

    plain              0.722 ± 0.096       3 s a run
    self-ensemble      0.722 ± 0.096       2 s a run
    self-distillation  0.667 ± 0.000       4 s a run
    both               0.667 ± 0.000       4 s a run

On two processes: `torchrun --nproc_per_node 2 examples/self_distillation.py` (ACCELERATE_USE_CPU=true without a GPU).
`--output_dir FOLDER` keeps the last model, for `AutoModelForSequenceClassification.from_pretrained(FOLDER)`.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    HfArgumentParser,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.corpora import read_texts
from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.loss_scaling import correct_loss_scaling
from hf_nlpnotes.training.self_distillation import SelfDistillation
from hf_nlpnotes.training.self_ensemble import SelfEnsemble

REVIEWS = {
    "差评": ["质量太差，用了两天就坏", "客服态度恶劣，再也不买", "房间又脏又吵，一夜没睡", "和图片完全不一样，失望"],
    "好评": ["质量很好，用着顺手", "客服耐心，下次还来", "房间干净安静，睡得香", "比图片还好看，惊喜"],
}
NEW_REVIEWS = {
    "差评": ["做工粗糙，不值这个价", "等了半个月才到，还少了一件", "菜是凉的，难吃"],
    "好评": ["做工精细，物超所值", "第二天就到，包装完好", "菜很新鲜，好吃"],
}


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    limit: int | None = None
    test_texts: int = 1000
    seeds: int = 3
    epochs: float = 6
    batch_size: int = 16
    learning_rate: float = 5e-4
    start: float = 0.5
    weight: float = 1.0
    window: int = 1
    max_length: int = 128
    output_dir: str | None = None


def built_in() -> DatasetDict:
    """The reviews above."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(REVIEWS))})
    parts = {
        split: [{"text": text, "label": label} for label, texts in enumerate(part.values()) for text in texts]
        for split, part in (("train", REVIEWS), ("test", NEW_REVIEWS))
    }
    return DatasetDict({split: Dataset.from_list(rows, features=features) for split, rows in parts.items()})


def accuracy(predictions) -> dict[str, float]:
    """Share of texts with the right label."""
    return {"accuracy": float((predictions.predictions.argmax(-1) == predictions.label_ids).mean())}


def main() -> None:
    """Train in every way with every seed."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    texts = read_texts(options.data, options.limit) if options.data else built_in()
    labels = texts["train"].features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    rows = texts.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=options.max_length), batched=True
    )
    ways = {
        "plain": list,
        "self-ensemble": lambda: [SelfEnsemble(start=options.start)],
        "self-distillation": lambda: [SelfDistillation(options.weight, options.window)],
        "both": lambda: [SelfDistillation(options.weight, options.window), SelfEnsemble(start=options.start)],
    }
    for way, callbacks in ways.items():
        scores, begin = [], time.time()
        for seed in range(options.seeds):
            set_seed(seed)
            model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(labels))
            correct_loss_scaling(model)  # for other models than ours
            with tempfile.TemporaryDirectory() as folder:
                arguments = TrainingArguments(
                    folder,
                    num_train_epochs=options.epochs,
                    per_device_train_batch_size=options.batch_size,
                    per_device_eval_batch_size=64,
                    learning_rate=options.learning_rate,
                    warmup_steps=0.1,
                    seed=seed,
                    save_strategy="no",
                    report_to="none",
                    disable_tqdm=True,
                    log_level="error",
                    log_level_replica="error",
                )
                trainer = Trainer(
                    model,
                    arguments,
                    train_dataset=rows["train"],
                    eval_dataset=rows["test"].select(range(min(options.test_texts, len(rows["test"])))),
                    processing_class=tokenizer,
                    compute_metrics=accuracy,
                    callbacks=callbacks(),
                )
                trainer.remove_callback(PrinterCallback)
                trainer.train()
                scores.append(trainer.evaluate()["eval_accuracy"])
        if trainer.is_world_process_zero():
            deviation = statistics.stdev(scores) if len(scores) > 1 else 0.0
            seconds = (time.time() - begin) / options.seeds
            print(f"{way:<18} {statistics.mean(scores):.3f} ± {deviation:.3f}  {seconds:6.0f} s a run", flush=True)
    if options.output_dir:
        trainer.save_model(options.output_dir)


if __name__ == "__main__":
    main()
    leave_process_group()
