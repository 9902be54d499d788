"""The layers of an encoder: which there are, and what is made of their hidden states. Needs torch alone."""

from .layer_discovery import LayerGroup, LayerStack, layer_groups, layer_stacks

__all__ = ["LayerGroup", "LayerStack", "layer_groups", "layer_stacks"]
