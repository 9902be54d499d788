"""All that `import hf_nlpnotes` changes outside of it: tables of transformers and PEFT, filled here alone."""

from __future__ import annotations

from importlib.util import find_spec

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

from .models.chinesebert import configuration_chinesebert, modeling_chinesebert, tokenization_chinesebert

_CONFIG = configuration_chinesebert.ChineseBertConfig

_MODELS = {
    AutoModel: modeling_chinesebert.ChineseBertModel,
    AutoModelForMaskedLM: modeling_chinesebert.ChineseBertForMaskedLM,
    AutoModelForSequenceClassification: modeling_chinesebert.ChineseBertForSequenceClassification,
    AutoModelForTokenClassification: modeling_chinesebert.ChineseBertForTokenClassification,
    AutoModelForQuestionAnswering: modeling_chinesebert.ChineseBertForQuestionAnswering,
    AutoModelForMultipleChoice: modeling_chinesebert.ChineseBertForMultipleChoice,
}

# The layers that LoRA adapts when its config names none, as for BERT.
_LORA_TARGETS = ["query", "value"]


def register() -> None:
    """Make transformers and PEFT know the models, tokenizer and pipelines of this package. Safe to call again."""
    AutoConfig.register(_CONFIG.model_type, _CONFIG, exist_ok=True)
    AutoTokenizer.register(_CONFIG, tokenizer_class=tokenization_chinesebert.ChineseBertTokenizer, exist_ok=True)
    for auto_class, model_class in _MODELS.items():
        auto_class.register(_CONFIG, model_class, exist_ok=True)
    if find_spec("peft") is not None:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

        TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.setdefault(_CONFIG.model_type, _LORA_TARGETS)
