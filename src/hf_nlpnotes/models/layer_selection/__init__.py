"""Any encoder with a selection of its layers, and heads for texts, tokens and answers on it."""

from .configuration_layer_selection import LayerSelectionConfig
from .modeling_layer_selection import (
    LayerSelectionForQuestionAnswering,
    LayerSelectionForSequenceClassification,
    LayerSelectionForTokenClassification,
    LayerSelectionModel,
    LayerSelectionPreTrainedModel,
)

__all__ = [
    "LayerSelectionConfig",
    "LayerSelectionForQuestionAnswering",
    "LayerSelectionForSequenceClassification",
    "LayerSelectionForTokenClassification",
    "LayerSelectionModel",
    "LayerSelectionPreTrainedModel",
]
