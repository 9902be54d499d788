"""Every ratio that the documentation claims, measured one after the other and printed as one table.

    python benchmarks/_performance_sheet.py --data DIR --golden DIR --peers DIR --page docs/performance.md

Runs each benchmark that has a ratio in a process of its own (`make bench`). What a benchmark needs and does not find
is said in its place; nothing is put in its stead. `--only crf scalar_mix` makes it shorter. With `--results FILE` each
result is kept as a line of JSON when it is there, and what the file has already is not measured again. `--page` writes
the table into a page, with the date and the versions.

`--peers` is a folder with programs that are compared with and cannot be installed beside transformers 5, all optional:

    utils_qa.py, run_qa.py    examples/pytorch/question-answering of transformers 4
    cmrc2018_evaluate.py      baseline/ of ymcui/cmrc2018, with nltk/ (pip install --target) and nltk_data/ (Punkt)
    v4/                       an environment with transformers 4.57; it borrows torch from this one
    bertviz/                  pip install --target bertviz ipython; the same with --no-deps for bertviz==1.4.1
"""

from __future__ import annotations

import argparse
import ast
import datetime as dt
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
TABLES = ("embedded_model", "fine_tuning", "tagging_tables")
"""Benchmarks that give accuracies in place of ratios, in hours; their tables stand on pages of their own."""
VERSIONS = ("torch", "transformers", "tokenizers", "numpy", "pytorch-crf", "seqeval")
BEGIN, END = "<!-- sheet: begin -->", "<!-- sheet: end -->"


class Arguments(NamedTuple):
    """Where data, reference outputs and peers are; None where nobody said."""

    data: Path | None
    golden: Path | None
    peers: Path | None

    def of(self, benchmark: str) -> list[str]:
        """Options for one benchmark; an option whose file is absent is left out."""
        v4 = self._site_packages()
        wanted: Mapping[str, Sequence[tuple[str, Path | None]]] = {
            "attention_page": [("--bertviz", self._peer("bertviz"))],
            "qa_features": [("--script", self._peer("run_qa.py"))],
            "qa_metrics": [
                ("--data", next(iter(sorted(self.data.rglob("cmrc2018_dev*.json"))), None) if self.data else None),
                ("--official", self._peer("cmrc2018_evaluate.py")),
                ("--nltk", self._peer("nltk")),
                ("--nltk-data", self._peer("nltk_data")),
            ],
            "qa_pipeline": [
                ("--data", self.data and next(self.data.rglob("question_answering"), None)),
                ("--v4-python", self._peer("v4/bin/python")),
                ("--v4-path", Path(sysconfig.get_path("purelib"))),
            ],
            "qa_postprocessing": [
                ("--script", self._peer("utils_qa.py")),
                ("--v4", v4 and v4 / "transformers/pipelines/question_answering.py"),
            ],
            "tokenizer_speed": [("--data", self.data and next(self.data.rglob("chnsenticorp/train.tsv"), None))],
        }
        given = [(option, path) for option, path in wanted.get(benchmark, []) if path and path.exists()]
        options = [text for option, path in given for text in (option, str(path))]
        return [*options, "--column", "text_a"] if benchmark == "tokenizer_speed" and given else options

    def environment(self) -> dict[str, str]:
        """The variables by which other benchmarks find the data."""
        named = {"HF_NLPNOTES_DATA": self.data, "HF_NLPNOTES_GOLDEN": self.golden}
        return {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(path) for name, path in named.items() if path}}

    def _peer(self, name: str) -> Path | None:
        return self.peers / name if self.peers else None

    def _site_packages(self) -> Path | None:
        return next(self.peers.glob("v4/lib/python*/site-packages"), None) if self.peers else None


def benchmarks() -> list[str]:
    """Names of the scripts that have a ratio."""
    return sorted(path.stem for path in HERE.glob("[!_]*.py") if path.stem not in TABLES)


def headline(benchmark: str) -> str:
    """What a benchmark says that it measures: the first line of its docstring."""
    doc = ast.get_docstring(ast.parse((HERE / f"{benchmark}.py").read_text(encoding="utf-8"))) or benchmark
    return doc.splitlines()[0].rstrip(".")


