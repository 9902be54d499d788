"""Classify Chinese text by a prompt, with no training data, and measure how well that works.

    python examples/zero_shot_prompt.py
    python examples/zero_shot_prompt.py --data DIR

The first prints a label for each of a few titles:

    体育 0.37  国足主场逼平对手，保住出线希望

The second reads DIR/thucnews10/dev.txt and DIR/fewclue/eprstmt/test_public.json and prints accuracies, one row a data
set, one column a calibration, beside that of the most frequent label. With the embedded model of version 0.1:

    texts                   majority        none  contextual      domain       batch
    thucnews10  10 labels      0.113       0.322       0.435       0.415       0.460
    eprstmt  2 labels          0.500       0.566       0.689       0.597       0.698
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from transformers import HfArgumentParser, pipeline

import hf_nlpnotes

TITLES = [
    "国足主场逼平对手，保住出线希望",
    "央行宣布下调存款准备金率",
    "新款手机发布，电池续航翻倍",
    "高考志愿填报今日开始",
]
TOPICS = ["体育", "财经", "科技", "教育"]
TOPIC_TEMPLATE = "下面报道一则{label}新闻。{text}"
OPINION_TEMPLATE = "{text}总之是{label}。"

# Label numbers of thucnews10/dev.txt, and labels of fewclue/eprstmt.
THUCNEWS = ["财经", "房产", "股票", "教育", "科技", "社会", "时政", "体育", "游戏", "娱乐"]
EPRSTMT = {"Positive": "好评", "Negative": "差评"}
CALIBRATIONS = ["none", "contextual", "domain", "batch"]


@dataclass
class Options:
    """Command-line options."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    verbalizer: str = "ready"
    texts: int = 1000
    batch_size: int = 64


def read_thucnews(folder: Path) -> list[tuple[str, str]]:
    """Titles with their topics; a line is a title, a tab and the number of the topic."""
    lines = (folder / "thucnews10" / "dev.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.rsplit("\t", 1) for line in lines if line.strip()]
    return [(title, THUCNEWS[int(number)]) for title, number in rows]


def read_eprstmt(folder: Path) -> list[tuple[str, str]]:
    """Reviews with their opinions; a line is a JSON object."""
    lines = (folder / "fewclue" / "eprstmt" / "test_public.json").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [(row["sentence"], EPRSTMT[row["label"]]) for row in rows]


def main() -> None:
    """Classify, or measure."""
    (options,) = HfArgumentParser(Options).parse_args_into_dataclasses()
    verbalizer = "ready" if options.verbalizer == "ready" else None
    classify = pipeline("zero-shot-prompt", model=options.model, verbalizer=verbalizer, batch_size=options.batch_size)

    if options.data is None:
        for answer in classify(TITLES, candidate_labels=TOPICS, template=TOPIC_TEMPLATE):
            print(f"{answer['labels'][0]} {answer['scores'][0]:.2f}  {answer['sequence']}")
        return

    print("  ".join([f"{'texts':<22}", "majority", *(f"{name:>10}" for name in CALIBRATIONS)]))
    for name, read, labels, template in [
        ("thucnews10", read_thucnews, THUCNEWS, TOPIC_TEMPLATE),
        ("eprstmt", read_eprstmt, list(EPRSTMT.values()), OPINION_TEMPLATE),
    ]:
        rows = read(Path(options.data))[: options.texts]
        texts, gold = [text for text, _ in rows], [label for _, label in rows]
        accuracies = [Counter(gold).most_common(1)[0][1] / len(rows)]
        for calibration in CALIBRATIONS:
            answers = classify(texts, candidate_labels=labels, template=template, calibration=calibration)
            hits = [answer["labels"][0] == label for answer, label in zip(answers, gold, strict=True)]
            accuracies.append(sum(hits) / len(hits))
        cells = [f"{name + f'  {len(labels)} labels':<22}", f"{accuracies[0]:>8.3f}"]
        print("  ".join([*cells, *(f"{accuracy:>10.3f}" for accuracy in accuracies[1:])]))


if __name__ == "__main__":
    main()
