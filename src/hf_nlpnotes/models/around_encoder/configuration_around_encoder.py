"""Configuration of a model that stands on any encoder."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig


@strict
class AroundEncoderConfig(PreTrainedConfig):
    r"""The encoder's configuration, inside of that of the model around it.

    Args:
        text_config (`PreTrainedConfig` or `dict`, *optional*):
            Configuration of the encoder, of any `model_type` that `AutoModel` knows; that of a `bert` by default.

    Raises:
        ValueError: the encoder is an encoder-decoder, or its configuration does not say what it is of.
    """

    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}

    text_config: dict | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        given = self.text_config
        if given is None:
            given = {"model_type": "bert"}
        elif isinstance(given, PreTrainedConfig):
            # A live one would lose its attention below, which is set for all parts; and is not ours to change.
            kwargs.setdefault("attn_implementation", given._attn_implementation)
            given = given.to_dict()
        if "model_type" not in given:
            raise ValueError("text_config has no model_type: give the configuration of an encoder as a whole")
        encoder = AutoConfig.for_model(**given)
        if encoder.is_encoder_decoder:
            raise ValueError(
                f"text_config is of a {encoder.model_type}, an encoder-decoder: a {self.model_type} model stands on "
                "an encoder alone"
            )
        self.text_config = encoder
        super().__post_init__(**kwargs)

    @property
    def encoder(self) -> Any:
        """Configuration of the encoder."""
        return self.text_config

    def to_diff_dict(self) -> dict[str, Any]:
        """What `save_pretrained` writes: without the name of the folder that the encoder once came from."""
        values = super().to_diff_dict()
        values.get("text_config", {}).pop("_name_or_path", None)
        return values

    # Those of the encoder, for what looks them up here.

    @property
    def hidden_size(self) -> int:
        """Size of one hidden state."""
        return int(self.encoder.hidden_size)

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the encoder, without the embeddings."""
        return int(self.encoder.num_hidden_layers)

    @property
    def vocab_size(self) -> int:
        """Tokens that the encoder knows."""
        return int(self.encoder.vocab_size)

    @property
    def max_position_embeddings(self) -> int:
        """Positions that the encoder knows, where it counts them."""
        return int(self.encoder.max_position_embeddings)


__all__ = ["AroundEncoderConfig"]
