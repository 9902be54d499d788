"""Speed of prompt classification beside transformers' own pipelines, each with a model of the same size.

    prompt_speed            zero-shot-prompt through zero-shot-classification, 10 labels, an encoder of 3 layers and
                            width 768 (as RBT3) in both: at least 8 times as fast
    prompt_fill_mask_21k    through fill-mask with the same model, as RBT3, 21,128 entries: at least 1.3 times
    prompt_fill_mask_250k   through fill-mask with the same model, as Multilingual MiniLM (12 layers, width 384),
                            250,002 entries: at least 4 times
    prompt_labels           time with 100 labels through the time with 10, of one length: at most 1.1

`--large` adds the larger models of the same vocabularies, as BERT base Chinese and as XLM-RoBERTa base (12 layers,
width 768), with the same goals: there the encoder, which both run, outweighs the head that is saved. Another part of
what is saved is padding: ours puts texts of one length together, and the stock pipelines take them as they come.

Times are CPU time of whole pipelines on one thread, tokenizing, calibration and answers included. The models are
random, with real shapes; the texts are random Han characters. fill-mask takes one mask a text and targets of one
token, so that the labels are single characters there, and its scores over the labels must equal ours before anything
is timed. zero-shot-classification reads a text once a label: its answers are about other questions, and what is
compared is their form.

    python benchmarks/prompt_speed.py
"""

from __future__ import annotations

import os

# Before the Rust tokenizers start their threads.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from _harness import Ratio, interleave, median_ratio, parser, report
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    FillMaskPipeline,
    ZeroShotClassificationPipeline,
)

from hf_nlpnotes.pipelines import ZeroShotPromptPipeline

HAN = [chr(code) for code in range(0x4E00, 0x9FA6)]
SHORT, LONG = 21_128, 250_002
SHAPES = {  # layers, width, heads, vocabulary
    "rbt3": (3, 768, 12, SHORT),
    "multilingual-minilm": (12, 384, 12, LONG),
    "bert-base": (12, 768, 12, SHORT),
    "xlm-roberta-base": (12, 768, 12, LONG),
}
BATCH = 8


def main() -> int:
    """Compares, times and reports."""
    options = parser(__doc__)
    options.add_argument("--texts", type=int, default=32, help="texts of 30 to 60 characters (default: 32)")
    options.add_argument("--large", action="store_true", help="also the two large models")
    args = options.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(0)
    texts = ["".join(rng.choices(HAN, k=rng.randint(30, 60))) for _ in range(args.texts)]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder, "vocab.txt")
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"，。：？", *HAN]
        vocabulary.write_text("\n".join(tokens) + "\n", encoding="utf-8")
        tokenizer = BertTokenizer(vocab=str(vocabulary), model_max_length=512)

    ratios = [zero_shot(tokenizer, texts, args), labels(tokenizer, texts, args)]
    ratios.append(fill_mask("prompt_fill_mask_21k", "rbt3", 1.3, tokenizer, texts, args))
    ratios.append(fill_mask("prompt_fill_mask_250k", "multilingual-minilm", 4, tokenizer, texts, args))
    if args.large:
        ratios.append(fill_mask("prompt_fill_mask_21k_base", "bert-base", 1.3, tokenizer, texts, args))
        ratios.append(fill_mask("prompt_fill_mask_250k_base", "xlm-roberta-base", 4, tokenizer, texts, args))
    return report(ratios, as_json=args.json, packages=["hf_nlpnotes", "transformers", "torch"])


def shape(name: str, **options: Any) -> BertConfig:
    """Configuration of a real model's size."""
    layers, width, heads, entries = SHAPES[name]
    torch.manual_seed(0)
    return BertConfig(
        vocab_size=entries,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        **options,
    )


def names(count: int) -> list[str]:
    """Distinct labels of two characters."""
    rng = random.Random(1)
    return ["".join(pair) for pair in zip(rng.sample(HAN, count), rng.choices(HAN, k=count), strict=True)]


def ours(model: Any, tokenizer: Any, **options: Any) -> ZeroShotPromptPipeline:
    """Our pipeline."""
    return ZeroShotPromptPipeline(
        model=model, tokenizer=tokenizer, device="cpu", batch_size=BATCH, template="这是一条{label}：{text}", **options
    )


