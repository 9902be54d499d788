"""Time of tokenizing 5,000 real sentences with their pinyin.

Three claims, each the median ratio of interleaved rounds of CPU time on one thread:
    tokenizer_speed           ours through transformers' own BertTokenizer, which gives no pinyin; at most 1.2
    tokenizer_speed_official  the official way through ours; at least 11
    tokenizer_speed_single    ours through BertTokenizer, a sentence a call; at most 2

The official way is one call of BertWordPieceTokenizer and one of pypinyin a sentence, a reading of eight letters for
each token by its offset, and tensors of both. Token ids and pinyin of all three are compared before anything is timed.

    python benchmarks/tokenizer_speed.py --data FILE --column text_a --tokenizer FOLDER

FILE is a table with tabs between the columns and a line of their names (--column), or has one text a line; a folder
stands for `chnsenticorp/train.tsv` below it. FOLDER holds a ChineseBERT tokenizer (default: the embedded model's).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

# Before the Rust tokenizers start their threads.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from _harness import Ratio, interleave, median_ratio, no_ratio, parser, report
from pypinyin import Style, pinyin
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizer

import hf_nlpnotes


def main() -> int:
    """Compares, times and reports."""
    options = parser(__doc__)
    options.add_argument("--data", default=os.environ.get("HF_NLPNOTES_DATA"), help="file or folder of the sentences")
    options.add_argument("--column", help="name of the column with the sentences")
    options.add_argument("--tokenizer", default=hf_nlpnotes.EMBEDDED_MODEL, help="folder of the tokenizer")
    options.add_argument("--sentences", type=int, default=5000)
    args = options.parse_args()
    torch.set_num_threads(1)

    texts = read_texts(args.data, args.column, args.sentences)
    ours = hf_nlpnotes.ChineseBertTokenizer.from_pretrained(args.tokenizer)
    ours.model_max_length = 10**9  # no warnings about long ones: nothing is cut off here
    vocabulary = ours.get_vocab()
    plain = BertTokenizer(vocab=dict(vocabulary))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n", encoding="utf-8")
        official = Official(str(path), ours)

    batch, stock = ours(texts), plain(texts)
    assert batch["input_ids"] == stock["input_ids"]
    for text, ids, rows in zip(texts, batch["input_ids"], batch["pinyin_ids"], strict=True):
        expected_ids, expected_letters = official(text)
        assert ids == expected_ids.tolist(), text
        assert ours.pinyin_table[rows].ravel().tolist() == expected_letters.tolist(), text
    del batch, stock

    times = interleave(
        [
            lambda: ours(texts),
            lambda: plain(texts),
            lambda: [official(text) for text in texts],
            lambda: [ours(text) for text in texts],
            lambda: [plain(text) for text in texts],
        ],
        rounds=args.rounds,
        collect=not args.no_gc,
    )
    names = ["ours", "bert", "official", "ours_single", "bert_single"]
    details: dict[str, Any] = {"seconds": dict(zip(names, map(min, times), strict=True)), "sentences": len(texts)}
    details["characters"] = sum(map(len, texts))
    batched, stock_batched, official_way, single, stock_single = times
    return report(
        [
            Ratio("tokenizer_speed", median_ratio(batched, stock_batched), 1.2, at_most=True, details=details),
            Ratio("tokenizer_speed_official", median_ratio(official_way, batched), 11, at_most=False),
            Ratio("tokenizer_speed_single", median_ratio(single, stock_single), 2, at_most=True),
        ],
        as_json=args.json,
        packages=["hf_nlpnotes", "transformers", "tokenizers", "pypinyin", "numpy"],
    )


def read_texts(data: str | None, column: str | None, number: int) -> list[str]:
    """The first sentences of a file; leaves where there are not enough."""
    path = Path(data) if data else Path()
    if path.is_dir():
        found = sorted(path.rglob("chnsenticorp/train.tsv")) if data else []
        if not found:
            no_ratio(f"No sentences in {data}: give --data or HF_NLPNOTES_DATA.")
        path, column = found[0], "text_a"
    if not path.is_file():
        no_ratio(f"No sentences: {path} does not exist.")
    lines = path.read_text(encoding="utf-8").split("\n")
    place = 0
    if column is not None:
        names = lines.pop(0).split("\t")
        if column not in names:
            no_ratio(f"{path} has the columns {names}, not {column!r}.")
        place = names.index(column)
    cells = (line.split("\t") for line in lines)
    texts = [row[place] for row in cells if len(row) > place and row[place].strip()][:number]
    if len(texts) < number:
        no_ratio(f"{path} has {len(texts)} sentences, expected {number}.")
    return texts


class Official:
    """The algorithm of the released code: word pieces, pypinyin, and eight letters for each token of one character."""

    def __init__(self, vocab_file: str, ours: Any) -> None:
        self.tokenizer = BertWordPieceTokenizer(vocab_file)
        table = ours.readings
        self.letters = {reading: table.rows[table.index(reading)].tolist() for reading in table.readings}

    def __call__(self, sentence: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids, (seq,), and letters, (seq * 8,)."""
        encoding = self.tokenizer.encode(sentence)
        readings = pinyin(sentence, style=Style.TONE3, heteronym=True, errors=lambda run: [["none"] for _ in run])
        letters = {}
        for place, candidates in enumerate(readings):
            if candidates[0] != "none":
                letters[place] = self.letters.get(candidates[0], [0] * 8)
        spelled = []
        for _token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
            spelled.append(letters[start] if end - start == 1 and start in letters else [0] * 8)
        return torch.LongTensor(encoding.ids), torch.LongTensor(spelled).view(-1)


if __name__ == "__main__":
    raise SystemExit(main())
