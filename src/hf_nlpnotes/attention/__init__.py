"""Attention of any layer and head of stock models: captured, measured, drawn."""

from .capture import capture_attention, capture_inputs
from .gates import ablated
from .importance import head_ablation, head_importance
from .maps import AttentionMaps, LayerAttention
from .merging import merge_words
from .plots import plot_head, plot_heads, plot_rollout
from .rollout import attention_flow, attention_rollout
from .statistics import HeadStatistics, head_statistics
from .tokens import TokenSequence
from .views import AttentionPage, head_view, model_view, neuron_view, show

__all__ = [
    "AttentionMaps",
    "AttentionPage",
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
    "head_view",
    "merge_words",
    "model_view",
    "neuron_view",
    "plot_head",
    "plot_heads",
    "plot_rollout",
    "show",
]
