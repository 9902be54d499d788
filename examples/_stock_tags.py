"""Tagged sentences as a stock data set has them: `tokens`, and `ner_tags` whose names are in the features."""

from collections.abc import Iterable
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Sequence, Value, load_dataset

from hf_nlpnotes.corpora.files import files_of


def read_tags(name: str, limit: int | None = None, seed: int = 0) -> DatasetDict:
    """Read sentences with a tag a token from a folder of CoNLL files (`*train*`, `*dev*`, `*test*`) or from the hub.

    A line of a CoNLL file is a token and its tag, an empty line ends a sentence. Tokens with the number of their word
    behind them (`科0`, as in Weibo NER) lose the number. `limit` training
    sentences are drawn by `seed`.
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
