"""Attention of any layer and head of stock models: captured, measured, drawn."""

from .capture import capture_attention, capture_inputs
from .maps import AttentionMaps, LayerAttention
from .tokens import TokenSequence

__all__ = ["AttentionMaps", "LayerAttention", "TokenSequence", "capture_attention", "capture_inputs"]
