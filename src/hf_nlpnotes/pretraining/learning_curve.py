"""The picture of a training: loss and held-out accuracy over the steps, from what the Trainer logged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Logs = Sequence[Mapping[str, Any]]
ACCURACIES = {"eval_single": "single characters", "eval_whole_words": "whole words"}


def curve(logs: Logs, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of one figure in the Trainer's `state.log_history`; entries without it are passed over."""
    points = [(int(entry["step"]), float(entry[key])) for entry in logs if key in entry and "step" in entry]
    return [step for step, _ in points], [value for _, value in points]


def plot_learning_curves(stages: Mapping[str, Logs], path: str | os.PathLike[str]) -> None:
    """Draw one row of panels a stage: the training loss on the left, held-out accuracy on the right.

    Losses of different stages are of different tasks and cannot be compared, which is why each has its own axes.

    Args:
        stages: name of each stage and its `state.log_history`.
        path: the picture; its ending (.png, .svg, .pdf) says what it becomes.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('a learning curve needs matplotlib: pip install "hf-nlpnotes[plots]"') from error
    figure = Figure(figsize=(9, 2.8 * max(1, len(stages))), layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: no window, no state of the program is touched
    axes = figure.subplots(max(1, len(stages)), 2, squeeze=False)
    for (name, logs), (left, right) in zip(stages.items(), axes, strict=False):
        left.plot(*curve(logs, "loss"), color="tab:blue", linewidth=1)
        left.set(title=name, xlabel="step", ylabel="training loss")
        for key, label in ACCURACIES.items():
            steps, values = curve(logs, key)
            right.plot(steps, values, marker=".", label=label)
        right.set(title=name, xlabel="step", ylabel="held-out accuracy, %")
        if right.lines:
            right.legend(frameon=False)
        for panel in (left, right):
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
