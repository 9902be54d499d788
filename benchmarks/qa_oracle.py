"""Whether gold answers survive tokens, labels and decoding: the best that a perfect model could do.

    qa_oracle_chinesebert   share of CMRC2018 dev's answers read back exactly, with the embedded model's tokenizer
    qa_oracle_characters    the same with a SentencePiece-like Unigram tokenizer of single characters, trained here
    qa_oracle_unigram       the same with pieces of up to 16 characters of one script: where a piece reaches across the
                            edge of an answer, no span of tokens is that answer

Each question's windows get its labels (`prepare_train_features`), logits that are 10 at the labels and 0 elsewhere,
and an answer (`postprocess_predictions`), which is compared with the characters of the gold answer where its place is
right or was repaired. Each miss is printed. Goal: 0.999 of all questions.

    python benchmarks/qa_oracle.py --data FOLDER
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
from _harness import Ratio, no_ratio, report
from _qa_data import columns_of
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import hf_nlpnotes
from hf_nlpnotes.question_answering import (
    locate_answer,
    postprocess_predictions,
    prepare_train_features,
    prepare_validation_features,
)

MAX_LENGTH, DOC_STRIDE, LONGEST = 384, 128, 200


def main() -> int:
    """Reads all answers back with both tokenizers."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", default=os.environ.get("HF_NLPNOTES_DATA"), help="folder with cmrc2018_dev*.json")
    options.add_argument("--json", action="store_true", help="print the results as JSON, with versions")
    args = options.parse_args()
    paths = sorted(Path(args.data).rglob("cmrc2018_dev*.json")) if args.data else []
    if not paths:
        no_ratio("No data: give --data (or HF_NLPNOTES_DATA), a folder with cmrc2018_dev*.json.")
    columns = columns_of(paths[0])
    results = []
    for name, tokenizer in (
        ("chinesebert", AutoTokenizer.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL, model_max_length=MAX_LENGTH)),
        ("characters", unigram_tokenizer(sorted(set(columns["context"])), longest=1)),
        ("unigram", unigram_tokenizer(sorted(set(columns["context"])))),
    ):
        missed = misses(columns, tokenizer)
        if not args.json:
            for key, gold, found in missed:
                print(f"{name}: {key}: {gold!r} was read back as {found!r}")
        count = len(columns["id"])
        share = 1 - len(missed) / count
        details = {"questions": count, "missed": [list(miss) for miss in missed]}
        results.append(Ratio(f"qa_oracle_{name}", share, 0.999, at_most=False, details=details))
    return report(results, as_json=args.json, packages=["hf_nlpnotes", "transformers", "tokenizers"])


def misses(
    columns: dict[str, list[Any]], tokenizer: Any, max_length: int = MAX_LENGTH, doc_stride: int = DOC_STRIDE
) -> list[tuple[str, str, str | None]]:
    """Id, gold answer and what was read back, of each answer that did not survive; `None`: not in its context."""
    gold: list[str | None] = []
    for context, given in zip(columns["context"], columns["answers"], strict=True):
        spans = [locate_answer(context, *pair) for pair in zip(given["text"], given["answer_start"], strict=True)]
        found = next((span for span in spans if span.state != "missing"), None)
        gold.append(None if found is None else context[found.start : found.end])
    kept = [number for number, text in enumerate(gold) if text is not None]
    usable = {name: [values[number] for number in kept] for name, values in columns.items()}
    labels = prepare_train_features(usable, tokenizer, max_length, doc_stride)
    features = prepare_validation_features(usable, tokenizer, max_length, doc_stride)
    rows = np.arange(len(features["example_id"]))
    start, end = np.zeros((2, len(rows), max_length), dtype=np.float32)
    start[rows, labels["start_positions"]] = 10
    end[rows, labels["end_positions"]] = 10
    answers = postprocess_predictions(usable, features, (start, end), max_answer_length=LONGEST)
    return [
        (key, text if text is not None else given["text"][0], None if text is None else answers[key])
        for key, text, given in zip(columns["id"], gold, columns["answers"], strict=True)
        if text is None or answers[key] != text
    ]


def unigram_tokenizer(texts: list[str], vocabulary: int = 8000, longest: int = 16) -> PreTrainedTokenizerFast:
    """A tokenizer with pieces of up to `longest` characters (Kudo 2018), each of one script, as SentencePiece's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    scripts = [pre_tokenizers.UnicodeScripts(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*scripts, pre_tokenizers.Metaspace(prepend_scheme="first")])
    special = ["<s>", "</s>", "<pad>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, max_piece_length=longest, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in special[:2]],
    )
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", **names)


if __name__ == "__main__":
    raise SystemExit(main())
