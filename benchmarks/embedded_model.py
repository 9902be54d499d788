"""What the embedded model is good for: accuracies with thousands of labelled texts, with 16 a class, and with none.

    python benchmarks/embedded_model.py --data DIR --threads 2 --json sheet.json --page docs/embedded-model.md

DIR has `chnsenticorp/{train,dev,test}.tsv`, `fewclue/{eprstmt,tnews}/*.json` and `thucnews10/dev.txt` (or the
environment variable HF_NLPNOTES_DATA names it). `--rows` picks parts of the sheet. docs/embedded-model.md explains
each row. Needs scikit-learn, which nothing else of the package does.

The last line counts the goals that are reached.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _embedded_model_tasks import (
    CHNSENTICORP_TEXTS,
    COMMON_WORDS,
    FEWCLUE_SPLITS,
    Task,
    chnsenticorp,
    eprstmt,
    majority,
    seen_in_training,
    thucnews,
    tnews,
)
from _harness import no_ratio
from transformers import pipeline
from transformers.utils import logging

import hf_nlpnotes

if importlib.util.find_spec("sklearn") is None:
    no_ratio("scikit-learn is not installed, and there is nothing to compare with: pip install scikit-learn")

import _embedded_model_ways as ways
from _embedded_model_tuning import Recipe, tune
from _embedded_model_ways import FrozenModel, Prediction, accuracy

FULL = Recipe(epochs=3, batch_size=32, rate=5e-4)
"""For thousands of texts."""

FEW = Recipe(epochs=20, batch_size=8, rate=2e-4, freeze_embeddings=True)
"""For tens of texts: 80 steps with 32."""

HUNDREDS = replace(FEW, batch_size=32, rate=4e-4)
"""For hundreds of texts: 100 steps with 160."""

STOCK = "fine-tuned, stock head on [CLS]"
MEAN = "fine-tuned, head on the mean"
FROZEN = "frozen mean + TF-IDF + LR"
PROMPT = "prompt, not trained"

BEGIN, END = "<!-- sheet: begin -->", "<!-- sheet: end -->"

PARTS = ("zero-shot", "eprstmt", "thucnews", "chnsenticorp")


@dataclass(frozen=True)
class Row:
    """One line of the sheet.

    Args:
        task, way: what was measured.
        accuracies: on the test texts, one a seed, in percent.
        held_out: mean accuracy on the held-out texts, in percent; what choices are made by.
        unseen: mean accuracy on the test texts that are not among the training texts, where some are.
        chosen: best of the task's ways on the held-out texts.
        goal: to be reached by this row.
    """

    task: str
    way: str
    accuracies: tuple[float, ...]
    held_out: float | None = None
    unseen: float | None = None
    chosen: bool = False
    goal: float | None = None

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the seeds, of a sample; None for one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def reached(self) -> bool | None:
        """Whether the mean is at least the goal."""
        return None if self.goal is None else self.mean >= self.goal


def main() -> int:
    """Measures, prints and writes."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = Path(args.data) if args.data else None
    if folder is None or not folder.is_dir():
        no_ratio(f"No data in {args.data}: give --data or HF_NLPNOTES_DATA.")
    assert folder is not None
    sheet = Sheet(args.model, folder, args.seeds)
    parts: Mapping[str, Callable[[], None]] = {
        "zero-shot": sheet.zero_shot,
        "eprstmt": lambda: sheet.few_shot("eprstmt, 16 a class", eprstmt, FEWCLUE_SPLITS, FEW, goal=69),
        "thucnews": lambda: sheet.few_shot("THUCNews, 16 a class", thucnews, args.seeds, HUNDREDS, goal=66),
        "chnsenticorp": sheet.thousands,
    }
    for name in args.rows:
        parts[name]()
    if args.json:
        _write(Path(args.json), sheet, args)
    if args.page:
        page = Path(args.page)
        _replace(page, with_tables(page.read_text(encoding="utf-8"), sheet.rows))
    goals = [row.reached for row in sheet.rows if row.goal is not None]
    print(f"embedded_model goals reached {sum(map(bool, goals))} of {len(goals)}")
    return 0


