"""Softmax, constrained decoding and CRF on real data: the table of docs/sequence-tagging.md.

    python benchmarks/tagging_tables.py --data DIR --results runs.jsonl --bf16 --page docs/sequence-tagging.md

DIR holds `word_segmentation`, `pos`, `ner`, `slot_filling`, `srl` and `keywords`; HF_NLPNOTES_DATA names it too. Each
task is that of the example of its name, learnt with a softmax a token and with a CRF, everything else alike. The
softmax model's logits are decoded twice: the best tag of each token, and the best sequence that is legal. A row is the
score in percent on the test sentences, mean ± deviation over the seeds, which also draw the sentences to learn from;
beside it the share of test sentences whose tags break their scheme. Options are the examples' own, the same for
all tasks; only the number of sentences is each task's own, more where fewer taught nothing.

Every run is appended to `--results` when it ends; those that stand there already are not run again. `--tasks` and
`--seeds` make it shorter. It has no ratio and no goal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import keyword_extraction
import pos_tagging
import semantic_roles
import word_segmentation
from _tagging_training import Tagger, TaggingOptions, span_f1

from hf_nlpnotes.corpora import (
    TaggedSentence,
    read_columns,
    read_conllu,
    read_keywords,
    read_roles,
    read_segmented,
    read_tagged,
    read_utterances,
)
from hf_nlpnotes.corpora.tagged_files import Reader
from hf_nlpnotes.tagging import is_legal

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
WAYS = ("softmax", "constrained", "CRF")
Tags = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Task:
    """Data of one task and its score.

    Attributes:
        title: in the table.
        metric: what `score` gives.
        files: of the data folder: what is learnt from, and where it is another file what is tested on.
        read: their format.
        score: (train, test, predicted tags, scheme) → share of 1.
        units: as of `Tagger`.
        train: sentences to learn from.
        test: sentences to test on, at most.
    """

    title: str
    metric: str
    files: tuple[str, ...]
    read: Reader
    score: Callable[[Sequence[TaggedSentence], Sequence[TaggedSentence], Tags, str], float]
    units: str = "characters"
    train: int = 200
    test: int = 150


def spans(_: Any, test: Sequence[TaggedSentence], tags: Tags, scheme: str) -> float:
    """F1 of spans."""
    return span_f1(test, tags, scheme).f1


def keywords(_: Any, test: Sequence[TaggedSentence], tags: Tags, scheme: str) -> float:
    """F1 of distinct keywords."""
    found = [keyword_extraction.keywords_of(sentence, row, scheme) for sentence, row in zip(test, tags, strict=True)]
    return keyword_extraction.score(test, found).f1


TASKS = {
    "pku": Task(
        "PKU segmentation",
        "word F1",
        ("word_segmentation/pku_test_gold.utf8",),
        read_segmented,
        lambda train, test, tags, scheme: word_segmentation.score(train, test, tags, scheme).f1,
    ),
    "gsdsimp": Task(
        "GSDSimp words and POS, from characters",
        "joint F1",
        ("pos/zh_gsdsimp-ud-dev.conllu", "pos/zh_gsdsimp-ud-test.conllu"),
        read_conllu,
        lambda _, test, tags, scheme: pos_tagging.score_pairs(test, tags, scheme).f1,
    ),
    "weibo": Task("Weibo NER", "span F1", ("ner/weibo",), read_columns, spans, train=450),
    "resume": Task("Resume NER", "span F1", ("ner/resume",), read_columns, spans),
    "cais": Task("CAIS slots", "span F1", ("slot_filling/cais",), read_utterances, spans, train=400, test=500),
    "up": Task(
        "UP semantic roles",
        "argument F1",
        ("srl/zh-up-dev.conllu",),
        partial(read_roles, form=2),
        lambda _, test, tags, scheme: semantic_roles.score(test, tags, scheme).f1,
        train=600,
    ),
    "csl": Task("CSL keywords", "keyword F1", ("keywords/csl_dev.tsv",), read_keywords, keywords, train=80, test=80),
    "gsdsimp-words": Task(
        "GSDSimp POS of given words",
        "accuracy",
        ("pos/zh_gsdsimp-ud-dev.conllu", "pos/zh_gsdsimp-ud-test.conllu"),
        partial(read_conllu, characters=False),
        lambda train, test, tags, _: pos_tagging.score_tags(train, test, tags).accuracy,
        units="words",
    ),
}


def run(name: str, task: Task, seed: int, crf: bool, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train once and score each way to decode."""
    folder = Path(options.data)
    files = [str(folder / file) for file in task.files]
    train, test = read_tagged(files[0], task.read, *files[1:])
    train = random.Random(seed).sample(train, min(options.limit or task.train, len(train)))
    test = test[: options.test_limit or task.test]
    begin = time.process_time()
    settings = TaggingOptions(model=options.model, crf=crf, seed=seed, bf16=options.bf16)
    tagger = Tagger(settings, train, units=task.units)
    seconds = time.process_time() - begin
    logits, _ = tagger.scores(test)
    rows = []
    for way in ("CRF",) if crf else ("softmax", "constrained"):
        tags = tagger.decode(logits, constrained=way != "softmax")
        illegal = sum(not is_legal(row, tagger.scheme) for row in tags)
        rows.append(
            {
                "task": name,
                "way": way,
                "seed": seed,
                "score": 100 * task.score(train, test, tags, tagger.scheme),
                "illegal": 100 * illegal / len(test),
                "train": len(train),
                "test": len(test),
                "tags": len(tagger.labels),
                "scheme": tagger.scheme,
                "seconds": round(seconds, 1),
            }
        )
    return rows


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a task, a column a way."""
    lines = [
        "| task | score | sentences, tags | seeds | softmax | illegal | constrained | CRF |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, task in TASKS.items():
        rows = {way: [row for row in results if (row["task"], row["way"]) == (name, way)] for way in WAYS}
        if not all(rows.values()):
            continue
        first = rows["softmax"][0]
        seeds = {way: {row["seed"] for row in found} for way, found in rows.items()}
        common = set.intersection(*seeds.values())
        rows = {way: [row for row in found if row["seed"] in common] for way, found in rows.items()}
        broken = sum(row["illegal"] for way in ("constrained", "CRF") for row in rows[way])
        if broken:
            raise SystemExit(f"{name}: constrained decoding gave illegal tags")
        cells = {way: _cell([row["score"] for row in found]) for way, found in rows.items()}
        illegal = statistics.fmean(row["illegal"] for row in rows["softmax"])
        lines.append(
            f"| {task.title} | {task.metric} | {first['train']} / {first['test']}, {first['tags']} | {len(common)} |"
            f" {cells['softmax']} | {illegal:.1f} % | {cells['constrained']} | {cells['CRF']} |"
        )
    return "\n".join(lines)


def _cell(scores: Sequence[float]) -> str:
    deviation = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    return f"{statistics.fmean(scores):.1f}{deviation}"


def write_page(page: Path, content: str) -> None:
    """Put the table between its two marks."""
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{page} lacks the lines {BEGIN} and {END}")
    before, rest = text.split(BEGIN, 1)
    temporary = page.with_name(f"{page.name}.new")
    temporary.write_text(f"{before}{BEGIN}\n{content}\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")
    temporary.replace(page)


def main() -> None:
    """Run what has not been run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("HF_NLPNOTES_DATA"))
    parser.add_argument("--model", default=TaggingOptions.model)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=int, help="sentences to learn from, instead of each task's own number")
    parser.add_argument("--test_limit", type=int)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--results", type=Path, default=Path("tagging_tables.jsonl"))
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    if not options.data or not Path(options.data).is_dir():
        print("no data: give --data DIR or set HF_NLPNOTES_DATA", file=sys.stderr)
        raise SystemExit(2)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    results = [json.loads(line) for line in options.results.open(encoding="utf-8")] if options.results.exists() else []
    for seed in range(options.seeds):
        for name in options.tasks:
            for crf in (False, True):
                if any((row["task"], row["seed"], row["way"] == "CRF") == (name, seed, crf) for row in results):
                    continue
                found = run(name, TASKS[name], seed, crf, options)
                results += found
                with options.results.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in found)
                for row in found:
                    print(json.dumps(row), flush=True)
    print(table(results))
    if options.page:
        write_page(options.page, table(results))


if __name__ == "__main__":
    main()
