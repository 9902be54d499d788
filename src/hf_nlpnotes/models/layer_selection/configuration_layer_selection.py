"""Configuration of a model that reads chosen layers of an encoder."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from hf_nlpnotes.layers.layer_selection import LayerSelection
from hf_nlpnotes.models.around_encoder import AroundEncoderConfig


@strict
class LayerSelectionConfig(AroundEncoderConfig):
    r"""Configuration of an encoder with a selection of its layers.

    Args:
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of the encoder, of any `model_type` that `AutoModel` knows; that of a `bert` by default.
        selection (`str`, defaults to `"mix"`):
            Which hidden states are read and how they are combined, in the short form of
            [`~hf_nlpnotes.layers.layer_selection.LayerSelection`]: `"embeddings"`, `"top"`, `"layer:3"`,
            `"last:4:mean"`, `"mix"`, …
        mix_layer_norm (`bool`, defaults to `False`): Normalise each layer before it is mixed, where layers are mixed.
        mix_dropout (`float`, defaults to 0.0): Probability with which a layer is left out of the mix in training.
        token_pooling (`"cls"`, `"mean"` or `"max"`, defaults to `"cls"`):
            How a text's tokens become one vector, for sequence classification: the first token, or the mean or the
            largest values of those that are not padding.
        classifier_dropout (`float`, defaults to 0.1): Dropout before the classifier.

    Raises:
        ValueError: the selection does not fit the encoder, or the encoder is an encoder-decoder.

    Example:

    ```python
    >>> from transformers import BertConfig
    >>> from hf_nlpnotes.models.layer_selection import LayerSelectionConfig

    >>> encoder = BertConfig(hidden_size=32, num_attention_heads=2)
    >>> config = LayerSelectionConfig(text_config=encoder, selection="last:4:concat")
    >>> config.text_config.hidden_size
    32

    ```
    """

    model_type = "layer_selection"

    selection: str = "mix"
    mix_layer_norm: bool = False
    mix_dropout: float | int = 0.0
    token_pooling: Literal["cls", "mean", "max"] = "cls"
    classifier_dropout: float | int = 0.1

    def __post_init__(self, **kwargs: Any) -> None:
        for name in ("mix_dropout", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)!r}")
        selection = LayerSelection.parse(self.selection)
        self.selection = str(selection)
        super().__post_init__(**kwargs)
        selection.indices(self.num_hidden_layers)  # says which layers there are

    @property
    def layer_selection(self) -> LayerSelection:
        """The selection itself."""
        return LayerSelection.parse(self.selection)

    @property
    def feature_size(self) -> int:
        """Size of the vectors that the heads read."""
        size: int = self.hidden_size * self.layer_selection.width(self.num_hidden_layers)
        return size


__all__ = ["LayerSelectionConfig"]
