"""Masked language models whose loss in training looks at the hidden positions and a part of the vocabulary alone.

A small model spends more time on its output layer than on all the others: every position against every token of the
vocabulary. Of the positions only the hidden ones count; of the vocabulary a random part is enough for most of the
training (see `sampled_softmax_loss`). Weights, names and results outside of training are those of the stock classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from transformers import BertForMaskedLM
from transformers.modeling_outputs import MaskedLMOutput

from hf_nlpnotes.models.chinesebert import ChineseBertForMaskedLM

from .every_position import sampled_softmax_loss

_IGNORED = -100
_BLOCK = 32  # rows are filled up to a multiple: kernels are compiled for each size


class _HiddenPositionsLoss:
    """Mixin: in training with labels, the loss of the hidden positions without logits.

    Attributes:
        negatives: least number of random tokens that a target is compared with; None: the whole vocabulary.
    """

    accepts_loss_kwargs = True
    negatives: int | None = None
    _unigram: torch.Tensor | None = None

    def set_unigram(self, probabilities: torch.Tensor) -> None:
        """Give the tokens' relative frequencies, (vocab,), which the sampled softmax needs."""
        self._unigram = probabilities

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        *,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **inputs: Any,
    ) -> Any:
        """As of the stock class; in training with `labels` the output has the loss alone."""
        model: Any = self
        if labels is None or not model.training:
            if num_items_in_batch is not None:
                inputs["num_items_in_batch"] = num_items_in_batch
            return super().forward(input_ids, labels=labels, **inputs)  # type: ignore[misc]  # the stock class
        hidden_at = labels != _IGNORED  # (batch, length)
        rows = model.bert(input_ids, **inputs)[0][hidden_at]  # (n, H)
        number, fill = len(rows), -len(rows) % _BLOCK
        targets = F.pad(labels[hidden_at], (0, fill), value=_IGNORED)
        head = model.cls.predictions
        rows = head.transform(F.pad(rows, (0, 0, 0, fill)))
        if self.negatives is None:
            total = F.cross_entropy(head.decoder(rows).float(), targets, ignore_index=_IGNORED, reduction="sum")
        else:
            if self._unigram is None:
                raise ValueError("a sampled softmax needs the tokens' frequencies: call set_unigram first")
            total = sampled_softmax_loss(
                rows,
                targets,
                head.decoder.weight,
                head.bias,
                self._unigram.to(rows.device),
                negatives=self.negatives,
                reduction="sum",
            )
        return MaskedLMOutput(loss=total / max(1, number if num_items_in_batch is None else num_items_in_batch))


class SampledChineseBertForMaskedLM(_HiddenPositionsLoss, ChineseBertForMaskedLM):
    """`ChineseBertForMaskedLM` for pretraining: see the module."""


class SampledBertForMaskedLM(_HiddenPositionsLoss, BertForMaskedLM):
    """`BertForMaskedLM` for pretraining: see the module."""
