"""The example trains in every way, on its own texts and on a folder of files, by a schedule of a file, and on two
processes.
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPT = EXAMPLES / "gradual_unfreezing.py"
WAYS = ["all at once", "gradual", "gradual, bundle", "chain-thaw", "LP-FT", "LISA"]

pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*")  # on a machine without a GPU


def rows_of(output: str) -> dict[str, list[str]]:
    """The figures of each way."""
    lines = [line for line in output.splitlines() if "±" in line]
    return {line[:16].strip(): line[16:].split() for line in lines}


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return rows_of(capsys.readouterr().out)


def test_it_trains_in_every_way(monkeypatch, capsys, tmp_path, tiny_chinesebert_folder) -> None:
    schedule, plot = tmp_path / "s.yaml", tmp_path / "s.svg"
    options = ["--model", tiny_chinesebert_folder, "--seeds", 1, "--epochs", 5, "--batch_size", 4, "--schedule"]
    options += [schedule, "--plot", plot]
    rows = run(monkeypatch, capsys, *options)
    assert list(rows) == WAYS
    assert all(0 <= float(row[0]) <= 1 and row[1] == "±" for row in rows.values())
    shares = {way: float(row[3].rstrip("%")) for way, row in rows.items()}
    assert shares["all at once"] == 100
    assert shares["gradual"] == shares["gradual, bundle"] < 100
    assert plot.read_text(encoding="utf-8").startswith("<?xml")
    entry = yaml.safe_load(schedule.read_text(encoding="utf-8"))
    assert [phase["name"] for phase in entry["phases"]] == ["head", "layer.1", "layer.0", "embeddings"]
    rows = run(monkeypatch, capsys, *options)
    assert list(rows) == [*WAYS, "from the file"]
    assert rows["from the file"][:4] == rows["gradual"][:4], "the schedule as it was written"


def test_it_reads_a_folder(monkeypatch, capsys, tmp_path, tiny_chinesebert_folder) -> None:
    for split in ("train", "dev", "test"):
        lines = ["label\ttext", *[f"{i % 3}\t{'好' * i}天气" for i in range(6)]]
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ["--model", tiny_chinesebert_folder, "--data", tmp_path, "--limit", 4, "--seeds", 1, "--epochs", 2]
    assert list(run(monkeypatch, capsys, *options)) == WAYS


@pytest.mark.slow
def test_two_processes(monkeypatch, capsys, tiny_chinesebert_folder) -> None:
    arguments = ["--model", str(tiny_chinesebert_folder), "--seeds", "1", "--epochs", "3", "--batch_size", "4"]
    alone = run(monkeypatch, capsys, *arguments)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    command = [*launch, "--config_file", str(EXAMPLES / "accelerate" / "ddp.yaml"), str(SCRIPT), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = rows_of(done.stdout)
    assert list(rows) == WAYS, "the first process prints, once"
    assert {way: row[3] for way, row in rows.items()} == {way: row[3] for way, row in alone.items()}
