"""Run every property of this folder on many inputs, other ones each time.

    python tests/hardening/fuzz.py --inputs 100000

`--inputs` is the number in all, shared out evenly; `--each` gives that number to every property. `--only` chooses
properties as pytest's -k does. A property that fails is printed with its smallest input; exit status 1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
_TRIED = re.compile(r"(\d+) passing[^,]*, (\d+) failing")
_STATISTICS = re.compile(r"^=+ Hypothesis Statistics =+$", re.MULTILINE)


def pytest(*arguments: str, inputs: int) -> str:
    """The output of a run of pytest on this folder."""
    environment = {**os.environ, "HF_NLPNOTES_FUZZ_INPUTS": str(inputs)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(FOLDER),
        "-m",
        "hypothesis",
        "-q",
        "--durations=0",
        "--durations-min=30",
        *arguments,
    ]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout


def main() -> int:
    """Count the properties, run them, and print what they were given and what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="inputs of all properties together")
    parser.add_argument("--each", type=int, help="inputs of each property")
    parser.add_argument("--only", default="", help="expression that names properties, as of pytest -k")
    options = parser.parse_args()
    chosen = ["-k", options.only] if options.only else []
    names = [line for line in pytest("--collect-only", *chosen, inputs=1).splitlines() if "::" in line]
    if not names:
        parser.error(f"no property is called {options.only!r}")
    each = options.each or -(-options.inputs // len(names))
    print(f"{len(names)} properties, {each} inputs each", flush=True)
    begin = time.monotonic()
    output = pytest("--hypothesis-show-statistics", "--tb=short", *chosen, inputs=each)
    print(_STATISTICS.split(output)[0])
    tried = sum(int(passing) + int(failing) for passing, failing in _TRIED.findall(output))
    found = sum(line.startswith("FAILED") for line in output.splitlines())
    print(f"{tried} inputs in {time.monotonic() - begin:.0f} s: {found} of {len(names)} properties failed")
    return int(found > 0 or tried == 0)


if __name__ == "__main__":
    sys.exit(main())