def time_in_turn(works: list[Any], args: Any) -> list[list[float]]:
    """CPU seconds of each work in each round."""
    return interleave(works, rounds=args.rounds, collect=not args.no_gc)


def per_text(times: list[list[float]], args: Any) -> list[float]:
    """Median milliseconds a text of each work."""
    return [round(1000 * statistics.median(seconds) / args.texts, 2) for seconds in times]


def zero_shot(tokenizer: Any, texts: list[str], args: Any) -> Ratio:
    """The stock pipeline with a classifier of the same encoder, 10 labels."""
    candidates = names(10)
    prompt = ours(BertForMaskedLM(shape("rbt3")).eval(), tokenizer)
    config = shape("rbt3", id2label={0: "contradiction", 1: "neutral", 2: "entailment"})
    config.label2id = {label: i for i, label in config.id2label.items()}
    stock = ZeroShotClassificationPipeline(
        model=BertForSequenceClassification(config).eval(), tokenizer=tokenizer, device="cpu", batch_size=BATCH
    )

    hypothesis = "这是一条{}。"
    mine = prompt(texts, candidate_labels=candidates)
    theirs = stock(texts, candidate_labels=candidates, hypothesis_template=hypothesis)
    for one, other in zip(mine, theirs, strict=True):
        assert one["sequence"] == other["sequence"]
        assert sorted(one["labels"]) == sorted(other["labels"])
        assert abs(sum(one["scores"]) - 1) < 1e-4
        assert abs(sum(other["scores"]) - 1) < 1e-4
    times = time_in_turn(
        [
            lambda: stock(texts, candidate_labels=candidates, hypothesis_template=hypothesis),
            lambda: prompt(texts, candidate_labels=candidates),
        ],
        args,
    )
    details = {"milliseconds_a_text": per_text(times, args), "calibration": "contextual"}
    return Ratio("prompt_speed", median_ratio(*times), 8, at_most=False, details=details)


def labels(tokenizer: Any, texts: list[str], args: Any) -> Ratio:
    """100 labels against 10."""
    prompt = ours(BertForMaskedLM(shape("rbt3")).eval(), tokenizer)
    many, few = names(100), names(100)[:10]
    answers = {len(some): prompt(texts, candidate_labels=some, calibration="none") for some in (many, few)}
    for of_many, of_few in zip(answers[100], answers[10], strict=True):
        # The same ten labels in the same order, whatever else there is.
        assert [label for label in of_many["labels"] if label in few] == of_few["labels"]
    times = time_in_turn([lambda some=some: prompt(texts, candidate_labels=some) for some in (many, few)], args)
    return Ratio(
        "prompt_labels",
        median_ratio(*times),
        1.1,
        at_most=True,
        details={"milliseconds_a_text": per_text(times, args)},
    )


def fill_mask(name: str, size: str, goal: float, tokenizer: Any, texts: list[str], args: Any) -> Ratio:
    """The stock pipeline with the same model and labels of one token."""
    model = BertForMaskedLM(shape(size)).eval()
    targets = random.Random(2).sample(HAN, 10)
    prompt = ours(model, tokenizer, calibration="none")
    stock = FillMaskPipeline(model=model, tokenizer=tokenizer, device="cpu", batch_size=BATCH)
    written = [f"这是一条{tokenizer.mask_token}：{text}" for text in texts]
    for one, other in zip(
        prompt(texts, candidate_labels=targets), stock(written, targets=targets, top_k=10), strict=True
    ):
        total = sum(entry["score"] for entry in other)
        theirs = {entry["token_str"]: entry["score"] / total for entry in other}
        for label, score in zip(one["labels"], one["scores"], strict=True):
            assert abs(theirs[label] - score) < 1e-5
    times = time_in_turn(
        [lambda: stock(written, targets=targets, top_k=10), lambda: prompt(texts, candidate_labels=targets)], args
    )
    details = {"milliseconds_a_text": per_text(times, args), "shape": SHAPES[size]}
    return Ratio(name, median_ratio(*times), goal, at_most=False, details=details)


if __name__ == "__main__":
    raise SystemExit(main())
