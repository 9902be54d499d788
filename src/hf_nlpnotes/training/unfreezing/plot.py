"""The picture of a schedule: which groups train at which steps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from torch import nn

from hf_nlpnotes.layers.layer_discovery import LayerGroup, layer_groups

from .schedule import Progress, UnfreezingSchedule, named_parameters


def spans(
    schedule: UnfreezingSchedule, groups: Sequence[LayerGroup], progress: Progress
) -> dict[str, list[tuple[int, int]]]:
    """Return for each group the half-open spans of steps `[start, end)` in which any of its parameters train.

    Args:
        schedule: what trains when.
        groups: of the model, bottom first.
        progress: its `max_steps`, `steps_per_epoch` and log count; a plateau has the step at which the log shows it,
            and a phase that waits for one which the log lacks does not begin.
    """
    found: dict[str, list[tuple[int, int]]] = {group.name: [] for group in groups}
    kept = named_parameters(schedule.keep_frozen, groups)
    learn = {group.name: frozenset(group.parameters) - kept for group in groups}
    changes = {start for start in schedule.starts(progress) if start < progress.max_steps}
    for phase in schedule.phases:
        if phase.sample is not None:
            changes.update(range(0, progress.max_steps, phase.sample.every))
    edges = [*sorted(changes), progress.max_steps]
    for start, end in pairwise(edges):
        trains = schedule.parameters_at(progress.at(start), groups)
        for name, parameters in learn.items():
            if not trains & parameters:
                continue
            if found[name] and found[name][-1][1] == start:
                start_before = found[name].pop()[0]
                found[name].append((start_before, end))
            else:
                found[name].append((start, end))
    return found


def plot_schedule(
    schedule: UnfreezingSchedule,
    groups: nn.Module | Sequence[LayerGroup],
    progress: Progress,
    path: str | os.PathLike[str],
) -> None:
    """Draw a row a group, the lowest layer at the bottom, coloured where it trains.

    Args:
        schedule: what trains when.
        groups: the model, or its groups, bottom first.
        progress: `Progress(step=0, max_steps=…, steps_per_epoch=…)` before a training, `callback.progress` after it.
        path: the picture; its ending (.png, .svg, .pdf) says what it becomes.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('the plot of a schedule needs matplotlib: pip install "hf-nlpnotes[plots]"') from error
    rows = spans(schedule, layer_groups(groups) if isinstance(groups, nn.Module) else groups, progress)
    figure = Figure(figsize=(8, 1.2 + 0.28 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: no window, no state of the program is touched
    axes = figure.subplots()
    for height, (name, parts) in enumerate(rows.items()):
        axes.broken_barh([(start, end - start) for start, end in parts], (height - 0.4, 0.8), color="tab:blue")
        axes.axhline(height - 0.5, color="0.9", linewidth=0.6)
        axes.text(-0.01, height, name, transform=axes.get_yaxis_transform(), ha="right", va="center")
    starts = [(start, i) for i, start in enumerate(schedule.starts(progress)) if start < progress.max_steps]
    for start, _ in starts[1:]:
        axes.axvline(start, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, progress.max_steps), ylim=(-0.5, len(rows) - 0.5), xlabel="step", yticks=[])
    axes.spines[["top", "right", "left"]].set_visible(False)
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
