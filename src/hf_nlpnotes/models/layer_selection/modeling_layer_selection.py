"""Heads on chosen layers of any encoder: what `AutoModelFor…` is for the top layer alone.

    model = LayerSelectionForSequenceClassification.from_encoder("bert-base-chinese", selection="mix", num_labels=2)

The encoder is an `AutoModel` and keeps its parameter names below `model.encoder`. It runs as far up as the selection
needs. Layers above take no part: they are frozen from the start, so that counts of trainable parameters tell the
truth and no optimizer or gradient bucket waits for them.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.loss.loss_utils import fixed_cross_entropy
from transformers.modeling_outputs import (
    BaseModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from hf_nlpnotes.layers.layer_accumulation import encoder_stack, run_selected, watch_layers
from hf_nlpnotes.layers.layer_discovery import layer_groups, layer_stacks
from hf_nlpnotes.layers.scalar_mix import ScalarMix
from hf_nlpnotes.models.around_encoder import (
    AroundEncoderPreTrainedModel,
    build_encoder,
    load_encoder,
    names_encoder_inputs,
)

from .configuration_layer_selection import LayerSelectionConfig


class LayerSelectionPreTrainedModel(AroundEncoderPreTrainedModel):
    """Loading, initialisation and the encoder, for all models here."""

    config_class = LayerSelectionConfig
    config: LayerSelectionConfig
    base_model_prefix = "model"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ScalarMix):
            init.zeros_(module.scalars)
            init.ones_(module.gamma)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint of one of the classes here; arguments and errors as in every model of transformers."""
        model = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        loaded = model[0] if isinstance(model, tuple) else model
        # Loading puts new parameters in the place of frozen ones.
        cast("LayerSelectionModel", loaded.base_model).freeze_unused_layers()
        return model

    @property
    def encoder_model(self) -> PreTrainedModel:
        """The encoder."""
        return cast("PreTrainedModel", self.base_model.encoder)

    @classmethod
    def from_encoder(
        cls,
        pretrained_model_name_or_path: Any,
        selection: Any = "mix",
        *,
        mix_layer_norm: bool = False,
        mix_dropout: float = 0.0,
        token_pooling: Literal["cls", "mean", "max"] = "cls",
        classifier_dropout: float = 0.1,
        num_labels: int | None = None,
        id2label: dict[int, str] | None = None,
        label2id: dict[str, int] | None = None,
        problem_type: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Put a selection, and a new head, on a pretrained encoder.

        Args:
            pretrained_model_name_or_path: Folder or hub name of a checkpoint that `AutoModel` loads. Of a checkpoint
                saved by one of the classes here the encoder is taken, and its head and selection are left.
            selection: A `LayerSelection` or its short form.
            mix_layer_norm: As in `LayerSelectionConfig`.
            mix_dropout: As in `LayerSelectionConfig`.
            token_pooling: As in `LayerSelectionConfig`.
            classifier_dropout: As in `LayerSelectionConfig`.
            num_labels: As in every configuration of transformers.
            id2label: As in every configuration of transformers.
            label2id: As in every configuration of transformers.
            problem_type: As in every configuration of transformers.
            **kwargs: For `AutoModel.from_pretrained`: `dtype`, `attn_implementation`, `revision`, options of the
                encoder's configuration, …

        Raises:
            ValueError: as of `LayerSelectionConfig`, and where the encoder's layers cannot be told.
        """
        encoder = load_encoder(pretrained_model_name_or_path, LayerSelectionModel, **kwargs)
        encoder.requires_grad_(True)  # a checkpoint's own selection may have been lower
        labels: dict[str, Any] = {
            "num_labels": num_labels,
            "id2label": id2label,
            "label2id": label2id,
            "problem_type": problem_type,
        }
        config = LayerSelectionConfig(
            text_config=encoder.config,
            selection=str(selection),
            mix_layer_norm=mix_layer_norm,
            mix_dropout=mix_dropout,
            token_pooling=token_pooling,
            classifier_dropout=classifier_dropout,
            dtype=encoder.dtype,
            **{name: value for name, value in labels.items() if value is not None},
        )
        model: nn.Module = cls(config, encoder=encoder)
        return model.to(device=encoder.device, dtype=encoder.dtype).eval()


class LayerSelectionModel(LayerSelectionPreTrainedModel):
    """An encoder whose last hidden state is a selection of its layers.

    Args:
        config: What is built.
        encoder: A model to put the head on; None: a new one, as `config.text_config` says.

    Attributes:
        encoder: The encoder, without a pooler where it can be built without.
        mix: The `ScalarMix` of a selection that mixes, else None. `mix.weights()` are its weights.
    """

    def __init__(self, config: LayerSelectionConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.selection = config.layer_selection
        if encoder is None:
            encoder = build_encoder(config)
        config.text_config = encoder.config  # one object: the attention set and the vocabulary resized are of both
        self.encoder = encoder
        indices = self.selection.indices(config.num_hidden_layers)
        self.mix = (
            ScalarMix(len(indices), layer_norm=config.mix_layer_norm, dropout=config.mix_dropout)
            if self.selection.combine == "mix"
            else None
        )
        watch_layers(encoder, config.num_hidden_layers)
        self.freeze_unused_layers()
        self.post_init()

    def freeze_unused_layers(self) -> None:
        """Freeze what lies above the highest layer of the selection, which no input passes through."""
        num_layers = self.config.num_hidden_layers
        top = self.selection.indices(num_layers)[-1]
        if top == num_layers or len(layer_stacks(self.encoder)) > 1:
            return
        # Groups of shared layers (ALBERT) are in use whatever the number of the layer.
        shared = len(encoder_stack(self.encoder, num_layers).layers) != num_layers
        place = 0
        for group in layer_groups(self.encoder):
            place += group.kind == "layer"
            if group.kind == "head" or (group.kind == "layer" and place > top and not shared):
                for name in group.parameters:
                    self.encoder.get_parameter(name).requires_grad_(False)

    @names_encoder_inputs
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | BaseModelOutput:
        """Encode texts.

        Args:
            input_ids: `(batch, seq)`, and all other inputs of the encoder by name (`pinyin_ids`, …).
            output_attentions: Return the encoder's attentions, for which all its layers are run.
            output_hidden_states: Return the encoder's hidden states, likewise.

        Returns:
            `last_hidden_state`, `(batch, seq, feature_size)`.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "output_attentions": _first_set(output_attentions, self.config.output_attentions),
            "output_hidden_states": _first_set(output_hidden_states, self.config.output_hidden_states),
            **kwargs,
        }
        # Not all encoders know all of these, and none misses one that is None or False.
        inputs = {name: value for name, value in inputs.items() if value is not None and value is not False}
        features, outputs = run_selected(
            self.encoder,
            self.selection,
            inputs,
            num_layers=self.config.num_hidden_layers,
            mix=self.mix,
            mask=attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None,
            all_layers="output_attentions" in inputs or "output_hidden_states" in inputs,
        )
        return BaseModelOutput(
            last_hidden_state=features,
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
        )


