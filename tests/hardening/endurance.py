"""Many calls and long texts: is memory flat, and does time grow with the text and no faster?

    python tests/hardening/endurance.py --calls 10000
    python tests/hardening/endurance.py --characters 1000000

`--calls` makes that many calls of each pipeline, the tokenizer and the attention capture, on texts that never come
twice, and compares memory after a tenth of them with memory at the end: Python's own (tracemalloc) and the process's.
`--characters` gives each of them texts of a tenth of that length and of the whole. The model is a random one of two
layers. Exit status 1: memory grew by more than `--tolerance` MB, or time by more than the square root of 10 beyond 10.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.attention import capture_attention, head_view
from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertForMaskedLM

MEGABYTE = 2**20
LABELS = dict(enumerate(["O", "B-PER", "I-PER"]))
CHARACTERS = "国足今晚出战对阵球队体育财经科技娱乐教育房产股票游戏时政社会新闻"


def resident() -> float:
    """Memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def tiny_model(folder: Path) -> Path:
    """A random model with the embedded model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = ChineseBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        pinyin_table_size=len(tokenizer.pinyin_table),
        pinyin_embedding_size=16,
        glyph_storage="bits",
    )
    ChineseBertForMaskedLM(config).eval().save_pretrained(folder)
    return folder


def subjects(folder: Path) -> dict[str, Callable[[str], Any]]:
    """What is called, by name, each as a function of a text."""
    name = str(folder)
    tokenizer = AutoTokenizer.from_pretrained(name)
    classify = pipeline("zero-shot-prompt", model=name)
    answer = pipeline(
        "question-answering", model=AutoModelForQuestionAnswering.from_pretrained(name), tokenizer=tokenizer
    )
    tag = pipeline(
        "sequence-tagging",
        model=AutoModelForTokenClassification.from_pretrained(name, id2label=LABELS),
        tokenizer=tokenizer,
    )
    model = AutoModel.from_pretrained(name)
    return {
        "tokenizer": tokenizer,
        "zero-shot-prompt": lambda text: classify(text, candidate_labels=["体育", "财经"]),
        "new labels": lambda text: classify(text[:20], candidate_labels=["体育", f"非{han(text)[:6]}"]),
        "question-answering": lambda text: answer(question="谁", context=text),
        "sequence-tagging": tag,
        "attention page": lambda text: head_view(capture_attention(model, tokenizer, text, truncation=True)),
    }


def new_texts(length: int) -> Iterator[str]:
    """Texts that never come twice, of Han characters and of words nobody has seen."""
    number = 0
    while True:
        number += 1
        digits = "".join(CHARACTERS[int(digit) + 10 * (number % 2)] for digit in str(number))
        yield (f"x{number}y{digits}" * (1 + length // 10))[:length]


def han(text: str) -> str:
    """Its Han characters."""
    return "".join(character for character in text if character in CHARACTERS)


def memory_growth(call: Callable[[str], Any], calls: int) -> tuple[float, float]:
    """By how many MB Python's memory and the process's grow between a tenth of the calls and all of them."""
    texts = new_texts(30)
    for _ in range(max(calls // 10, 5)):
        call(next(texts))
    gc.collect()
    before = resident()
    tracemalloc.start()
    call(next(texts))
    gc.collect()
    first = tracemalloc.get_traced_memory()[0]
    for _ in range(calls - max(calls // 10, 5) - 1):
        call(next(texts))
    gc.collect()
    last = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return (last - first) / MEGABYTE, resident() - before


def seconds(call: Callable[[str], Any], text: str) -> float:
    """CPU time of a call."""
    begin = time.process_time()
    call(text)
    return time.process_time() - begin


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each subject; 1 where one of them grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, help="calls of each")
    parser.add_argument("--characters", type=int, help="length of the longer text")
    parser.add_argument("--only", nargs="*", help="names of what is called")
    parser.add_argument("--tolerance", type=float, default=8.0, help="MB that memory may grow by")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    grown = []
    with tempfile.TemporaryDirectory() as folder:
        for name, call in subjects(tiny_model(Path(folder))).items():
            if options.only and name not in options.only:
                continue
            if options.calls:
                python, process = memory_growth(call, options.calls)
                print(
                    f"{name:20} {options.calls} calls: Python {python:+.2f} MB, process {process:+.1f} MB", flush=True
                )
                grown += [name] * (max(python, process) > options.tolerance)
            if options.characters:
                call("国足")
                short, long = (seconds(call, (CHARACTERS * (n // 30 + 1))[:n]) for n in _lengths(options.characters))
                shown = f"{short:.2f} s and {long:.2f} s of CPU time, {resident():.0f} MB"
                print(f"{name:20} {options.characters // 10} and {options.characters} characters: {shown}", flush=True)
                grown += [name] * (long > 32 * max(short, 0.05))
    print("grew: " + ", ".join(grown) if grown else "nothing grew")
    return int(bool(grown))


def _lengths(characters: int) -> tuple[int, int]:
    return characters // 10, characters


if __name__ == "__main__":
    sys.exit(main())
