"""Inputs that break parsers: strange text, JSON that nearly fits, files with bytes changed."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

STRANGE = (
    *("\x00", "\t", "\n", "\r", "\r\n", "\x0b", "\x1c", "\x85", "\u2028", "\ufeff"),
    *("e\u0301", "\u0301", "\u200b", "\u200d", "\u202e", "\u2066", "\ue000", "\ufffd", "\uffff", "\U0010ffff"),
    *("👨\u200d👩\u200d👧", "🇨🇳", "👍🏽", "שלום", "مرحبا", "ﷺ", "ﬁ", "İ", "ß", "Ａ１", "ǆ", "가", "각"),
    *("国", "足", "重庆", "𠮷", "〇", "㐀", "豈", "々", "，", "。", "[MASK]", "[SEP]", "[CLS]", "[UNK]", "##a"),
    *("{label}", "{text}", "{{", "}}", "<script>", "</script>", "&amp;", "'", '"', "\\", "a", "B", "9", " ", "-"),
)
"""Characters and words that tokenizers, HTML, JSON and templates treat in their own way."""

strange_text = st.lists(st.sampled_from(STRANGE) | st.characters(exclude_categories=["Cs"]), max_size=12).map("".join)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | strange_text
    | st.sampled_from([0, -1, 1, 10**30, "", "0", "null", "../../etc/passwd"])
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strange_text, inner, max_size=3), max_leaves=6
)


@st.composite
def nearly(draw: Callable[..., Any], whole: Any) -> Any:
    """`whole` with one to three of its parts left out, doubled or replaced by something else."""
    value = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(value))
        if not places:
            return draw(json_values)
        holder, key = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "replace", "remove", "add", "swap"])):
            case "replace":
                holder[key] = draw(json_values)
            case "remove":
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[draw(strange_text)] = draw(json_values)
            case "add":
                holder.insert(key, draw(json_values))
            case "swap":
                other, place = draw(st.sampled_from(places))
                holder[key] = copy.deepcopy(other.get(place) if isinstance(other, dict) else other[place : place + 1])
    return value


def _places(value: Any) -> Any:
    """Every (container, key) of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


@st.composite
def damaged(draw: Callable[..., Any], whole: bytes) -> bytes:
    """`whole` cut off, with bytes flipped, a piece left out, repeated, or replaced by noise."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        # Headers decide how the rest is read: half of the places are among the first bytes.
        place = draw(st.integers(0, len(data)) | st.integers(0, min(len(data), 256)))
        size = draw(st.integers(1, 16))
        match draw(st.sampled_from(["cut", "flip", "flip", "remove", "repeat", "noise"])):
            case "cut":
                del data[place:]
            case "flip" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "remove":
                del data[place : place + size]
            case "repeat":
                data[place:place] = data[place : place + size]
            case "noise":
                data[place : place + size] = draw(st.binary(max_size=size))
    return bytes(data)


def damaged_text(whole: str) -> st.SearchStrategy[bytes]:
    """The bytes of a text file, damaged; or with strange text in some of its places."""

    @st.composite
    def rewritten(draw: Callable[..., Any]) -> bytes:
        text = whole
        for _ in range(draw(st.integers(1, 4))):
            place = draw(st.integers(0, len(text)))
            end = min(len(text), place + draw(st.integers(0, 6)))
            text = (
                text[:place] + draw(strange_text | st.sampled_from(['"', "[", "{", ":", ",", "]", "}"])) + text[end:]
            )
        return text.encode()

    return damaged(whole.encode()) | rewritten()


class Long(bytes):
    """Bytes that a report does not spell out."""

    def __repr__(self) -> str:
        return f"{bytes(self[:20])!r} and so on, {len(self)} bytes"


def json_files(whole: Any) -> st.SearchStrategy[bytes]:
    """Files that are JSON and nearly `whole`, or nearly JSON."""
    text = json.dumps(whole, ensure_ascii=False)
    odd = st.sampled_from(
        [b"", b"null", b"\xff\xfe[]", b"NaN", Long(b"[" * 100_000), Long(b'{"a":' * 100_000), Long(b"1" * 5000)]
    )
    return nearly(whole).map(lambda value: json.dumps(value).encode()) | damaged_text(text) | odd


def refused(
    call: Callable[..., Any], *args: Any, naming: object = "", kinds: tuple[type[Exception], ...] = (ValueError,)
) -> Any:
    """Call, and return what it gives; None where it raises a documented error, whose message must say `naming`."""
    try:
        return call(*args)
    except kinds as error:
        kind, message = type(error).__name__, str(error)
    assert message.strip(), f"{kind} without a message"
    assert str(naming) in message, f"{kind} does not name {naming}: {message}"
    assert len(message) < 100_000
    return None


def put(folder: Path, name: str, content: bytes) -> Path:
    """Write a file for one input, in the place of the one before."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