class LayerSelectionForSequenceClassification(LayerSelectionPreTrainedModel):
    """A linear classifier or regressor on one vector a text.

    Args:
        config: What is built.
        encoder: A model to put the head on; None: a new one, as `config.text_config` says.
    """

    accepts_loss_kwargs = True

    def __init__(self, config: LayerSelectionConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.num_labels = _num_labels(config)
        self.model = LayerSelectionModel(config, encoder)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.feature_size, self.num_labels)
        self.post_init()

    @names_encoder_inputs
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | SequenceClassifierOutput:
        """Classify texts.

        Args:
            input_ids: As all inputs in `LayerSelectionModel`.
            attention_mask: `(batch, seq)`.
            labels: `(batch,)` classes; `(batch,)` or `(batch, num_labels)` numbers for a regression;
                `(batch, num_labels)` zeros and ones for several labels a text. `config.problem_type` says which; when
                it is None the first batch decides, as in transformers.
            num_items_in_batch: Labels in the whole batch, of which this may be a part: the loss is then the sum over
                them divided by this number. Without it the loss is their mean.
        """
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        text = _pool(outputs.last_hidden_state, attention_mask, self.config.token_pooling)
        logits = self.classifier(self.dropout(text))
        loss = None if labels is None else self._loss(logits, labels, num_items_in_batch)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _loss(
        self, logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        config = self.config
        if config.problem_type is None:
            if self.num_labels == 1:
                config.problem_type = "regression"
            elif labels.dtype in (torch.long, torch.int):
                config.problem_type = "single_label_classification"
            else:
                config.problem_type = "multi_label_classification"
        if config.problem_type == "single_label_classification":
            return _cross_entropy(logits, labels, num_items_in_batch)
        is_regression = config.problem_type == "regression"
        error = nn.functional.mse_loss if is_regression else nn.functional.binary_cross_entropy_with_logits
        labels = labels.to(logits.device, logits.dtype).view_as(logits)
        if num_items_in_batch is None:
            return error(logits, labels)
        return error(logits, labels, reduction="sum") / num_items_in_batch


class LayerSelectionForTokenClassification(LayerSelectionPreTrainedModel):
    """A linear classifier on each token.

    Args:
        config: What is built.
        encoder: A model to put the head on; None: a new one, as `config.text_config` says.
    """

    accepts_loss_kwargs = True

    def __init__(self, config: LayerSelectionConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.num_labels = _num_labels(config)
        self.model = LayerSelectionModel(config, encoder)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.feature_size, self.num_labels)
        self.post_init()

    @names_encoder_inputs
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | TokenClassifierOutput:
        """Tag tokens.

        Args:
            input_ids: As all inputs in `LayerSelectionModel`.
            attention_mask: `(batch, seq)`.
            labels: `(batch, seq)`, -100 where there is nothing to learn.
            num_items_in_batch: As of `LayerSelectionForSequenceClassification`.
        """
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None if labels is None else _cross_entropy(logits, labels, num_items_in_batch)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class LayerSelectionForQuestionAnswering(LayerSelectionPreTrainedModel):
    """Scores of each token as the first and as the last of an answer.

    Args:
        config: What is built.
        encoder: A model to put the head on; None: a new one, as `config.text_config` says.
    """

    # The Trainer counts items in `labels` alone, which this head has not: a mean a step, equal for equal steps.
    accepts_loss_kwargs = False

    def __init__(self, config: LayerSelectionConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        self.model = LayerSelectionModel(config, encoder)
        self.qa_outputs = nn.Linear(config.feature_size, 2)
        self.post_init()

    @names_encoder_inputs
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | QuestionAnsweringModelOutput:
        """Find answers.

        Args:
            input_ids: As all inputs in `LayerSelectionModel`.
            attention_mask: `(batch, seq)`.
            start_positions: `(batch,)`, the answer's first token; one outside of the sequence does not count.
            end_positions: `(batch,)`, its last token.
        """
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(dim=-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = (position_loss(start_logits, start_positions) + position_loss(end_logits, end_positions)) / 2
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


# -------------------------------------------------------------------------------------------------------------- heads


def _first_set(called: bool | None, configured: bool | None) -> bool:
    return bool(configured if called is None else called)


def _num_labels(config: LayerSelectionConfig) -> int:
    assert config.num_labels is not None  # the number of names in id2label, which always has some
    return config.num_labels


def _pool(features: torch.Tensor, attention_mask: torch.Tensor | None, how: str) -> torch.Tensor:
    """One vector a text, `(batch, size)`, from `(batch, seq, size)`."""
    if how == "cls":
        return features[:, 0]
    if attention_mask is None:
        return features.mean(dim=1) if how == "mean" else features.amax(dim=1)
    if attention_mask.dim() != 2:
        raise ValueError(
            f"Pooling by {how} needs an attention mask (batch, seq), got {tuple(attention_mask.shape)}: give one, or "
            "configure token_pooling='cls'"
        )
    kept = attention_mask[:, :, None].to(features.device)
    if how == "max":
        return features.masked_fill(kept == 0, torch.finfo(features.dtype).min).amax(dim=1)
    kept = kept.to(features.dtype)
    return (features * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)


def position_loss(logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of `(batch, seq)` and the mean over positions inside of the sequence; 0 if there are none."""
    positions = positions.to(logits.device).flatten()
    inside = (positions >= 0) & (positions < logits.shape[1])
    losses = nn.functional.cross_entropy(logits.float(), positions.where(inside, 0), reduction="none")
    return losses.where(inside, 0).sum() / inside.sum().clamp(min=1)


def _cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """Cross-entropy of `logits (..., classes)` in float32: the mean over labels that are not -100, or sum / items."""
    return fixed_cross_entropy(
        logits.flatten(0, -2).float(),
        labels.to(logits.device).flatten(),
        num_items_in_batch,  # type: ignore[arg-type]  # a number will do as well
    )


__all__ = [
    "LayerSelectionForQuestionAnswering",
    "LayerSelectionForSequenceClassification",
    "LayerSelectionForTokenClassification",
    "LayerSelectionModel",
    "LayerSelectionPreTrainedModel",
]
