"""Question answering with a joint head: `layers.span_pairs` on any encoder.

    model = JointSpanForQuestionAnswering.from_encoder("bert-base-chinese")

It trains under the stock Trainer as every model for question answering does, and gives `start_logits` and
`end_logits` as they do. The pipeline decodes `span_logits`, the scores of whole answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput, can_return_tuple

from hf_nlpnotes.layers.span_pairs import SpanPairs, span_loss, span_scores
from hf_nlpnotes.models.around_encoder import names_encoder_inputs
from hf_nlpnotes.models.layer_selection import LayerSelectionModel, LayerSelectionPreTrainedModel
from hf_nlpnotes.models.layer_selection.modeling_layer_selection import position_loss

from .configuration_joint_span import JointSpanConfig


@dataclass
class JointSpanModelOutput(ModelOutput):
    """Scores of first tokens, last tokens and whole answers.

    Args:
        loss: Scalar, where positions were given.
        start_logits: `(batch, seq)`.
        end_logits: `(batch, seq)`.
        span_logits: `(batch, seq, seq)` in float32, by first and last token; see `layers.span_pairs.span_scores`.
        hidden_states: Those of the encoder, where they were asked for.
        attentions: Likewise.
    """

    loss: torch.Tensor | None = None
    start_logits: torch.Tensor | None = None
    end_logits: torch.Tensor | None = None
    span_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class JointSpanForQuestionAnswering(LayerSelectionPreTrainedModel):
    """An encoder, scores of first and last tokens, and scores of their pairs.

    The loss is the compound objective: the cross-entropy of the stock heads, the mean of first and last token's, plus
    that of the pair.

    Args:
        config: What is built.
        encoder: A model to put the head on; None: a new one, as `config.text_config` says.
    """

    config_class = JointSpanConfig
    config: JointSpanConfig
    # The Trainer counts items in `labels` alone, which this head has not: a mean a step, equal for equal steps.
    accepts_loss_kwargs = False

    def __init__(self, config: JointSpanConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.model = LayerSelectionModel(config, encoder)
        self.qa_outputs = nn.Linear(config.feature_size, 2)
        self.pairs = SpanPairs(config.feature_size, config.pair_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if module is self.pairs.last:  # a head that is not trained yet is the stock head
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    @classmethod
    def from_encoder(
        cls, pretrained_model_name_or_path: Any, selection: Any = "top", *, pair_size: int = 64, **kwargs: Any
    ) -> Any:
        """Put a new head on a pretrained encoder.

        Args:
            pretrained_model_name_or_path: Folder or hub name of a checkpoint that `AutoModel` loads. Of a checkpoint
                saved by this class the encoder is taken, and its head is left.
            selection: The layers that the head reads: a `LayerSelection` or its short form.
            pair_size: As in `JointSpanConfig`.
            **kwargs: `mix_layer_norm`, `mix_dropout`, and options for `AutoModel.from_pretrained`.

        Raises:
            ValueError: as of `JointSpanConfig`, and where the encoder's layers cannot be told.
        """
        selected = LayerSelectionModel.from_encoder(pretrained_model_name_or_path, selection, **kwargs)
        config = JointSpanConfig(
            text_config=selected.encoder.config,
            selection=selected.config.selection,
            mix_layer_norm=selected.config.mix_layer_norm,
            mix_dropout=selected.config.mix_dropout,
            pair_size=pair_size,
            dtype=selected.encoder.dtype,
        )
        model: nn.Module = cls(config, encoder=selected.encoder)
        return model.to(device=selected.encoder.device, dtype=selected.encoder.dtype).eval()

    @names_encoder_inputs
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | JointSpanModelOutput:
        """Find answers.

        Args:
            input_ids: As all inputs in `LayerSelectionModel`.
            attention_mask: `(batch, seq)`.
            start_positions: `(batch,)`, the answer's first token; an answer outside of the sequence does not count.
            end_positions: `(batch,)`, its last token.
        """
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        features = outputs.last_hidden_state
        start_logits, end_logits = self.qa_outputs(features).unbind(dim=-1)
        span_logits = span_scores(start_logits, end_logits, self.pairs(features), attention_mask)
        loss = None
        if start_positions is not None and end_positions is not None:
            ends = (position_loss(start_logits, start_positions) + position_loss(end_logits, end_positions)) / 2
            loss = ends + span_loss(span_logits, start_positions, end_positions)
        return JointSpanModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            span_logits=span_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["JointSpanForQuestionAnswering", "JointSpanModelOutput"]
