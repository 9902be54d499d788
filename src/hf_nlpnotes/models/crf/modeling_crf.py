"""A token classifier with a conditional random field around any encoder.

    model = CrfForTokenClassification.from_encoder("bert-base-chinese", **tagger_options(labels, "BIOES"))

The encoder is an `AutoModel`, a selection of layers among them, and keeps its parameter names below `model.encoder`.
The classifier and the CRF stand together in `model.classifier`: PEFT trains and saves them for token classification
without being told. `logits` are the emissions, so that what reads token classifiers works, ONNX export included; the
best tags come from `decode`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import TokenClassifierOutput
from transformers.utils.generic import can_return_tuple

from hf_nlpnotes.layers.crf import IGNORED, ConditionalRandomField
from hf_nlpnotes.models.around_encoder import (
    AroundEncoderPreTrainedModel,
    build_encoder,
    load_encoder,
    names_encoder_inputs,
)

from .configuration_crf import CrfConfig


@dataclass
class CrfTokenClassifierOutput(TokenClassifierOutput):
    """As of token classifiers, with the scores of whole texts.

    Attributes:
        text_logits: `(batch, classes)`, where the model has `text_classes`.
    """

    text_logits: torch.Tensor | None = None


class CrfClassifier(nn.Module):
    """A linear classifier of tokens, whose scores are a CRF's emissions; and perhaps one of the whole text."""

    def __init__(self, config: CrfConfig) -> None:
        super().__init__()
        assert config.num_labels is not None  # the number of names in id2label, which always has some
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.dense = nn.Linear(config.feature_size, config.num_labels)
        self.text_dense = (
            None if config.text_classes is None else nn.Linear(config.feature_size, len(config.text_classes))
        )
        self.crf = ConditionalRandomField(
            config.num_labels,
            config.allowed_transitions,
            algorithm=config.crf_algorithm,  # type: ignore[arg-type]  # checked there
        )

    def forward(
        self, features: torch.Tensor, labels: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Classify.

        Args:
            features: `(batch, seq, feature_size)`.
            labels: `(batch, seq)`, -100 where there is none.

        Returns:
            Emissions `(batch, seq, num_labels)`, the sum of the negative log-likelihoods of the labels, and scores of
            the texts' classes `(batch, classes)`.
        """
        features = self.dropout(features)
        emissions = self.dense(features)
        loss = None if labels is None else self._loss(emissions, labels)
        return emissions, loss, None if self.text_dense is None else self.text_dense(features[:, 0])

    def _loss(self, emissions: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        labels = labels.to(emissions.device)
        # A window of a text may have no labels of its own: no sequence, and nothing to learn.
        labelled = (labels != IGNORED).any(1)
        if torch.compiler.is_compiling():
            # A graph leaves no rows out: such a one gets a label that may stand alone, and its loss does not count.
            alone = (self.crf.allowed_start & self.crf.allowed_end).int().argmax()
            first = torch.arange(labels.shape[1], device=labels.device) == 0
            labels = torch.where(~labelled[:, None] & first, alone, labels)
            return self.crf(emissions, labels, reduction="none").where(labelled, 0).sum()
        if not bool(labelled.all()):
            if not bool(labelled.any()):
                # 0, yet of all parameters: no process of several may leave out a gradient.
                return sum((parameter.sum() for parameter in self.crf.parameters()), emissions.sum()) * 0.0
            emissions, labels = emissions[labelled], labels[labelled]
        loss: torch.Tensor = self.crf(emissions, labels, reduction="sum")
        return loss


class CrfForTokenClassification(AroundEncoderPreTrainedModel):
    """Any encoder, a linear classifier on each token, and a conditional random field on the sequence of tags.

    Args:
        config: What is built.
        encoder: A model to put the classifier on; None: a new one, as `config.text_config` says.
    """

    config_class = CrfConfig
    config: CrfConfig
    base_model_prefix = "encoder"
    accepts_loss_kwargs = True

    def __init__(self, config: CrfConfig, encoder: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        assert config.num_labels is not None
        self.num_labels = config.num_labels
        if encoder is None:
            encoder = build_encoder(config)
        config.text_config = encoder.config  # one object: the attention set and the vocabulary resized are of both
        self.encoder = encoder
        self.classifier = CrfClassifier(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ConditionalRandomField):
            for parameter in module.parameters():
                init.zeros_(parameter)
            # Not in the checkpoint, and lost where the model was built on the meta device.
            for name, table in module.constraints().items():
                init.copy_(getattr(module, name), table)

    @classmethod
    def from_encoder(
        cls,
        pretrained_model_name_or_path: Any,
        *,
        tagging_scheme: str | None = None,
        tagging_units: str | None = None,
        text_classes: list[str] | None = None,
        constraints: Any = None,
        classifier_dropout: float = 0.1,
        crf_algorithm: str = "auto",
        num_labels: int | None = None,
        id2label: dict[int, str] | None = None,
        label2id: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> CrfForTokenClassification:
        """Put a new classifier and CRF on a pretrained encoder.

        Args:
            pretrained_model_name_or_path: Folder or hub name of a checkpoint that `AutoModel` loads. Of a checkpoint
                with a CRF the encoder is taken.
            tagging_scheme: As in `CrfConfig`; `hf_nlpnotes.tagging.tagger_options` gives this, the constraints and the
                labels' names at once.
            tagging_units: As in `CrfConfig`.
            text_classes: As in `CrfConfig`.
            constraints: As in `CrfConfig`.
            classifier_dropout: As in `CrfConfig`.
            crf_algorithm: As in `CrfConfig`.
            num_labels: As in every configuration of transformers.
            id2label: As in every configuration of transformers.
            label2id: As in every configuration of transformers.
            **kwargs: For `AutoModel.from_pretrained`: `dtype`, `attn_implementation`, `revision`, options of the
                encoder's configuration, …

        Raises:
            ValueError: as of `CrfConfig`, and for an encoder-decoder.
        """
        encoder = load_encoder(pretrained_model_name_or_path, cls, **kwargs)
        labels: dict[str, Any] = {"num_labels": num_labels, "id2label": id2label, "label2id": label2id}
        config = CrfConfig(
            text_config=encoder.config,
            tagging_scheme=tagging_scheme,
            tagging_units=tagging_units,
            text_classes=text_classes,
            constraints=constraints,
            classifier_dropout=classifier_dropout,
            crf_algorithm=crf_algorithm,
            dtype=encoder.dtype,
            **{name: value for name, value in labels.items() if value is not None},
        )
        model: Any = cls(config, encoder=encoder)
        placed: CrfForTokenClassification = model.to(device=encoder.device, dtype=encoder.dtype).eval()
        return placed

    @property
    def crf(self) -> ConditionalRandomField:
        """The conditional random field; the adapter's own where PEFT has made a copy."""
        found: ConditionalRandomField = self.classifier.crf
        return found

    @property
    def encoder_model(self) -> PreTrainedModel:
        """The encoder."""
        encoder: PreTrainedModel = self.encoder
        return encoder

    @names_encoder_inputs
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        text_classes: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | CrfTokenClassifierOutput:
        """Score the tags of tokens.

        Args:
            input_ids: `(batch, seq)`, and all other inputs of the encoder by name (`pinyin_ids`, …).
            attention_mask: `(batch, seq)`.
            labels: `(batch, seq)`, -100 where a token is no part of the sequence of tags: special tokens, and the
                later pieces of a word. Padding is none in any case.
            text_classes: `(batch,)`, the class of each text, where the configuration has `text_classes`. Its
                negative log-likelihood is added to that of the tags: together that of both, given the text.
            num_items_in_batch: Labels in the whole batch, of which this may be a part: the loss is then the sum of
                the negative log-likelihoods divided by this number. Without it they are divided by the labels here.

        Returns:
            `logits`, `(batch, seq, num_labels)`, are the CRF's emissions; and `text_logits`.

        Raises:
            ValueError: labels that the CRF refuses, or `text_classes` for a model without such classes.
        """
        for name in ("output_attentions", "output_hidden_states"):
            if kwargs.get(name) is None and getattr(
                self.config, name
            ):  # the encoder knows its own configuration alone
                kwargs[name] = True
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **kwargs}
        # Not all encoders know all of these, and none misses one that is None.
        inputs = {name: value for name, value in inputs.items() if value is not None}
        outputs = self.encoder(**inputs, return_dict=True)
        if labels is not None and attention_mask is not None and attention_mask.shape == labels.shape:
            labels = labels.masked_fill(attention_mask.to(labels.device) == 0, IGNORED)
        emissions, loss, text_logits = self.classifier(outputs[0], labels)
        if text_classes is not None:
            if text_logits is None:
                raise ValueError(
                    "text_classes are given, and the model has no classes of texts: configure text_classes"
                )
            of_texts = nn.functional.cross_entropy(
                text_logits.float(), text_classes.to(text_logits.device), reduction="sum"
            )
            loss = of_texts if loss is None else loss + of_texts
        if loss is not None:
            loss = loss / _count(labels, text_classes, num_items_in_batch, loss)
        return CrfTokenClassifierOutput(
            loss=loss,
            logits=emissions,
            hidden_states=getattr(outputs, "hidden_states", None),
            attentions=getattr(outputs, "attentions", None),
            text_logits=text_logits,
        )

    def decode(self, logits: torch.Tensor, mask: torch.Tensor | None = None) -> list[list[int]]:
        """Best tags of the tokens that count, as `ConditionalRandomField.decode`.

        The mask should leave out what had no label in training: special tokens, padding, later pieces of words.

        Args:
            logits: `(batch, seq, num_labels)`, of `forward`.
            mask: `(batch, seq)`, true for tokens that count; None: all.
        """
        return self.crf.decode(logits, mask)

    @torch.no_grad()
    def best_tags(self, logits: Any, labels: torch.Tensor) -> torch.Tensor:
        """Best tags in the shape of the labels, for `Trainer(…, preprocess_logits_for_metrics=model.best_tags)`.

        Args:
            logits: `(batch, seq, num_labels)`, or a tuple that begins with them.
            labels: `(batch, seq)`; -100 where a token does not count.

        Returns:
            `(batch, seq)`, long; -100 where the labels are.
        """
        emissions = logits[0] if isinstance(logits, tuple | list) else logits
        counts = labels != IGNORED
        tags = torch.full_like(labels, IGNORED)
        rows = counts.any(1)
        if bool(rows.any()):
            best = self.decode(emissions[rows], counts[rows])
            tags[counts] = torch.tensor([tag for row in best for tag in row], dtype=tags.dtype, device=tags.device)
        return tags


def _count(
    labels: torch.Tensor | None,
    text_classes: torch.Tensor | None,
    given: torch.Tensor | int | None,
    loss: torch.Tensor,
) -> torch.Tensor | int:
    """What the sum of the losses is divided by: the tags that count, of the whole batch where that is known."""
    if given is not None:
        return given.to(loss.device) if isinstance(given, torch.Tensor) else given
    if labels is not None:
        return (labels != IGNORED).sum().clamp(min=1).to(loss.device)
    assert text_classes is not None
    return len(text_classes)


__all__ = ["CrfForTokenClassification", "CrfTokenClassifierOutput"]
