"""Texts with labels from the files that people have."""

import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from hf_nlpnotes.corpora import labelled_texts, read_texts

ROWS = [("国足今晚出战", "体育"), ("银行业绩", "财经"), ('他说"好"', "体育"), ("股票\\t跌", "财经")] * 5


def write(path: Path, rows: list[tuple[str, str]], names: tuple[str, str] = ("text", "label")) -> Path:
    if path.suffix == ".tsv":
        lines = ["\t".join(names), *("\t".join(row) for row in rows)]
    elif path.suffix == ".csv":
        lines = [",".join(names), *('"{}",{}'.format(text.replace('"', '""'), label) for text, label in rows)]
    else:
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".json", ".jsonl"])
def test_kinds_of_files(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"train{suffix}", ROWS)
    write(tmp_path / f"dev{suffix}", ROWS[:3])
    data = read_texts(str(tmp_path), held_out="one")
    assert sorted(data) == ["train", "validation"]
    names = data["train"].features["label"].names
    assert names == ["体育", "财经"]
    assert [(row["text"], names[row["label"]]) for row in data["train"]] == ROWS


@pytest.mark.parametrize(
    ("held_out", "splits"), [("both", ["test", "train", "validation"]), ("one", ["test", "train"])]
)
def test_what_is_held_out_of_one_file(tmp_path: Path, held_out: str, splits: list[str]) -> None:
    rows = [(f"第{number}条", "ab"[number % 2]) for number in range(40)]
    data = read_texts(str(write(tmp_path / "all.tsv", rows)), held_out=held_out)  # type: ignore[arg-type]
    assert sorted(data) == splits
    texts = [text for split in data.values() for text in split["text"]]
    assert sorted(texts) == sorted(text for text, _ in rows), "each text is in one split"
    again = read_texts(str(tmp_path / "all.tsv"), limit=5, held_out=held_out)  # type: ignore[arg-type]
    assert len(again["train"]) == 5
    assert again["test"]["text"] == data["test"]["text"]


def test_a_file_for_training_is_not_for_testing(tmp_path: Path) -> None:
    write(tmp_path / "contest_train.tsv", ROWS)
    write(tmp_path / "contest_valid.tsv", ROWS[:2])
    assert sorted(read_texts(str(tmp_path), held_out="one")) == ["train", "validation"]


def test_a_hub_data_set_keeps_the_names_of_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["体育", "财经"])})
    rows = Dataset.from_dict({"sentence": ["a", "b"], "label": [1, 0]}, features=features)
    parts = {"train": rows, "test": rows, "unsupervised": rows}
    monkeypatch.setattr(labelled_texts, "load_dataset", lambda _: DatasetDict(parts))
    data = read_texts("owner/name", held_out="one")
    assert data["train"].features["label"].names == ["体育", "财经"]
    assert list(data["train"]["label"]) == [1, 0]
    parts["test"] = Dataset.from_dict({"sentence": ["a"], "label": [-1]}, features=features)
    with pytest.raises(ValueError, match="test, row 1: expected a label"):
        read_texts("owner/name")
    del parts["train"]
    with pytest.raises(ValueError, match="no training texts: its splits are test"):
        read_texts("owner/name")


def test_other_test_data(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ROWS)
    write(tmp_path / "test.tsv", ROWS)
    other = write(tmp_path / "other.csv", ROWS[:2])
    assert len(read_texts(str(tmp_path), test_data=str(other))["test"]) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.tsv", "label\tx\n1\ta\n", r"columns \['label', 'x'\]: expected one of \['text'"),
        ("train.tsv", "label\ttext\n", "has no rows"),
        ("train.json", '{"text": "a", "label": 1}\n[]\n', "line 2: expected a JSON object"),
        ("train.json", "{", "line 1: no JSON"),
        ("train.json", r'{"text": "\ud83d\ude00 \uD83D", "label": 1}', "line 1: .* is half of a surrogate pair"),
        ("train.csv", "text,label\na\n", "row 1: expected a label in the column 'label'"),
        ("train.tsv", b"label\ttext\n1\t\xb9\xfa\n", "is not UTF-8 text"),
        ("notes.txt", "a", "no file of training texts"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_texts(str(tmp_path))


def test_files_that_are_not_there_and_labels_that_are_new(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no"):
        read_texts(str(tmp_path / "absent.tsv"))
    write(tmp_path / "train.tsv", ROWS)
    write(tmp_path / "test.tsv", [("猫", "宠物")])
    with pytest.raises(ValueError, match="test, row 1: the label '宠物' is none of those"):
        read_texts(str(tmp_path))
    with pytest.raises(ValueError, match=r"neither \.tsv"):
        read_texts(str(write(tmp_path / "all.xlsx", ROWS)))
