"""Tagged sentences as a stock data set has them: `tokens`, and `ner_tags` whose names are in the features."""

from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value, load_dataset

from hf_nlpnotes.corpora import read_columns
from hf_nlpnotes.corpora.files import files_of


def read_tags(name: str, limit: int | None = None, seed: int = 0) -> DatasetDict:
    """Read sentences with a tag a token from a folder of CoNLL files (`*train*`, `*dev*`, `*test*`) or from the hub.

    `limit` training sentences are drawn by `seed`.
    """
    folder = Path(name)
    if not folder.is_dir():
        splits = load_dataset(name)
        return splits.select_columns(["tokens", "ner_tags"])
    parts = {split: list(read_columns(path)) for split, path in files_of(folder).items()}
    if "train" not in parts:
        raise SystemExit(f"{folder} has no file whose name contains 'train'.")
    names = sorted({tag for rows in parts.values() for row in rows for tag in row.tags}, key=lambda tag: tag[::-1])
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=names))})
    splits = DatasetDict(
        {
            split: Dataset.from_list(
                [{"tokens": row.tokens, "ner_tags": [names.index(tag) for tag in row.tags]} for row in rows],
                features=features,
            )
            for split, rows in parts.items()
        }
    )
    if limit is not None and limit < len(splits["train"]):
        splits["train"] = splits["train"].shuffle(seed=seed).select(range(limit))
    return splits
