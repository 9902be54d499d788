"""The pages as text: complete, closed to the outside, small; and what cannot be shown."""

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_nlpnotes.attention import AttentionMaps, head_view, model_view, neuron_view, show
from hf_nlpnotes.attention.page import content

ODD = "</script><script>document.title='gone'</script>&\u2028<!--"


def data_of(document: str) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', document, re.DOTALL)
    result: dict[str, Any] = json.loads(text)
    return result


@pytest.fixture(scope="module")
def maps(make_maps: Any) -> AttentionMaps:
    result: AttentionMaps = make_maps(128)
    return result


@pytest.mark.parametrize(("view", "name"), [(head_view, "head"), (model_view, "model"), (neuron_view, "neuron")])
def test_each_view_opens_at_what_was_asked_for(make_maps: Any, view: Any, name: str) -> None:
    maps = make_maps(8, layers=3, heads=2, dim=4)
    data = data_of(view(maps, 1, -1).html)
    assert (data["view"], data["layer"], data["head"]) == (name, 1, 1)
    assert ["vectors" in layer for layer in data["layers"]] == [False, True, False]
    assert data["sequences"][0]["tokens"] == list(maps.tokens.tokens)


def test_the_page_is_small(maps: AttentionMaps) -> None:
    page = head_view(maps, layer=4, head=3)
    size = len(page.html.encode())
    assert size <= 1_200_000
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.html, re.DOTALL)
    assert size - len(data.encode()) <= 20_000


def test_nothing_comes_from_outside(maps: AttentionMaps) -> None:
    document = head_view(maps).html
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', document)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    shell = document.replace(json.dumps(data_of(document)), "")
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", shell)
    assert set(re.findall(r"\b(?:src|href)=\"([^\"]*)\"", shell)) == {"data:,"}
    # The inline scripts and styles are those whose hashes the policy allows.
    inline = re.findall(r"<style>(.*?)</style>|<script>(.*?)</script>", document, re.DOTALL)
    assert len(inline) == 2
    for text in map("".join, inline):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_tokens_and_titles_are_escaped(make_maps: Any) -> None:
    maps = make_maps(8, layers=1, heads=1, dim=4, token=ODD)
    document = head_view(maps, title=ODD).html
    assert ODD not in document
    assert document.count("<script") == 3
    assert document.count("</script>") == 3
    assert data_of(document)["sequences"][0]["tokens"][3] == ODD
    assert html.escape(ODD) in document


def test_it_is_saved_whole_or_not_at_all(make_maps: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = head_view(make_maps(6, layers=1, heads=1, dim=4))
    path = page.save(tmp_path / "page.html")
    assert path.read_text(encoding="utf-8") == page.html
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            page.save(tmp_path / "other.html")
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.html"]


def test_a_notebook_gets_a_sandboxed_frame(make_maps: Any) -> None:
    page = replace(head_view(make_maps(6, layers=1, heads=1, dim=4, token=ODD)), height=500)
    frame = page._repr_html_()
    assert frame.startswith("<iframe ")
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert 'height="500"' in frame
    (inside,) = re.findall(r'srcdoc="([^"]*)"', frame)
    assert html.unescape(inside) == page.html
    assert "MB of HTML" in repr(page)


def test_what_cannot_be_shown(make_maps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    maps = make_maps(6, layers=2, heads=2, dim=4)
    for arguments, message in (
        ({"layer": 2}, "layer 2: there are 2, 0 to 1"),
        ({"head": -3}, "layer 0: head -3: there are 2"),
        ({"view": "3d"}, "view is '3d'"),
        ({"theme": "pink"}, "theme is 'pink'"),
        ({"neurons": [5]}, "neurons: layer 5"),
    ):
        with pytest.raises(ValueError, match=message):
            head_view(maps, **arguments)
    bare = replace(maps, layers=tuple(replace(layer, query=None, key=None, scaling=None) for layer in maps.layers))
    assert "vectors" not in data_of(head_view(bare).html)["layers"][0]
    with pytest.raises(ValueError, match="layer 1 were not captured"):
        neuron_view(bare, 1)
    with pytest.raises(ValueError, match="words have no queries"):
        neuron_view(maps, words=True)
    monkeypatch.setattr(content, "MOST_WEIGHTS", 100)
    with pytest.raises(ValueError, match=r"144 weights are too many .* maps.select"):
        head_view(maps)


def test_show_takes_what_bertviz_takes(tiny_chinesebert_folder: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(tiny_chinesebert_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    data = data_of(show(model, "bert", tokenizer, "国足出战", "球队", layer=1, head=1).html)
    assert (data["view"], data["layer"], data["head"]) == ("neuron", 1, 1)
    (sequence,) = data["sequences"]
    assert "".join(sequence["tokens"]) == "[CLS]国足出战[SEP]球队[SEP]"
    assert sequence["segments"] == [None, 0, 0, 0, 0, None, 1, 1, None]
    assert sequence["pinyin"][1] == "guó"
    with pytest.raises(ValueError, match="html_action is 'print'"):
        show(model, "bert", tokenizer, "国足", html_action="print")  # type: ignore[arg-type]  # a user's mistake
    with pytest.raises(ValueError, match="layer 7"):
        show(model, "bert", tokenizer, "国足", layer=7)
    with pytest.raises(TypeError, match="model_type"):
        show(model, tokenizer, "国足", "球队")  # type: ignore[arg-type]  # a user's mistake


def test_statistics_have_a_number_a_head(make_maps: Any) -> None:
    maps = make_maps(9, layers=2, heads=3, dim=4, pair=True)
    data = data_of(head_view(maps).html)
    names = {entry["name"]: entry["values"] for entry in data["statistics"]}
    assert {"entropy (nats)", "share A → B", "share on itself"} <= names.keys()
    own = [[float(np.trace(weights)) / 9 for weights in layer.weights] for layer in maps.layers]
    assert np.allclose(names["share on itself"], own, rtol=1e-3)
