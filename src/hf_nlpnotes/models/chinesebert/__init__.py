"""ChineseBERT (Sun et al. 2021): configuration, models, tokenizer, and what belongs to them."""

from .collator_chinesebert import DataCollatorForChineseBertMaskedLM
from .configuration_chinesebert import ChineseBertConfig
from .modeling_chinesebert import (
    ChineseBertForMaskedLM,
    ChineseBertForMultipleChoice,
    ChineseBertForQuestionAnswering,
    ChineseBertForSequenceClassification,
    ChineseBertForTokenClassification,
    ChineseBertModel,
    ChineseBertPreTrainedModel,
)
from .pinyin_chinesebert import PinyinTable
from .tokenization_chinesebert import ChineseBertTokenizer

__all__ = [
    "ChineseBertConfig",
    "ChineseBertForMaskedLM",
    "ChineseBertForMultipleChoice",
    "ChineseBertForQuestionAnswering",
    "ChineseBertForSequenceClassification",
    "ChineseBertForTokenClassification",
    "ChineseBertModel",
    "ChineseBertPreTrainedModel",
    "ChineseBertTokenizer",
    "DataCollatorForChineseBertMaskedLM",
    "PinyinTable",
]
