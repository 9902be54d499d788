"""Time from logits to answers, beside transformers' example script and v4's pipeline.

    qa_best        best answers, `postprocess_predictions`; the script through ours, at least 25
    qa_n_best      n-best lists with probabilities, `extract_spans`; at least 8
    qa_datasets    best answers, features in a `datasets.Dataset`; at least 80
    qa_v4_top1     v4's select_starts_ends through ours, the best span of a window; at least 300
    qa_v4_top12    the 12 best, as v4's pipeline asks for to give one

Over all questions of CMRC2018 dev and SQuAD 2.0 dev, in windows of 384 tokens that share 128; a name ends in the data
set's. Features are a list of dicts with a pair or None for each token, as the script has them. Everything is compared
before it is timed: answers, n-best lists and probabilities bit for bit, v4's spans and scores too.

Logits are drawn by a seed, no model is run. They look like a trained model's: low in the context, lower outside, with
a few peaks of starts and of ends near after them; in three windows of ten the peaks are low and the first token's
logits high, as in a window without the answer. `--logits context` draws without peaks, normal with a deviation of 3 in
the context and some 12 below outside; `--logits anywhere` draws all alike.

    python benchmarks/qa_postprocessing.py --data FOLDER --english-vocabulary vocab.txt
        --script utils_qa.py --v4 transformers-4.57/pipelines/question_answering.py

utils_qa.py is in transformers' examples/pytorch/question-answering.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from _harness import Ratio, interleave, median_ratio, no_ratio, parser, report
from _qa_data import Questions, add_options, read

from hf_nlpnotes.question_answering import (
    decode_windows,
    extract_spans,
    postprocess_predictions,
    prepare_validation_features,
)

WIDTH = 384
GOALS = {"qa_best": 25.0, "qa_n_best": 8.0, "qa_datasets": 80.0, "qa_v4_top1": 300.0, "qa_v4_top12": 300.0}


class Examples(list[dict[str, Any]]):
    """Rows that also give a column by its name, which is all that the script asks of a data set."""

    def __getitem__(self, key: Any) -> Any:
        return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(key)


def main() -> int:
    """Compares, times and reports."""
    options = parser(__doc__)
    add_options(options)
    options.add_argument("--script", help="utils_qa.py of transformers' examples")
    options.add_argument("--v4", help="pipelines/question_answering.py of transformers 4")
    options.add_argument("--logits", choices=["trained", "context", "anywhere"], default="trained")
    args = options.parse_args()
    for name, path in (("--script", args.script), ("--v4", args.v4)):
        if not path or not Path(path).is_file():
            no_ratio(f"No peer: give {name} a file (see --help).")
    script, v4 = script_of(Path(args.script)), v4_of(Path(args.v4))

    ratios: list[Ratio] = []
    for questions in read(args):
        ratios += of_a_data_set(questions, script, args)
    ratios += of_v4(v4, args)
    return report(ratios, as_json=args.json, packages=["hf_nlpnotes", "transformers", "datasets", "numpy"])


def of_a_data_set(questions: Questions, script: Callable[..., Any], args: argparse.Namespace) -> list[Ratio]:
    """Ratios to the script: best answers, n-best lists, and with features in a data set."""
    columns = questions.columns
    arrays = prepare_validation_features(columns, questions.tokenizer, WIDTH, 128)
    offsets = [[tuple(pair) if pair[0] >= 0 else None for pair in row] for row in arrays["offset_mapping"].tolist()]
    pairs = zip(arrays["input_ids"].tolist(), arrays["example_id"], offsets, strict=True)
    features = [{"input_ids": ids, "example_id": name, "offset_mapping": row} for ids, name, row in pairs]
    rows = Examples(
        {"id": name, "context": text} for name, text in zip(columns["id"], columns["context"], strict=True)
    )
    logits = draw(arrays["offset_mapping"][..., 0] >= 0, args.logits)
    table = datasets.Dataset.from_dict(
        {
            **{name: arrays[name] for name in ("input_ids", "token_type_ids", "attention_mask")},
            "example_id": arrays["example_id"],
            "offset_mapping": [[list(pair) if pair else None for pair in row] for row in offsets],
        }
    )

    with tempfile.TemporaryDirectory() as folder:
        expected = dict(script(rows, features, logits, output_dir=folder))
        n_best = json.loads((Path(folder) / "nbest_predictions.json").read_text(encoding="utf-8"))
    found = extract_spans(rows, features, logits, mode="example_script")
    assert found.answers == expected
    assert found.n_best == n_best
    for form in (features, table):
        assert postprocess_predictions(rows, form, logits, mode="example_script") == expected

    by_script, best, lists = interleave(
        [
            lambda: script(rows, features, logits),
            lambda: postprocess_predictions(rows, features, logits, mode="example_script"),
            lambda: extract_spans(rows, features, logits, mode="example_script"),
        ],
        rounds=args.rounds,
        collect=not args.no_gc,
    )
    script_table, best_table = interleave(
        [
            lambda: script(rows, table, logits),
            lambda: postprocess_predictions(rows, table, logits, mode="example_script"),
        ],
        rounds=args.rounds,
        warm_up=0,
        collect=not args.no_gc,
    )
    size = {"questions": len(rows), "windows": len(features)}
    results = []
    for name, theirs, ours in (
        ("qa_best", by_script, best),
        ("qa_n_best", by_script, lists),
        ("qa_datasets", script_table, best_table),
    ):
        details = {**size, "seconds": [min(theirs), min(ours)]}
        ratio = median_ratio(theirs, ours)
        results.append(Ratio(f"{name}_{questions.name}", ratio, GOALS[name], at_most=False, details=details))
    return results


def of_v4(v4: Callable[..., Any], args: argparse.Namespace, windows: int = 2048) -> list[Ratio]:
    """Ratios to v4's decoding of windows one by one."""
    rng = np.random.default_rng(0)
    p_mask = np.ones((windows, WIDTH), dtype=np.int64)
    for mask, first in zip(p_mask, rng.integers(10, 40, windows), strict=True):
        mask[first:-1] = 0
    p_mask[:, 0] = 0
    attention = np.ones_like(p_mask)
    start, end = (3 * rng.standard_normal((2, windows, WIDTH))).astype(np.float32)
    results = []
    for name, top_k in (("qa_v4_top1", 1), ("qa_v4_top12", 12)):

        def by_v4(top_k: int = top_k) -> list[Any]:
            return [
                v4(start[n : n + 1], end[n : n + 1], p_mask[n : n + 1], attention[n : n + 1], 10**6, top_k, True, 15)
                for n in range(windows)
            ]

        def ours(top_k: int = top_k) -> Any:
            return decode_windows(start, end, p_mask, attention, top_k=top_k, max_answer_len=15)

        found = ours()
        for row, (starts, ends, scores, null) in enumerate(by_v4()):
            assert found.starts[row, : found.counts[row]].tolist() == starts.tolist()
            assert found.ends[row, : found.counts[row]].tolist() == ends.tolist()
            assert found.scores[row, : found.counts[row]].tolist() == scores.tolist()
            assert found.null_scores[row] == null
        times = interleave([by_v4, ours], rounds=args.rounds, collect=not args.no_gc)
        details = {"windows": windows, "width": WIDTH, "seconds": [min(side) for side in times]}
        results.append(Ratio(name, median_ratio(*times), GOALS[name], at_most=False, details=details))
    return results


