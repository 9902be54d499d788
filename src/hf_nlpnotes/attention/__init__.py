"""Attention of any layer and head of stock models: captured, measured, drawn."""

from .capture import capture_attention, capture_inputs
from .gates import ablated
from .importance import head_ablation, head_importance
from .maps import AttentionMaps, LayerAttention
from .plots import plot_head, plot_heads, plot_rollout
from .rollout import attention_flow, attention_rollout
from .statistics import HeadStatistics, head_statistics
from .tokens import TokenSequence

__all__ = [
    "AttentionMaps",
    "HeadStatistics",
    "LayerAttention",
    "TokenSequence",
    "ablated",
    "attention_flow",
    "attention_rollout",
    "capture_attention",
    "capture_inputs",
    "head_ablation",
    "head_importance",
    "head_statistics",
    "plot_head",
    "plot_heads",
    "plot_rollout",
]
