"""Attention maps that look like a model's, and a browser to look at their pages.

The browser is headless Chromium, driven through the pipe of its DevTools protocol, without another driver.

To install it on Debian: `apt-get install --no-install-recommends chromium fonts-noto-cjk`. Where the program stands
elsewhere, the environment variable CHROMIUM names it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_nlpnotes.attention import AttentionMaps, LayerAttention, TokenSequence

HAN = "国足今晚出战对阵球队体育财经科技娱乐教育房产股票游戏时政社会新闻"
INSTALL = "no Chromium: apt-get install --no-install-recommends chromium fonts-noto-cjk, or set CHROMIUM"
PATIENCE = 60.0
"""Seconds after which a page or an answer that does not come is a failure."""

KEYS = {"ArrowUp": 38, "ArrowDown": 40, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Enter": 13}


def find_chromium() -> str | None:
    """The program, None if there is none."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One browser with one page. `events` are those that the page and the network sent, oldest first."""

    def __init__(self, to: int, answers: int) -> None:
        self._to = to
        self._answers = answers
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.page = ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)
        raise TimeoutError(method)

    def leave_page(self) -> None:
        """Speak to the browser itself from here on."""
        self._session = None

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            more = os.read(self._answers, 1 << 20)
            if not more:
                raise RuntimeError("Chromium has ended")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        result: dict[str, Any] = json.loads(message)
        return result

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the window's size and the colours that the reader prefers."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path | str) -> None:
        """Open a file or an address and wait until it is drawn, or says that it cannot be."""
        self.show(page)
        self.wait("document.querySelector('.hfn[data-ready]') || document.querySelector('body[data-error]')")

    def show(self, page: Path | str) -> None:
        """Open a file or an address."""
        self.events.clear()
        self.page = page.resolve().as_uri() if isinstance(page, Path) else page
        self.send("Page.navigate", url=self.page)

    def settle(self) -> None:
        """Wait until two screenshots are alike."""
        end, last = time.monotonic() + PATIENCE, b""
        while (now := self.screenshot()) != last and time.monotonic() < end:
            last = now
            time.sleep(0.3)

    def wait(self, condition: str) -> None:
        """Wait until a condition in JavaScript is true."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression; promises are waited for."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def state(self) -> dict[str, Any]:
        """What the page says that it shows."""
        result: dict[str, Any] = json.loads(self.evaluate("document.querySelector('.hfn').dataset.state"))
        return result

    def text(self, selector: str) -> str:
        """The text of an element."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))

    def press(self, key: str, selector: str) -> None:
        """Press a key while an element has the focus."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS.get(key, 0))

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def complaints(self) -> list[dict[str, Any]]:
        """Exceptions, and errors and warnings of the console, since the page was opened."""
        self.evaluate("0")  # events that wait come before its answer
        bad = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                bad.append(params)
            if event["method"] == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
                bad.append(params)
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
                bad.append(params)
        return bad

    def cpu_seconds(self) -> float:
        """CPU time of the page's process so far, of all its threads."""
        self.send("Performance.enable", timeDomain="threadTicks")
        metrics = {entry["name"]: entry["value"] for entry in self.send("Performance.getMetrics")["metrics"]}
        return float(metrics["ProcessTime"])


@contextmanager
def chromium(profile: Path, *options: str) -> Iterator[Browser]:
    """A browser with a fresh profile, closed at the end."""
    program = find_chromium()
    assert program is not None, INSTALL
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    arguments = [
        program,
        "--headless",
        "--no-sandbox",  # containers run as root; the pages are ours
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
        *options,
    ]
    # The protocol's pipe is on the descriptors 3 and 4; sh copies none above 9.
    script = f'exec "$@" 3</dev/fd/{commands_out} 4>/dev/fd/{answers_in}'
    process = subprocess.Popen(
        ["sh", "-c", script, "sh", *arguments],
        pass_fds=(commands_out, answers_in),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands_out)
    os.close(answers_in)
    browser = None
    try:
        browser = Browser(commands_in, answers_out)
        yield browser
    finally:
        if browser is not None and process.poll() is None:
            browser.leave_page()
            with suppress(RuntimeError, OSError):  # it has ended before it answered
                browser.send("Browser.close")
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(commands_in)
        os.close(answers_out)


@pytest.fixture(scope="session")
def chromium_installed() -> None:
    if find_chromium() is None:
        pytest.skip(INSTALL)


@pytest.fixture(scope="session")
def run_chromium(chromium_installed: None) -> Any:
    """`chromium`, for tests that start a browser of their own."""
    return chromium


@pytest.fixture(scope="module")
def browser(chromium_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


def sample_maps(
    length: int,
    *,
    layers: int = 12,
    heads: int = 12,
    dim: int = 64,
    seed: int = 0,
    pair: bool = False,
    pinyin: bool = False,
    token: str | None = None,
) -> AttentionMaps:
    """Attention as models have it: to the neighbour, to the last token, nearby, of contents.

    `token` is the spelling of the third token.
    """
    generator = np.random.default_rng(seed)
    characters = [HAN[place % len(HAN)] for place in range(length - 2 - pair)]
    if token is not None:
        characters[2] = token
    half = len(characters) // 2 if pair else len(characters)
    parts = [("[CLS]", None), *((char, 0) for char in characters[:half]), ("[SEP]", None)]
    if pair:
        parts += [*((char, 1) for char in characters[half:]), ("[SEP]", None)]
    names, segments = zip(*parts, strict=True)
    tokens = TokenSequence(
        tuple("".join(characters[part]) for part in ([slice(half), slice(half, None)] if pair else [slice(None)])),
        names,
        names,
        segments,
        (None,) * length,
        tuple(None if segment is None else place for place, segment in enumerate(segments)),
        tuple("guó" if pinyin and segment is not None else None for segment in segments),
    )
    between = np.arange(length) - np.arange(length)[:, None]
    patterns = [
        -1.5 * np.abs(between - 1),
        -1.5 * np.abs(between + 1),
        6.0 * (between == length - 1),
        -0.2 * abs(between),
    ]
    patterns += [np.zeros((length, length))] * 2
    found = []
    for layer in range(layers):
        query, key = generator.standard_normal((2, heads, length, dim), dtype=np.float32)
        scaling = dim**-0.5
        bias = np.stack([patterns[(5 * layer + head) % len(patterns)] for head in range(heads)]).astype(np.float32)
        exponentials = np.exp(query @ key.swapaxes(1, 2) * scaling + bias)
        weights = exponentials / exponentials.sum(-1, keepdims=True)
        found.append(LayerAttention(f"layer.{layer}", "encoder", weights, query, key, key, scaling, bias=bias))
    return AttentionMaps("BertModel", "bert", tuple(found), tokens)


@pytest.fixture(scope="session")
def make_maps() -> Any:
    """`sample_maps`, for tests that cannot import this file."""
    return sample_maps
