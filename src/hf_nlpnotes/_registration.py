"""All that `import hf_nlpnotes` changes outside of it: tables of transformers and PEFT, filled here alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipelines,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .models.chinesebert import configuration_chinesebert, modeling_chinesebert, tokenization_chinesebert
from .models.crf import configuration_crf, modeling_crf
from .models.joint_span import configuration_joint_span, modeling_joint_span
from .models.layer_selection import configuration_layer_selection, modeling_layer_selection
from .pipelines import (
    ExtractiveQuestionAnsweringPipeline,
    QuestionAnsweringPipeline,
    SequenceTaggingPipeline,
    ZeroShotPromptPipeline,
)
from .pipelines._prompt_sources import PromptedModel

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

_JOINT_SPAN_CONFIG = configuration_joint_span.JointSpanConfig

# Any encoder with a CRF on its token classifier.
_CRF_CONFIG = configuration_crf.CrfConfig

# What LoRA adapts, by default, of an encoder that may be of any family: query and value, as each calls them.
_LORA_TARGETS_OF_ENCODERS = ["query", "value", "query_proj", "value_proj", "q_lin", "v_lin", "in_proj", "Wqkv"]

# The embedded model answers no questions before it is trained to: the default is that of version 4.
_ANSWERING_MODEL = ("distilbert/distilbert-base-cased-distilled-squad", "564e9b5")

# Nor does it tag anything: the default is that of the stock token-classification.
_TAGGING_MODEL = ("dbmdz/bert-large-cased-finetuned-conll03-english", "4c53496")

# Task -> pipeline, the class of its models, and the model and revision that it runs on unless it is given another.
_PIPELINES: dict[str, tuple[Any, Any, tuple[str, str]]] = {
    "zero-shot-prompt": (ZeroShotPromptPipeline, PromptedModel, (EMBEDDED_MODEL, "main")),
    "extractive-question-answering": (
        ExtractiveQuestionAnsweringPipeline,
        AutoModelForQuestionAnswering,
        _ANSWERING_MODEL,
    ),
    "question-answering": (QuestionAnsweringPipeline, AutoModelForQuestionAnswering, _ANSWERING_MODEL),
    "sequence-tagging": (SequenceTaggingPipeline, AutoModelForTokenClassification, _TAGGING_MODEL),
}


def register() -> None:
    """Make transformers and PEFT know the models, tokenizer and pipelines of this package. Safe to call again."""
    AutoConfig.register(_CONFIG.model_type, _CONFIG, exist_ok=True)
    AutoTokenizer.register(_CONFIG, tokenizer_class=tokenization_chinesebert.ChineseBertTokenizer, exist_ok=True)
    for auto_class, model_class in _MODELS.items():
        auto_class.register(_CONFIG, model_class, exist_ok=True)
    AutoConfig.register(_LAYER_SELECTION_CONFIG.model_type, _LAYER_SELECTION_CONFIG, exist_ok=True)
    for auto_class, model_class in _LAYER_SELECTION_MODELS.items():
        auto_class.register(_LAYER_SELECTION_CONFIG, model_class, exist_ok=True)
    AutoConfig.register(_JOINT_SPAN_CONFIG.model_type, _JOINT_SPAN_CONFIG, exist_ok=True)
    AutoModelForQuestionAnswering.register(
        _JOINT_SPAN_CONFIG, modeling_joint_span.JointSpanForQuestionAnswering, exist_ok=True
    )
    AutoConfig.register(_CRF_CONFIG.model_type, _CRF_CONFIG, exist_ok=True)
    AutoModelForTokenClassification.register(_CRF_CONFIG, modeling_crf.CrfForTokenClassification, exist_ok=True)
    _allow_removed_task("question-answering")
    for task, (pipeline_class, auto_class, default) in _PIPELINES.items():
        if task in PIPELINE_REGISTRY.supported_tasks:
            continue  # ours: registering again would warn; or another's, such as transformers' own come back
        PIPELINE_REGISTRY.register_pipeline(
            task,
            pipeline_class=pipeline_class,
            pt_model=(auto_class,),
            default={"model": default},
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
        for config in (_LAYER_SELECTION_CONFIG, _JOINT_SPAN_CONFIG, _CRF_CONFIG):
            LORA_TARGETS.setdefault(config.model_type, _LORA_TARGETS_OF_ENCODERS)
            register_targets(config.model_type, like="bert")


def _allow_removed_task(task: str) -> None:
    """Take a task from the list of those that transformers has removed, which it refuses before it looks further.

    Where transformers keeps no such list, or the task is not on it, there is nothing to do.
    """
    removed = getattr(pipelines, "REMOVED_TASKS", None)
    if isinstance(removed, dict):
        removed.pop(task, None)
