"""Pictures of attention for a paper or a report, drawn with matplotlib: one head, all heads, rollout.

    plot_head(maps, layer=4, head=3).savefig("head.svg")

Each function returns a matplotlib `Figure`, made without pyplot: no window opens, and no state of the program changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .fonts import families_for
from .maps import AttentionMaps
from .rollout import attention_rollout
from .tokens import TokenSequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = "cividis"
"""Dark is little, light is much; made to look the same with and without colour blindness."""


def plot_head(maps: AttentionMaps, layer: int, head: int, *, font: str | Path | None = None) -> Figure:
    """Draw the weights of one head: a row a query, a column a key.

    Args:
        maps: Of `capture_attention`.
        layer: Number of the layer; negative numbers count from the last.
        head: Number of the head; likewise.
        font: A font file for the tokens; None for an installed font that has their characters.

    Raises:
        ImportError: matplotlib is not installed.
        NoFontError: No font has the tokens' characters.
        ValueError: There is no such layer or head.
    """
    layer = _checked("layer", layer, len(maps))
    head = _checked("head", head, maps[layer].num_heads)
    title = f"layer {layer} head {head}"
    return _matrix(
        maps[layer].weights[head], maps.rows(layer), maps.columns(layer), ("looked at", "looks", title), font
    )


def plot_heads(maps: AttentionMaps, layers: Sequence[int] | None = None) -> Figure:
    """Draw every head of every layer small: a row a layer, a column a head, without tokens.

    Each picture has its own scale, from 0 to its largest weight: their patterns are compared, not their strengths.

    Args:
        maps: Of `capture_attention`.
        layers: The layers to draw; None for all.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no such layer.
    """
    chosen = [_checked("layer", layer, len(maps)) for layer in (range(len(maps)) if layers is None else layers)]
    if not chosen:
        raise ValueError("layers are empty: expected at least one, or None for all")
    columns = max(maps[layer].num_heads for layer in chosen)
    figure = _figure(1 + 0.9 * columns, 0.6 + 0.9 * len(chosen))
    grid = figure.subplots(len(chosen), columns, squeeze=False)
    for row, layer in zip(grid, chosen, strict=True):
        for head, axes in enumerate(row):
            axes.set(xticks=[], yticks=[])
            if head >= maps[layer].num_heads:
                axes.set_axis_off()
                continue
            axes.imshow(maps[layer].weights[head], cmap=COLORS, vmin=0, interpolation="nearest", aspect="auto")
            if layer == chosen[0]:
                axes.set_title(str(head), fontsize=8)
        row[0].set_ylabel(str(layer), fontsize=8, rotation=0, ha="right", va="center")
    figure.supxlabel("head", fontsize=9)
    figure.supylabel("layer", fontsize=9)
    return figure


def plot_rollout(
    maps: AttentionMaps, layer: int = -1, *, residual: float = 0.5, font: str | Path | None = None
) -> Figure:
    """Draw attention rollout: what each position of a layer holds of each token of the text.

    Args:
        maps: Layers of one kind, as `attention_rollout` takes them.
        layer: Number of the layer, the last by default.
        residual: Share of a layer's input that goes past its attention.
        font: A font file for the tokens; None for an installed font that has their characters.

    Raises:
        ImportError: matplotlib is not installed.
        NoFontError: No font has the tokens' characters.
        ValueError: There is no such layer, or the layers are not of one kind that looks at itself.
    """
    layer = _checked("layer", layer, len(maps))
    rollout = attention_rollout(maps, residual=residual)[layer]
    labels = ("token", f"position in layer {layer}", f"rollout to layer {layer}")
    return _matrix(rollout, maps.rows(layer), maps.rows(layer), labels, font)


def _matrix(
    weights: NDArray[np.floating[Any]],
    rows: TokenSequence,
    columns: TokenSequence,
    labels: tuple[str, str, str],
    font: str | Path | None,
) -> Figure:
    figure = _figure(1.5 + 0.26 * len(columns), 1.2 + 0.26 * len(rows))
    families = families_for({*rows.tokens, *columns.tokens}, font)
    axes: Axes = figure.subplots()
    image = axes.imshow(weights, cmap=COLORS, vmin=0, vmax=max(float(weights.max()), 1e-9), interpolation="nearest")
    axes.set_xticks(range(len(columns)), _plain(columns), fontfamily=families)
    for label, token in zip(axes.get_xticklabels(), columns.tokens, strict=True):
        label.set_rotation(90 if len(token) > 1 else 0)  # one character of Chinese is as narrow as its column
    axes.set_yticks(range(len(rows)), _plain(rows), fontfamily=families)
    axes.set(xlabel=labels[0], ylabel=labels[1], title=labels[2])
    for sequence, line in ((rows, axes.axhline), (columns, axes.axvline)):
        for place in _borders(sequence):
            line(place - 0.5, color="white", linewidth=0.8)
    figure.colorbar(image, ax=axes, shrink=0.8, label="weight")
    return figure


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('pictures of attention need matplotlib: pip install "hf-nlpnotes[plots]"') from error
    figure = Figure(figsize=(min(width, 40), min(height, 40)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _checked(what: str, number: int, count: int) -> int:
    if not -count <= number < count:
        raise ValueError(f"{what} {number}: there are {count}, 0 to {count - 1}")
    return number % count


def _plain(sequence: TokenSequence) -> list[str]:
    """Return the tokens with dollar signs that matplotlib does not read as mathematics."""
    return [token.replace("$", r"\$") for token in sequence.tokens]


def _borders(sequence: TokenSequence) -> list[int]:
    """Return where the second text begins."""
    return list(sequence.of_segment(1)[:1]) if sequence.is_pair else []
