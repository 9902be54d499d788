"""The frame: one element, closed to the page around it, with the page of the attention views inside."""

from html.parser import HTMLParser
from typing import Any

import pytest

from hf_nlpnotes.app import attention, attention_frame
from hf_nlpnotes.attention import capture_attention, head_view

ODD = "国</iframe><script>alert(1)</script>"


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize(
    ("text", "pair", "view"), [("国足今晚出战", "", "head"), ("国足", "球队", "neuron"), (ODD, "", "model")]
)
def test_the_frame_holds_the_page_and_nothing_else(filler: Any, text: str, pair: str, view: Any) -> None:
    model, tokenizer = filler.model, filler.tokenizer
    parser = _Elements()
    parser.feed(attention_frame(model, tokenizer, text, pair, view, 1, 0))
    ((tag, attributes),) = parser.found
    assert tag == "iframe"
    # With allow-same-origin its scripts would reach the page around it.
    assert (attributes["sandbox"] or "").split() == ["allow-scripts", "allow-downloads"]
    maps = capture_attention(model, tokenizer, text, pair or None)
    assert attributes["srcdoc"] == head_view(maps, 1, 0, view=view).html


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("",), "text to look at is empty"),
        (("我" * 401,), "401 characters"),
        (("我" * 127,), "129 tokens, and this page shows up to 128"),
        (("我" * 60, "你" * 70), "133 tokens"),
        (("我", "", "all"), "expected one of head, matrix, model, neuron"),
        (("我", "", "head", 2), "layer 2: there are 2, 0 to 1"),
        (("我", "", "head", 0, 2), "head 2: there are 2, 0 to 1"),
        (("我", "", "head", -1), "from 0"),
        (("我", "", "head", None), "from 0"),
    ],
)
def test_what_is_refused(filler: Any, values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention_frame(filler.model, filler.tokenizer, *values)


def test_a_page_that_is_too_large_is_not_sent(filler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "MOST_BYTES", 10_000)
    with pytest.raises(ValueError, match="shorten the text"):
        attention_frame(filler.model, filler.tokenizer, "国足今晚出战")