def measure(benchmark: str, arguments: Arguments) -> dict[str, Any]:
    """Runs one benchmark: its ratios, or the reason why it has none."""
    options = arguments.of(benchmark)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(HERE / f"{benchmark}.py"), "--json", *options],
        env=arguments.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    result: dict[str, Any] = {
        "benchmark": benchmark,
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "seconds": round(time.monotonic() - start),
        "options": [Path(option).name if option.startswith(os.sep) else option for option in options],
    }
    if done.returncode == 0:
        return {**result, "results": json.loads(done.stdout.splitlines()[-1])["results"]}
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return {**result, "status": done.returncode, "reason": lines[-1]}


def row(ratio: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Name, value, goal and verdict of one ratio."""
    goal = f"{'≤' if ratio['at_most'] else '≥'} {ratio['goal']:g}"
    return ratio["name"], f"{ratio['value']:.4g}", goal, "ok" if ratio["reached"] else "short"


def table(measured: Sequence[Mapping[str, Any]]) -> str:
    """All ratios as lines of text."""
    rows = [
        line
        for one in measured
        for line in (
            [row(ratio) for ratio in one["results"]]
            if "results" in one
            else [(one["benchmark"], "", "", one["reason"])]
        )
    ]
    widths = [max(len(line[column]) for line in rows) for column in range(3)]
    return "\n".join(f"{a:{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}  {d}" for a, b, c, d in rows)


def markdown(measured: Sequence[Mapping[str, Any]]) -> str:
    """The same as a section for each benchmark."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    dates = sorted({one["date"] for one in measured})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    machine = f"{os.cpu_count()} processors ({platform.machine()}), Python {platform.python_version()}"
    lines = [f"Measured {when}: {machine}, {versions}."]
    for one in measured:
        command = " ".join(["python", f"benchmarks/{one['benchmark']}.py", *one["options"]])
        lines += ["", f"## {headline(one['benchmark'])}", "", f"`{command}`", ""]
        if "results" in one:
            lines += ["| | measured | goal | |", "|---|---|---|---|"]
            lines += [f"| `{a}` | {b} | {c} | {d} |" for a, b, c, d in map(row, one["results"])]
        else:
            lines.append(f"Not measured: {one['reason']}")
    return "\n".join(lines)


def write_page(page: Path, text: str) -> None:
    """Puts the sheet between the marks of a page, in one step."""
    old = page.read_text(encoding="utf-8")
    new, count = re.subn(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{text}\n\n{END}", old, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{page} needs {BEGIN} and {END} once each; it has {count} such pairs")
    beside = page.with_name(f"{page.name}.new")
    beside.write_text(new, encoding="utf-8")
    os.replace(beside, page)


def main() -> int:
    """Measures, prints and writes; 1 where a benchmark broke, 0 otherwise."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, variable in (
        ("data", "HF_NLPNOTES_DATA"),
        ("golden", "HF_NLPNOTES_GOLDEN"),
        ("peers", "HF_NLPNOTES_PEERS"),
    ):
        options.add_argument(
            f"--{name}", type=Path, default=os.environ.get(variable), help=f"folder (default: {variable})"
        )
    options.add_argument("--only", nargs="+", choices=benchmarks(), default=benchmarks(), metavar="NAME")
    options.add_argument("--results", type=Path, help="lines of JSON, added to; what it has is not measured again")
    options.add_argument("--page", type=Path, help="page to write the table into")
    args = options.parse_args()
    arguments = Arguments(*(Path(path).resolve() if path else None for path in (args.data, args.golden, args.peers)))
    kept = {}
    if args.results and args.results.exists():
        kept = {
            one["benchmark"]: one for one in map(json.loads, args.results.read_text(encoding="utf-8").splitlines())
        }
    measured = []
    for name in args.only:
        print(f"{name} …", file=sys.stderr, flush=True)
        one = kept.get(name) or measure(name, arguments)
        measured.append(one)
        if args.results and name not in kept and "results" in one:
            with args.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one, ensure_ascii=False) + "\n")
    print(table(measured))
    if args.page:
        write_page(args.page, markdown(measured))
    return int(any(one.get("status", 2) != 2 for one in measured if "results" not in one))


if __name__ == "__main__":
    sys.exit(main())