class Sheet:
    """The rows, each printed as soon as it is measured.

    Args:
        model: folder of a masked language model.
        folder: the data.
        seeds: how many times what depends on chance is repeated.
    """

    def __init__(self, model: str, folder: Path, seeds: int) -> None:
        self.model, self.folder, self.seeds = model, folder, seeds
        self.frozen = FrozenModel(model)
        self.rows: list[Row] = []
        self.seconds: dict[str, float] = {}

    def zero_shot(self) -> None:
        """No labelled text at all: the pipeline with its default template, and with the task's three together."""
        start = time.perf_counter()
        goals = {
            ("THUCNews", "one word, three templates"): 36.0,
            ("THUCNews", "eight words, three templates"): 52.0,
        }
        classify: Any = pipeline("zero-shot-prompt", model=self.model, batch_size=64)
        for name, read in (("THUCNews", thucnews), ("eprstmt", eprstmt), ("tnews", tnews)):
            task = read(self.folder, 0)
            title = f"{name}, zero-shot"
            self._add(Row(title, "majority", (100 * majority(task),)))
            examples = sorted(task.test, key=lambda example: len(example[0]))  # batches of like length
            common = {label: self._known(COMMON_WORDS.get(label, label), label, classify) for label in task.labels}
            templates = list(task.templates)
            kinds = [
                ("its name a label", None, 0.0, None),
                ("one word a label", common, 0.0, None),
                ("one word, three templates", common, 0.0, templates),
                ("eight words a label", "ready", 0.0, None),
                ("eight words, three templates", "ready", 0.0, templates),
                ("eight words and static prior", "ready", 1.0, None),
                ("the same, three templates", "ready", 1.0, templates),
            ]
            for words, verbalizer, weight, template in kinds:
                for calibration in ("none", "contextual", "batch"):
                    answers = classify(
                        [text for text, _ in examples],
                        candidate_labels=list(task.labels),
                        verbalizer=verbalizer,
                        calibration=calibration,
                        prior_weight=weight,
                        **({} if template is None else {"template": template}),
                    )
                    hits = [
                        answer["labels"][0] == task.labels[label]
                        for answer, (_, label) in zip(answers, examples, strict=True)
                    ]
                    goal = goals.get((name, words)) if calibration == "batch" else None
                    percent = 100 * statistics.fmean(hits)
                    self._add(Row(title, f"{words}, calibration {calibration}", (percent,), goal=goal))
        self.seconds["zero-shot"] = time.perf_counter() - start

    @staticmethod
    def _known(word: str, label: str, classify: Any) -> str:
        """The word, or the label itself where the model's vocabulary cannot spell the word."""
        return label if classify.tokenizer.unk_token in classify.tokenizer.tokenize(word) else word

    def few_shot(self, title: str, read: Callable[[Path, int], Task], seeds: int, recipe: Recipe, goal: float) -> None:
        """Sixteen texts a class, all ways."""
        start = time.perf_counter()
        tasks = [read(self.folder, seed) for seed in range(seeds)]

        def each(way: Callable[[Task, int], Prediction]) -> list[Prediction]:
            return [way(task, seed) for seed, task in enumerate(tasks)]

        self._add(Row(title, "majority", tuple(100 * majority(task) for task in tasks)))
        self._measure(title, "TF-IDF + LR", tasks, each(ways.tfidf_regression))
        stock = each(lambda task, seed: tune("cls", self.model, task, recipe, seed))
        self._measure(title, STOCK, tasks, stock)
        first = len(self.rows)
        found: dict[str, list[Prediction]] = {}
        for way, run in {
            MEAN: lambda task, seed: tune("mean", self.model, task, recipe, seed),
            "fine-tuned prompt": lambda task, seed: tune("prompt", self.model, task, recipe, seed),
            "frozen mean + LR": lambda task, seed: ways.mean_regression(self.frozen, task, seed),
            "frozen [MASK] + LR": lambda task, seed: ways.mask_regression(self.frozen, task, seed),
            FROZEN: lambda task, seed: ways.mean_tfidf_regression(self.frozen, task, seed),
            PROMPT: lambda task, _seed: ways.calibrated_prompt(self.frozen, task),
        }.items():
            found[way] = each(run)
            self._measure(title, way, tasks, found[way])
        held_out = [task.dev for task in tasks]
        for way in (MEAN, FROZEN):
            weight, mixed = ways.best_mix(found[way], found[PROMPT], held_out)
            self._measure(title, f"{way}; prompt × {weight:g}", tasks, mixed)
        weight, mixed = ways.best_mix(mixed, found[MEAN], held_out)
        self._measure(title, f"the last one; fine-tuned × {weight:g}", tasks, mixed)
        self._choose(title, first, goal)
        self.seconds[title] = time.perf_counter() - start

    def thousands(self) -> None:
        """ChnSentiCorp with 4,800 labelled texts."""
        start = time.perf_counter()
        title = f"ChnSentiCorp, {CHNSENTICORP_TEXTS} texts"
        tasks = [chnsenticorp(self.folder, seed) for seed in range(self.seeds)]
        self._add(Row(title, "majority", tuple(100 * majority(task) for task in tasks)))
        regression = [ways.tfidf_regression(task, seed) for seed, task in enumerate(tasks)]
        self._measure(title, "TF-IDF + LR", tasks, regression)
        stock = [tune("cls", self.model, task, FULL, seed) for seed, task in enumerate(tasks)]
        self._measure(title, STOCK, tasks, stock)
        first = len(self.rows)
        tuned = [tune("mean", self.model, task, FULL, seed) for seed, task in enumerate(tasks)]
        self._measure(title, MEAN, tasks, tuned)
        weight, mixed = ways.best_mix(tuned, regression, [task.dev for task in tasks])
        self._measure(title, f"{MEAN}; TF-IDF + LR × {weight:g}", tasks, mixed)
        self._choose(title, first, goal=90)
        self.seconds[title] = time.perf_counter() - start

    def _measure(self, title: str, way: str, tasks: Sequence[Task], predictions: Sequence[Prediction]) -> None:
        pairs = list(zip(tasks, predictions, strict=True))
        held_out = statistics.fmean(100 * accuracy(found.dev, task.dev) for task, found in pairs)
        unseen = []
        for task, found in pairs:
            seen = seen_in_training(task)
            fresh = [place for place, known in enumerate(seen) if not known]
            if len(fresh) < len(seen):
                unseen.append(100 * accuracy(found.test[fresh], [task.test[place] for place in fresh]))
        row = Row(
            title,
            way,
            tuple(100 * accuracy(found.test, task.test) for task, found in pairs),
            held_out,
            statistics.fmean(unseen) if unseen else None,
        )
        self._add(row)

    def _choose(self, title: str, first: int, goal: float) -> None:
        """Repeat the best of the rows from `first` on, by the held-out texts, as the task's result."""
        best = max(self.rows[first:], key=lambda row: row.held_out or 0.0)  # the first of several equal ones
        self._add(Row(title, f"chosen: {best.way}", best.accuracies, best.held_out, best.unseen, True, goal))

    def _add(self, row: Row) -> None:
        if not self.rows or self.rows[-1].task != row.task:
            print(f"\n{row.task}\n{'':<58}{'test':>6}{'±':>7}{'unseen':>8}{'held out':>10}")
        self.rows.append(row)
        deviation, unseen, held_out = (
            "" if value is None else f"{value:.1f}" for value in (row.deviation, row.unseen, row.held_out)
        )
        end = "" if row.goal is None else f"  goal {row.goal:g} {'ok' if row.reached else 'short'}"
        print(f"{row.way:<58}{row.mean:>6.1f}{deviation:>7}{unseen:>8}{held_out:>10}{end}", flush=True)


