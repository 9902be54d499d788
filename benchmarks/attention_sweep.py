"""Attention captured from every model type of transformers that can be built small, beside the model's own output.

For each type a small random model is built (see `_small_models.py`). Its attention is captured and compared with what
the same weights give as `output_attentions` of the eager implementation; and it is made anew from the captured
queries, keys, scaling, mask and bias. A type counts when both agree to 1e-6 in every layer. The counts are given by
route: models that use transformers' `AttentionInterface`, and those that need the fallback. Each type runs in a
process of its own, so that one that crashes or hangs costs nothing but itself.

    python benchmarks/attention_sweep.py
    python benchmarks/attention_sweep.py --types bert deberta-v2 --verbose
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import _harness
import torch
import transformers
from _small_models import CannotBuildError, SmallModel, build, model_types

from hf_nlpnotes.attention.capture import record_attention, to_layer
from hf_nlpnotes.attention.interface import IMPLEMENTATION, attention_implementation
from hf_nlpnotes.attention.recording import Recorded

TOLERANCE = 1e-6
SECONDS = 60
INTERFACE, FALLBACK = "interface", "fallback"
GOALS = {INTERFACE: 187, FALLBACK: 26}


def main() -> int:
    """Run the sweep and print the counts."""
    parser = _harness.parser(__doc__)
    parser.add_argument("--types", nargs="+", help="model types (default: all that have an AutoModel)")
    parser.add_argument("--verbose", action="store_true", help="print a line a type")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore")  # of models that are built in ways they did not expect
    outcomes: dict[str, list[str]] = defaultdict(list)
    reasons: Counter[str] = Counter()
    for model_type in options.types or model_types():
        outcome, reason = in_own_process(model_type)
        outcomes[outcome].append(model_type)
        reasons[f"{outcome}: {reason[:60]}"] += 1
        if options.verbose:
            print(f"{model_type:32} {outcome:14} {reason}", flush=True)
    for outcome, names in sorted(outcomes.items()):
        print(f"{outcome}: {len(names)} types" + ("" if outcome == "not built" else f": {', '.join(names)}"))
    ratios = [
        _harness.Ratio(f"types through the {r}", len(outcomes[r]), goal, at_most=False) for r, goal in GOALS.items()
    ]
    return _harness.report(ratios, as_json=options.json, packages=["transformers", "torch"])


def in_own_process(model_type: str) -> tuple[str, str]:
    """Return the outcome for a type and its reason, whatever happens to the process that tries it."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(SECONDS)
        try:
            result = try_type(model_type)
        except CannotBuildError as error:
            result = ("not built", str(error))
        except BaseException as error:  # noqa: BLE001 -- the parent has to hear of everything
            result = ("error", f"{type(error).__name__}: {str(error)[:200]}")
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    outcome, reason = json.loads(answer) if answer else ("error", f"no answer within {SECONDS} seconds")
    return outcome, reason


def try_type(model_type: str) -> tuple[str, str]:
    """Return the route by which a type's attention was captured rightly, or what was wrong with it."""
    small = build(model_type)
    try:
        expected = eager_attentions(small)
    except Exception as error:  # noqa: BLE001 -- models whose own eager attention does not run
        return "no eager run", f"{type(error).__name__}: {str(error)[:200]}"
    torch.manual_seed(0)
    before = small.model.config._attn_implementation
    seen: list[str] = []
    records = record_attention(small.model, small.inputs, on_route=seen.append)
    if small.model.config._attn_implementation != before or before == IMPLEMENTATION:
        return "wrong", "the attention setting is not as before"
    if not records or not expected:
        told = f"{len(records)} layers captured, {len(expected)} in output_attentions"
        return ("no reference" if records else "no attention"), told
    right, told = compare(records, expected)
    return (seen[-1] if right else "wrong"), told


def compare(records: list[Recorded], expected: list[torch.Tensor]) -> tuple[bool, str]:
    """Return whether all that is expected was captured and every record makes its weights anew, and by how much."""
    found = [record.weights for record in records]
    worst = 0.0
    for weights in expected:
        near = [(difference(weights, mine), i) for i, mine in enumerate(found) if mine.shape == weights.shape]
        if not near:
            return False, f"nothing captured has the shape {tuple(weights.shape)}"
        distance, place = min(near)
        worst = max(worst, distance)
        del found[place]
    rebuilt = 0.0
    for record in (record for record in records if record.weights.dim() == 4):
        layer = to_layer(record, "encoder")
        if not layer.has_scores:
            return False, f"no queries and keys at {record.name}"
        rebuilt = max(rebuilt, float(abs(layer.rebuilt() - layer.weights).max()))
    told = f"{len(records)} layers, {len(expected)} compared, off by {worst:.1e}, rebuilt within {rebuilt:.1e}"
    return max(worst, rebuilt) <= TOLERANCE, told


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the largest difference of two sets of weights."""
    return float((first.float() - second.float()).abs().max())


def eager_attentions(small: SmallModel) -> list[torch.Tensor]:
    """Return everything called attentions in the output of the eager model."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"output_attentions": True}
    if "use_cache" in inspect.signature(small.model.forward).parameters:
        options["use_cache"] = False
    with attention_implementation(small.model, "eager"), torch.no_grad():
        return list(attentions_in(small.model(**small.inputs, **options)))


def attentions_in(output: Any) -> Iterator[torch.Tensor]:
    """Yield the attention weights in an output, of inner models too."""
    if not isinstance(output, dict):
        return
    for name, value in output.items():
        if name.endswith("attentions") and isinstance(value, tuple | list):
            yield from (item for item in value if isinstance(item, torch.Tensor))
        else:
            yield from attentions_in(value)


if __name__ == "__main__":
    start = time.perf_counter()
    status = main()
    print(f"{time.perf_counter() - start:.0f} seconds", file=sys.stderr)
    sys.exit(status)
