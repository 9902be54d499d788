"""The page as readers meet it: a Space's folder in a process of its own, driven in headless Chromium."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hf_nlpnotes.app import export_space

WATCH = """\
import ipaddress, os, socket
# Whoever wants to leave this machine is written down, and does not come through.
def leaves(host):
    try:
        return not ipaddress.ip_address(host or "127.0.0.1").is_loopback and host not in ("0.0.0.0", "::")
    except ValueError:
        return host != "localhost"
def refuse(host):
    with open(os.environ["WATCH_LOG"], "a") as log:
        log.write(f"{host}\\n")
    raise OSError(f"no way out to {host}")
resolve, connect = socket.getaddrinfo, socket.socket.connect
def getaddrinfo(host, *args, **options):
    name = host.decode() if isinstance(host, bytes) else host
    return refuse(name) if leaves(name) else resolve(host, *args, **options)
def connect_(self, address):
    return refuse(address[0]) if isinstance(address, tuple) and leaves(address[0]) else connect(self, address)
socket.getaddrinfo, socket.socket.connect = getaddrinfo, connect_
"""
BAR = "[role=meter], [aria-valuenow][aria-label]:not(input)"
ODD = "<img src=x onerror=\"document.title='gone'\">${document.title='gone'}"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def space(gradio: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a Space on the embedded model, and the file with the hosts that its process wanted to reach."""
    place = tmp_path_factory.mktemp("space")
    folder = export_space(place / "space")
    (place / "watch").mkdir()
    (place / "watch" / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
    log = place / "hosts.txt"
    log.touch()
    port = free_port()
    environment = os.environ | {
        "PYTHONPATH": str(place / "watch"),
        "WATCH_LOG": str(log),
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "True",  # what the reader's machine says must not matter
        "OMP_NUM_THREADS": "1",
    }
    with (place / "errors.txt").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address == f"http://127.0.0.1:{port}/", (place / "errors.txt").read_text()
            yield address, log
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert "Traceback" not in (place / "errors.txt").read_text()


@pytest.fixture(scope="module")
def page(space: tuple[str, Path], run_chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The browser with the page open. Its own log of the network is read at the end: nothing else was asked."""
    address, _ = space
    place = tmp_path_factory.mktemp("chromium")
    with run_chromium(place / "profile", f"--log-net-log={place / 'net.json'}") as browser:
        browser.size(1280, 900)
        browser.show(address)
        browser.wait("document.querySelector('button[role=tab]')")
        yield browser
        assert not browser.complaints()
    written = json.loads((place / "net.json").read_text(encoding="utf-8"))
    start = written["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event.get("params", {}) for event in written["events"] if event["type"] == start]
    assert [one for one in asked if one.get("url", "").startswith(address)]
    # The browser's own errands have no page as their origin.
    others = {one["url"]: one.get("initiator") for one in asked
              if one.get("url", "").startswith(("http", "ws")) and not one["url"].startswith(address)}  # fmt: skip
    assert set(others.values()) <= {"not an origin", None}, others


def open_tab(page: Any, name: str) -> None:
    tab = f"[...document.querySelectorAll('button[role=tab]')].find(tab => tab.textContent.trim() === '{name}')"
    page.evaluate(f"{tab}.click()")
    page.wait(f"{tab}.ariaSelected === 'true'")


FIELD = """\
window.fieldOf = label => [...document.querySelectorAll('label')].find(one => one.offsetParent &&
  one.querySelector('[data-testid=block-info]')?.textContent.trim() === label)?.querySelector('textarea, input')
"""


def write(page: Any, label: str, value: str) -> None:
    """Write into the visible field with this label, as soon as it is there."""
    page.evaluate(FIELD)
    page.wait(f"fieldOf({json.dumps(label)})")
    page.evaluate(
        f"(() => {{ const field = fieldOf({json.dumps(label)}); field.value = {json.dumps(value)};"
        " field.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )


def press(page: Any, name: str) -> None:
    """Press the visible button with this name that is no tab."""
    buttons = "[...document.querySelectorAll('button:not([role=tab])')]"
    page.evaluate(f"{buttons}.find(one => one.offsetParent && one.textContent.trim() === '{name}').click()")


def shown(page: Any, selector: str) -> str:
    """Wait for a visible element and return its text."""
    visible = f"[...document.querySelectorAll({json.dumps(selector)})].find(one => one.offsetParent)"
    page.wait(visible)
    return str(page.evaluate(f"{visible}.textContent"))


def gone(page: Any, selector: str) -> None:
    page.wait(f"![...document.querySelectorAll({json.dumps(selector)})].some(one => one.offsetParent)")


def unhurt(page: Any) -> None:
    """Nothing that was written into a field has become markup or a program."""
    assert page.evaluate("document.title") == "hf_nlpnotes"
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0


def test_it_classifies(page: Any) -> None:
    open_tab(page, "Classify")
    write(page, "Text", "央行下调贷款利率，多家银行跟进")
    write(page, "Labels, separated by commas", "体育，财经，教育")
    press(page, "Classify")
    shown(page, BAR)
    bars = page.evaluate(f"[...document.querySelectorAll('{BAR}')].map(bar => [bar.ariaLabel, +bar.ariaValueNow])")
    assert bars[0][0] == "财经"
    assert {label for label, _ in bars} == {"体育", "财经", "教育"}
    scores = [score for _, score in bars]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(100, abs=2)


def test_an_error_is_a_message_and_the_old_answer_goes(page: Any) -> None:
    open_tab(page, "Classify")
    write(page, "Labels, separated by commas", "体育，财经")
    press(page, "Classify")
    page.wait(f"document.querySelectorAll('{BAR}').length === 2")  # a press during a call would not count
    write(page, "Labels, separated by commas", f"体育，体育，{ODD}"[:40])
    press(page, "Classify")
    message = shown(page, "[role=alert].nlp-error")
    assert "too long" in message or "twice" in message
    assert "Traceback" not in page.evaluate("document.body.textContent")
    gone(page, BAR)
    unhurt(page)
    write(page, "Labels, separated by commas", "体育，财经")
    press(page, "Classify")
    shown(page, BAR)
    gone(page, "[role=alert].nlp-error")


def test_masks_have_their_pinyin(page: Any) -> None:
    open_tab(page, "Masks")
    write(page, "Text with [MASK]", f"他在银[MASK]工作。{ODD}")
    press(page, "Fill")
    shown(page, ".nlp-ruby")
    read = page.evaluate(
        "[...document.querySelectorAll('.nlp-ruby ruby')]"
        ".map(one => [one.firstChild.textContent, one.querySelector('rt').textContent])"
    )
    assert ["行", "háng"] in read
    assert ODD in page.evaluate("document.querySelector('.nlp-ruby').textContent")
    unhurt(page)


def test_without_a_tagger_words_are_found_and_the_way_to_one_is_told(page: Any) -> None:
    open_tab(page, "Tags")
    assert "hf-nlpnotes app --tagger" in page.evaluate("document.body.innerText")
    assert page.evaluate("document.body.innerText").count("a folder or a name on the hub") == 0
    write(page, "Text", f"北京大学生{ODD}")
    write(page, "Words of your own, one a line; with a type where the model has types", "大学生 <b>人</b>")
    press(page, "Tag")
    page.wait("[...document.querySelectorAll('td')].some(cell => cell.textContent.includes('大学生'))")
    unhurt(page)
    assert page.evaluate("[...document.querySelectorAll('b')].every(bold => bold.textContent !== '人')")


def test_without_a_reader_the_way_to_one_is_told(page: Any) -> None:
    open_tab(page, "Answers")
    press(page, "Answer")
    assert "no model for question answering" in shown(page, "[role=alert].nlp-error")


def test_attention_is_drawn_in_a_closed_frame(page: Any) -> None:
    open_tab(page, "Attention")
    write(page, "Text", "国足今晚出战")
    press(page, "Show")
    page.wait("document.querySelector('.nlp-frame iframe')")
    assert page.evaluate("document.querySelector('.nlp-frame iframe').sandbox.contains('allow-same-origin')") is False
    assert page.evaluate("document.querySelector('.nlp-frame iframe').contentDocument") is None
    # The frame is closed to the page, so what it shows is seen and not read.
    page.evaluate("document.querySelector('.nlp-frame iframe').scrollIntoView({block: 'center'})")
    page.settle()
    box = page.evaluate("(box => [box.x, box.y, box.right, box.bottom])(document.querySelector('.nlp-frame iframe')"
                        ".getBoundingClientRect())")  # fmt: skip
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB").crop([max(0, round(edge)) for edge in box])
    assert len(shot.getcolors(shot.width * shot.height) or []) > 50


def test_it_fits_a_small_window(page: Any) -> None:
    page.size(420, 900, dark=True)
    for name in ("Classify", "Masks", "Tags", "Answers", "Attention"):
        open_tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 420, name
    page.size(1280, 900)


def test_the_server_reaches_for_nothing(page: Any, space: tuple[str, Path]) -> None:
    """Last: after all that was done above."""
    time.sleep(0.5)
    assert space[1].read_text() == ""


PAGE = """\
import json
from hf_nlpnotes.app import AppOptions, build
page = build(AppOptions(tagger="secret", reader="secret"))
calls = [call for call in page.fns.values() if call.api_visibility == "public"]
print(json.dumps({
    "calls": {call.api_name: [call.concurrency_id, call.concurrency_limit, call.queue] for call in calls},
    "analytics": page.analytics_enabled,
    "config": json.dumps(page.get_config_file(), default=str),
}))
"""


def test_one_queue_and_no_names_of_folders(gradio: Any) -> None:
    """In a process of its own: gradio leaves event loops open, which would count as warnings here."""
    done = subprocess.run([sys.executable, "-c", PAGE], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert set(found["calls"]) == {"classify", "fill_masks", "tag", "answer", "attention"}
    assert all(call == ["models", 1, True] for call in found["calls"].values())
    assert found["analytics"] is False
    assert "secret" not in found["config"]
