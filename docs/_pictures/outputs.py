"""Pictures of what is made of a model's outputs: labels from prompts, answers, tags; and of pretraining."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from canvas import BLUE, GREY, ORANGE, PALE, SHADES, new_figure
from encoder import embedded
from matplotlib.figure import Figure
from page_tables import deviation, number, table

from hf_nlpnotes.question_answering import prepare_validation_features
from hf_nlpnotes.tagging import allowed_transitions, scheme_labels

ZERO_SHOT = ("THUCNews, zero-shot", "eprstmt, zero-shot", "tnews, zero-shot")
CONTEXT = "国足今晚出战亚洲杯预选赛，对阵北京国安队。比赛将在北京工人体育场举行，门票早已卖完。"


def calibration() -> Figure:
    """Zero-shot accuracy with eight words a label, by calibration."""
    rows = [f"eight words a label, calibration {kind}" for kind in ("none", "contextual", "batch")]
    return _zero_shot(rows, ["none", "contextual", "batch"], SHADES, "calibration")


def label_words() -> Figure:
    """Zero-shot accuracy by the words that stand for a label, with batch calibration."""
    words = ["its name a label", "one word a label", "eight words a label", "eight words and static prior"]
    rows = [f"{way}, calibration batch" for way in words]
    names = ["its name", "one word", "eight words", "eight words, static prior"]
    return _zero_shot(rows, names, (*SHADES, ORANGE), "")


def _zero_shot(rows: list[str], names: list[str], shades: tuple[str, ...], title: str) -> Figure:
    figure = new_figure(2.7)
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for task, heading in enumerate(ZERO_SHOT):
        found = table("embedded-model.md", "test", heading)
        for place, (row, name, shade) in enumerate(zip(rows, names, shades, strict=True)):
            score = number(found[row]["test"])
            x = task - 0.4 + width * (place + 0.5)
            axes.bar(x, score, width * 0.95, color=shade, label=None if task else name)
            axes.text(x, score + 0.8, f"{score:.1f}", ha="center", fontsize=7.5)
        axes.hlines(
            number(found["majority"]["test"]), task - 0.42, task + 0.42, color="black", linewidth=1, linestyle=":",
            label=None if task else "majority",
        )  # fmt: skip
    axes.set_xticks(range(len(ZERO_SHOT)), [heading.split(",")[0] for heading in ZERO_SHOT])
    axes.set(ylabel="accuracy", ylim=(0, 85))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", title=title or None)
    return figure


def windows() -> Figure:
    """The windows that a context is read in."""
    _, tokenizer = embedded()
    examples = {"id": ["a"], "question": ["国足对阵谁？"], "context": [CONTEXT]}
    features = prepare_validation_features(examples, tokenizer, max_length=29, doc_stride=6)
    figure = new_figure(1.75)
    axes = figure.subplots()
    edges = []
    for row, offsets in enumerate(features["offset_mapping"]):
        inside = offsets[offsets[:, 1] > 0]
        edges.append((int(inside[0, 0]), int(inside[-1, 1])))
        axes.broken_barh([(edges[-1][0], edges[-1][1] - edges[-1][0])], (row - 0.35, 0.7), color=PALE, ec=BLUE)
        axes.text(edges[-1][0] + 0.4, row, f"window {row + 1}", va="center", color="black")
    for row, ((_, end), (start, _)) in enumerate(pairwise(edges)):
        for here in (row, row + 1):
            axes.broken_barh([(start, end - start)], (here - 0.35, 0.7), color=BLUE, alpha=0.35)
        axes.text((start + end) / 2, row + 0.5, "doc_stride=6", ha="center", va="center", fontsize=7)
    for place, character in enumerate(CONTEXT):
        axes.text(place + 0.5, -1, character, ha="center", va="center", fontsize=9)
    axes.set(xlim=(-0.2, len(CONTEXT) + 0.2), ylim=(len(edges) - 0.5, -1.5))
    axes.set_axis_off()
    return figure


def transitions() -> Figure:
    """Which tag of BIOES may follow which."""
    labels = scheme_labels(["PER", "LOC"], "BIOES")
    allowed = allowed_transitions(labels, "BIOES")
    legal = np.column_stack([np.vstack([allowed.start, allowed.transitions]), [False, *allowed.end]]).astype(int)
    figure = new_figure(3.9, 4.6)
    axes = figure.subplots()
    # The end of an empty sentence is neither allowed nor forbidden: it does not occur.
    colours = np.array([[0.93, 0.93, 0.93], [0.04, 0.43, 0.60]])[legal]
    colours[0, -1] = 1
    axes.imshow(colours, interpolation="nearest")
    axes.set_xticks(range(len(labels) + 1), [*labels, "end"], rotation=90)
    axes.set_yticks(range(len(labels) + 1), ["begin", *labels])
    axes.set(xlabel="next tag", ylabel="tag")
    axes.xaxis.set_label_position("top")
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(len(labels) + 2) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) + 2) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return figure


def decoding() -> Figure:
    """Softmax, constrained decoding and CRF on the page's tasks."""
    rows = table("sequence-tagging.md", "constrained")
    ways = ("softmax", "constrained", "CRF")
    figure = new_figure(3.6)
    axes = figure.subplots()
    for place, row in enumerate(rows.values()):
        for way, (column, shade) in enumerate(zip(ways, SHADES, strict=True)):
            x, score = place + 0.27 * (way - 1), number(row[column])
            error = {"yerr": deviation(row[column]), "ecolor": "#333333", "error_kw": {"lw": 0.8}}
            axes.bar(x, score, 0.25, color=shade, label=None if place else column, **error)
    names = [f"{task}\n{row['score']}" for task, row in rows.items()]
    axes.set_xticks(range(len(names)), [re.sub(" words and POS,| of given words", "", name) for name in names])
    axes.tick_params(axis="x", rotation=35, length=0)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axes.set(ylabel="percent", ylim=(0, 100))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def pretraining() -> Figure:
    """Held-out accuracy of the embedded model while it was trained."""
    rows = table("pretraining.md", "scattered")
    minutes = [number(name) for name in rows]
    figure = new_figure(2.5, 5)
    axes = figure.subplots()
    ways = (("single characters", BLUE, "bottom"), ("scattered", GREY, "top"), ("whole words", ORANGE, "center"))
    for column, colour, side in ways:
        scores = [number(row[column]) for row in rows.values()]
        axes.plot(minutes, scores, "o-", color=colour)
        axes.text(minutes[-1] + 4, scores[-1], f"{column}, {scores[-1]}", va=side, color=colour)
    axes.set(xlim=(0, 300), ylim=(0, 50), xlabel="minutes of training", ylabel="tokens found, percent")
    axes.set_xticks([0, *minutes])
    return figure
