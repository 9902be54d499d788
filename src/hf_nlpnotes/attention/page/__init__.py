"""Attention as one self-contained HTML page."""

from .content import Start, View, counted, page_data
from .document import Theme, html_document

__all__ = ["Start", "Theme", "View", "counted", "html_document", "page_data"]
