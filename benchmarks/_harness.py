"""What every benchmark here does: ours and the peer in turn, in one process, on one thread, and their ratio.

Rounds are interleaved, so that a busy machine slows both alike; times are CPU time; the result is the median of the
rounds' ratios. The garbage collector is left on, as it is in use, and begins each run afresh; `--no-gc` keeps it off.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

NO_RATIO = 2
"""Exit status where there is nothing to compare with."""


@dataclass(frozen=True)
class Ratio:
    """One figure of a benchmark and its goal."""

    name: str
    value: float
    goal: float
    at_most: bool
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> bool:
        """Whether the value is on the right side of the goal."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def __str__(self) -> str:
        return f"{self.name} ratio {self.value:.4g} goal {self.goal:g} {'ok' if self.reached else 'short'}"


def cpu_seconds(work: Callable[[], object], *, collect: bool = True) -> float:
    """CPU time of one run, with the garbage collector on or off."""
    gc.collect()
    if not collect:
        gc.disable()
    try:
        start = time.process_time()
        work()
        return time.process_time() - start
    finally:
        gc.enable()


def interleave(
    works: Sequence[Callable[[], object]], rounds: int = 5, warm_up: int = 1, *, collect: bool = True
) -> list[list[float]]:
    """CPU seconds of each work in each round, (works, rounds); the works take turns within a round."""
    for _ in range(warm_up):
        for work in works:
            work()
    times: list[list[float]] = [[] for _ in works]
    for number in range(rounds):
        # Every other round backwards: none of them always comes after the same one.
        for index in sorted(range(len(works)), reverse=bool(number % 2)):
            times[index].append(cpu_seconds(works[index], collect=collect))
    return times


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median over the rounds of one time through the other."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Options that every benchmark has; its docstring is the help."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--json", action="store_true", help="print the results as JSON, with versions")
    result.add_argument("--rounds", type=int, default=5, help="timed rounds, at least five for a result (default: 5)")
    result.add_argument("--no-gc", action="store_true", help="keep the garbage collector off while timing")
    return result


def report(ratios: Sequence[Ratio], *, as_json: bool, packages: Sequence[str] = ()) -> int:
    """Prints one line a ratio, the first of them last as the benchmark's own; or all of it as JSON. Gives 0."""
    if as_json:
        versions = {name: importlib.metadata.version(name) for name in packages}
        machine = {"python": platform.python_version(), "machine": platform.machine(), **versions}
        results = [{**asdict(ratio), "reached": ratio.reached} for ratio in ratios]
        print(json.dumps({"results": results, "versions": machine}, ensure_ascii=False))
    else:
        for ratio in reversed(ratios):
            print(ratio)
    return 0


def no_ratio(reason: str) -> NoReturn:
    """Leaves with exit status 2: the peer or the data is absent, and nothing is put in its place."""
    print(reason, file=sys.stderr)
    sys.exit(NO_RATIO)
