"""Building, loading and embedding tables of models that stand on any encoder."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from .configuration_around_encoder import AroundEncoderConfig


class AroundEncoderPreTrainedModel(PreTrainedModel):
    """What does not depend on what stands on the encoder. A subclass says in `encoder_model` where it has it."""

    config: AroundEncoderConfig
    supports_gradient_checkpointing = True
    # The encoder says what it supports when it is built.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @property
    def encoder_model(self) -> PreTrainedModel:
        """The encoder."""
        raise NotImplementedError

    def post_init(self) -> None:
        """Finish the construction."""
        super().post_init()
        # Encoders list their own names; DistributedDataParallel asks the outermost module.
        ignored = [
            f"{prefix}.{name}"
            for prefix, module in self.named_modules()
            if prefix
            for name in getattr(module, "_ddp_params_and_buffers_to_ignore", ())
        ]
        if ignored:
            self._ddp_params_and_buffers_to_ignore = sorted(set(ignored))

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's embedding of tokens."""
        return self.encoder_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the encoder's embedding of tokens."""
        self.encoder_model.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the encoder's vocabulary, in the encoder's own way (ChineseBERT's tables of glyphs grow too)."""
        return self.encoder_model.resize_token_embeddings(*args, **kwargs)


def build_encoder(config: AroundEncoderConfig) -> PreTrainedModel:
    """An encoder with new weights, without a pooler.

    Args:
        config: Whose `encoder` is the configuration of the encoder.
    """
    return AutoModel.from_config(config.encoder, **_without_pooler(config.encoder))


def load_encoder(
    pretrained_model_name_or_path: Any, model_class: type[AroundEncoderPreTrainedModel], **kwargs: Any
) -> PreTrainedModel:
    """The pretrained encoder of a checkpoint, without a pooler.

    Args:
        pretrained_model_name_or_path: Folder or hub name of a checkpoint that `AutoModel` loads, or of one of
            `model_class`, whose encoder is taken.
        model_class: Is loaded where the checkpoint has its configuration.
        **kwargs: For `from_pretrained`.

    Raises:
        ValueError: it is an encoder-decoder, or a `device_map` put it on several devices or out of memory.
    """
    config, kwargs = AutoConfig.from_pretrained(pretrained_model_name_or_path, return_unused_kwargs=True, **kwargs)
    own: Any = model_class.config_class
    if isinstance(config, own):
        loaded: Any = model_class.from_pretrained(pretrained_model_name_or_path, config=config, **kwargs)
        encoder: PreTrainedModel = loaded.encoder_model
        _check_one_device(encoder)
        return encoder
    if config.is_encoder_decoder:
        raise ValueError(
            f"{pretrained_model_name_or_path} is a {config.model_type}, an encoder-decoder: a {own.model_type} model "
            "stands on an encoder alone"
        )
    kwargs = {**_without_pooler(config), **kwargs}
    encoder = AutoModel.from_pretrained(pretrained_model_name_or_path, config=config, **kwargs)
    _check_one_device(encoder)
    return encoder


def _check_one_device(encoder: PreTrainedModel) -> None:
    devices = sorted({str(parameter.device) for parameter in encoder.parameters()})
    if devices == ["meta"] or len(devices) > 1:
        raise ValueError(
            f"device_map put the encoder on {', '.join(devices)} (meta: out of memory, for a while), and a new head "
            "needs it in one place: leave device_map out, and give it to from_pretrained once the whole model is saved"
        )


def _without_pooler(config: Any) -> dict[str, bool]:
    """The argument that leaves out a pooler, which nothing here reads, where the encoder's class has it."""
    known: Any = MODEL_MAPPING.get(type(config), ())
    classes = known if isinstance(known, tuple) else (known,)
    has_it = [("add_pooling_layer" in inspect.signature(one.__init__).parameters) for one in classes]
    return {"add_pooling_layer": False} if has_it and all(has_it) else {}


__all__ = ["AroundEncoderPreTrainedModel", "build_encoder", "load_encoder"]
