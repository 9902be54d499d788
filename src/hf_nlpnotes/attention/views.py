"""Pages that show attention: `head_view`, `model_view`, `neuron_view`, and `show` for those who know bertviz.

    maps = capture_attention(model, tokenizer, "国足今晚出战")
    head_view(maps, layer=4, head=3).save("page.html")

All of them make the same page, opened at another view: it has the lines between the tokens of one head, its weights as
a matrix, all heads at a glance, and the queries and keys of a layer neuron by neuron. It is one file that loads
nothing else, needs no network, and shows itself in notebooks.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .capture import capture_attention
from .maps import AttentionMaps
from .merging import merge_words
from .page import Start, Theme, View, counted, html_document, page_data

_ALLOWED = "allow-scripts allow-downloads"
"""What the page may do in a notebook: run its scripts, hand out pictures. It is kept from the notebook's own page."""


@dataclass(frozen=True)
class AttentionPage:
    """One HTML document. As the last value of a notebook's cell it shows itself.

    Attributes:
        html: The document.
        height: Its height in a notebook, in points.
    """

    html: str
    height: int = 720

    def __repr__(self) -> str:
        return f"AttentionPage({len(self.html.encode()) / 1e6:.2f} MB of HTML: .save('page.html') to open it)"

    def save(self, path: str | Path) -> Path:
        """Write the document to a file, complete or not at all, and return its path.

        Args:
            path: The file to write; its folder must exist.
        """
        path = Path(path)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_text(self.html, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _repr_html_(self) -> str:
        """Return a frame with the document: Jupyter, VS Code and Colab show it. Several on one page don't meet."""
        inside = self.html.replace("&", "&amp;").replace('"', "&quot;")
        return (
            f'<iframe title="Attention" sandbox="{_ALLOWED}" width="100%" height="{self.height}" frameborder="0" '
            f'srcdoc="{inside}"></iframe>'
        )


def head_view(
    maps: AttentionMaps,
    layer: int = 0,
    head: int = 0,
    *,
    view: View = "head",
    neurons: Collection[int] | None = None,
    words: bool = False,
    title: str | None = None,
    theme: Theme = "auto",
) -> AttentionPage:
    """Return the page opened at one head: lines from each token to those it looks at.

    Args:
        maps: What `capture_attention` returned.
        layer: Layer to show first, counted from 0 as everywhere here; negative numbers count from the last.
        head: Head to show first; likewise.
        view: What to show first: "head", "matrix" (the head's weights as a picture), "model" or "neuron".
        neurons: Layers whose queries and keys the page holds; None for `layer`, if they were captured. A layer of 12
            heads takes 0.3 MB at 128 tokens.
        words: Whether to show words in place of tokens (`merge_words`); these have no queries and keys.
        title: Heading of the page; None for the model's name and the text.
        theme: "light", "dark", or "auto" for what the reader's system says.

    Raises:
        ValueError: There is no such layer, head, view or theme; a layer of `neurons` has no queries and keys; the
            weights are no numbers, or too many for a page.
    """
    if words:
        maps = merge_words(maps)
    layer = counted("layer", layer, len(maps))
    head = counted(f"layer {layer}: head", head, maps[layer].num_heads)
    if neurons is None:
        neurons = [layer] if maps[layer].has_scores else []
    having = {counted("neurons: layer", number, len(maps)) for number in neurons}
    data = page_data(maps, Start(view, layer, head), having)
    return AttentionPage(html_document(data, _title(maps) if title is None else title, theme))


def model_view(maps: AttentionMaps, layer: int = 0, head: int = 0, **options: Any) -> AttentionPage:
    """Return the page opened at all heads of all layers, as small pictures. Arguments are `head_view`'s.

    Args:
        maps: As of `head_view`.
        layer: As of `head_view`.
        head: As of `head_view`.
        **options: As of `head_view`, all but `view`.
    """
    return head_view(maps, layer, head, view="model", **options)


def neuron_view(maps: AttentionMaps, layer: int = 0, head: int = 0, **options: Any) -> AttentionPage:
    """Return the page opened at a head's queries and keys, element by element. Arguments are `head_view`'s.

    Args:
        maps: As of `head_view`.
        layer: As of `head_view`.
        head: As of `head_view`.
        **options: As of `head_view`, all but `view` and `words`.

    Raises:
        ValueError: The layer's queries and keys were not captured; and as `head_view`.
    """
    if options.get("words"):
        raise ValueError("words have no queries and keys: leave words out, or take head_view")
    layer = counted("layer", layer, len(maps))
    if not maps[layer].has_scores:
        raise ValueError(f"queries and keys of layer {layer} were not captured, only its weights: take head_view")
    return head_view(maps, layer, head, view="neuron", **options)


def show(
    model: Any,
    model_type: str,
    tokenizer: Any,
    sentence_a: str,
    sentence_b: str | None = None,
    display_mode: Theme = "auto",
    layer: int | None = None,
    head: int | None = None,
    html_action: Literal["view", "return"] = "view",
) -> AttentionPage:
    """Return the neuron view of one or two sentences: bertviz's function of this name, for stock models.

    Put it last in a notebook's cell, or save what it returns. Where the model's queries and keys cannot be told from
    its attention, the page opens at the weights of the head.

    Args:
        model: Any model of transformers that has attention; not bertviz's own classes.
        model_type: Taken for bertviz's sake and not needed: the model knows what it is.
        tokenizer: The model's tokenizer.
        sentence_a: The text.
        sentence_b: A second text.
        display_mode: "light", "dark", or "auto" for what the reader's system says.
        layer: Layer to show first; None for 0.
        head: Head to show first; None for 0.
        html_action: Taken for bertviz's sake: the page is returned in any case, and shows itself in a notebook.

    Raises:
        TypeError: There is no model or no tokenizer.
        ValueError: A text is empty or too long, there is no such layer or head, or the model has no attention.
    """
    if not isinstance(model_type, str):
        raise TypeError(f"model_type is {model_type!r}, expected a string: show(model, 'bert', tokenizer, text)")
    if html_action not in ("view", "return"):
        raise ValueError(f"html_action is {html_action!r}, expected 'view' or 'return'")
    maps = capture_attention(model, tokenizer, sentence_a, sentence_b)
    layer = counted("layer", layer or 0, len(maps))
    view: View = "neuron" if maps[layer].has_scores else "head"
    return head_view(maps, layer, head or 0, view=view, theme=display_mode)


def _title(maps: AttentionMaps) -> str:
    text = " / ".join(" ".join(text.split()) for text in maps.tokens.texts)
    text = text if len(text) <= 60 else text[:59] + "…"
    return f"Attention of {maps.model}: {text}" if text else f"Attention of {maps.model}"
