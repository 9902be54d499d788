"""The picture has the points that were logged."""

import pytest

from hf_nlpnotes.pretraining.learning_curve import curve, plot_learning_curves

LOGS = [
    {"step": 10, "loss": 5.0},
    {"step": 20, "loss": 4.0, "learning_rate": 1e-3},
    {"step": 20, "eval_single": 30.5, "eval_whole_words": 12.5},
    {"step": 30, "loss": 3.5},
    {"train_runtime": 3.0},
]


def test_points_of_a_figure():
    assert curve(LOGS, "loss") == ([10, 20, 30], [5.0, 4.0, 3.5])
    assert curve(LOGS, "eval_single") == ([20], [30.5])
    assert curve(LOGS, "absent") == ([], [])


def test_draws_every_stage(tmp_path):
    pytest.importorskip("matplotlib")
    plot_learning_curves({"stage one": LOGS, "stage two": LOGS[:2]}, tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text(encoding="utf-8")
    assert "stage one" in drawn
    assert "held-out accuracy" in drawn
    plot_learning_curves({}, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.svg", "empty.png"]
