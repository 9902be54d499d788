"""The attention page in a frame that is closed to the page around it."""

from __future__ import annotations

import html
from typing import Any, Literal, cast, get_args

from hf_nlpnotes.attention import capture_attention, head_view

from ._bounds import bounded, chosen, counted

View = Literal["head", "matrix", "model", "neuron"]

MOST_TOKENS = 128
MOST_BYTES = 6_000_000
"""Of a page: those of a model of 12 layers with 12 heads at 128 tokens have about 2 MB."""

SANDBOX = "allow-scripts allow-downloads"
"""What the frame may do: run its own scripts and hand out pictures. It cannot reach the page around it."""


def attention_frame(
    model: Any,
    tokenizer: Any,
    text: str,
    text_pair: str = "",
    view: str = "head",
    layer: float = 0,
    head: float = 0,
) -> str:
    """Return a sandboxed frame with the attention of every layer and head on a text, or on two.

    Args:
        model: Any model with attention.
        tokenizer: Its tokenizer.
        text: The text.
        text_pair: A second one; may be empty.
        view: What to show first: "head", "matrix", "model" or "neuron".
        layer: Layer to show first, from 0; the one whose queries and keys the page holds.
        head: Head to show first, from 0.

    Raises:
        ValueError: A field is empty, too long or wrong, there is no such layer or head, or the page would be larger
            than `MOST_BYTES`.
    """
    text = bounded("text to look at", text)
    pair = bounded("text to look at", text_pair, needed=False) or None
    chosen("The view", view, get_args(View))
    layer, head = counted("The layer", layer, 0, 999), counted("The head", head, 0, 999)
    length = len(tokenizer(text, pair)["input_ids"])
    if length > MOST_TOKENS:
        raise ValueError(f"The text has {length} tokens, and this page shows up to {MOST_TOKENS}: shorten it.")
    maps = capture_attention(model, tokenizer, text, pair)
    page = head_view(maps, layer, head, view=cast("View", view))
    size = len(page.html.encode())
    if size > MOST_BYTES:
        raise ValueError(
            f"The page would have {size / 1e6:.1f} MB, and up to {MOST_BYTES / 1e6:.0f} are sent: shorten the text, or"
            " write it to a file with `hf-nlpnotes attention`."
        )
    # As a notebook gets it, but with every sign escaped: a page that is put in has no tag but the frame's.
    return (
        f'<iframe title="Attention" sandbox="{SANDBOX}" width="100%" height="{page.height}" '
        f'srcdoc="{html.escape(page.html)}"></iframe>'
    )
