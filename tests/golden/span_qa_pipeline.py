"""The question-answering pipeline of transformers 4, end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForQuestionAnswering, BertTokenizer, pipeline


def check_pipeline(entry: dict[str, Any], folder: Path) -> None:
    """Same answers in every call, scores to the tolerance, with one question a call and all in batches."""
    model = AutoModelForQuestionAnswering.from_pretrained(folder / entry["model"])
    tokenizer = BertTokenizer(vocab=str(folder / entry["vocab"]))
    answer = pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu", compatibility="v4")
    cases = json.loads((folder / entry["expected"]).read_text(encoding="utf-8"))
    assert len(cases) == entry["n"]
    by_options: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        by_options.setdefault(json.dumps(case["kwargs"], sort_keys=True), []).append(case)
    for options, alike in by_options.items():
        # One call for all of them, twice each: windows of several questions share batches, and lists stay lists.
        questions = [{"question": case["question"], "context": case["context"]} for case in alike for _ in range(2)]
        answers = answer(questions, batch_size=8, **json.loads(options))
        for place, case in enumerate(alike):
            same(case["output"], answers[2 * place])
            same(case["output"], answers[2 * place + 1])
    for case in cases[:: max(1, len(cases) // 10)]:
        same(case["output"], answer(question=case["question"], context=case["context"], **case["kwargs"]))


def same(expected: Any, got: Any) -> None:
    assert type(expected) is type(got)
    expected, got = ([one] if isinstance(one, dict) else one for one in (expected, got))
    names = ("start", "end", "answer")
    assert [[one[name] for name in names] for one in expected] == [[one[name] for name in names] for one in got]
    np.testing.assert_allclose([one["score"] for one in got], [one["score"] for one in expected], rtol=1e-4)


CHECKS = {"v4_qa_pipeline": check_pipeline}
