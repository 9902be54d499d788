"""Zero-shot and few-shot accuracy by how the label words were found, with and without the static prior.

    python benchmarks/_label_words.py --data DIR

DIR holds thucnews10/dev.txt, fewclue/eprstmt/ and chnsenticorp/train.tsv. The first 1,000 titles and the public test
of eprstmt are classified, with batch calibration. Words are expanded from other, unlabelled texts (titles 2,001 to
7,000; ChnSentiCorp), and searched with 16 examples a label (titles 2,001 to 7,000, three draws; eprstmt's own). No
ratio, and not part of `make bench`: the figures of docs/label-words.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import random
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import jieba
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import hf_nlpnotes
from hf_nlpnotes.prompting import Verbalizer, ready_label_words
from hf_nlpnotes.prompting.expansion import candidate_words, expand_from_texts, expand_from_vectors
from hf_nlpnotes.prompting.search import search_assignments, search_label_words
from hf_nlpnotes.prompting.static_prior import StaticVectors, combine, static_similarity
from hf_nlpnotes.prompting.text_scores import score_texts

TOPICS = ["财经", "房产", "股票", "教育", "科技", "社会", "时政", "体育", "游戏", "娱乐"]
OPINIONS = {"Positive": "好评", "Negative": "差评"}
Rows = list[tuple[str, str]]


class Task:
    """A template, texts to classify, unlabelled texts, and draws of 16 examples a label."""

    def __init__(self, template: str, one: dict[str, str], rows: Rows, unlabelled: list[str], draws: list[Rows]):
        self.template, self.one, self.rows, self.unlabelled, self.draws = template, one, rows, unlabelled, draws


def thucnews(folder: Path, size: int) -> Task:
    lines = (folder / "thucnews10" / "dev.txt").read_text(encoding="utf-8").splitlines()
    rows = [(title, TOPICS[int(number)]) for title, number in (line.rsplit("\t", 1) for line in lines if line.strip())]
    pool = rows[2000:7000]
    draws = []
    for seed in range(3):
        draw = random.Random(seed).sample(pool, len(pool))
        draws.append([row for topic in TOPICS for row in [row for row in draw if row[1] == topic][:16]])
    one = dict(zip(TOPICS, TOPICS, strict=True))
    return Task("下面报道一则{label}新闻。{text}", one, rows[:size], [text for text, _ in pool], draws)


def eprstmt(folder: Path, size: int) -> Task:
    def read(name: str) -> Rows:
        lines = (folder / "fewclue" / "eprstmt" / name).read_text(encoding="utf-8").splitlines()
        return [(row["sentence"], OPINIONS[row["label"]]) for row in map(json.loads, lines)]

    with (folder / "chnsenticorp" / "train.tsv").open(encoding="utf-8") as file:
        unlabelled = [row["text_a"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][:5000]
    rows = read("test_public.json")[:size]
    return Task("{text}总之是{label}。", {"好评": "好", "差评": "差"}, rows, unlabelled, [read("train_0.json")])


class Judge:
    """Accuracies of a verbalizer on a task: network, static similarity, both."""

    def __init__(self, model: Any, tokenizer: Any, task: Task):
        self.model, self.tokenizer, self.task = model, tokenizer, task
        self.vectors = StaticVectors.of(model, tokenizer)
        self.texts = [text for text, _ in task.rows]

    def __call__(self, verbalizer: Any) -> list[float]:
        verbalizer = Verbalizer.of(verbalizer)
        words = score_texts(self.model, self.tokenizer, self.task.template, self.texts, verbalizer.all_words, 64)
        network = words.centred.double() @ verbalizer.weight_matrix()
        similarity = static_similarity(self.model, self.tokenizer, self.texts, verbalizer, vectors=self.vectors)
        network, similarity = network - network.mean(dim=0), similarity - similarity.mean(dim=0)
        gold = torch.tensor([verbalizer.labels.index(label) for _, label in self.task.rows])
        answers = (network, similarity, combine(network, similarity, 1.0))
        return [100 * float((scores.argmax(dim=1) == gold).double().mean()) for scores in answers]


def show(name: str, results: list[list[float]]) -> None:
    cells = []
    for column in zip(*results, strict=True):
        spread = f" ±{statistics.stdev(column):4.1f}" if len(column) > 1 else " " * 6
        cells.append(f"{statistics.mean(column):6.1f}{spread}")
    print(f"{name:<44}" + "  ".join(cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", default=os.environ.get("HF_NLPNOTES_DATA"), required="HF_NLPNOTES_DATA" not in os.environ
    )
    parser.add_argument("--model", default=hf_nlpnotes.EMBEDDED_MODEL)
    parser.add_argument("--texts", type=int, default=1000)
    args = parser.parse_args()
    jieba.setLogLevel(logging.ERROR)
    torch.set_num_threads(1)
    model = AutoModelForMaskedLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    for name, read in [("thucnews10", thucnews), ("eprstmt", eprstmt)]:
        task = read(Path(args.data), args.texts)
        judge = Judge(model, tokenizer, task)
        majority = Counter(label for _, label in task.rows).most_common(1)[0][1] / len(task.rows)
        print(f"{name}: {len(task.rows)} texts, majority {100 * majority:.1f}")
        print(f"{'':<44}{'network':<13} {'static':<13} both")
        ready = {label: list(words) for label, words in ready_label_words(task.one).items()}
        candidates = candidate_words(task.unlabelled, min_texts=15)
        show("one word a label", [judge(task.one)])
        show("ready words", [judge(ready)])
        show("one, expanded to 8 from vectors", [judge(expand_from_vectors(judge.vectors, task.one, candidates))])
        for start, size in ((task.one, 8), (ready, 16)):
            found = expand_from_texts(task.unlabelled, start, judge.vectors, candidates, size)
            show(f"{'ready' if size == 16 else 'one'}, expanded to {size} from texts", [judge(found)])
            print("   ", {label: words[-8:] for label, words in zip(found.labels, found.words, strict=True)})
        for title, keep, size in (("searched: 8 words (PETAL)", None, 8), ("ready + 8 searched (PETAL)", ready, 16)):
            found = [
                search_label_words(
                    model, tokenizer, task.template, *zip(*draw, strict=True), candidates, size, keep=keep or None
                )
                for draw in task.draws
            ]
            show(title, [judge(verbalizer) for verbalizer in found])
        best = [
            search_assignments(model, tokenizer, task.template, *zip(*draw, strict=True), candidates)[0].verbalizer
            for draw in task.draws
        ]
        show("searched: one word (LM-BFF)", [judge(verbalizer) for verbalizer in best])


if __name__ == "__main__":
    main()
