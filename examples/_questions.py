"""Questions on texts for the examples: a file in SQuAD's layout, a folder of such files, or a name on the hub."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, Sequence, Value, load_dataset

FEATURES = Features(
    {
        "id": Value("string"),
        "question": Value("string"),
        "context": Value("string"),
        "answers": {"text": Sequence(Value("string")), "answer_start": Sequence(Value("int64"))},
    }
)


def rows_of(path: Path) -> Iterable[dict[str, Any]]:
    """The questions of a file in SQuAD's layout, with or without answers."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = question.get("answers", [])
                yield {
                    "id": question["id"],
                    "question": question["question"],
                    "context": paragraph["context"],
                    "answers": {name: [each[name] for each in answers] for name in ("text", "answer_start")},
                }


def read_file(path: str | Path) -> Dataset:
    """A file in SQuAD's layout."""
    return Dataset.from_list(list(rows_of(Path(path))), features=FEATURES)


def read_questions(name: str, seed: int = 0) -> DatasetDict:
    """Read questions to learn from (`train`) and to evaluate on (`validation`).

    `name` is a folder with files named `*train*.json` and `*dev*.json`, a name on the hub, or one file: then a fifth
    of its contexts, drawn by `seed`, is for evaluation with all their questions, so that no context is in both.
    """
    path = Path(name)
    if path.is_dir():
        files = {
            part: sorted(path.glob(f"*{word}*.json")) for part, word in (("train", "train"), ("validation", "dev"))
        }
        if not all(files.values()):
            raise SystemExit(f"{path} has no *train*.json and *dev*.json; to split one file, name the file.")
        return DatasetDict({part: read_file(found[0]) for part, found in files.items()})
    if not path.is_file():
        return load_dataset(name).select_columns(list(FEATURES))
    rows = list(rows_of(path))
    contexts = list(dict.fromkeys(row["context"] for row in rows))
    held_out = set(random.Random(seed).sample(contexts, max(1, len(contexts) // 5)))
    parts = {"train": [], "validation": []}
    for row in rows:
        parts["validation" if row["context"] in held_out else "train"].append(row)
    return DatasetDict({part: Dataset.from_list(found, features=FEATURES) for part, found in parts.items()})
