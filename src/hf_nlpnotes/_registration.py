"""All that `import hf_nlpnotes` changes outside of it: tables of transformers and PEFT, filled here alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .models.chinesebert import configuration_chinesebert, modeling_chinesebert, tokenization_chinesebert
from .models.layer_selection import configuration_layer_selection, modeling_layer_selection
from .pipelines import ZeroShotPromptPipeline

EMBEDDED_MODEL: str = str(Path(__file__).parent / "assets" / "chinesebert-small")
"""Folder of the model that comes with the package, for any `from_pretrained`."""

_CONFIG = configuration_chinesebert.ChineseBertConfig

_MODELS = {
    AutoModel: modeling_chinesebert.ChineseBertModel,
    AutoModelForMaskedLM: modeling_chinesebert.ChineseBertForMaskedLM,
    AutoModelForSequenceClassification: modeling_chinesebert.ChineseBertForSequenceClassification,
    AutoModelForTokenClassification: modeling_chinesebert.ChineseBertForTokenClassification,
    AutoModelForQuestionAnswering: modeling_chinesebert.ChineseBertForQuestionAnswering,
    AutoModelForMultipleChoice: modeling_chinesebert.ChineseBertForMultipleChoice,
}

_LAYER_SELECTION_CONFIG = configuration_layer_selection.LayerSelectionConfig

# Any encoder with a selection of its layers. Its tokenizer is the encoder's, which tokenizer_config.json names.
_LAYER_SELECTION_MODELS = {
    AutoModel: modeling_layer_selection.LayerSelectionModel,
    AutoModelForSequenceClassification: modeling_layer_selection.LayerSelectionForSequenceClassification,
    AutoModelForTokenClassification: modeling_layer_selection.LayerSelectionForTokenClassification,
    AutoModelForQuestionAnswering: modeling_layer_selection.LayerSelectionForQuestionAnswering,
}

# What LoRA adapts, by default, of an encoder that may be of any family: query and value, as each calls them.
_LORA_TARGETS_OF_ENCODERS = ["query", "value", "query_proj", "value_proj", "q_lin", "v_lin", "in_proj", "Wqkv"]

# Task -> pipeline and the class of its models. Each runs on the embedded model unless it is given another.
_PIPELINES = {"zero-shot-prompt": (ZeroShotPromptPipeline, AutoModelForMaskedLM)}


def register() -> None:
    """Make transformers and PEFT know the models, tokenizer and pipelines of this package. Safe to call again."""
    AutoConfig.register(_CONFIG.model_type, _CONFIG, exist_ok=True)
    AutoTokenizer.register(_CONFIG, tokenizer_class=tokenization_chinesebert.ChineseBertTokenizer, exist_ok=True)
    for auto_class, model_class in _MODELS.items():
        auto_class.register(_CONFIG, model_class, exist_ok=True)
    AutoConfig.register(_LAYER_SELECTION_CONFIG.model_type, _LAYER_SELECTION_CONFIG, exist_ok=True)
    for auto_class, model_class in _LAYER_SELECTION_MODELS.items():
        auto_class.register(_LAYER_SELECTION_CONFIG, model_class, exist_ok=True)
    for task, (pipeline_class, auto_class) in _PIPELINES.items():
        if PIPELINE_REGISTRY.supported_tasks.get(task, {}).get("impl") is pipeline_class:
            continue  # registering again would warn
        PIPELINE_REGISTRY.register_pipeline(
            task,
            pipeline_class=pipeline_class,
            pt_model=(auto_class,),
            default={"model": (EMBEDDED_MODEL, "main")},
            type="text",
        )
        # With this attribute a saved pipeline is taken for remote code, and is not loaded without trust_remote_code.
        if hasattr(pipeline_class, "_registered_impl"):
            del pipeline_class._registered_impl
    if find_spec("peft") is not None:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS

        from .adapters.registration import register_adapters, register_targets

        register_adapters()
        register_targets(_CONFIG.model_type, like="bert")
        LORA_TARGETS.setdefault(_LAYER_SELECTION_CONFIG.model_type, _LORA_TARGETS_OF_ENCODERS)
        register_targets(_LAYER_SELECTION_CONFIG.model_type, like="bert")
