"""The data sets of the sheet: texts with labels, and splits that are drawn by seed or given by the data set's authors.

Read from a folder with `chnsenticorp/{train,dev,test}.tsv`, `fewclue/{eprstmt,tnews}/…` and `thucnews10/dev.txt`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hf_nlpnotes.fewclue import TNEWS_TOPICS

Example: TypeAlias = "tuple[str, int]"
"""A text and the number of its label."""

SHOTS = 16
CHNSENTICORP_TEXTS = 4800
THUCNEWS_TEST = 2000
FEWCLUE_SPLITS = 5

TOPIC_TEMPLATES = ("{label}：{text}", "{label}新闻：{text}", "下面报道一则{label}新闻。{text}")
OPINION_TEMPLATES = ("{label}评：{text}", "{text}总之是{label}。", "{text}这是{label}评。")
OPINION_WORDS = {"差评": "差", "好评": "好"}
THUCNEWS_TOPICS = ("财经", "房产", "股票", "教育", "科技", "社会", "时政", "体育", "游戏", "娱乐")
COMMON_TOPIC_WORDS = ("金融", "楼市", "股市", "学校", "手机", "警方", "政府", "比赛", "玩家", "演员")
COMMON_WORDS = {
    **dict(zip(THUCNEWS_TOPICS, COMMON_TOPIC_WORDS, strict=True)),
    **OPINION_WORDS,
}
"""One word a label that people use more than the label's name; a label that is not here is its own word."""


@dataclass(frozen=True)
class Task:
    """Texts to learn from, to choose on and to test on, and what a prompt needs.

    Args:
        labels: the name of each label, in Chinese, one for which there are ready label words.
        templates: prompts; the first is the one to train in.
        words: one word a label, for the prompt that is trained.
        train: what every way learns from.
        dev: held out of training; for choosing, never for learning.
        test: only measured.
    """

    labels: tuple[str, ...]
    templates: tuple[str, ...]
    words: tuple[str, ...]
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]


def chnsenticorp(folder: Path, seed: int, texts: int = CHNSENTICORP_TEXTS) -> Task:
    """Opinions on hotels, books and computers: `texts` of the training file, as many of each label."""
    files = [_read_tsv(folder / "chnsenticorp" / f"{name}.tsv") for name in ("train", "dev", "test")]
    chosen, _ = draw(files[0], texts // 2, seed)
    return Task(**_OPINION, train=chosen, dev=files[1], test=files[2])


def eprstmt(folder: Path, seed: int) -> Task:
    """Opinions on goods, 32 texts: FewCLUE's own split `train_{seed}` with its `dev_{seed}`.

    The splits lie one after the other in `train_few_all.json` and `dev_few_all.json`.
    """
    if not 0 <= seed < FEWCLUE_SPLITS:
        raise ValueError(f"FewCLUE has {FEWCLUE_SPLITS} splits, numbered from 0: there is no split {seed}.")
    place = folder / "fewclue" / "eprstmt"
    rows = slice(2 * SHOTS * seed, 2 * SHOTS * (seed + 1))
    train, dev = (_read_opinions(place / f"{name}_few_all.json")[rows] for name in ("train", "dev"))
    return Task(**_OPINION, train=train, dev=dev, test=_read_opinions(place / "test_public.json"))


def thucnews(folder: Path, seed: int, shots: int = SHOTS, test: int = THUCNEWS_TEST) -> Task:
    """Titles of ten topics: `shots` a topic to learn from, as many to choose on, and a fixed test of `test` texts.

    The test texts are the same for every seed, as many of each topic; a title that occurs twice is taken once.
    """
    lines = (folder / "thucnews10" / "dev.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit("\t", 1) for line in lines if line.strip()]
    titles = {title.strip(): int(label) for title, label in reversed(rows)}
    measured, rest = draw(tuple(titles.items()), test // len(THUCNEWS_TOPICS), seed=0)
    train, rest = draw(rest, shots, seed)
    dev, _ = draw(rest, shots, seed)
    return Task(THUCNEWS_TOPICS, TOPIC_TEMPLATES, THUCNEWS_TOPICS, train, dev, measured)


def tnews(folder: Path, seed: int) -> Task:
    """Titles of fifteen topics, 16 a topic: FewCLUE's split 0, the only one that is here as a file of its own."""
    if seed != 0:
        raise ValueError(f"Of tnews there is split 0 only, not {seed}.")
    place = folder / "fewclue" / "tnews"
    names = list(TNEWS_TOPICS)
    train, dev, test = (
        tuple((row["sentence"], names.index(row["label_desc"])) for row in _read_json_lines(place / f"{name}.json"))
        for name in ("train_0", "dev_0", "test_public")
    )
    topics = tuple(TNEWS_TOPICS.values())
    return Task(topics, TOPIC_TEMPLATES, topics, train, dev, test)


def draw(rows: Sequence[Example], each: int, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """`each` rows of every label, drawn by seed, and the rows that were not drawn; both in the order of the rows.

    Raises:
        ValueError: a label has fewer rows.
    """
    generator = np.random.default_rng(seed)
    labels = np.array([label for _, label in rows])
    drawn: set[int] = set()
    for label in sorted(set(labels.tolist())):
        places = np.flatnonzero(labels == label)
        if len(places) < each:
            raise ValueError(f"Label {label} has {len(places)} texts, {each} are to be drawn.")
        drawn.update(generator.permutation(places)[:each].tolist())
    chosen = tuple(row for place, row in enumerate(rows) if place in drawn)
    return chosen, tuple(row for place, row in enumerate(rows) if place not in drawn)


def seen_in_training(task: Task) -> list[bool]:
    """For each test text whether it is among the training texts too, whatever their spaces."""
    known = {_bare(text) for text, _ in task.train}
    return [_bare(text) in known for text, _ in task.test]


def majority(task: Task) -> float:
    """Share of the most frequent label of the training texts among the test texts."""
    labels = [label for _, label in task.train]
    most = max(sorted(set(labels)), key=labels.count)
    return sum(label == most for _, label in task.test) / len(task.test)


_OPINION: dict[str, Any] = {
    "labels": tuple(OPINION_WORDS),
    "templates": OPINION_TEMPLATES,
    "words": tuple(OPINION_WORDS.values()),
}


def _bare(text: str) -> str:
    return "".join(text.split())


def _read_tsv(path: Path) -> tuple[Example, ...]:
    """A line of column names, then label, tab, text."""
    lines = path.read_text(encoding="utf-8").split("\n")[1:]
    rows = [line.rstrip("\r").split("\t", 1) for line in lines if line.strip()]
    return tuple((text, int(label)) for label, text in rows)


def _read_json_lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _read_opinions(path: Path) -> tuple[Example, ...]:
    return tuple((row["sentence"], int(row["label"] == "Positive")) for row in _read_json_lines(path))
