"""Labelled text for the examples: a file, a folder of files or a name on the hub, always with the same columns.

`read_texts` gives splits with `text` and `label`, `read_tags` splits with `tokens` and `ner_tags`; the names of the
labels are in the features, where every stock script looks for them.
"""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value, load_dataset

# Names of splits -> the words that the names of their files contain.
SPLITS = {"train": ("train",), "validation": ("dev", "valid"), "test": ("test",)}
TEXT_COLUMNS = ("text", "text_a", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "labels", "label_desc")


def files_of(folder: Path, suffixes: tuple[str, ...] = ()) -> dict[str, Path]:
    """The first file of every split, by the words in the files' names."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and (not suffixes or path.suffix in suffixes))
    found = {
        split: [path for path in files if any(word in path.name.lower() for word in words)]
        for split, words in SPLITS.items()
    }
    return {split: paths[0] for split, paths in found.items() if paths}


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a file: `.tsv` (tabs, quotes are text), `.csv`, or `.json` / `.jsonl` with an object a line."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".tsv":
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        if path.suffix == ".csv":
            return list(csv.DictReader(file))
        return [json.loads(line) for line in file if line.strip()]


def column_of(columns: Iterable[str], choices: tuple[str, ...], origin: str) -> str:
    """The first of `choices` that is there."""
    columns = list(columns)
    for choice in choices:
        if choice in columns:
            return choice
    raise SystemExit(f"{origin} has the columns {columns}: expected one of {list(choices)}.")


def read_texts(name: str, limit: int | None = None, seed: int = 0) -> DatasetDict:
    """Read texts with labels from a file, a folder (`train.tsv`, `dev.json`, `test.csv`, …) or from the hub.

    `limit` keeps that many training texts, drawn by `seed`. A data set without test texts, or without validation
    texts, gets them out of its training texts (a tenth), by the same seed.
    """
    folder = Path(name)
    if folder.is_file():
        parts = {"train": rows_of(folder)}
    elif folder.is_dir():
        files = files_of(folder, (".tsv", ".csv", ".json", ".jsonl"))
        if "train" not in files:
            raise SystemExit(f"{folder} has no file of training texts: expected train.tsv, train.csv or train.json.")
        parts = {split: rows_of(path) for split, path in files.items()}
    else:
        parts = {split: list(rows) for split, rows in load_dataset(name).items() if split in SPLITS}
    columns = parts["train"][0]
    text = column_of(columns, TEXT_COLUMNS, name)
    label = column_of(columns, LABEL_COLUMNS, name)
    names = sorted({str(row[label]) for row in parts["train"]})
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    splits = DatasetDict(
        {
            split: Dataset.from_list(
                [{"text": row[text], "label": names.index(str(row[label]))} for row in rows], features=features
            )
            for split, rows in parts.items()
        }
    )
    for missing in [split for split in ("validation", "test") if split not in splits]:
        cut = splits["train"].train_test_split(test_size=0.1, seed=seed)
        splits["train"], splits[missing] = cut["train"], cut["test"]
    if limit is not None and limit < len(splits["train"]):
        splits["train"] = splits["train"].shuffle(seed=seed).select(range(limit))
    return splits


def read_tags(name: str, limit: int | None = None, seed: int = 0) -> DatasetDict:
    """Read sentences with a tag a token from a folder of CoNLL files (`*train*`, `*dev*`, `*test*`) or from the hub.

    A line of a CoNLL file is a token and its tag, an empty line ends a sentence. Tokens with the number of their word
    behind them (`科0`, as in Weibo NER) lose the number. `limit` and `seed` as in `read_texts`.
    """
    folder = Path(name)
    if not folder.is_dir():
        splits = load_dataset(name)
        return splits.select_columns(["tokens", "ner_tags"])
    parts = {split: list(sentences_of(path)) for split, path in files_of(folder).items()}
    if "train" not in parts:
        raise SystemExit(f"{folder} has no file whose name contains 'train'.")
    names = sorted({tag for rows in parts.values() for _, tags in rows for tag in tags}, key=lambda tag: tag[::-1])
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=names))})
    splits = DatasetDict(
        {
            split: Dataset.from_list(
                [{"tokens": tokens, "ner_tags": [names.index(tag) for tag in tags]} for tokens, tags in rows],
                features=features,
            )
            for split, rows in parts.items()
        }
    )
    if limit is not None and limit < len(splits["train"]):
        splits["train"] = splits["train"].shuffle(seed=seed).select(range(limit))
    return splits


def sentences_of(path: Path) -> Iterable[tuple[list[str], list[str]]]:
    """Tokens and tags of every sentence of a CoNLL file."""
    for block in path.read_text(encoding="utf-8").replace("\r\n", "\n").split("\n\n"):
        pairs = [line.split() for line in block.splitlines() if line.strip()]
        if pairs:
            numbered = all(len(pair[0]) > 1 and pair[0][-1].isdigit() for pair in pairs)
            yield [pair[0][:-1] if numbered else pair[0] for pair in pairs], [pair[-1] for pair in pairs]
