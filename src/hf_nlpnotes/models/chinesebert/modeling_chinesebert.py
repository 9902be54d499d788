"""ChineseBERT (Sun et al. 2021, https://aclanthology.org/2021.acl-long.161) on the BERT of transformers.

Encoder, pooler and heads are BERT's own classes. What differs: the embeddings, a `pinyin_ids` argument in every
`forward`, in the place where users of the official code pass it, and losses that follow the Trainer's count of items,
so that neither gradient accumulation nor the number of processes changes the gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    BertPreTrainedModel,
)
from transformers import initialization as init
from transformers.loss.loss_utils import fixed_cross_entropy
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.models.bert.modeling_bert import BertEncoder, BertOnlyMLMHead, BertPooler
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_chinesebert import ChineseBertConfig
from .embeddings_chinesebert import GlyphEmbedding, GlyphTable
from .folding_chinesebert import ChineseBertEmbeddings
from .pinyin_chinesebert import PinyinTable


class ChineseBertPreTrainedModel(BertPreTrainedModel):
    """Loading, initialisation and the tables of pinyin and glyphs, for all ChineseBERT models."""

    config_class = ChineseBertConfig
    config: ChineseBertConfig
    base_model_prefix = "bert"
    _no_split_modules = ["ChineseBertEmbeddings", "BertLayer"]
    _keys_to_ignore_on_load_unexpected = [r"position_ids"]
    # Of official checkpoints; `from_pretrained` fills them from the other files of the folder.
    _keys_to_ignore_on_load_missing = [r"embeddings\.pinyin_table", r"embeddings\.default_pinyin_ids"]

    def post_init(self) -> None:
        """Finish the construction."""
        super().post_init()
        # All our buffers are constant and the same on all ranks: 40 MB a step that need not be broadcast.
        self._ddp_params_and_buffers_to_ignore = [name for name, _ in self.named_buffers()]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, GlyphEmbedding):
            init.zeros_(module.embedding.weight)  # type: ignore[arg-type]
            return
        super()._init_weights(module)
        if isinstance(module, GlyphTable):
            init.zeros_(module.weight)
        elif isinstance(module, ChineseBertEmbeddings):
            rows = PinyinTable.default().rows
            if rows.shape == tuple(module.pinyin_table.shape):
                init.copy_(module.pinyin_table, torch.from_numpy(rows.astype(np.uint8)))
            else:
                init.zeros_(module.pinyin_table)
            init.zeros_(module.default_pinyin_ids)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a checkpoint: one of ours, or one in the official layout (`ShannonAI/ChineseBERT-base` or a folder).

        Arguments and errors as of [`~transformers.PreTrainedModel.from_pretrained`]. A model loaded from the official
        layout is saved as `chinesebert`, for the Auto classes.
        """
        from .official_chinesebert import official_layout  # needed for official folders alone

        layout = official_layout(pretrained_model_name_or_path, **kwargs)
        model = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        if layout is not None:
            loaded = model[0] if isinstance(model, tuple) else model
            loaded.set_readings(layout.pinyin_table.rows, layout.default_pinyin_ids)
            if layout.glyphs is not None:
                loaded.set_glyphs(layout.glyphs)
        return model

    # ------------------------------------------------------------------------------------------------------- tables

    @property
    def _embeddings(self) -> ChineseBertEmbeddings:
        embeddings = self.base_model.embeddings
        assert isinstance(embeddings, ChineseBertEmbeddings)
        return embeddings

    @torch.no_grad()
    def set_readings(self, pinyin_table: Any, default_pinyin_ids: Any) -> None:
        """Set the table of pinyin and each token's default reading; a tokenizer has both.

        Args:
            pinyin_table: `(readings, pinyin_length)`, letter ids (`tokenizer.pinyin_table`).
            default_pinyin_ids: `(vocab_size,)`, rows of that table (`tokenizer.default_pinyin_ids`).

        Raises:
            ValueError: when a shape does not fit the model, or a number is out of its range.
        """
        table, default = _as_tensor(pinyin_table), _as_tensor(default_pinyin_ids)
        expected = (self.config.pinyin_table_size, self.config.pinyin_length)
        if tuple(table.shape) != expected:
            raise ValueError(
                f"The model's pinyin table has shape {expected}, got {tuple(table.shape)}; build the model with "
                f"config.pinyin_table_size={len(table)} to use this one."
            )
        if tuple(default.shape) != (self.config.vocab_size,):
            raise ValueError(
                f"default_pinyin_ids must have one entry a token, ({self.config.vocab_size},); got "
                f"{tuple(default.shape)}. Does the tokenizer belong to this model?"
            )
        _check_range("pinyin_table", table, self.config.pinyin_letters)
        _check_range("default_pinyin_ids", default, len(table))
        embeddings = self._embeddings
        embeddings.pinyin_table.copy_(table)
        embeddings.default_pinyin_ids.copy_(default)
        embeddings.unfold()

    @torch.no_grad()
    def set_glyphs(self, glyphs: Any) -> None:
        """Set the bitmaps of all tokens.

        Args:
            glyphs: `(vocab_size, glyph_fonts, glyph_size, glyph_size)`, 0 to 255 or bool; whole numbers, unless they
                are stored as floats. Stored as bits, all values from 128 on count as ink.

        Raises:
            ValueError: when the shape does not fit the model, or a value is none of these.
        """
        size = self.config.glyph_size
        expected = (self.config.vocab_size, self.config.glyph_fonts, size, size)
        table = _as_tensor(glyphs)
        if tuple(table.shape) != expected:
            raise ValueError(f"glyphs must have the shape {expected}, got {tuple(table.shape)}")
        table = table.flatten(1)
        if table.dtype == torch.bool:
            table = table.to(torch.uint8) * 255
        _check_range("glyphs", table, 256)
        if self.config.glyph_storage != "float32" and not torch.equal(table, table.round()):
            raise ValueError(
                "glyphs must be whole numbers from 0 to 255, or bool, got fractions; of pictures from 0 to 1: "
                "(255 * glyphs).round()"
            )
        if self.config.glyph_storage == "bits":
            table = torch.from_numpy(np.packbits(table.cpu().numpy() >= 128, axis=1))
        weight = self._embeddings.glyph_embeddings.embedding.weight
        assert isinstance(weight, torch.Tensor)
        weight.copy_(table)
        self._embeddings.unfold()

    def fold_embeddings(self, release: bool = False) -> None:
        """Fold character, pinyin and glyph into one table now, so that embedding a token is to add up rows of it.

        A model in eval mode does the same by itself, token by token as they come, where no gradients are wanted. This
        call does it for the whole vocabulary: for compiled and exported models, which take the table as it is, and to
        free memory. Training and a change of the weights undo it. Two changes cannot be seen: of a few rows through
        `.data`, and any that comes between two runs of a compiled graph; call [`unfold_embeddings`] after them.

        Args:
            release: free the bitmaps and the characters' vectors, which the table stands for. The model can then only
                infer: to train, resize or save it raises `RuntimeError`.

        Raises:
            RuntimeError: when the model is in training mode, or a layer of the embeddings is not plain: it has an
                adapter or hooks, is quantised, sharded, offloaded or made in inference mode.
        """
        embeddings = self._embeddings
        if embeddings.released:
            return
        if self.training:
            raise RuntimeError("fold_embeddings() is for inference: call model.eval() first.")
        embeddings.fold()
        if release:
            embeddings.release()

    def unfold_embeddings(self) -> None:
        """Drop the folded table."""
        self._embeddings.unfold()

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the vocabulary: vectors as in transformers; new tokens have a blank glyph and no default reading."""
        if self._embeddings.released:
            self._embeddings.unfold()
        embedding: nn.Embedding = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        if embedding.num_embeddings != len(self._embeddings.default_pinyin_ids):
            self._embeddings.resize(embedding.num_embeddings)
        return embedding


class ChineseBertModel(ChineseBertPreTrainedModel, BertModel):
    """The bare encoder.

    Raises:
        ValueError: a configuration of a decoder, or with cross-attention.
    """

    embeddings: ChineseBertEmbeddings

    def __init__(self, config: ChineseBertConfig, add_pooling_layer: bool = True) -> None:
        if config.is_decoder or config.add_cross_attention:
            raise ValueError("ChineseBERT is an encoder: is_decoder and add_cross_attention must be False")
        # Not BertModel's constructor, which would build and initialise embeddings only to drop them.
        BertPreTrainedModel.__init__(self, config)
        self.gradient_checkpointing = False
        self.embeddings = ChineseBertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if add_pooling_layer else None
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pinyin_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | BaseModelOutputWithPoolingAndCrossAttentions:
        """Encode a batch.

        Args:
            input_ids: `(batch, seq)`.
            pinyin_ids: `(batch, seq)`, one row of the pinyin table a token, as the tokenizer gives them; or
                `(batch, seq, 8)`, letters, as the official code has them. Without it each token gets its default
                reading, with one warning.
            attention_mask: `(batch, seq)`, 1 where there is a token; or any form that BERT takes.
            token_type_ids: `(batch, seq)`, 0 for the first text and 1 for the second.
            position_ids: `(batch, seq)` or `(1, seq)`.
            inputs_embeds: `(batch, seq, hidden_size)`, instead of `input_ids` and `pinyin_ids`: fused vectors, as
                `model.get_fused_embeddings(input_ids, pinyin_ids)` returns them.
            **kwargs: as of [`~transformers.BertModel`] (`output_attentions`, `output_hidden_states`, …).

        Raises:
            ValueError: unless exactly one of `input_ids` and `inputs_embeds` is given, when `pinyin_ids` comes with
                `inputs_embeds`, or when its shape does not fit.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if inputs_embeds is not None and pinyin_ids is not None:
            raise ValueError(
                "inputs_embeds are fused with the pinyin already, by get_fused_embeddings(input_ids, pinyin_ids): "
                "leave pinyin_ids out."
            )
        embeddings = self.embeddings(
            input_ids=input_ids,
            pinyin_ids=pinyin_ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
        )
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=embeddings, attention_mask=_additive(attention_mask, embeddings.dtype)
        )
        kwargs["use_cache"] = False  # an encoder has no past, whatever the configuration's default
        hidden_states = self.encoder(embeddings, attention_mask=mask, **kwargs).last_hidden_state
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden_states,
            pooler_output=self.pooler(hidden_states) if self.pooler is not None else None,
        )

    def get_fused_embeddings(self, input_ids: torch.Tensor, pinyin_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Fused character, pinyin and glyph, `(batch, seq, hidden_size)`: what `inputs_embeds` stands for.

        Args:
            input_ids: `(batch, seq)`.
            pinyin_ids: As of `forward`.
        """
        return self.embeddings.fuse(input_ids, pinyin_ids)


def _additive(attention_mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Turn a mask of pairs `(batch, seq, seq)`, which transformers no longer takes, into one to be added to scores."""
    if attention_mask is None or attention_mask.dim() != 3:
        return attention_mask
    allowed = attention_mask[:, None].bool()
    return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def _as_tensor(values: Any) -> torch.Tensor:
    # A copy: torch warns of arrays that are read-only, as a tokenizer's are.
    return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))


