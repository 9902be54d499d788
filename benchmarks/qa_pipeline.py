"""The question-answering pipeline beside that of transformers 4, on questions of CMRC2018's dev set.

    qa_pipeline             as it answers by default, in batches of 16 windows: at least 3 times as fast
    qa_pipeline_top_20      the same with top_k=20: at least 3 times
    qa_pipeline_v4          with compatibility="v4", which must give the same answers: at least 1 time

Times are CPU time on one thread. The model is random and tiny, one layer of width 16, so that the pipelines are
measured and not the model. Transformers 4 needs a Python of its own, which takes turns with this process:

    python benchmarks/qa_pipeline.py --v4-python ENVIRONMENT/bin/python --data question_answering
"""

from __future__ import annotations

import os

# Before the Rust tokenizers start their threads.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"

import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from _harness import Ratio, cpu_seconds, median_ratio, no_ratio, parser, report
from transformers import BertConfig, BertForQuestionAnswering, BertTokenizer

from hf_nlpnotes.pipelines import QuestionAnsweringPipeline

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CASES: dict[str, tuple[float, dict[str, Any], dict[str, Any]]] = {  # name: goal, options of both, options of ours
    "qa_pipeline": (3, {}, {"batch_size": 16}),
    "qa_pipeline_top_20": (3, {"top_k": 20}, {"batch_size": 16}),
    "qa_pipeline_v4": (1, {}, {"batch_size": 16, "compatibility": "v4"}),
}


class Version4:
    """The other pipeline, in its process."""

    def __init__(self, python: str, folder: Path, path: str) -> None:
        worker = Path(__file__).with_name("_v4_pipeline.py")
        self.process = subprocess.Popen(
            [python, str(worker), str(folder), path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.version: str = self._read()["version"]

    def __call__(self, rows: list[dict[str, str]], options: dict[str, Any]) -> dict[str, Any]:
        """CPU seconds and answers."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"rows": rows, "options": options}) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            no_ratio(
                "The process with transformers 4 ended: its message stands above. It needs torch and transformers 4."
            )
        return json.loads(line)


def main() -> int:
    """Compares, times and reports."""
    options = parser(__doc__)
    options.add_argument("--v4-python", default="", help="Python of an environment with transformers 4 and torch")
    options.add_argument("--v4-path", default="", help="one more folder that it imports from, such as one with torch")
    options.add_argument("--data", default=os.environ.get("HF_NLPNOTES_DATA", ""), help="folder with the SQuAD file")
    options.add_argument("--questions", type=int, default=200, help="how many (default: 200)")
    args = options.parse_args()
    if not args.v4_python:
        no_ratio("transformers 4 is absent: name the Python of an environment that has it with --v4-python.")
    rows = questions(args.data, args.questions)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        answer = ours(Path(folder), rows)
        theirs = Version4(args.v4_python, Path(folder), args.v4_path)
        if not theirs.version.startswith("4."):
            no_ratio(f"--v4-python has transformers {theirs.version}, expected 4.")
        ratios = [ratio(name, answer, theirs, rows, args) for name in CASES]
    return report(ratios, as_json=args.json, packages=["transformers", "torch", "tokenizers"])


def ratio(name: str, answer: Any, theirs: Version4, rows: list[dict[str, str]], args: Any) -> Ratio:
    """One case; both answer once before they are timed, and must agree where they are to."""
    goal, common, own = CASES[name]
    expected, found = theirs(rows, common)["answers"], answer(rows, **common, **own)
    if "compatibility" in own:
        for row, one, other in zip(rows, expected, found, strict=True):
            same = [one[key] == other[key] for key in ("start", "end", "answer")]
            assert all(same), (row, one, other)
            assert math.isclose(one["score"], other["score"], rel_tol=1e-4), (row, one, other)
    times: list[list[float]] = [[], []]
    for number in range(args.rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            if which:
                seconds = cpu_seconds(lambda: answer(rows, **common, **own), collect=not args.no_gc)
            else:
                seconds = theirs(rows, common)["seconds"]
            times[which].append(seconds)
    details = {"seconds_v4": times[0], "seconds": times[1], "questions": len(rows), "v4": theirs.version}
    return Ratio(name, median_ratio(*times), goal, at_most=False, details=details)


def ours(folder: Path, rows: list[dict[str, str]]) -> QuestionAnsweringPipeline:
    """This pipeline, with its model and vocabulary left in a folder for the other."""
    characters = sorted({character for row in rows for text in row.values() for character in text.lower()})
    vocabulary = [*SPECIAL, *(one for one in characters if not one.isspace()), *(f"##{one}" for one in characters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=512)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.8,
    )
    model = BertForQuestionAnswering(config).eval()
    model.save_pretrained(folder)
    return QuestionAnsweringPipeline(model, tokenizer, device="cpu")


def questions(data: str, number: int) -> list[dict[str, str]]:
    """The first questions of CMRC2018's dev set, by articles."""
    found = [
        path for folder in (Path(data), Path(data, "question_answering")) for path in folder.glob("cmrc*dev*.json")
    ]
    if not data or not found:
        no_ratio(f"No cmrc2018_dev.squad.json in {data!r}: name its folder with --data.")
    articles = json.loads(found[0].read_text(encoding="utf-8"))["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    rows = [
        {"question": question["question"], "context": paragraph["context"]}
        for paragraph in paragraphs
        for question in paragraph["qas"]
    ]
    return rows[:number]


if __name__ == "__main__":
    raise SystemExit(main())
