"""Classify texts with a frozen encoder: only a head trains, on outputs that are computed once.

    python examples/feature_extraction.py
    python examples/feature_extraction.py --data DIR --limit 500 --max_length 64 --epochs 10
    python examples/feature_extraction.py --data DIR --layers 4 --cache states
    ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 examples/feature_extraction.py --cache states

The first trains on a few sentences that are built in. The third freezes four layers instead of all, and keeps what
they give in the folder `states`, where a second training finds it. Each prints the accuracy on the validation texts of
the trained model and of logistic regression on mean vectors of the encoder (with scikit-learn), and how many rows went
through the frozen layers. The second, with ChnSentiCorp's files in DIR:

    head on a frozen encoder: accuracy 0.635
    600 of 5000 rows went through the frozen layers
    logistic regression: accuracy 0.699
"""

from dataclasses import dataclass

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
)

import hf_nlpnotes
from hf_nlpnotes.corpora import read_texts
from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.feature_vectors import extract_features
from hf_nlpnotes.training.frozen_trunk import FeatureExtraction

GOOD = ["房间干净，服务很好", "非常满意，推荐", "早餐好吃，很喜欢", "老师很好，很开心", "电影很好看", "手机真好用"]
BAD = ["房间不干净，服务很差", "很不满意，差评", "早餐难吃，不喜欢", "老师不好，很难过", "电影很难看", "手机真难用"]


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    limit: int | None = None
    layers: int | None = None  # all
    cache: str = "memory"
    epochs: float = 6
    learning_rate: float = 1e-3
    batch_size: int = 16
    max_length: int = 128
    seed: int = 0
    output_dir: str = "feature-extraction"


def built_in() -> DatasetDict:
    """A few sentences; too few to learn from, enough to see it run."""
    rows = Dataset.from_dict({"text": [*GOOD, *BAD], "label": [1] * len(GOOD) + [0] * len(BAD)})
    rows = rows.cast_column("label", ClassLabel(names=["差", "好"]))
    return DatasetDict(train=rows, validation=rows)


def main() -> None:
    """Train with a frozen encoder, then a classifier on its vectors."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    texts = read_texts(options.data, options.limit, options.seed) if options.data else built_in()
    names = texts["train"].features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=len(names))
    rows = texts.map(
        lambda row: tokenizer(row["text"], truncation=True, max_length=options.max_length), remove_columns="text"
    )

    extraction = FeatureExtraction(options.layers, cache=options.cache)
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=options.output_dir,
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            per_device_train_batch_size=options.batch_size,
            per_device_eval_batch_size=options.batch_size,
            save_strategy="no",
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
            seed=options.seed,
        ),
        # All batches of one length: then the cache serves every epoch and changes no bit of the result.
        DataCollatorWithPadding(tokenizer, padding="max_length", max_length=options.max_length),
        rows["train"],
        rows["validation"],
        compute_metrics=accuracy,
        callbacks=[extraction],
    )
    trainer.train()
    found = trainer.evaluate()["eval_accuracy"]
    if trainer.is_world_process_zero():
        cache = extraction.trunk_cache
        print(f"head on a frozen encoder: accuracy {found:.3f}")
        print(f"{cache.computed} of {cache.rows} rows went through the frozen layers")
        print(f"logistic regression: accuracy {logistic_regression(options, texts):.3f}")


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of right labels."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def logistic_regression(options: Options, texts: DatasetDict) -> float:
    """Accuracy of scikit-learn's classifier on mean vectors of the pretrained encoder; NaN without scikit-learn."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        return float("nan")
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model)
    vectors = {
        split: extract_features(model, tokenizer, list(texts[split]["text"]), max_length=options.max_length)
        for split in ("train", "validation")
    }
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.1))
    classifier.fit(vectors["train"], np.array(texts["train"]["label"]))
    return float(classifier.score(vectors["validation"], np.array(texts["validation"]["label"])))


if __name__ == "__main__":
    main()
    leave_process_group()
