"""The page as one HTML document: template, styles, scripts and numbers, and the policy that lets it load nothing.

The document asks for nothing outside itself: its content security policy allows the two scripts and the style sheet
with the hashes written into it, and neither connections nor frames nor any other source. Everything that comes from
tokens stands in JSON without "<", ">" or "&" and is put into the page as text. The script is deflated, as the numbers
are, and unpacked by a small loader.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from functools import cache
from importlib import resources
from string import Template
from typing import Any, Literal, get_args

from .packing import base85

Theme = Literal["auto", "light", "dark"]
"""Colours of a page; `auto` follows the reader's system."""

SCRIPTS = ("data.js", "painter.js", "drawings.js", "page.js")
"""In the order in which they run, as one script."""

_ESCAPES = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"})


def html_document(data: dict[str, Any], title: str, theme: Theme = "auto") -> str:
    """Return the page with `data`, which `page_data` made.

    Args:
        data: What `page_data` made.
        title: Heading of the page, plain text.
        theme: "light", "dark", or "auto" for what the reader's system says.

    Raises:
        ValueError: There is no such theme.
    """
    if theme not in get_args(Theme):
        raise ValueError(f"theme is {theme!r}, expected one of {get_args(Theme)}")
    style, loader, script = _style(), _source("loader.js"), _script()
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(loader)} {_hash(script)}",
            f"style-src {_hash(style)}",
            "img-src data:",  # the empty icon, which keeps browsers from asking a server for one
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return Template(_asset("page.html")).substitute(
        theme=theme,
        title=html.escape(title),
        policy=policy,
        style=style,
        code=_json(_packed_script()),
        data=_json(data),
        loader=loader,
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _style() -> str:
    dark = _source("dark.css")
    themes = (
        f"@media (prefers-color-scheme: dark) {{ [data-theme=auto] {{\n{dark}}} }}\n[data-theme=dark] {{\n{dark}}}"
    )
    lines = _source("page.css").replace("/* dark */", themes)
    return re.sub(r"\s*([{},;])\s*|(?<=:)\s+", r"\1", lines)


@cache
def _script() -> str:
    return "".join(_source(name) for name in SCRIPTS)


@cache
def _packed_script() -> dict[str, Any]:
    packed = zlib.compress(_script().encode(), 9)
    return {"size": len(packed), "data": base85(packed)}


def _source(name: str) -> str:
    """A script or style sheet without indentation and without the lines that are comments."""
    lines = [line.strip() for line in _asset(name).splitlines()]
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
