"""Sequence tagging: schemes, alignment of labels with sub-words, decoding and metrics."""

from .schemes import (
    SCHEMES,
    AllowedTransitions,
    Scheme,
    Span,
    Violation,
    allowed_transitions,
    convert_tags,
    detect_scheme,
    detect_scheme_in,
    find_violations,
    get_scheme,
    is_legal,
    repair_tags,
    scheme_labels,
    spans_to_tags,
    tags_to_spans,
    validate_tags,
)
from .tagger_options import tagger_options

__all__ = [
    "SCHEMES",
    "AllowedTransitions",
    "Scheme",
    "Span",
    "Violation",
    "allowed_transitions",
    "convert_tags",
    "detect_scheme",
    "detect_scheme_in",
    "find_violations",
    "get_scheme",
    "is_legal",
    "repair_tags",
    "scheme_labels",
    "spans_to_tags",
    "tagger_options",
    "tags_to_spans",
    "validate_tags",
]
