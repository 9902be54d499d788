"""Fine-tune a text classifier: train, evaluate on texts that it has not seen, save, use.

    python examples/text_classification.py
    python examples/text_classification.py --data reviews.tsv
    python examples/text_classification.py --data DIR --limit 2000 --epochs 2 --max_length 64

The first learns from a few reviews of its own. `--data` is a file with a column of texts and one of labels (.tsv,
.csv, .jsonl), a folder with `train.tsv`, `dev.tsv`, `test.tsv` (or csv, json), or a name on the hub. Of a single file
a tenth is kept for testing. The first prints:

    8 texts to learn from, 6 to test on, 2 labels
    accuracy 1.000 (always the most frequent label: 0.500), trained in 0 s
    差评 0.56  做工太差，很失望
    差评 0.54  房间很脏，再也不来
    差评 0.56  服务态度恶劣

The folder that it saves is for `pipeline("text-classification", model="classifier")`. On two processes:
`torchrun --nproc_per_node 2 examples/text_classification.py` (ACCELERATE_USE_CPU=true without a GPU).
"""

from dataclasses import dataclass

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    HfArgumentParser,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    pipeline,
    set_seed,
)
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.corpora import read_texts
from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.loss_scaling import correct_loss_scaling

REVIEWS = {
    "差评": ["质量太差，用了两天就坏", "客服态度恶劣，再也不买", "房间又脏又吵，一夜没睡", "和图片不一样，很失望"],
    "好评": ["质量很好，用着顺手", "客服耐心，下次还来", "房间干净安静，睡得香", "和图片一样好看，很满意"],
}
NEW_REVIEWS = {
    "差评": ["做工太差，很失望", "房间很脏，再也不来", "服务态度恶劣"],
    "好评": ["做工很好，很满意", "房间很干净，下次还来", "服务周到，耐心"],
}


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    limit: int | None = None
    epochs: float = 3
    learning_rate: float = 3e-4  # for the embedded model; 2e-5 or so for a base model
    batch_size: int = 16
    max_length: int = 128
    seed: int = 0
    output_dir: str = "classifier"


def built_in() -> DatasetDict:
    """A few reviews, for a first run without a file."""
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(REVIEWS))})
    return DatasetDict(
        {
            split: Dataset.from_list(
                [{"text": text, "label": label} for label, some in reviews.items() for text in some], features=features
            )
            for split, reviews in {"train": REVIEWS, "test": NEW_REVIEWS}.items()
        }
    )


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of right labels."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def main() -> None:
    """Train, evaluate, save, and classify with what was saved."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    logging.set_verbosity_error()
    texts = read_texts(options.data, options.limit, options.seed, held_out="one") if options.data else built_in()
    names = texts["train"].features["label"].names

    set_seed(options.seed)  # the head is new: its first weights are drawn
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(
        options.model, id2label=dict(enumerate(names)), label2id={name: number for number, name in enumerate(names)}
    )
    correct_loss_scaling(model)  # nothing for this model, needed for most others on several processes
    rows = texts.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=options.max_length),
        batched=True,
        remove_columns="text",
    )

    arguments = TrainingArguments(
        output_dir=options.output_dir,
        num_train_epochs=options.epochs,
        learning_rate=options.learning_rate,
        warmup_steps=0.1,  # a tenth of all steps
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=64,
        save_strategy="no",
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        seed=options.seed,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows["train"],
        eval_dataset=rows["test"],
        processing_class=tokenizer,  # pads each batch, and is saved with the model
        compute_metrics=accuracy,
    )
    trainer.remove_callback(PrinterCallback)
    seconds = trainer.train().metrics["train_runtime"]
    found = trainer.evaluate()["eval_accuracy"]
    trainer.save_model()
    if not trainer.is_world_process_zero():
        return
    majority = np.bincount(texts["test"]["label"]).max() / len(rows["test"])
    print(f"{len(rows['train'])} texts to learn from, {len(rows['test'])} to test on, {len(names)} labels")
    print(f"accuracy {found:.3f} (always the most frequent label: {majority:.3f}), trained in {seconds:.0f} s")

    classify = pipeline("text-classification", model=options.output_dir)
    examples = list(texts["test"]["text"])[:3]
    for text, answer in zip(examples, classify(examples, truncation=True), strict=True):
        print(f"{answer['label']} {answer['score']:.2f}  {text[:40]}")


if __name__ == "__main__":
    main()
    leave_process_group()
