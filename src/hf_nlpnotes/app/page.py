"""The page itself, made with gradio: its tabs, its looks, and how it is served. Nothing in it comes from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .models import AppOptions, Models
from .tabs import TABS

TITLE = "hf_nlpnotes"
MOST_WAITING = 32
"""Calls that may wait; whoever comes later is told to try again."""

_STYLE = """\
.nlp-error { margin: 0; padding: .5rem .75rem; border-left: 3px solid #dc2626; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.nlp-note { margin: 0; padding: .25rem 0; }
.nlp-caption { margin: 0; font-size: .85rem; opacity: .75; }
.nlp-ruby { margin: 0; font-size: 1.5rem; line-height: 2.2; overflow-wrap: anywhere; }
.nlp-ruby ruby { margin-inline: .1em; }
.nlp-ruby rt { font-size: .55em; color: var(--body-text-color-subdued); }
.nlp-frame iframe { border: 0; }
@media (max-width: 480px) { button[role=tab] { padding-inline: .35rem !important; } }
"""

_CHINESE = ("Noto Sans CJK SC", "Noto Sans SC", "PingFang SC", "Microsoft YaHei")
_FONTS = ("system-ui", *_CHINESE, "sans-serif")
_FONTS_OF_CODE = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", *_CHINESE, "monospace")
"""Those of the reader's system: none is fetched."""

_INTRODUCTION = """\
# hf_nlpnotes

ChineseBERT, prompts, tagging, question answering and attention, on the model **{model}**.{small}
"""

_SMALL = " It comes with the package, is small and was trained on a CPU: enough to try, not for results."


def build(options: AppOptions | None = None) -> Any:
    """Return the page as a `gradio.Blocks`, not yet served; no model is loaded yet.

    Args:
        options: Which models it has; None for the embedded one alone.

    Raises:
        ValueError: gradio is not installed.
    """
    gr = _gradio()
    models = Models(options or AppOptions())
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        small = _SMALL if models.options.model is None else ""
        gr.Markdown(_INTRODUCTION.format(model=_plain(models.name), small=small))
        with gr.Tabs(overflow_behavior="wrap"):
            for name, tab in TABS.items():
                with gr.Tab(name):
                    tab(gr, models)
    page.queue(max_size=MOST_WAITING, api_open=False)
    return page


def serve(
    options: AppOptions | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    on_ready: Callable[[str], object] | None = None,
) -> None:
    """Serve the page until it is interrupted.

    Args:
        options: Which models it has; None for the embedded one alone.
        host: Address to listen at; None for what `GRADIO_SERVER_NAME` says, else 127.0.0.1.
        port: Port; None for what `GRADIO_SERVER_PORT` says, else the first free one from 7860.
        share: Whether to ask gradio's servers for a public address that leads here.
        on_ready: Told the address once the page answers.

    Raises:
        ValueError: gradio is not installed.
        OSError: The port is taken.
    """
    page = build(options)
    gr = _gradio()
    _, local, public = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        run_history=False,  # what readers write is not kept, not even in their browsers
        footer_links=[],
        enable_monitoring=False,
        theme=gr.themes.Default(font=list(_FONTS), font_mono=list(_FONTS_OF_CODE)),
        css=_STYLE,
    )
    if on_ready is not None:
        on_ready(public or local)
    page.block_thread()


def _gradio() -> Any:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when the page is made and when it is served
    try:
        import gradio
    except ImportError:
        raise ValueError("the app needs gradio: pip install 'hf-nlpnotes[app]'") from None
    return gradio


def _plain(text: str) -> str:
    """A name in Markdown: letters that mean something there are escaped."""
    return "".join(f"\\{char}" if char in r"\`*_{}[]<>()#+-.!|" else char for char in text)
