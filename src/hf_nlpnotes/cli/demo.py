"""`hf-nlpnotes demo`: sentences classified and masks filled by the embedded model."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ._models import device_of, make_pipeline
from ._options import add_json, add_model, new_command
from ._output import print_table, say

_DEMO_TASKS = [
    (
        "News titles: which topic?",
        {"template": "下面报道一则{label}新闻。{text}"},
        ["体育", "财经", "科技", "娱乐", "教育", "房产"],
        [
            "主队加时赛绝杀对手，时隔十年再夺联赛冠军",
            "央行下调贷款利率，多家银行跟进",
            "新款手机换上自研芯片，电池续航翻倍",
            "高考分数线今日公布，考生可上网查询成绩",
            "这部电影上映三天，导演和主演到场与观众见面",
        ],
    ),
    (
        "Reviews: good or bad?",
        {"template": "{text}总的来说{label}。"},
        ["好评", "差评"],
        [
            "房间很干净，离地铁近，前台态度也好，下次还住这里",
            "屏幕用了两天就坏了，客服一直不回复，后悔买了",
            "书很快就收到了，包装完好，孩子非常喜欢",
        ],
    ),
]

_DEMO_MASKS = ["我很喜[MASK]吃苹果。", "他在银[MASK]工作。", "中国的首都是北[MASK]。"]


_EPILOG = """\
examples:
  hf-nlpnotes demo
  hf-nlpnotes demo --json
"""


def add_parser(commands: Any) -> None:
    """Add the command to a parser's subparsers."""
    demo = new_command(
        commands,
        "demo",
        run,
        summary="classify Chinese sentences and fill masks with the embedded model, offline",
        description="Classify a few sentences by a prompt, fill masks, and print tables.",
        epilog=_EPILOG,
    )
    add_model(demo, "a masked language model", embedded=True)
    demo.add_argument("--device", help="where to run: cpu, cuda:0, … (default: the first accelerator)")
    add_json(demo, "print one JSON object instead of tables")


def run(args: argparse.Namespace) -> None:
    """Show what the embedded model does."""
    started = time.perf_counter()
    pipe = make_pipeline("zero-shot-prompt", args, device=device_of(args))
    from transformers import pipeline

    fill = pipeline("fill-mask", model=pipe.model, tokenizer=pipe.tokenizer, device=pipe.device)
    loaded = time.perf_counter() - started
    name = Path(pipe.model.name_or_path).name
    parameters = sum(parameter.numel() for parameter in pipe.model.parameters())

    tasks: list[dict[str, Any]] = [
        {"title": title, **template, "answers": pipe(texts, labels, verbalizer="ready", **template)}
        for title, template, labels, texts in _DEMO_TASKS
    ]
    masks: list[dict[str, Any]] = [
        {"text": text, "answers": [_candidate(pipe.tokenizer, text, found) for found in fill(_masked(pipe, text))]}
        for text in _DEMO_MASKS
    ]
    if args.json:
        report = {"model": pipe.model.name_or_path, "parameters": parameters, "load_seconds": round(loaded, 3)}
        say(json.dumps({**report, "classification": tasks, "fill_mask": masks}, ensure_ascii=False, indent=2))
        return

    say(f"Model {name}: {parameters / 1e6:.1f} million parameters, loaded in {loaded:.1f} s.")
    for task in tasks:
        say(f"\n{task['title']}  Prompt: {task['template']}")
        rows = [
            [answer["sequence"], *(f"{answer['labels'][i]} {answer['scores'][i]:.2f}" for i in range(2))]
            for answer in task["answers"]
        ]
        print_table(["text", "best", "second"], rows)
    say("\nMasks: which character?")
    rows = [
        [mask["text"], *(f"{x['token']} {x['pinyin']} {x['score']:.2f}" for x in mask["answers"])] for mask in masks
    ]
    print_table(["text", "1", "2", "3", "4", "5"], rows)
    say(
        f"\nDone: {sum(len(task['answers']) for task in tasks)} texts classified with no training data (contextual"
        f" calibration), {len(masks)} masks filled."
        "\nNext, your own text, one a line:  hf-nlpnotes classify --labels 体育,财经,科技 FILE"
    )


def _masked(pipe: Any, text: str) -> str:
    return text.replace("[MASK]", pipe.tokenizer.mask_token)


def _candidate(tokenizer: Any, text: str, found: dict[str, Any]) -> dict[str, Any]:
    """A character that fills the mask, with its reading in the sentence where the tokenizer knows readings."""
    token = found["token_str"].strip()
    filled = tokenizer(text.replace("[MASK]", token), return_offsets_mapping=True)
    place = text.index("[MASK]")
    reading = ""
    if "pinyin_ids" in filled:
        from hf_nlpnotes.models.chinesebert.pinyin_chinesebert import LETTERS, to_tone_mark

        where = next(i for i, (a, b) in enumerate(filled["offset_mapping"]) if a <= place < b)
        letters = tokenizer.pinyin_table[filled["pinyin_ids"][where]]
        reading = to_tone_mark("".join(LETTERS[letter] for letter in letters if letter))
    return {"token": token, "pinyin": reading, "score": found["score"]}
