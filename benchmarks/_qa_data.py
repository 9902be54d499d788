"""What the benchmarks of question answering share: questions from SQuAD-format files, and tokenizers for them."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _harness import no_ratio
from transformers import BertTokenizer

import hf_nlpnotes


@dataclass(frozen=True)
class Questions:
    """A data set in columns, and a tokenizer of its language."""

    name: str
    columns: dict[str, list[Any]]
    tokenizer: Any


def add_options(options: argparse.ArgumentParser) -> None:
    """Options that say where the data and the vocabulary are."""
    data, golden = os.environ.get("HF_NLPNOTES_DATA"), os.environ.get("HF_NLPNOTES_GOLDEN")
    options.add_argument("--data", default=data, help="folder with cmrc2018_dev.squad.json and squad2_dev*.json")
    options.add_argument(
        "--english-vocabulary",
        default=Path(golden) / "span/v4pipe/en.vocab.txt" if golden else None,
        help="vocab.txt of an English BERT",
    )


def read(args: argparse.Namespace) -> list[Questions]:
    """CMRC2018 dev with the embedded model's vocabulary and SQuAD 2.0 dev with the English one; leaves without."""
    if not args.data or not args.english_vocabulary or not Path(args.english_vocabulary).is_file():
        no_ratio("No data: give --data (or HF_NLPNOTES_DATA) and --english-vocabulary (or HF_NLPNOTES_GOLDEN).")
    chinese = hf_nlpnotes.ChineseBertTokenizer.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL).get_vocab()
    sets = []
    for name, pattern, vocabulary in (
        ("cmrc", "cmrc2018_dev*.json", dict(chinese)),
        ("squad2", "squad2_dev*.json", str(args.english_vocabulary)),
    ):
        paths = sorted(Path(args.data).rglob(pattern))
        if not paths:
            no_ratio(f"No file {pattern} in {args.data}.")
        sets.append(Questions(name, columns_of(paths[0]), BertTokenizer(vocab=vocabulary)))
    return sets


def columns_of(path: Path) -> dict[str, list[Any]]:
    """`id`, `question`, `context` and `answers` of a file in SQuAD's format."""
    columns: dict[str, list[Any]] = {"id": [], "question": [], "context": [], "answers": []}
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = question["answers"]
                columns["id"].append(question["id"])
                columns["question"].append(question["question"])
                columns["context"].append(paragraph["context"])
                columns["answers"].append(
                    {
                        "text": [answer["text"] for answer in answers],
                        "answer_start": [answer["answer_start"] for answer in answers],
                    }
                )
    return columns
