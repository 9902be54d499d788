"""Texts with labels, for the stock Trainer: a sequence classifier, its features, accuracy and macro F1."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import DatasetDict
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

from .fine_tuning import Recipe


def classification(model: str, data: DatasetDict, *, max_length: int | None = None, **loading: Any) -> Recipe:
    """Prepare a model to learn labels.

    Args:
        model: folder or hub name of an encoder; a head of other labels begins anew.
        data: as `hf_nlpnotes.corpora.read_texts` gives it: `train`, and `test` or else `validation` to evaluate on.
        max_length: tokens of a text, the rest of which is cut off; None: as many as the model takes.
        loading: for `from_pretrained`.
    """
    names = data["train"].features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(model, **loading)
    classifier = AutoModelForSequenceClassification.from_pretrained(
        model,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        ignore_mismatched_sizes=True,
        dtype="float32",
        **loading,
    )

    def encoded(split: str) -> Any:
        return data[split].map(
            lambda batch: tokenizer(batch["text"], truncation=True, max_length=max_length),
            batched=True,
            remove_columns="text",
        )

    held_out = "test" if "test" in data else "validation"
    return Recipe(
        model=classifier,
        tokenizer=tokenizer,
        train=encoded("train"),
        held_out=encoded(held_out),
        collate=DataCollatorWithPadding(tokenizer),
        metrics=classification_metrics,
        main_metric="accuracy",
        sizes={"train": len(data["train"]), "held_out": len(data[held_out])},
    )


def classification_metrics(prediction: Any) -> dict[str, float]:
    """Accuracy and macro F1, for a Trainer's `compute_metrics`.

    Args:
        prediction: an `EvalPrediction` with logits `(texts, labels)` and label ids `(texts,)`.

    Returns:
        `accuracy`; `macro_f1`, the mean over the labels that are predicted or right somewhere; each from 0 to 1.
    """
    found: NDArray[Any] = np.asarray(prediction.predictions).argmax(-1)
    gold: NDArray[Any] = np.asarray(prediction.label_ids)
    scores = []
    for label in np.union1d(found, gold):
        correct = int(((found == label) & (gold == label)).sum())
        scores.append(2 * correct / int((found == label).sum() + (gold == label).sum()))
    return {"accuracy": float((found == gold).mean()), "macro_f1": float(np.mean(scores))}
