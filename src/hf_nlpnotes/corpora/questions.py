"""Questions on texts, from files in SQuAD's layout or from the hub."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Features, Sequence, Value, load_dataset

from .files import files_of

QUESTION_FEATURES = Features(
    {
        "id": Value("string"),
        "question": Value("string"),
        "context": Value("string"),
        "answers": {"text": Sequence(Value("string")), "answer_start": Sequence(Value("int64"))},
    }
)
"""Columns of a question, as `hf_nlpnotes.question_answering` takes them."""


def read_question_file(path: str | Path) -> Dataset:
    """Read a file in SQuAD's layout, with or without answers.

    Args:
        path: the file.

    Returns:
        A row a question, with the columns of `QUESTION_FEATURES`.

    Raises:
        ValueError: another layout, or no questions.
    """
    rows = list(_rows(Path(path)))
    if not rows:
        raise ValueError(f"{path} has no questions")
    return Dataset.from_list(rows, features=QUESTION_FEATURES)


def read_questions(data: str, seed: int = 0, *, test_data: str | None = None) -> DatasetDict:
    """Read questions to learn from (`train`) and to evaluate on (`validation`).

    Args:
        data: a folder with files named `*train*.json` and `*dev*.json`, a name on the hub, or one file: then a fifth
            of its contexts, drawn by `seed`, is for evaluation with all their questions, so that no context is in
            both.
        seed: of whatever is drawn.
        test_data: a file to evaluate on, in place of that of `data`.

    Raises:
        ValueError: no such files, or files in another layout.
    """
    path = Path(data)
    test = {} if test_data is None else {"validation": read_question_file(test_data)}
    if path.is_dir():
        files = files_of(path, (".json",))
        wanted = [part for part in ("train", "validation") if part not in test]
        if not files.keys() >= set(wanted):
            raise ValueError(f"{path} has no *train*.json and *dev*.json; to split one file, name the file")
        return DatasetDict({**{part: read_question_file(files[part]) for part in wanted}, **test})
    if path.is_file():
        whole = read_question_file(path)
        return DatasetDict({"train": whole, **test}) if test else _cut(whole, seed)
    if path.suffix == ".json" or path.is_absolute() or data.startswith("."):
        raise ValueError(f"there is no {path}: expected a file, a folder, or the name of a data set on the hub")
    return DatasetDict({**load_dataset(data).select_columns(list(QUESTION_FEATURES)), **test})


def _cut(whole: Dataset, seed: int) -> DatasetDict:
    contexts = list(dict.fromkeys(whole["context"]))
    if len(contexts) < 2:
        raise ValueError("all questions are about one text, of which none can be held out: give a file to test on")
    held_out = set(random.Random(seed).sample(contexts, max(1, len(contexts) // 5)))  # noqa: S311  (a sample)
    places: dict[str, list[int]] = {"train": [], "validation": []}
    for number, context in enumerate(whole["context"]):
        places["validation" if context in held_out else "train"].append(number)
    return DatasetDict({part: whole.select(numbers) for part, numbers in places.items()})


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        articles = json.loads(path.read_text(encoding="utf-8-sig"))["data"]
        for article in articles:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = question.get("answers", [])
                    row = {
                        "id": str(question["id"]),
                        "question": question["question"],
                        "context": paragraph["context"],
                        "answers": {name: [each[name] for each in answers] for name in ("text", "answer_start")},
                    }
                    _check_row(row)
                    yield row
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not in SQuAD's layout, "
            '{"data": [{"paragraphs": [{"context": …, "qas": [{"id", "question", "answers"}]}]}]}: '
            f"{type(error).__name__} {error}"
        ) from error


def _check_row(row: dict[str, Any]) -> None:
    """Raise where a value is of another type than its column."""
    answers = row["answers"]
    for text in (row["question"], row["context"], *answers["text"]):
        if not isinstance(text, str):
            raise TypeError(f"question {row['id']!r} has {text!r} where a text stands")
        text.encode()  # halves of surrogate pairs, which JSON can write and no table can hold
    for start in answers["answer_start"]:
        if isinstance(start, bool) or not isinstance(start, int) or not -1 <= start < 2**63:
            raise TypeError(f"question {row['id']!r} has the answer_start {start!r}, expected a whole number")