def with_tables(page: str, rows: Sequence[Row]) -> str:
    """The page with one Markdown table a task between its two marks.

    Raises:
        ValueError: a mark is not there exactly once.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"The page needs the marks {BEGIN!r} and {END!r}, once each and in this order.")
    lines = []
    for task in dict.fromkeys(row.task for row in rows):
        lines += [f"### {task}", "", "| | test | ± | unseen | held out | goal |", "|---|---|---|---|---|---|"]
        for row in rows:
            if row.task == task:
                values = (row.mean, row.deviation, row.unseen, row.held_out)
                cells = ["" if value is None else f"{value:.1f}" for value in values]
                goal = "" if row.goal is None else f"{row.goal:g}, {'reached' if row.reached else 'not reached'}"
                lines.append(f"| {' | '.join([row.way, *cells, goal])} |")
        lines.append("")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, "", *lines]) + END + after


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("HF_NLPNOTES_DATA"), help="folder of the data sets")
    parser.add_argument("--model", default=hf_nlpnotes.EMBEDDED_MODEL, help="folder of a masked language model")
    parser.add_argument("--json", metavar="FILE", help="write the sheet there too")
    parser.add_argument("--page", metavar="FILE", help="put the tables between the marks of this Markdown page")
    parser.add_argument("--rows", nargs="+", choices=PARTS, default=PARTS, help="parts of the sheet (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="at least three for a result (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    args = parser.parse_args()
    if args.seeds < 1 or args.threads < 1:
        parser.error("--seeds and --threads are positive numbers")
    return args


def _write(path: Path, sheet: Sheet, args: argparse.Namespace) -> None:
    """The sheet as JSON, whole or not at all."""
    names = ("hf_nlpnotes", "transformers", "torch", "scikit-learn", "numpy")
    content: dict[str, Any] = {
        "rows": [
            {**asdict(row), "mean": row.mean, "deviation": row.deviation, "reached": row.reached} for row in sheet.rows
        ],
        "model": args.model,
        "recipes": {"thousands": asdict(FULL), "hundreds": asdict(HUNDREDS), "few": asdict(FEW)},
        "seconds": sheet.seconds,
        "threads": args.threads,
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in names},
        },
    }
    _replace(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
