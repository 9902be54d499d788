"""The example runs, on the tiny model."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "adapters_peft.py"
WAYS = ["full fine-tuning", "LoRA", "IA3", "adapters, Houlsby", "adapters, parallel", "adapters, Pfeiffer"]

# peft 0.21 asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def opinions(tmp_path: Path) -> Path:
    rows = [f"{label}\t{text}" for label in "01" for text in ("酒店很好", "国足今晚出战", "股票涨跌")]
    for split in ("train", "test"):
        (tmp_path / f"{split}.tsv").write_text("label\ttext_a\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path


def test_it_compares_and_switches(
    opinions: Path, tiny_chinesebert_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One task from a folder, the other one built in."""
    arguments = ["--model", tiny_chinesebert_folder, "--epochs", 1, "--bottleneck_size", 4]
    arguments += ["--data", opinions, "--limit", 4]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    runpy.run_path(str(SCRIPT), run_name="__main__")
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["trained", "parameters", "accuracy", "saved"]
    assert [row[:20].strip() for row in rows[:6]] == WAYS
    trained = [int(row[20:40].replace(",", "")) for row in rows[:6]]
    head, adapter = 32 * 32 + 32 + 3 * 32 + 3, 2 * 4 * 32 + 32 + 4  # pooler and classifier
    assert trained[3:] == [head + 2 * 2 * adapter, head + 2 * adapter, head + 2 * adapter]
    accuracies = [float(row[40:50]) for row in rows[:6]]
    assert all(0 <= share <= 1 for share in accuracies)
    switched = [row.rpartition(" ") for row in rows[6:]]
    assert [row[0] for row in switched] == ["switched to default: accuracy", "switched to topics: accuracy"]
    # The second task left the first one's adapter alone.
    assert float(switched[0][2]) == accuracies[-1]
