"""Pictures of the model: what its input is made of, what its layers and heads do."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from canvas import BLUE, LINE, PALE, arrow, box, drawing, new_figure
from matplotlib.figure import Figure

import hf_nlpnotes
from hf_nlpnotes import ChineseBertForMaskedLM, ChineseBertTokenizer
from hf_nlpnotes.attention import AttentionMaps, capture_attention, plot_heads, plot_rollout
from hf_nlpnotes.layers.layer_selection import LayerSelection
from hf_nlpnotes.pretraining import weight_on_offset

CHARACTERS = "我你喜欢猫狗银行长城龙鱼"
SENTENCE = "国足今晚出战还行"
LONGER = "今天天气很好，我们去公园散步。"


@cache
def embedded() -> tuple[Any, Any]:
    """Return the embedded model and its tokenizer."""
    model = ChineseBertForMaskedLM.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL).base_model.eval()
    return model, ChineseBertTokenizer.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL)


@cache
def maps() -> AttentionMaps:
    """Return the attention of the page's example."""
    model, tokenizer = embedded()
    return capture_attention(model, tokenizer, SENTENCE[:6], SENTENCE[6:])


def bitmaps(text: str) -> np.ndarray:
    """Return the embedded model's pictures of characters, (characters, fonts, 24, 24), ink is 1."""
    model, tokenizer = embedded()
    ids = torch.tensor(tokenizer.convert_tokens_to_ids(list(text)))
    config = model.config
    pixels = model.embeddings.glyph_embeddings(ids).float().numpy()
    return pixels.reshape(len(text), config.glyph_fonts, config.glyph_size, config.glyph_size)


def fusion() -> Figure:
    """How a character's vector, pinyin and pictures become one vector."""
    model, tokenizer = embedded()
    config = model.config
    hidden, fonts = config.hidden_size, config.glyph_fonts
    figure = new_figure(2.9)
    axes = drawing(figure, 148, 58)
    encoded = tokenizer("猫", add_special_tokens=False)
    letters = tokenizer.readings.spelling(encoded["pinyin_ids"][0])

    for y, name in ((8, "character"), (28, "pinyin"), (48, "glyph")):
        axes.text(1, y, name, ha="left", va="center", weight="bold")
    axes.text(27, 8, "猫", ha="center", va="center", fontsize=20)
    slots = [*letters, *[""] * (config.pinyin_length - len(letters))]
    for place, letter in enumerate(slots):
        box(axes, (17.5 + 2.9 * place, 28), (2.7, 5), letter, "white")
    for font, picture in enumerate(bitmaps("猫")[0]):
        left = 15 + 8.5 * font
        axes.imshow(picture, cmap="Greys", extent=(left, left + 7.5, 51.7, 44.3), interpolation="nearest")
    axes.set(xlim=(0, 148), ylim=(58, 0), aspect="auto")

    box(axes, (60, 8), (30, 8), f"row of a table\n{config.vocab_size:,} × {hidden}")
    letter_size, size = config.pinyin_embedding_size, config.glyph_size
    box(axes, (60, 28), (30, 12), f"letters' vectors, {letter_size};\nconvolution of width 2;\nmaximum")
    pixels = f"{fonts} × {size} × {size} pixels;\nlinear {fonts * size**2:,} → {hidden}"
    box(axes, (60, 48), (30, 8), pixels)
    for y, start in ((8, 31), (28, 41), (48, 41)):
        arrow(axes, (start, y), (44.7, y))
        arrow(axes, (75.3, y), (82, y))
        box(axes, (86.5, y), (8, 7), str(hidden), "white")
        arrow(axes, (91, y), (97.5, 28 + (y - 28) * 0.14))
    box(axes, (106.5, 28), (17, 10), f"fusion: linear\n{3 * hidden} → {hidden}", BLUE)
    arrow(axes, (115.3, 28), (121, 28))
    box(axes, (134, 28), (25, 13), "+ position + type,\nlayer norm, then\nthe layers of BERT")
    return figure


def glyphs() -> Figure:
    """The embedded model's pictures of some characters, a row a font."""
    pictures = bitmaps(CHARACTERS)
    count, fonts, size, _ = pictures.shape
    step = size + 3
    sheet = np.zeros((fonts * step - 3, count * step - 3))
    for column in range(count):
        for row in range(fonts):
            sheet[row * step : row * step + size, column * step : column * step + size] = 0.06 + pictures[column, row]
    figure = new_figure(2.05)
    axes = figure.subplots()
    axes.imshow(sheet, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([column * step + size / 2 for column in range(count)], list(CHARACTERS), fontsize=11)
    axes.set_yticks([row * step + size / 2 for row in range(fonts)], [f"font {row + 1}" for row in range(fonts)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def selections() -> Figure:
    """Which hidden states of 12 layers a selection reads, and which layers are not run for it."""
    num_layers = 12
    written = (
        "embeddings", "layer:3", "top", "last:4:mean", "last:4:concat", "layers:0,6,12:mean", "mix", "last:4:mix",
    )  # fmt: skip
    figure = new_figure(3.5)
    axes = figure.subplots()
    places: dict[str, list[tuple[int, int]]] = {BLUE: [], PALE: [], "white": []}
    for column, selection in enumerate(written):
        read = LayerSelection.parse(selection).indices(num_layers)
        for layer in range(num_layers + 1):
            places[BLUE if layer in read else PALE if layer < max(read) else "white"].append((column, layer))
    for (colour, found), label in zip(places.items(), ("read", "run", "not run, frozen"), strict=True):
        axes.scatter(*zip(*found, strict=True), s=130, marker="s", c=colour, ec=LINE, lw=0.6, label=label)
    names = [":\n".join(name.rsplit(":", 1)) if name.count(":") > 1 else name for name in written]
    axes.set_xticks(range(len(written)), names, family="monospace", fontsize=8)
    axes.set_yticks(range(num_layers + 1), ["embeddings", *map(str, range(1, num_layers + 1))])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def heads() -> Figure:
    """Every head of the embedded model on the page's example."""
    return plot_heads(maps())


def rollout() -> Figure:
    """Rollout of the same example."""
    return plot_rollout(maps())


def offsets() -> Figure:
    """How much of its weight each head of the embedded model's first layer puts on each neighbour."""
    model, tokenizer = embedded()
    weights = torch.from_numpy(np.array(capture_attention(model, tokenizer, LONGER)[0].weights)).float()
    around = range(-5, 6)
    figure = new_figure(2.6)
    panels = figure.subplots(2, 4, sharex=True, sharey=True).flat
    for head, axes in enumerate(panels):
        shares = [weight_on_offset(weights[head], offset).item() for offset in around]
        axes.stairs(shares, [*around, 6], fill=True, color=BLUE)
        axes.set_title(f"head {head}")
        axes.set(ylim=(0, 1), yticks=[0, 0.5, 1])
        axes.set_xticks([offset + 0.5 for offset in (-4, 0, 4)], ["−4", "0", "4"])
    figure.supxlabel("offset of the token that is looked at", fontsize=8.5)
    figure.supylabel("mean weight", fontsize=8.5)
    return figure
