"""Pictures of ways to train: what trains when, at which rate, on which task, and what it costs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from canvas import BLUE, GREY, LINE, ORANGE, PALE, SHADES, arrow, box, drawing, new_figure
from matplotlib.figure import Figure
from page_tables import deviation, number, table
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_nlpnotes.layers.layer_discovery import layer_groups
from hf_nlpnotes.training.multi_task_sampling import TaskSampling
from hf_nlpnotes.training.parameter_groups import layer_learning_rates
from hf_nlpnotes.training.self_ensemble import Averaging
from hf_nlpnotes.training.slanted_triangular import slanted_triangular_factor
from hf_nlpnotes.training.unfreezing import (
    LISA,
    ChainThaw,
    GradualUnfreeze,
    LinearProbeThenFineTune,
    Progress,
    SequentialUnfreeze,
)
from hf_nlpnotes.training.unfreezing.plot import spans


@cache
def classifier(num_layers: int) -> Any:
    """Return a BERT with a head, without weights."""
    with torch.device("meta"):
        config = AutoConfig.for_model("bert", num_hidden_layers=num_layers, num_labels=2)
        return AutoModelForSequenceClassification.from_config(config)


def frozen_layers() -> Figure:
    """Times as fast by frozen layers of 12: theory, and what was measured with 11."""
    n = 12
    frozen = np.arange(n)
    figure = new_figure(2.7, 5)
    axes = figure.subplots()
    measured = table("feature-extraction.md", "times as fast")
    for row, below, colour in (("frozen and cached", 0, BLUE), ("frozen", 1, GREY)):
        # In layer-forwards: a frozen layer costs its forward pass, or nothing; one that trains costs three.
        axes.plot(frozen, 3 * n / (below * frozen + 3 * (n - frozen)), color=colour, label=f"{row}, theory")
        axes.plot(n - 1, number(measured[row]["times as fast"]), "o", color=colour, label=f"{row}, measured")
    axes.set(xlabel=f"frozen layers of {n}", ylabel="times as fast", ylim=(0, None), xticks=frozen)
    axes.legend()
    return figure


def schedules() -> Figure:
    """What each preset trains when, in 300 steps of a model with four layers."""
    model, progress = classifier(4), Progress(step=0, max_steps=300)
    groups = layer_groups(model)
    presets = (
        GradualUnfreeze(phase_steps=50),
        ChainThaw(phase_steps=43),
        SequentialUnfreeze(phase_steps=100),
        LinearProbeThenFineTune(phase_steps=100),
        LISA(num_layers=2, every=20),
    )
    figure = new_figure(3.9)
    panels = list(figure.subplots(2, 3, sharex=True, sharey=True).flat)
    panels.pop().set_axis_off()
    for axes, preset in zip(panels, presets, strict=True):
        rows = spans(preset.schedule_for(model), groups, progress)
        for height, parts in enumerate(rows.values()):
            axes.broken_barh([(start, end - start) for start, end in parts], (height - 0.4, 0.8), color=BLUE)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set(xlim=(0, progress.max_steps), title=type(preset).__name__, xticks=[0, 100, 200, 300])
        axes.tick_params(left=False)
        axes.spines["left"].set_visible(False)
    for axes in panels[2:]:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    return figure


def learning_rates() -> Figure:
    """Rates by layer for some decays, and the slanted triangle."""
    model = classifier(12)
    figure = new_figure(2.9)
    left, right = figure.subplots(1, 2)
    decays = (("1", 1.0), ("0.9", 0.9), ("0.8", 0.8), ("0.65", 0.65), ("1/2.6", 1 / 2.6))
    for shade, (name, decay) in zip(("#000000", "#0a4a66", BLUE, "#4f9dbd", ORANGE), decays, strict=True):
        rates = list(layer_learning_rates(model, 1.0, decay).values())
        left.plot(range(len(rates)), rates, ".-", color=shade, label=name)
    left.set(yscale="log", ylim=(1e-6, 2), title="rate of a layer over that of the head")
    left.set_xticks([0, 4, 8, 13], ["embeddings", "4", "8", "head"])
    left.set_xlabel("layer of 12")
    left.minorticks_off()
    left.legend(title="layer_decay", loc="lower right")
    steps = range(0, 301, 10)
    right.plot(steps, [slanted_triangular_factor(step, 300) for step in steps], color=BLUE)
    right.set(xlabel="step of 300", ylim=(0, 1.05), title="factor on every rate: SlantedTriangular")
    return figure


def two_stages() -> Figure:
    """Plain fine-tuning, two stages and several tasks, side by side."""
    ways = ("fine-tuning", "two-stage", "multi-task")
    tasks = (
        ("ChnSentiCorp, 600 texts", "accuracy"),
        ("eprstmt, 32 texts", "accuracy"),
        ("Weibo NER, 400 sentences", "entity F1"),
    )
    figure = new_figure(2.6)
    for axes, (task, score) in zip(figure.subplots(1, 3), tasks, strict=True):
        rows = table("fine-tuning.md", score, task)
        for place, (way, shade) in enumerate(zip(ways, (SHADES[0], BLUE, SHADES[1]), strict=True)):
            cell = rows[way][score]
            axes.bar(place, number(cell), yerr=deviation(cell), color=shade, ecolor="#333333", capsize=3)
            axes.text(place, 1, f"{number(cell):.1f}", ha="center", color="white" if shade == BLUE else "black")
        axes.set_xticks(range(3), ["plain", "two-stage", "multi-task"], fontsize=7.5)
        axes.set(title=task, ylim=(0, 100 if score == "accuracy" else 50), ylabel=score)
    return figure


def task_shares() -> Figure:
    """Shares of four tasks of unequal size, by strategy."""
    sizes = (1_000, 4_000, 16_000, 64_000)
    ways = (
        ("proportional", TaskSampling("proportional"), 0),
        ("proportional, limit=8000", TaskSampling("proportional", limit=8_000), 0),
        ("temperature, T = 2", TaskSampling("temperature", temperature=2), 0),
        ("temperature, T = 5", TaskSampling("temperature", temperature=5), 0),
        ("uniform", TaskSampling("uniform"), 0),
        ("annealed, epoch 1 of 5", TaskSampling("annealed"), 0),
        ("annealed, epoch 3 of 5", TaskSampling("annealed"), 2),
        ("annealed, epoch 5 of 5", TaskSampling("annealed"), 4),
    )
    shares = np.array([sampling.probabilities(sizes, epoch, 5) for _, sampling, epoch in ways])
    figure = new_figure(2.9)
    axes = figure.subplots()
    for task, shade in enumerate((ORANGE, SHADES[0], SHADES[1], BLUE)):
        left = shares[:, :task].sum(1)
        axes.barh(range(len(ways)), shares[:, task], left=left, color=shade, label=f"{sizes[task]:,} examples")
        for row, share in enumerate(shares[:, task]):
            if share > 0.06:
                place = {"ha": "center", "va": "center", "color": "white" if shade == BLUE else "black"}
                axes.text(left[row] + share / 2, row, f"{share:.2f}", **place)
    axes.set_yticks(range(len(ways)), [name for name, _, _ in ways])
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of the steps")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def placements() -> Figure:
    """Where an adapter stands in a layer."""
    figure = new_figure(2.75)
    axes = drawing(figure, 148, 55)
    for row, placement in enumerate(("houlsby", "pfeiffer", "parallel")):
        y = 9 + 16 * row
        axes.text(1, y, placement, va="center", weight="bold")
        box(axes, (32, y), (17, 7), "attention")
        box(axes, (69, y), (14, 7), "+, norm")
        box(axes, (95, y), (17, 7), "feed-forward")
        box(axes, (137, y), (14, 7), "+, norm")
        arrow(axes, (17, y), (23.2, y))
        arrow(axes, (76.2, y), (86.2, y))
        if placement == "houlsby":
            arrow(axes, (40.7, y), (44.8, y))
            box(axes, (51.5, y), (13, 7), "adapter", BLUE)
            arrow(axes, (58.2, y), (61.8, y))
        else:
            arrow(axes, (40.7, y), (61.8, y))
        if placement == "parallel":
            arrow(axes, (103.7, y), (129.8, y))
            box(axes, (95, y + 8), (13, 6), "adapter", BLUE)
            axes.plot((80, 80, 88), (y, y + 8, y + 8), color=LINE, lw=0.9)
            axes.plot((101.7, 117, 117), (y + 8, y + 8, y + 5), color=LINE, lw=0.9)
            arrow(axes, (117, y + 5), (117, y + 0.4))
        else:
            arrow(axes, (103.7, y), (107.8, y))
            box(axes, (114.5, y), (13, 7), "adapter", BLUE)
            arrow(axes, (121.2, y), (129.8, y))
        for left, right in ((19.5, 69), (80, 137)):  # residual connections
            axes.plot((left, left, right, right), (y, y - 6.3, y - 6.3, y - 3.6), color=GREY, lw=0.8)
    return figure


def averaged_steps() -> Figure:
    """The share that each of 50 steps has in an average: averages of unit vectors."""
    steps = 50
    ways = (
        ("SelfEnsemble(window=10)", Averaging(window=10)),
        ("SelfEnsemble(start=0.5)", Averaging(start=0.5)),
        ("SelfEnsemble(decay=0.9)", Averaging(decay=0.9)),
        ("SelfEnsemble(window=5, every=5)", Averaging(window=5, every=5)),
    )
    figure = new_figure(3)
    for axes, (name, averaging) in zip(figure.subplots(2, 2, sharex=True, sharey=True).flat, ways, strict=True):
        average = averaging.new_average()
        for step in range(1, steps + 1):
            if averaging.counts(step, steps):
                average.update([torch.eye(steps, dtype=torch.float64)[step - 1]])
        axes.stairs(average.average()[0].tolist(), np.arange(steps + 1) + 0.5, fill=True, color=BLUE)
        axes.set_title(name)
        axes.set(xlim=(0, steps + 1), yticks=[0, 0.1, 0.2])
    figure.supxlabel("step of 50", fontsize=8.5)
    figure.supylabel("share in the average", fontsize=8.5)
    return figure


def loss_scaling() -> Figure:
    """How many architectures' heads have gradients that are too large, before and after."""
    column = "too large before (4.00)"
    rows = table("loss-scaling.md", column)
    figure = new_figure(2.1)
    axes = figure.subplots()
    for place, row in enumerate(rows.values()):
        wrong, measured = number(row[column]), number(row["measured"])
        axes.barh(place, wrong, color=ORANGE, label="4 times too large" if not place else None)
        axes.barh(place, measured - wrong, left=wrong, color=PALE, label="right" if not place else None)
        axes.text(measured + 1, place, f"{wrong:.0f} of {measured:.0f}", va="center")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set(xlabel="architectures, as they come", xlim=(0, 125))
    axes.legend(loc="lower right")
    return figure
