"""Time of a classification report of 50,000 sentences of 50 tokens, against seqeval.

Three claims, each the median ratio of interleaved rounds of CPU time on one thread, seqeval's time through ours:
    seqeval         from the same lists of strings, default mode; at least 80
    seqeval_ids     ours from the arrays of label ids that a Trainer gives, seqeval from strings; at least 400
    seqeval_strict  from the same lists of strings, strict mode, IOB2; at least 40

The sentences are drawn: spans of four types and one to four tokens, about every fifth token in one; the predictions
have another tag at one token in twenty. All dictionaries are compared before anything is timed.

    python benchmarks/tagging_scores.py
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import numpy as np
from _harness import Ratio, interleave, median_ratio, no_ratio, parser, report

from hf_nlpnotes.tagging.metrics import classification_report

TYPES = ("PER", "LOC", "ORG", "MISC")
LABELS = ["O", *(f"{prefix}-{name}" for name in TYPES for prefix in "BI")]


def main() -> int:
    """Compares, times and reports."""
    options = parser(__doc__)
    options.add_argument("--sentences", type=int, default=50_000)
    options.add_argument("--tokens", type=int, default=50, help="tokens a sentence")
    args = options.parse_args()
    if importlib.util.find_spec("seqeval") is None:
        no_ratio("No seqeval: pip install seqeval==1.2.2.")
    peer = importlib.import_module("seqeval.metrics").classification_report
    scheme = importlib.import_module("seqeval.scheme").IOB2

    true_ids, pred_ids = draw(args.sentences, args.tokens)
    true, pred = ([[LABELS[i] for i in row] for row in ids.tolist()] for ids in (true_ids, pred_ids))

    def ours(**how: Any) -> Any:
        return classification_report(true, pred, output_dict=True, **how)

    def ours_from_ids() -> Any:
        return classification_report(true_ids, pred_ids, output_dict=True, labels=LABELS)

    def theirs(**how: Any) -> Any:
        return peer(true, pred, output_dict=True, zero_division=0, **how)

    default, strict = theirs(), theirs(mode="strict", scheme=scheme)
    assert ours() == default
    assert ours_from_ids() == default
    assert ours(mode="strict", scheme="IOB2") == strict
    assert default != strict, "the readings do not differ: the comparison shows too little"

    times = interleave(
        [
            ours,
            ours_from_ids,
            theirs,
            lambda: ours(mode="strict", scheme="IOB2"),
            lambda: theirs(mode="strict", scheme=scheme),
        ],
        rounds=args.rounds,
        collect=not args.no_gc,
    )
    names = ["ours", "ours_from_ids", "seqeval", "ours_strict", "seqeval_strict"]
    strings, ids, seqeval, strict_ours, strict_seqeval = times
    details: dict[str, Any] = {"seconds": dict(zip(names, map(min, times), strict=True))}
    details["sentences"], details["tokens"] = args.sentences, args.tokens
    return report(
        [
            Ratio("seqeval", median_ratio(seqeval, strings), 80, at_most=False, details=details),
            Ratio("seqeval_ids", median_ratio(seqeval, ids), 400, at_most=False),
            Ratio("seqeval_strict", median_ratio(strict_seqeval, strict_ours), 40, at_most=False),
        ],
        as_json=args.json,
        packages=["hf_nlpnotes", "seqeval", "numpy"],
    )


def draw(sentences: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Gold label ids, legal IOB2, and predictions that differ at one token in twenty; (sentences, tokens) each."""
    rng = np.random.default_rng(0)
    total = sentences * tokens
    gold = np.zeros(total, dtype=np.int64)
    begins = np.flatnonzero(rng.random(total) < 0.09)
    kinds = rng.integers(0, len(TYPES), len(begins))
    lengths = rng.choice([1, 2, 3, 4], size=len(begins), p=[0.4, 0.3, 0.2, 0.1])
    for begin, kind, length in zip(begins.tolist(), kinds.tolist(), lengths.tolist(), strict=True):
        # A later span overwrites the end of an earlier one; none runs over the end of its sentence.
        end = min(begin + length, (begin // tokens + 1) * tokens)
        gold[begin] = 1 + 2 * kind
        gold[begin + 1 : end] = 2 + 2 * kind
    # What stands behind an overwritten span continues it no longer.
    before = np.roll(gold, 1)
    before[::tokens] = 0
    while (broken := (gold > 0) & (gold % 2 == 0) & (before != gold) & (before != gold - 1)).any():
        gold[broken] = 0
        before = np.roll(gold, 1)
        before[::tokens] = 0
    predicted = np.where(rng.random(total) < 0.05, rng.integers(0, len(LABELS), total), gold)
    return gold.reshape(sentences, tokens), predicted.reshape(sentences, tokens)


if __name__ == "__main__":
    raise SystemExit(main())
