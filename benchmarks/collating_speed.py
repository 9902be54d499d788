"""Speed of collating with masks, on one core, from rows of 128 tokens in an Arrow data set with words and seeds.

Three claims:
    collating_speed         tokens a second through 62,500, which 16 such workers need for a million; at least 1
    collating_share         CPU time of a batch through that of a training step of the embedded model on the same batch
                            (forward, backward, AdamW); the larger of float32 and bfloat16 autocast; at most 0.2
    collating_speed_stock   ours through transformers' DataCollatorForLanguageModeling, median of the rounds; at most 1

The stock collator masks single tokens of the same rows, without their words and seeds; the shares of what either masks
are compared before anything is timed. With `whole_word_mask=True` it turns words into `[MASK]` only and finds them by
the gaps between character offsets, which Chinese has none of; it gets offsets made of our words, and is named beside.
Reading the rows from Arrow is timed by itself.

    python benchmarks/collating_speed.py --data FILE

FILE has one text a line, in UTF-8; the lines are joined to full rows, in words by jieba. Without it the rows are
random tokens in random words: the collators do the same work on them.
"""

from __future__ import annotations

import os

# Before the Rust tokenizers start their threads.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import statistics
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from _harness import Ratio, interleave, median_ratio, no_ratio, parser, report
from tokenizers import BertWordPieceTokenizer
from transformers import DataCollatorForLanguageModeling

import hf_nlpnotes
from hf_nlpnotes.models.chinesebert import (
    ChineseBertForMaskedLM,
    ChineseBertTokenizer,
    DataCollatorForChineseBertMaskedLM,
)
from hf_nlpnotes.models.chinesebert.pinyin_reader_chinesebert import PinyinReader
from hf_nlpnotes.pretraining.packing import encode_lines

LENGTH, BATCH = 128, 32
NEEDED = 62_500
"""Tokens a second of one core, so that 16 workers bring a million."""


def main() -> int:
    """Compares, times and reports."""
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="file of lines (default: random tokens)")
    options.add_argument("--rows", type=int, default=1024)
    args = options.parse_args()
    torch.set_num_threads(1)
    tokenizer = ChineseBertTokenizer.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL)
    columns = read_columns(args.data, args.rows, tokenizer) if args.data else random_columns(args.rows, tokenizer)
    data = datasets.Dataset.from_dict(columns)
    tokens = len(data) * LENGTH
    ours = DataCollatorForChineseBertMaskedLM(tokenizer)
    stock = DataCollatorForLanguageModeling(tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it replaces no tokens by random ones
        stock_words = DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True)

    places = [list(range(at, min(at + BATCH, len(data)))) for at in range(0, len(data), BATCH)]
    plain = data.remove_columns(["word_ids", "mask_seed"])
    rows = [data.__getitems__(at) for at in places]
    arrays = [data.with_format("numpy").__getitems__(at) for at in places]
    stock_rows = [plain.__getitems__(at) for at in places]
    offset_rows = [[with_offsets(row) for row in batch] for batch in rows]
    check(ours, stock, rows, arrays, stock_rows)

    works = {
        "ours": lambda: [ours(batch) for batch in rows],
        "ours_numpy": lambda: [ours(batch) for batch in arrays],
        "reading": lambda: [data.__getitems__(at) for at in places],
        "stock": lambda: [stock(batch) for batch in stock_rows],
        "stock_whole_words": lambda: [stock_words(batch) for batch in offset_rows],
    }
    times = dict(zip(works, interleave(list(works.values()), rounds=args.rounds, collect=not args.no_gc), strict=True))
    speeds = {name: tokens / statistics.median(seconds) for name, seconds in times.items()}
    shares = {kind: share_of_a_step(ours, rows[0], kind, args) for kind in ("float32", "bfloat16")}
    details: dict[str, Any] = {"tokens_per_second": {name: round(speed) for name, speed in speeds.items()}}
    details |= {"share_of_a_step": shares, "rows": len(data), "text": str(args.data or "random tokens")}
    if not args.json:
        for name, speed in speeds.items():
            print(f"{name} {speed:,.0f} tokens a second")
        for kind, share in shares.items():
            print(f"share of a training step in {kind} {share:.4g}")
    return report(
        [
            Ratio("collating_speed", speeds["ours"] / NEEDED, 1, at_most=False, details=details),
            Ratio("collating_share", max(shares.values()), 0.2, at_most=True),
            Ratio("collating_speed_stock", median_ratio(times["ours"], times["stock"]), 1, at_most=True),
        ],
        as_json=args.json,
        packages=["hf_nlpnotes", "transformers", "torch", "datasets", "numpy"],
    )


