"""Post-processing of the `sequence-tagging` pipeline beside the stock `token-classification`, CPU time a token.

Both read the same logits of the same texts: the stock pipeline's `postprocess` with `aggregation_strategy="simple"`,
text by text as it runs, ours on a block of 256 texts as it runs. Labels are BIO, of four types. The tags that the
logits favour are those of random sentences with entities, and a share of the tokens has random logits, so that some
sentences are illegal. Decoded greedily, our spans must be the stock pipeline's, with its scores, before anything is
timed. What is timed is the default, constrained decoding, which also searches for the best legal tags.

    python benchmarks/tagging_postprocessing.py
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _harness import Ratio, interleave, median_ratio, parser, report
from transformers import BertConfig, BertForTokenClassification, BertTokenizer, pipeline
from transformers.pipelines.token_classification import AggregationStrategy

import hf_nlpnotes  # noqa: F401 -- registers the pipeline
from hf_nlpnotes.pipelines._tagging_documents import Document
from hf_nlpnotes.pipelines._tagging_options import TaggingOptions
from hf_nlpnotes.tagging import scheme_labels, spans_to_tags

CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 500)]
LABELS = scheme_labels(["PER", "LOC", "ORG", "MISC"], "IOB2")


def build() -> tuple[Any, Any]:
    """A tiny model, for its labels only, and a tokenizer of single characters."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS]), encoding="utf-8")
        tokenizer = BertTokenizer(vocab=str(vocabulary))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    return BertForTokenClassification(config), tokenizer


def sentence_logits(length: int, doubtful: float, generator: np.random.Generator) -> torch.Tensor:
    """Logits that favour a legal sentence with entities, but for a share of doubtful tokens."""
    spans, place = [], 0
    while place < length - 6:
        place += int(generator.integers(1, 12))
        size = int(generator.integers(1, 5))
        if place + size <= length:
            spans.append((str(generator.choice(["PER", "LOC", "ORG", "MISC"])), place, place + size))
        place += size
    tags = [LABELS.index(tag) for tag in spans_to_tags(spans, length)]
    logits = generator.normal(size=(length, len(LABELS)))
    logits[np.arange(length), tags] += np.where(generator.random(length) < doubtful, 0, 9)
    return torch.from_numpy(logits).float()


def main() -> int:
    """Check, measure and report."""
    options = parser(__doc__)
    options.add_argument("--texts", type=int, default=256)
    options.add_argument("--length", type=int, default=128)
    options.add_argument("--doubtful", type=float, default=0.002, help="share of tokens with random logits")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = build()
    mine = pipeline("sequence-tagging", model=model, tokenizer=tokenizer)
    stock = pipeline("token-classification", model=model, tokenizer=tokenizer)
    letters, generator = random.Random(0), np.random.default_rng(0)
    texts = ["".join(letters.choices(CHARACTERS, k=arguments.length)) for _ in range(arguments.texts)]
    tables = [sentence_logits(arguments.length, arguments.doubtful, generator) for _ in texts]
    special = torch.zeros(1, len(LABELS))
    chosen = TaggingOptions()

    def documents() -> list[Document]:
        found = []
        for text, table in zip(texts, tables, strict=True):
            units = np.stack([np.arange(len(text)), np.arange(1, len(text) + 1)], 1)
            places = np.concatenate([[-1], np.arange(len(text)), [-1]])
            document = Document(text, units, windows=[{}], places=[places])
            document.logits = [torch.cat([special, table, special])]
            found.append(document)
        return found

    outputs = []
    for text, table in zip(texts, tables, strict=True):
        (inputs,) = stock.preprocess(text, is_split_into_words=False)
        outputs.append([{**inputs, "logits": torch.cat([special, table, special])[None]}])
    ready = documents()

    def ours(how: TaggingOptions = chosen) -> list[Any]:
        return mine.postprocess(ready, how)

    def theirs() -> list[Any]:
        return [stock.postprocess(one, aggregation_strategy=AggregationStrategy.SIMPLE) for one in outputs]

    def brief(entities: list[dict[str, Any]]) -> list[Any]:
        return [(one["entity_group"], int(one["start"]), int(one["end"])) for one in entities]

    greedy, expected = ours(TaggingOptions(decoding="greedy")), theirs()
    assert [brief(one) for one in greedy] == [brief(one) for one in expected]
    scores = [[float(one["score"]) for row in rows for one in row] for rows in (greedy, expected)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
    constrained = ours()
    changed = sum(brief(a) != brief(b) for a, b in zip(constrained, greedy, strict=True))
    mine_times, their_times = interleave([ours, theirs], max(arguments.rounds, 5))
    tokens = arguments.texts * arguments.length
    if not arguments.json:
        print(f"{sum(map(len, greedy))} entities; constraints change {changed} of {len(texts)} texts")
        for name, times in (("ours", mine_times), ("stock", their_times)):
            print(f"{name}: {1e6 * min(times) / tokens:.3f} µs a token")
    ratio = median_ratio(their_times, mine_times)
    return report(
        [Ratio("tagging_postprocessing", ratio, goal=30, at_most=False)],
        as_json=arguments.json,
        packages=["torch", "transformers"],
    )


if __name__ == "__main__":
    sys.exit(main())
