"""The pages in headless Chromium: what they say, how they are driven, what they cost, and that they load nothing."""

from __future__ import annotations

import base64
import http.server
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_nlpnotes.attention import AttentionMaps, LayerAttention, TokenSequence, head_view, neuron_view

ODD = "</script><script>document.title='gone'</script>"
TOKEN_STEPS = ["ArrowDown", "ArrowDown", "ArrowUp", "End", "Home"]


@pytest.fixture(scope="module")
def maps(make_maps: Any) -> AttentionMaps:
    result: AttentionMaps = make_maps(128)
    return result


@pytest.fixture(scope="module")
def big_page(maps: AttentionMaps, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return head_view(maps, layer=4, head=3).save(tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture
def page(browser: Any, big_page: Path) -> Iterator[Any]:
    """The browser at 128 tokens, 12 layers, 12 heads: as it was opened."""
    browser.size(1280, 900)
    if browser.page != big_page.resolve().as_uri():
        browser.open(big_page)
    browser.evaluate("choose({l: 4, h: 3, i: 1, view: 'head'})")
    yield browser
    assert not browser.complaints()


def check_state(state: dict[str, Any], maps: AttentionMaps) -> None:
    """The state tells what Python knows of its layer, head and token."""
    layer = maps[state["l"]]
    weights = layer.weights[state["h"], state["i"]]
    assert state["best"] == weights.argmax()
    assert abs(state["a"] - weights.max()) <= 1 / 510 + 1e-6
    if state["qk"] is not None:
        assert state["qk"] == pytest.approx(float(layer.products()[state["h"], state["i"], state["best"]]), rel=0.02)


def colours_of(png: bytes, box: tuple[int, int, int, int] | None = None) -> list[int]:
    """How many points of a picture have each colour, the most frequent first."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").crop(box)
    counts = picture.getcolors(picture.width * picture.height)
    return sorted((count for count, _ in counts or []), reverse=True)


def test_it_says_what_it_shows(page: Any, maps: AttentionMaps) -> None:
    state = page.state()
    assert (state["l"], state["h"], state["i"]) == (4, 3, 1)
    check_state(state, maps)
    tokens = maps.tokens.tokens
    said = page.text("[role=status]")
    assert said == f"layer 4 head 3: {tokens[1]} → {tokens[state['best']]} {state['a']:.2f}"
    product = float(page.text("#statistics dd").replace("−", "-"))
    assert product == pytest.approx(state["qk"], rel=0.01)
    assert page.evaluate("document.querySelectorAll('[role=grid] [role=gridcell]').length") == 144
    assert page.evaluate("document.querySelectorAll('[role=listbox] [role=option]').length") == 128
    assert float(page.evaluate("document.querySelector('.hfn').dataset.ms")) > 0


def test_arrow_keys_change_layer_head_and_token(page: Any, maps: AttentionMaps) -> None:
    def at() -> tuple[int, int, int]:
        state = page.state()
        check_state(state, maps)
        chosen = page.evaluate("document.querySelector('[role=gridcell][aria-selected=true]').ariaLabel")
        assert chosen == f"layer {state['l']} head {state['h']}"
        return state["l"], state["h"], state["i"]

    for key, expected in (
        ("ArrowDown", (5, 3)),
        ("ArrowUp", (4, 3)),
        ("ArrowUp", (3, 3)),
        ("ArrowRight", (3, 4)),
        ("ArrowLeft", (3, 3)),
        ("End", (3, 11)),
        ("ArrowRight", (3, 11)),
        ("Home", (3, 0)),
    ):
        page.press(key, "[role=grid]")
        assert at() == (*expected, 1), key
    for key, token in zip(TOKEN_STEPS, [2, 3, 2, 127, 0], strict=True):
        page.press(key, "[role=listbox]")
        assert at() == (3, 0, token), key
        assert page.evaluate("document.activeElement.getAttribute('aria-activedescendant')") == f"from{token}"


def test_weights_and_products_are_python_s(page: Any, maps: AttentionMaps) -> None:
    for place, (layer, head, token) in enumerate(
        np.random.default_rng(0).integers([12, 12, 128], size=(40, 3)).tolist()
    ):
        layer = layer if place % 4 else 4
        if place < 4:
            page.evaluate(f"choose({{l: {layer}, h: {head}, i: {token}}})")
            check_state(page.state(), maps)
        weights = maps[layer].weights[head, token]
        shown = page.evaluate(f"layers[{layer}].all.map(j => layers[{layer}].weight({head}, {token}, j))")
        assert np.abs(np.array(shown) - weights).max() <= 1 / 510 + 1e-6
        best = page.evaluate(f"layers[{layer}].best({head}, {token}, layers[{layer}].all)")
        assert best == weights.argmax()
        if layer == 4:
            products = page.evaluate(f"layers[4].all.map(j => layers[4].product({head}, {token}, j))")
            expected = maps[4].products()[head, token]
            assert np.abs(np.array(products) - expected).max() <= 0.02 * np.abs(expected).max()
            assert products[best] == pytest.approx(float(expected[best]), rel=1e-5)


def test_what_it_costs(browser: Any, big_page: Path) -> None:
    browser.show("about:blank")
    before = browser.cpu_seconds()
    browser.open(big_page)
    spent = browser.cpu_seconds()
    # A new page may come in a new process.
    assert (spent - before if spent > before else spent) <= 3
    for _ in range(4):
        browser.press("ArrowDown", "[role=grid]")
        browser.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    assert (browser.cpu_seconds() - spent) / 4 <= 0.4


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (420, True)])
def test_every_view_draws(browser: Any, make_maps: Any, tmp_path: Path, width: int, dark: bool) -> None:
    browser.size(width, 900, dark=dark)
    browser.open(head_view(make_maps(40, layers=4, heads=4, pair=True)).save(tmp_path / "page.html"))
    bright = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert bright is not dark
    for view in ("head", "matrix", "model", "neuron"):
        browser.evaluate(f"document.querySelector('[value={view}]').click()")
        # A page wider than the window would scroll sideways.
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        for canvas in ("picture", "overview"):
            address = browser.evaluate(f"byId('{canvas}').toDataURL()")
            assert len(colours_of(base64.b64decode(address.partition(",")[2]))) > 20, (view, canvas)
    assert not browser.complaints()


def test_the_screenshot_is_not_blank(page: Any) -> None:
    page.size(700, 500)
    counts = colours_of(page.screenshot())
    assert sum(counts) == 700 * 500
    assert len(counts) > 50
    assert counts[0] / sum(counts) < 0.97


def test_han_characters_are_not_boxes(page: Any) -> None:
    drawn = page.evaluate(
        "[...'国足战'].map(char => { const canvas = document.createElement('canvas'), pen = canvas.getContext('2d');"
        " pen.font = '24px ' + FONT; pen.fillText(char, 5, 40); return canvas.toDataURL(); })"
    )
    assert len(set(drawn)) == 3


def test_filters_and_search(browser: Any, make_maps: Any, tmp_path: Path) -> None:
    maps = make_maps(20, layers=2, heads=2, dim=4, pair=True)
    browser.open(head_view(maps).save(tmp_path / "page.html"))

    def change(element: str, name: str, value: str) -> dict[str, Any]:
        browser.evaluate(f"{element}.{name} = {value}; {element}.dispatchEvent(new Event('input'))")
        result: dict[str, Any] = browser.state()
        return result

    first, second = maps.tokens.of_segment(0), maps.tokens.of_segment(1)
    weights = maps[0].weights[0]
    state = change("byId('filter')", "value", "'01'")
    assert state["i"] in first
    assert state["best"] == second[int(weights[state["i"], list(second)].argmax())]
    visible = "[...document.querySelectorAll('[role=option]')].flatMap((option, i) => option.hidden ? [] : [i])"
    assert tuple(browser.evaluate(visible)) == first
    change("byId('filter')", "value", "''")
    state = change("byId('special')", "checked", "false")
    assert state["best"] in {*first, *second}
    assert tuple(browser.evaluate(visible)) == (*first, *second)
    change("byId('special')", "checked", "true")

    places = [place for place, token in enumerate(maps.tokens.tokens) if token == "球"]
    change("byId('find')", "value", "'球'")
    assert browser.evaluate("[...document.querySelectorAll('[role=option].found')].map(o => +o.id.slice(4))") == places
    browser.press("Enter", "#find")
    assert browser.state()["i"] == places[0]
    change("byId('only')", "checked", "true")
    assert browser.evaluate(visible) == places
    change("byId('find')", "value", "'nowhere'")
    assert browser.state()["best"] is None
    assert "no tokens" in browser.text("#status")
    change("byId('only')", "checked", "false")

    state = change("byId('threshold')", "value", "100")
    assert browser.text("#least") == "0.500"
    assert not browser.complaints()


def test_every_control_has_a_name(page: Any) -> None:
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, select, button, [role=grid], [role=listbox], #picture')]"
        ".filter(control => !control.labels?.length && !control.ariaLabel && !control.textContent).map(c => c.id)"
    )
    assert nameless == []


def test_pictures_are_saved(browser: Any, make_maps: Any, tmp_path: Path) -> None:
    page = browser
    page.size(600, 500)
    page.open(head_view(make_maps(12, layers=2, heads=2, dim=4)).save(tmp_path / "page.html"))
    page.evaluate(
        "window.saved = []; URL.createObjectURL = blob => { saved.push(blob); return 'data:,'; };"
        "HTMLAnchorElement.prototype.click = () => {}"
    )
    for view in ("head", "matrix", "model", "neuron"):
        page.evaluate(f"document.querySelector('[value={view}]').click(); byId('svg').click(); byId('png').click()")
        page.wait("saved.length === 2")
        names = page.evaluate("Promise.all(saved.map(blob => blob.slice(0, 4).text()))")
        assert sorted(names) == ["<svg", "\ufffdPNG"]
        wrong = page.evaluate(
            "(async () => new DOMParser().parseFromString(await saved.find(blob => blob.type.includes('svg')).text(),"
            " 'image/svg+xml').querySelector('parsererror')?.textContent)()"
        )
        assert wrong is None
        page.evaluate("saved.length = 0")


def test_a_token_cannot_run_or_become_markup(browser: Any, make_maps: Any, tmp_path: Path) -> None:
    maps = make_maps(9, layers=1, heads=1, dim=4, token=ODD)
    browser.open(neuron_view(maps, title=ODD).save(tmp_path / "page.html"))
    browser.evaluate("choose({i: 3})")
    assert browser.evaluate("document.title") == ODD
    assert browser.text("#from3") == ODD
    assert ODD in browser.text("#status")
    assert not browser.complaints()


def test_pinyin_stands_above_the_characters(browser: Any, make_maps: Any, tmp_path: Path) -> None:
    maps = make_maps(9, layers=1, heads=1, dim=4, pinyin=True)
    browser.open(head_view(maps).save(tmp_path / "page.html"))
    assert browser.evaluate("document.querySelector('#from1 ruby').firstChild.textContent") == maps.tokens.tokens[1]
    assert browser.text("#from1 ruby rt") == "guó"
    above, below = (browser.evaluate(f"document.querySelector('{name}').getBoundingClientRect().top") for name in
                    ("#from1 rt", "#from1"))  # fmt: skip
    assert 0 <= above - below < 12


def test_encoder_and_decoder_have_their_own_tokens(browser: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)

    def layer(kind: Any, heads: int, rows: int, columns: int) -> LayerAttention:
        return LayerAttention(f"{kind}.0", kind, generator.dirichlet(np.ones(columns), size=(heads, rows)))

    maps = AttentionMaps(
        "T5", "t5", (layer("encoder", 2, 6, 6), layer("decoder", 3, 4, 4), layer("cross", 2, 4, 6)),
        TokenSequence.of_positions(6), TokenSequence.of_positions(4),
    )  # fmt: skip
    browser.open(head_view(maps).save(tmp_path / "page.html"))
    for number, rows, columns in ((0, 6, 6), (1, 4, 4), (2, 4, 6)):
        check_state(browser.state(), maps)
        assert browser.state()["l"] == number
        assert browser.evaluate("[byId('rows').children.length, byId('columns').children.length]") == [rows, columns]
        browser.press("ArrowDown", "[role=grid]")
    assert browser.text("#status").startswith("cross layer 2")
    assert not browser.complaints()


def test_a_damaged_page_says_so(browser: Any, make_maps: Any, tmp_path: Path) -> None:
    path = head_view(make_maps(9, layers=1, heads=1, dim=4)).save(tmp_path / "page.html")
    path.write_text(path.read_text(encoding="utf-8").replace('"size":', '"size":3,"was":', 1), encoding="utf-8")
    browser.open(path)
    assert browser.evaluate("document.body.dataset.error").startswith("This page cannot be drawn")
    assert browser.text("#status").startswith("This page cannot be drawn")


def test_several_in_one_notebook(browser: Any, make_maps: Any, tmp_path: Path) -> None:
    pages = [head_view(make_maps(9, layers=2, heads=2, dim=4, seed=seed), seed) for seed in range(2)]
    frames = [replace(page, height=300)._repr_html_() for page in pages]
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><meta charset=utf-8>{''.join(frames)}", encoding="utf-8")
    browser.size(600, 620)
    browser.show(notebook)
    browser.wait("frames.length === 2")
    assert not browser.complaints()
    # The frames are closed to the page around them, so what they show is seen and not read.
    browser.wait("document.readyState === 'complete'")
    browser.settle()
    shot = browser.screenshot()
    for top in (0, 310):
        assert len(colours_of(shot, (0, top, 600, top + 300))) > 50


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_it_asks_for_nothing(chromium_installed: None, run_chromium: Any, maps: AttentionMaps, tmp_path: Path) -> None:
    """Of the browser's own log of the network: the requests that a page made, and none of the browser's own."""
    head_view(maps, layer=4).save(tmp_path / "page.html")
    (tmp_path / "control.html").write_text(
        "<!doctype html><link rel=icon href='data:,'><p class=hfn data-ready><img src=absent.png>", encoding="utf-8"
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Quiet(*args, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    log = tmp_path / "net.json"
    try:
        with run_chromium(tmp_path / "profile", f"--log-net-log={log}") as browser:
            for name in ("control.html", "page.html"):
                browser.open(base + name)
            for view in ("matrix", "model", "neuron"):
                browser.evaluate(f"document.querySelector('[value={view}]').click()")
            browser.press("ArrowDown", "[role=grid]")
    finally:
        server.shutdown()
        server.server_close()
    written = json.loads(log.read_text(encoding="utf-8"))
    start = written["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event.get("params", {}).get("url", "") for event in written["events"] if event["type"] == start]
    ours = [url.removeprefix(base) for url in asked if url.startswith(base)]
    assert ours == ["control.html", "absent.png", "page.html"]
    others = {event["params"].get("initiator") for event in written["events"]
              if event["type"] == start and event.get("params", {}).get("url", "").startswith("http")
              and not event["params"]["url"].startswith(base)}  # fmt: skip
    assert others <= {"not an origin", None}, "a page asked another server"
