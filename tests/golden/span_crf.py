"""How entries of the kind `crf` are checked: sums and best paths over all tag sequences, by enumeration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_nlpnotes.layers import ConditionalRandomField

# From the manifest's "float64 rtol 1e-10; float32 rtol 1e-5; paths exact".
TOLERANCES = {"float64": torch.float64, "float32": torch.float32}


def tolerances(text: str) -> dict[torch.dtype, float]:
    """Read the relative tolerance of each number type."""
    parts = [part.split() for part in text.split(";")]
    return {TOLERANCES[words[0]]: float(words[2]) for words in parts if words[0] in TOLERANCES and words[1] == "rtol"}


def check_crf(entry: dict[str, Any], folder: Path) -> None:
    """Every case, free and constrained, in each number type, by each algorithm."""
    cases = json.loads((folder / entry["file"]).read_text(encoding="utf-8"))
    assert len(cases) == entry["n"]
    allowed_errors = tolerances(entry["tolerance"])
    assert allowed_errors
    for number, case in enumerate(cases):
        for dtype, rtol in allowed_errors.items():
            for kind in ("free", "constrained"):
                for algorithm in ("sequential", "parallel", "log"):
                    check_case(case, kind, dtype, rtol, algorithm, f"case {number}, {kind}, {dtype}, {algorithm}")


def check_case(case: dict[str, Any], kind: str, dtype: torch.dtype, rtol: float, algorithm: Any, message: str) -> None:
    """One case against what enumeration gave."""
    expected = case[kind]
    rules = case["allowed"]
    allowed = (rules["trans"], rules["start"], rules["end"]) if kind == "constrained" else None
    crf = ConditionalRandomField(len(case["labels"]), allowed, algorithm=algorithm).to(dtype)
    with torch.no_grad():
        crf.transitions.copy_(torch.tensor(case["transitions"], dtype=dtype))
        crf.start_transitions.copy_(torch.tensor(case["start"], dtype=dtype))
        crf.end_transitions.copy_(torch.tensor(case["end"], dtype=dtype))
    emissions = torch.tensor([case["emissions"]], dtype=dtype)

    assert crf.decode(emissions) == [expected["best"]], message
    best = expected["nbest"]
    (found,) = crf.n_best(emissions, k=len(best))
    assert [path.tags for path in found] == [path["path"] for path in best], message
    # A difference of two sums is as exact as they are.
    # Scores and their differences may cancel to nearly 0: they are as exact as what they are made of.
    slack = rtol * max(1.0, abs(expected["logZ"]))
    for path, of_golden in zip(found, best, strict=True):
        assert path.score == pytest.approx(of_golden["score"], rel=rtol, abs=slack), message
        assert path.log_probability == pytest.approx(of_golden["logprob"], rel=rtol, abs=slack), message
    assert found[0].score == pytest.approx(expected["best_score"], rel=rtol, abs=slack), message
    assert crf.log_partition(emissions).item() == pytest.approx(expected["logZ"], rel=rtol, abs=0), message
    marginals = torch.tensor([expected["marginals"]], dtype=dtype)
    torch.testing.assert_close(crf.marginals(emissions), marginals, rtol=rtol, atol=0, msg=message)


CHECKS = {"crf": check_crf}
