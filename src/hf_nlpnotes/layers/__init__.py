"""Layers of encoders: where they are, which of them a task uses, and how they are mixed. torch only."""

from .layer_discovery import LayerGroup, LayerStack, layer_groups, layer_stacks
from .layer_selection import LayerSelection
from .scalar_mix import ScalarMix, plot_weights

__all__ = [
    "LayerGroup",
    "LayerSelection",
    "LayerStack",
    "ScalarMix",
    "layer_groups",
    "layer_stacks",
    "plot_weights",
]
