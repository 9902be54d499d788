"""Layers of encoders: where they are, which of them a task uses, how they are mixed; a CRF on top. torch only."""

from .crf import ConditionalRandomField, ScoredTags
from .layer_discovery import LayerGroup, LayerStack, layer_groups, layer_stacks
from .layer_selection import LayerSelection
from .scalar_mix import ScalarMix, plot_weights
from .span_pairs import SpanPairs

__all__ = [
    "ConditionalRandomField",
    "LayerGroup",
    "LayerSelection",
    "LayerStack",
    "ScalarMix",
    "ScoredTags",
    "SpanPairs",
    "layer_groups",
    "layer_stacks",
    "plot_weights",
]
