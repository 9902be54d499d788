"""Texts with labels, from files or the hub, always with the columns `text` and `label`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_dataset

from .files import SPLITS, files_of, rows_of

TEXT_COLUMNS = ("text", "text_a", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "labels", "label_desc")
_SUFFIXES = (".tsv", ".csv", ".json", ".jsonl")


def read_texts(
    data: str,
    limit: int | None = None,
    seed: int = 0,
    *,
    test_data: str | None = None,
    held_out: Literal["both", "one"] = "both",
) -> DatasetDict:
    """Read texts with labels.

    Args:
        data: a file; a folder with `train.tsv`, `dev.json`, `test.csv`, …; or the name of a data set on the hub. A
            file's rows have a text (`text`, `text_a`, `sentence`, `review` or `content`) and a label (`label`,
            `labels` or `label_desc`).
        limit: keep that many training texts, drawn by `seed`.
        seed: of whatever is drawn.
        test_data: a file of test texts, in place of those of `data`.
        held_out: "both" cuts test and validation texts out of the training texts, a tenth each, where there are none;
            "one" cuts a tenth where there are neither, and leaves them otherwise.

    Returns:
        `train`, and `validation` and `test` as far as they are there, with columns `text` and `label`; the names of
        the labels are in the features.

    Raises:
        ValueError: no such file, no training texts, a missing column, or a label that the training texts have not.
    """
    parts = _parts(data)
    if not parts.get("train"):
        raise ValueError(f"{data} has no training texts: its splits are {', '.join(parts) or 'none of these'}")
    if test_data is not None:
        parts["test"] = _rows(Path(test_data))
    columns = [column for column in parts["train"][0] if column is not None]
    text, label = (_column(columns, choices, data) for choices in (TEXT_COLUMNS, LABEL_COLUMNS))
    names = sorted({str(row[label]) for row in parts["train"] if row.get(label) is not None})
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    splits = DatasetDict()
    for split, rows in parts.items():
        cells = [_cells(row, text, label, names, f"{data}, {split}, row {n}") for n, row in enumerate(rows, 1)]
        splits[split] = Dataset.from_list(cells, features=features)
    missing = [split for split in ("validation", "test") if split not in splits]
    if held_out == "one":
        missing = ["test"] if len(missing) == 2 else []
    for split in missing:
        if len(splits["train"]) < 2:
            raise ValueError(f"{data} has too few texts to hold some out: {len(splits['train'])}")
        cut = splits["train"].train_test_split(test_size=0.1, seed=seed)
        splits["train"], splits[split] = cut["train"], cut["test"]
    if limit is not None and limit < len(splits["train"]):
        splits["train"] = splits["train"].shuffle(seed=seed).select(range(limit))
    return splits


def _parts(data: str) -> dict[str, list[Any]]:
    path = Path(data)
    if path.is_file():
        return {"train": _rows(path)}
    if path.is_dir():
        files = files_of(path, _SUFFIXES)
        if "train" not in files:
            raise ValueError(f"{path} has no file of training texts: expected train.tsv, train.csv or train.json")
        return {split: _rows(file) for split, file in files.items()}
    if path.suffix in _SUFFIXES or path.is_absolute() or data.startswith("."):
        raise ValueError(f"there is no {path}: expected a file, a folder, or the name of a data set on the hub")
    return {split: _named(rows) for split, rows in load_dataset(data).items() if split in SPLITS}


def _named(rows: Dataset) -> list[dict[str, Any]]:
    """Rows with the names of classes in place of their numbers; None where there is no class (-1)."""
    named = list(rows)
    for column, kind in rows.features.items():
        if isinstance(kind, ClassLabel):
            for row in named:
                row[column] = None if row[column] in (None, -1) else kind.int2str(row[column])
    return named


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    rows = rows_of(path)
    if not rows:
        raise ValueError(f"{path} has no rows")
    return rows


def _column(columns: list[str], choices: Iterable[str], origin: str) -> str:
    """The first of `choices` that is there."""
    for choice in choices:
        if choice in columns:
            return choice
    raise ValueError(f"{origin} has the columns {columns}: expected one of {list(choices)}")


def _cells(row: dict[str, Any], text: str, label: str, names: list[str], place: str) -> dict[str, Any]:
    found = row.get(text)
    if not isinstance(found, str):
        raise ValueError(f"{place}: expected text in the column {text!r}, got {found!r}")
    if row.get(label) is None:
        raise ValueError(f"{place}: expected a label in the column {label!r}, got none")
    name = str(row[label])
    if name not in names:
        raise ValueError(f"{place}: the label {name!r} is none of those of the training texts, {', '.join(names)}")
    return {"text": found, "label": names.index(name)}
