"""Attention as one self-contained HTML page."""

from .content import Start, View, page_data
from .document import Theme, html_document

__all__ = ["Start", "Theme", "View", "html_document", "page_data"]