def draw(inside: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Start and end logits, (windows, width) float32."""
    rng = np.random.default_rng(0)
    windows, width = inside.shape
    if where != "trained":
        sides = 3 * rng.standard_normal((2, windows, width))
        return tuple(sides.astype(np.float32)) if where == "anywhere" else _in_context(sides, inside)
    sides = np.where(inside, -5 + 2 * rng.standard_normal((2, windows, width)), 0)
    sides = np.where(inside, sides, -9 + rng.standard_normal((2, windows, width)))
    answered = rng.random(windows) < 0.7
    sides[:, :, 0] = np.where(answered, -2, 4) + 2 * rng.standard_normal((2, windows))
    first, size = inside.argmax(axis=1), inside.sum(axis=1)
    rows = np.arange(windows)
    for height in (6, 3, 1, 0):
        begin = rng.integers(0, size)
        end = np.minimum(begin + rng.geometric(1 / 6, windows) - 1, size - 1)
        for side, place in enumerate((begin, end)):
            peak = height - 6 * ~answered + 1.5 * rng.standard_normal(windows)
            for step in range(-2, 3):
                token = first + np.clip(place + step, 0, size - 1)
                sides[side, rows, token] = np.maximum(
                    sides[side, rows, token], peak - abs(step) * rng.uniform(2, 3, windows)
                )
    return sides[0].astype(np.float32), sides[1].astype(np.float32)


def _in_context(values: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values in the context and low ones outside, the first token apart."""
    sides = np.where(inside, values, values / 3 - 12)
    sides[:, :, 0] = 1.5 * values[:, :, 0]
    return sides[0].astype(np.float32), sides[1].astype(np.float32)


def script_of(path: Path) -> Callable[..., Any]:
    """The script's function, without its progress bar."""
    spec = importlib.util.spec_from_file_location("utils_qa", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.tqdm = lambda rows, **_: rows  # type: ignore[attr-defined]  # what the script has under this name
    return module.postprocess_qa_predictions  # type: ignore[no-any-return]  # a module found at run time


def v4_of(path: Path) -> Callable[..., Any]:
    """v4's two functions out of its pipeline's file, which v5 cannot import."""
    wanted = {"decode_spans", "select_starts_ends"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    if len(tree.body) != len(wanted):
        no_ratio(f"{path} has no functions {sorted(wanted)}.")
    names: dict[str, Any] = {"np": np}
    exec(compile(tree, str(path), "exec"), names)
    return names["select_starts_ends"]  # type: ignore[no-any-return]  # read at run time


if __name__ == "__main__":
    raise SystemExit(main())
