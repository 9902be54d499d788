"""Time of making training features of span extraction, beside transformers' example script.

    qa_features_squad2   SQuAD 2.0 dev, the script through ours; at least 7
    qa_features_cmrc     CMRC2018 dev; at least 3.5

`prepare_train_features` is taken out of the script (examples/pytorch/question-answering/run_qa.py, --script), in which
it stands inside of main(). Places of answers that CMRC2018 has wrong are repaired beforehand for both. Windows of 384
tokens that share 128. All arrays are compared before anything is timed; where an answer begins at the last context
token of a window, the script's start label lies beyond the context, and those are counted apart.

    python benchmarks/qa_features.py --data FOLDER --english-vocabulary vocab.txt --script run_qa.py
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before the Rust tokenizers start their threads.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
from _harness import Ratio, interleave, median_ratio, no_ratio, parser, report
from _qa_data import Questions, add_options, read

from hf_nlpnotes.question_answering import locate_answer, prepare_train_features

GOALS = {"squad2": 7.0, "cmrc": 3.5}
MAX_LENGTH, DOC_STRIDE = 384, 128


def main() -> int:
    """Compares, times and reports."""
    options = parser(__doc__)
    add_options(options)
    options.add_argument("--script", help="run_qa.py of transformers' examples")
    args = options.parse_args()
    if not args.script or not Path(args.script).is_file():
        no_ratio("No peer: give --script, the path of transformers' examples/pytorch/question-answering/run_qa.py.")

    ratios = []
    for questions in reversed(read(args)):
        columns = {**questions.columns, "answers": repaired(questions)}
        script = of_the_script(Path(args.script), questions.tokenizer)
        ours = prepare_train_features(columns, questions.tokenizer, MAX_LENGTH, DOC_STRIDE)
        beyond = compare(ours, script(dict(columns)), questions.tokenizer.sep_token_id)
        times = interleave(
            [
                lambda columns=columns, script=script: script(dict(columns)),
                lambda columns=columns, tokenizer=questions.tokenizer: prepare_train_features(
                    columns, tokenizer, MAX_LENGTH, DOC_STRIDE
                ),
            ],
            rounds=args.rounds,
            collect=not args.no_gc,
        )
        details = {
            "seconds": [min(side) for side in times],
            "questions": len(columns["id"]),
            "windows": len(ours["input_ids"]),
            "script_labels_beyond_the_context": beyond,
        }
        print(f"{questions.name}: {details}") if not args.json else None
        name = f"qa_features_{questions.name}"
        ratios.append(Ratio(name, median_ratio(*times), GOALS[questions.name], at_most=False, details=details))
    return report(ratios, as_json=args.json, packages=["hf_nlpnotes", "transformers", "tokenizers", "numpy"])


def repaired(questions: Questions) -> list[dict[str, list[Any]]]:
    """The first answer of each question at its place; none where the context does not have it."""
    answers = []
    for context, given in zip(questions.columns["context"], questions.columns["answers"], strict=True):
        spans = [locate_answer(context, *pair) for pair in zip(given["text"], given["answer_start"], strict=True)]
        found = [span for span in spans if span.state != "missing"][:1]
        texts = [context[span.start : span.end] for span in found]
        answers.append({"text": texts, "answer_start": [span.start for span in found]})
    return answers


def of_the_script(path: Path, tokenizer: Any) -> Any:
    """The script's own function, with the names that it takes from around it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [
        node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "prepare_train_features"
    ]
    if not found:
        no_ratio(f"{path} has no function prepare_train_features.")
    names: dict[str, Any] = {
        "tokenizer": tokenizer,
        "pad_on_right": tokenizer.padding_side == "right",
        "max_seq_length": MAX_LENGTH,
        "data_args": SimpleNamespace(doc_stride=DOC_STRIDE, pad_to_max_length=True),
        "question_column_name": "question",
        "context_column_name": "context",
        "answer_column_name": "answers",
    }
    exec(compile(ast.Module(body=found[:1], type_ignores=[]), str(path), "exec"), names)
    return names["prepare_train_features"]


def compare(ours: dict[str, Any], theirs: Any, sep_id: int) -> int:
    """Compares all columns; gives the number of windows in which the script's label is not in the context."""
    assert set(ours) == set(theirs), (set(ours), set(theirs))
    for name in set(ours) - {"start_positions", "end_positions"}:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    start, end = np.array(theirs["start_positions"]), np.array(theirs["end_positions"])
    beyond = start > end
    np.testing.assert_array_equal(ours["start_positions"][~beyond], start[~beyond])
    np.testing.assert_array_equal(ours["end_positions"], end)
    behind = ours["input_ids"][beyond, ours["start_positions"][beyond] + 1]
    assert (behind == sep_id).all()
    return int(beyond.sum())


if __name__ == "__main__":
    raise SystemExit(main())
