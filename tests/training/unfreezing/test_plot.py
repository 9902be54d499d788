"""The picture of a schedule: its spans against a count step by step, and a file without a window."""

import sys

import pytest

from hf_nlpnotes.layers.layer_discovery import LayerGroup
from hf_nlpnotes.training.unfreezing import (
    Phase,
    Plateau,
    Progress,
    UnfreezingSchedule,
    chain_thaw,
    gradual_unfreeze,
    lisa,
    plot_schedule,
)
from hf_nlpnotes.training.unfreezing.plot import spans

KINDS = {"embeddings": "embeddings", "head": "head"}
GROUPS = tuple(
    LayerGroup(name, KINDS.get(name, "layer"), (f"{name}.weight", f"{name}.bias"))
    for name in ("embeddings", "layer.0", "layer.1", "layer.2", "head")
)


@pytest.mark.parametrize(
    "schedule",
    [
        gradual_unfreeze(GROUPS, 0.15),
        gradual_unfreeze(GROUPS),
        chain_thaw(GROUPS, 3),
        lisa(GROUPS, 1, every=4),
        UnfreezingSchedule((Phase("a", ("*",)),), keep_frozen=("layer.0", "head.bias")),
        UnfreezingSchedule((Phase("a", ("head",)), Phase("b", ("*",), Plateau()))),
    ],
)
def test_spans_are_the_steps_that_train(schedule) -> None:
    log = [{"eval_loss": value, "step": step} for step, value in ((5, 0.1), (9, 0.2))]
    progress = Progress(step=20, max_steps=20, steps_per_epoch=6, log_history=log)
    found = spans(schedule, GROUPS, progress)
    assert list(found) == [group.name for group in GROUPS]
    for group in GROUPS:
        steps = [s for s in range(20) if schedule.parameters_at(progress.at(s), GROUPS) & set(group.parameters)]
        assert [s for start, end in found[group.name] for s in range(start, end)] == steps
        assert all(end < start for (_, end), (start, _) in zip(found[group.name], found[group.name][1:], strict=False))


def test_a_picture(tmp_path, monkeypatch) -> None:
    """Also where there is no display: without pyplot."""
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # its import raises
    for ending, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        path = tmp_path / f"schedule{ending}"
        plot_schedule(gradual_unfreeze(GROUPS), GROUPS, Progress(0, 30, 6), path)
        assert path.read_bytes().startswith(magic)
    assert len(list(tmp_path.iterdir())) == 2
    svg = (tmp_path / "schedule.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {name} -->" in svg for name in ("embeddings", "layer.2", "head"))


def test_without_matplotlib(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install .hf-nlpnotes\[plots\]"):
        plot_schedule(gradual_unfreeze(GROUPS), GROUPS, Progress(0, 30, 6), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
