"""hf_nlpnotes: a plugin for Hugging Face transformers.

`import hf_nlpnotes` makes the Auto classes and `pipeline()` know what this package adds; it has no other effect.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._registration import EMBEDDED_MODEL, register

if TYPE_CHECKING:
    from .models.chinesebert import (
        ChineseBertConfig,
        ChineseBertForMaskedLM,
        ChineseBertForMultipleChoice,
        ChineseBertForQuestionAnswering,
        ChineseBertForSequenceClassification,
        ChineseBertForTokenClassification,
        ChineseBertModel,
        ChineseBertTokenizer,
    )

__version__ = "1.0.0"

__all__ = [
    "EMBEDDED_MODEL",
    "ChineseBertConfig",
    "ChineseBertForMaskedLM",
    "ChineseBertForMultipleChoice",
    "ChineseBertForQuestionAnswering",
    "ChineseBertForSequenceClassification",
    "ChineseBertForTokenClassification",
    "ChineseBertModel",
    "ChineseBertTokenizer",
    "__version__",
    "register",
]


_MODULE_OF = {name: "hf_nlpnotes.models.chinesebert" for name in __all__ if name.startswith("ChineseBert")}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})


register()