def random_columns(rows: int, tokenizer: Any) -> dict[str, np.ndarray]:
    """Full rows of random tokens."""
    rng = np.random.default_rng(0)
    shape = (rows, LENGTH - 2)
    ids = rng.integers(len(tokenizer.all_special_ids), len(tokenizer), shape)
    continues = rng.random(shape) < 0.4
    return as_columns(
        ids, np.cumsum(~continues, axis=1), rng.integers(1, len(tokenizer.pinyin_table), shape), tokenizer
    )


def read_columns(path: Path, rows: int, tokenizer: Any) -> dict[str, np.ndarray]:
    """Full rows from the lines of a file, in words by jieba."""
    if not path.is_file():
        no_ratio(f"No text: {path} does not exist.")
    import jieba

    jieba.setLogLevel("WARNING")
    size = rows * (LENGTH - 2)
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    enough = np.searchsorted(np.cumsum([len(line) for line in lines]), 2 * size)  # a token is one character or more
    lines = lines[: int(enough) + 1]
    vocabulary = BertWordPieceTokenizer(dict(tokenizer.get_vocab()))
    stream = encode_lines(lines, vocabulary, jieba.cut, PinyinReader(tokenizer.readings).read_text)
    if len(stream) < size or stream.pinyin_ids is None:
        no_ratio(f"{path} has {len(stream)} tokens, expected {size}: give a longer one, or fewer --rows.")
    shape = (rows, LENGTH - 2)
    words = np.cumsum(~stream.continues_word[:size].reshape(shape), axis=1)
    return as_columns(
        stream.input_ids[:size].reshape(shape), words, stream.pinyin_ids[:size].reshape(shape), tokenizer
    )


def as_columns(ids: np.ndarray, words: np.ndarray, pinyin: np.ndarray, tokenizer: Any) -> dict[str, np.ndarray]:
    """Columns with [CLS] and [SEP] around each row."""

    def edge(array: np.ndarray, first: int, last: int) -> np.ndarray:
        return np.pad(array, ((0, 0), (1, 1)), constant_values=((0, 0), (first, last)))

    return {
        "input_ids": edge(ids, tokenizer.cls_token_id, tokenizer.sep_token_id).astype(np.int32),
        "pinyin_ids": edge(pinyin, 0, 0).astype(np.int16),
        "word_ids": edge(words, -1, -1).astype(np.int16),
        "mask_seed": np.random.default_rng(1).integers(0, 2**62, len(ids)),
    }


def with_offsets(row: dict[str, Any]) -> dict[str, Any]:
    """The row as the stock collator wants it for whole words: character offsets with a gap before each word."""
    words = row["word_ids"]
    offsets = [(0, 0) if word < 0 else (place + word, place + word + 1) for place, word in enumerate(words)]
    return {
        **{name: row[name] for name in ("input_ids", "pinyin_ids")},
        "offset_mapping": offsets,
        "special_tokens_mask": [int(word < 0) for word in words],
    }


def check(ours: Any, stock: Any, rows: list, arrays: list, stock_rows: list) -> None:
    """Refuse to time unlike work: both choose 15 % of the tokens and turn 80 % of them into [MASK]."""
    torch.manual_seed(0)
    for batch, other in zip(rows, arrays, strict=True):
        one, same = ours(batch), ours(other)
        assert all(torch.equal(one[name], same[name]) for name in one)
    for collate, batches in ((ours, rows), (stock, stock_rows)):
        batched = [collate(batch) for batch in batches]
        chosen = torch.cat([batch["labels"] for batch in batched]) != -100
        masked = torch.cat([batch["input_ids"] for batch in batched]) == ours.tokenizer.mask_token_id
        share, of_them = chosen.float().mean().item(), masked.sum().item() / chosen.sum().item()
        assert abs(share - 0.15) < 0.01, share
        assert abs(of_them - 0.8) < 0.02, of_them


def share_of_a_step(collate: Any, batch: list[dict[str, Any]], kind: str, args: Any) -> float:
    """CPU time of collating the batch through that of a training step on it."""
    model = ChineseBertForMaskedLM.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    inputs = collate(batch)

    def step() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16) if kind == "bfloat16" else nullcontext():
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    repeats = 20  # a batch takes a millisecond: too short to time alone
    seconds, of_step = interleave(
        [lambda: [collate(batch) for _ in range(repeats)], step], rounds=args.rounds, collect=not args.no_gc
    )
    return median_ratio(seconds, of_step) / repeats


if __name__ == "__main__":
    raise SystemExit(main())
