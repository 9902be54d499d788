"""The tasks of `fine_tuning.py`: texts or tagged sentences to learn from, a related task beside them, and a score."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
from _stock_tags import read_tags

from hf_nlpnotes.corpora import read_texts

IGNORED = -100


@dataclass(frozen=True)
class Task:
    """One task with one seed's training examples.

    Attributes:
        title: of its table.
        metric: what `score` measures, in percent.
        auto_class: the stock class of its models.
        labels: names of the labels, or of the tags.
        train, test: tokenized examples.
        collate: the stock collator.
        score: (predictions, references) → percent; numbers of labels, `IGNORED` where there is none.
        related: the task that two-stage and multi-task fine-tuning learn from as well; None for a related task.
        batch_size, epochs: of every way that trains the encoder; without it the epochs are `frozen_epochs`.
        rate, head_rate: learning rates of the whole model and of its head, in the ways that train both.
    """

    title: str
    metric: str
    auto_class: Any
    labels: list[str]
    train: Dataset
    test: Dataset
    collate: Any
    score: Callable[[Any, Any], float]
    batch_size: int
    epochs: int
    related: Task | None = None
    frozen_epochs: int = 20
    rate: float = 3e-4
    head_rate: float = 3e-4


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Percent of the texts."""
    return 100 * float((predicted == labels).mean())


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Type, begin and end (exclusive) of every entity in IOB2; an I without its B begins one, as conlleval has it."""
    found, kind, begin = set(), "", 0
    for place, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        if kind and (mark != "I" or name != kind):
            found.add((kind, begin, place))
            kind = ""
        if mark in {"B", "I"} and not kind:
            kind, begin = name, place
    return found


def entity_f1(names: Sequence[str]) -> Callable[[Any, Any], float]:
    """F1 of whole entities, over all sentences."""

    def score(predicted: np.ndarray, labels: np.ndarray) -> float:
        right = given = expected = 0
        for row, reference in zip(predicted, labels, strict=True):
            kept = reference != IGNORED
            ours, theirs = ({*entities([names[tag] for tag in tags[kept]])} for tags in (row, reference))
            right, given, expected = right + len(ours & theirs), given + len(ours), expected + len(theirs)
        return 200 * right / max(given + expected, 1)

    return score


def texts_task(
    title: str,
    splits: Any,
    tokenizer: Any,
    *,
    batch_size: int,
    epochs: int,
    related: Task | None = None,
    frozen_epochs: int = 20,
) -> Task:
    """Sequence classification of splits with `text` and `label`."""

    def encode(rows: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(rows["text"], truncation=True, max_length=64)
        return {**encoded, "labels": rows["label"]}

    labels = splits["train"].features["label"].names
    train, test = (
        splits[name].map(encode, batched=True, remove_columns=splits[name].column_names) for name in ("train", "test")
    )
    collate = DataCollatorWithPadding(tokenizer)
    classes = AutoModelForSequenceClassification
    return Task(
        title, "accuracy", classes, labels, train, test, collate, accuracy, batch_size, epochs, related, frozen_epochs
    )


def tags_task(
    title: str, splits: Any, tokenizer: Any, *, batch_size: int, epochs: int, related: Task | None = None
) -> Task:
    """Token classification of splits with `tokens` and `ner_tags`; a token's first piece has its tag."""

    def encode(rows: dict[str, list[Any]]) -> dict[str, Any]:
        encoded = tokenizer(rows["tokens"], is_split_into_words=True, truncation=True, max_length=64)
        encoded["labels"] = [
            [
                IGNORED if word is None or word == before else tags[word]
                for before, word in zip([None, *encoded.word_ids(row)], encoded.word_ids(row), strict=False)
            ]
            for row, tags in enumerate(rows["ner_tags"])
        ]
        return encoded

    labels = splits["train"].features["ner_tags"].feature.names
    train, test = (
        splits[name].map(encode, batched=True, remove_columns=splits[name].column_names) for name in ("train", "test")
    )
    collate = DataCollatorForTokenClassification(tokenizer)
    return Task(
        title, "entity F1", AutoModelForTokenClassification, labels, train, test, collate, entity_f1(labels),
        batch_size, epochs, related, frozen_epochs=10, rate=2e-4, head_rate=5e-3,
    )  # fmt: skip


def chnsenticorp(folder: Path, tokenizer: Any, seed: int, texts: int = 600) -> Task:
    """Opinions; related: the topics of THUCNews titles."""
    splits = read_texts(str(folder / "classification" / "chnsenticorp"), texts, seed)
    topics = texts_task("THUCNews", titles(folder, 1000, seed), tokenizer, batch_size=16, epochs=2)
    title = f"ChnSentiCorp, {texts:,} texts"
    return texts_task(title, splits, tokenizer, batch_size=16, epochs=3, related=topics, frozen_epochs=8)


def eprstmt(folder: Path, tokenizer: Any, seed: int) -> Task:
    """Opinions on goods, 16 texts a label (the official split of that number); related: ChnSentiCorp."""
    place = folder / "classification" / "fewclue" / "eprstmt"
    splits = read_texts(str(place))
    rows = [json.loads(line) for line in (place / "train_few_all.json").read_text(encoding="utf-8").splitlines()]
    rows = rows[32 * seed : 32 * seed + 32]
    names = splits["train"].features["label"].names
    splits["train"] = Dataset.from_list(
        [{"text": row["sentence"], "label": names.index(row["label"])} for row in rows],
        features=splits["train"].features,
    )
    related = read_texts(str(folder / "classification" / "chnsenticorp"), 600, seed)
    opinions = texts_task("ChnSentiCorp", related, tokenizer, batch_size=16, epochs=3)
    return texts_task("eprstmt, 32 texts", splits, tokenizer, batch_size=8, epochs=15, related=opinions)


def weibo(folder: Path, tokenizer: Any, seed: int, sentences: int = 400) -> Task:
    """Names in microblogs; related: names in curricula vitae (Resume NER)."""
    splits = read_tags(str(folder / "ner" / "weibo"), sentences, seed)
    resume = tags_task(
        "Resume", read_tags(str(folder / "ner" / "resume"), 400, seed), tokenizer, batch_size=16, epochs=2
    )
    return tags_task(f"Weibo NER, {sentences:,} sentences", splits, tokenizer, batch_size=8, epochs=6, related=resume)


def titles(folder: Path, count: int, seed: int) -> Any:
    """Titles with their topics, as splits."""
    from datasets import ClassLabel, DatasetDict, Features, Value

    place = folder / "classification" / "thucnews10"
    names = (place / "class.txt").read_text(encoding="utf-8").split()
    lines = (line.rsplit("\t", 1) for line in (place / "dev.txt").read_text(encoding="utf-8").splitlines() if line)
    rows = [{"text": text, "label": int(label)} for text, label in lines]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    order = np.random.default_rng(seed).permutation(len(rows))[: count + 200]
    data = Dataset.from_list([rows[i] for i in order], features=features)
    return DatasetDict({"train": data.select(range(count)), "test": data.select(range(count, len(data)))})