def _check_range(name: str, values: torch.Tensor, limit: int) -> None:
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < limit:
        raise ValueError(f"{name} must lie in [0, {limit}), got {int(values.min())} to {int(values.max())}")


class ChineseBertForMaskedLM(ChineseBertPreTrainedModel, BertForMaskedLM):
    """ChineseBERT with the masked-language-modelling head."""

    accepts_loss_kwargs = True

    def __init__(self, config: ChineseBertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.bert = ChineseBertModel(config, add_pooling_layer=False)
        self.cls = BertOnlyMLMHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pinyin_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | MaskedLMOutput:
        """Predict masked tokens.

        Args:
            pinyin_ids: As of [`ChineseBertModel`].
            labels: `(batch, seq)`, the tokens to predict, -100 where there is nothing to predict.
            num_items_in_batch: predictions in the whole batch, of which this may be a part: the loss is then the sum
                over them divided by this number. Without it the loss is their mean.

        The other arguments are those of [`ChineseBertModel`].
        """
        output: MaskedLMOutput = super().forward(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pinyin_ids=pinyin_ids,
            return_dict=True,
            **kwargs,
        )
        if labels is not None:
            return _with_loss(output, _cross_entropy(output["logits"], labels, num_items_in_batch))
        return output


class ChineseBertForSequenceClassification(ChineseBertPreTrainedModel, BertForSequenceClassification):
    """ChineseBERT with a classifier or regressor on the pooled first token."""

    accepts_loss_kwargs = True

    def __init__(self, config: ChineseBertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.num_labels = _num_labels(config)
        self.bert = ChineseBertModel(config)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, _num_labels(config))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pinyin_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | SequenceClassifierOutput:
        """Classify texts.

        Args:
            pinyin_ids: As of [`ChineseBertModel`].
            labels: `(batch,)` classes; `(batch,)` or `(batch, num_labels)` numbers for a regression;
                `(batch, num_labels)` zeros and ones for several labels a text. `config.problem_type` says which; when
                it is None the first batch decides, as in transformers.
            num_items_in_batch: as of [`ChineseBertForMaskedLM`].

        The other arguments are those of [`ChineseBertModel`].
        """
        output: SequenceClassifierOutput = super().forward(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pinyin_ids=pinyin_ids,
            return_dict=True,
            **kwargs,
        )
        if labels is not None:
            return _with_loss(output, self._loss(output["logits"], labels, num_items_in_batch))
        return output

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
        error = (
            nn.functional.mse_loss
            if config.problem_type == "regression"
            else nn.functional.binary_cross_entropy_with_logits
        )
        labels = labels.to(logits.device, logits.dtype).view_as(logits)
        if num_items_in_batch is None:
            return error(logits, labels)
        return error(logits, labels, reduction="sum") / num_items_in_batch


class ChineseBertForMultipleChoice(ChineseBertPreTrainedModel, BertForMultipleChoice):
    """ChineseBERT with a score for each of several continuations."""

    accepts_loss_kwargs = True

    def __init__(self, config: ChineseBertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.bert = ChineseBertModel(config)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pinyin_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | MultipleChoiceModelOutput:
        """Score choices.

        Args:
            input_ids: `(batch, choices, seq)`; the other inputs likewise (`pinyin_ids` also with letters).
            pinyin_ids: `(batch, choices, seq)`, or `(batch, choices, seq, 8)` letters.
            labels: `(batch,)`, the number of the right choice.
            num_items_in_batch: as of [`ChineseBertForMaskedLM`].

        The other arguments are those of [`ChineseBertModel`].
        """
        output: MultipleChoiceModelOutput = super().forward(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pinyin_ids=pinyin_ids.flatten(0, 1) if pinyin_ids is not None else None,
            return_dict=True,
            **kwargs,
        )
        if labels is not None:
            return _with_loss(output, _cross_entropy(output["logits"], labels, num_items_in_batch))
        return output


class TwoLayerClassifier(nn.Module):
    """Linear, tanh, linear: the official code's other head for tagging."""

    def __init__(self, config: ChineseBertConfig) -> None:
        super().__init__()
        self.dense_layer = nn.Linear(config.hidden_size, config.hidden_size)
        self.dense_to_labels_layer = nn.Linear(config.hidden_size, _num_labels(config))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `(batch, seq, hidden_size)` to `(batch, seq, num_labels)`."""
        logits: torch.Tensor = self.dense_to_labels_layer(self.dense_layer(hidden_states).tanh())
        return logits


class ChineseBertForTokenClassification(ChineseBertPreTrainedModel, BertForTokenClassification):
    """ChineseBERT with a classifier on each token, of one layer or two (`config.token_classifier`)."""

    accepts_loss_kwargs = True

    def __init__(self, config: ChineseBertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.num_labels = _num_labels(config)
        self.bert = ChineseBertModel(config, add_pooling_layer=False)
        self.dropout = nn.Dropout(_classifier_dropout(config))
        # BertForTokenClassification has a Linear here, and only calls it.
        head = TwoLayerClassifier(config) if config.token_classifier == "mlp" else None
        self.classifier = head or nn.Linear(config.hidden_size, self.num_labels)  # type: ignore[assignment]
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pinyin_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | TokenClassifierOutput:
        """Tag tokens.

        Args:
            pinyin_ids: As of [`ChineseBertModel`].
            labels: `(batch, seq)`, -100 where there is nothing to learn. Padding (`attention_mask` 0) never counts, as
                in the official code.
            num_items_in_batch: as of [`ChineseBertForMaskedLM`].

        The other arguments are those of [`ChineseBertModel`].
        """
        output: TokenClassifierOutput = super().forward(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pinyin_ids=pinyin_ids,
            return_dict=True,
            **kwargs,
        )
        if labels is not None:
            if attention_mask is not None and attention_mask.shape == labels.shape:
                labels = labels.masked_fill(attention_mask.to(labels.device) == 0, -100)
            return _with_loss(output, _cross_entropy(output["logits"], labels, num_items_in_batch))
        return output


class ChineseBertForQuestionAnswering(ChineseBertPreTrainedModel, BertForQuestionAnswering):
    """ChineseBERT with scores for the first and the last token of an answer."""

    # The Trainer counts items in `labels` alone, which this head has not: a mean a step, equal for equal steps.
    accepts_loss_kwargs = False

    def __init__(self, config: ChineseBertConfig) -> None:
        BertPreTrainedModel.__init__(self, config)
        self.num_labels = _num_labels(config)
        self.bert = ChineseBertModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pinyin_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, ...] | QuestionAnsweringModelOutput:
        """Find answers.

        Args:
            pinyin_ids: As of [`ChineseBertModel`].
            start_positions: `(batch,)`, the answer's first token; one outside of the sequence does not count.
            end_positions: `(batch,)`, its last token; likewise.

        The other arguments are those of [`ChineseBertModel`].
        """
        output: QuestionAnsweringModelOutput = super().forward(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            pinyin_ids=pinyin_ids,
            return_dict=True,
            **kwargs,
        )
        if start_positions is not None and end_positions is not None:
            start_loss = _position_loss(output["start_logits"], start_positions)
            return _with_loss(output, (start_loss + _position_loss(output["end_logits"], end_positions)) / 2)
        return output


def _with_loss(output: ModelOutput, loss: torch.Tensor) -> Any:
    # Made anew: a field that is set later would stand last in the tuple.
    return type(output)(loss=loss, **output)


def _num_labels(config: ChineseBertConfig) -> int:
    assert config.num_labels is not None  # the number of names in id2label, which always has some
    return config.num_labels


def _classifier_dropout(config: ChineseBertConfig) -> float:
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def _cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
) -> torch.Tensor:
    """Cross-entropy of `logits (..., classes)` in float32: the mean over labels that are not -100, or sum / items."""
    return fixed_cross_entropy(
        logits.flatten(0, -2).float(),
        labels.to(logits.device).flatten(),
        num_items_in_batch,  # type: ignore[arg-type]  # a number will do as well
    )


def _position_loss(logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of `(batch, seq)` and the mean over positions inside of the sequence; 0 if there are none."""
    positions = positions.to(logits.device).flatten()
    inside = (positions >= 0) & (positions < logits.shape[1])
    losses = nn.functional.cross_entropy(logits.float(), positions.where(inside, 0), reduction="none")
    return losses.where(inside, 0).sum() / inside.sum().clamp(min=1)


__all__ = [
    "ChineseBertForMaskedLM",
    "ChineseBertForMultipleChoice",
    "ChineseBertForQuestionAnswering",
    "ChineseBertForSequenceClassification",
    "ChineseBertForTokenClassification",
    "ChineseBertModel",
    "ChineseBertPreTrainedModel",
]
