"""Configuration of a model that scores answers as pairs of a first and a last token."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from hf_nlpnotes.models.layer_selection import LayerSelectionConfig


@strict
class JointSpanConfig(LayerSelectionConfig):
    r"""Configuration of an encoder with a joint head for question answering.

    Args:
        text_config (`dict` or `PreTrainedConfig`, *optional*): As in [`LayerSelectionConfig`].
        selection (`str`, defaults to `"top"`):
            Which of the encoder's layers the head reads, as in `LayerSelectionConfig`.
        mix_layer_norm (`bool`, defaults to `False`): As in `LayerSelectionConfig`.
        mix_dropout (`float`, defaults to 0.0): As in `LayerSelectionConfig`.
        token_pooling (`"cls"`, `"mean"` or `"max"`, defaults to `"cls"`):
            As in `LayerSelectionConfig`; this head does not use it.
        classifier_dropout (`float`, defaults to 0.1): As in `LayerSelectionConfig`; this head does not use it.
        pair_size (`int`, defaults to 64): Size of the vectors whose product scores a pair of tokens.

    Raises:
        ValueError: `pair_size` below 1, and as of `LayerSelectionConfig`.

    Example:

    ```python
    >>> from transformers import BertConfig
    >>> from hf_nlpnotes.models.joint_span import JointSpanConfig

    >>> JointSpanConfig(text_config=BertConfig(hidden_size=32, num_attention_heads=2), pair_size=16).selection
    'top'

    ```
    """

    model_type = "joint_span"
    # The Trainer would collect (windows, seq, seq) numbers of an evaluation.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["span_logits"]

    selection: str = "top"
    pair_size: int = 64

    def __post_init__(self, **kwargs: object) -> None:
        if self.pair_size < 1:
            raise ValueError(f"pair_size must be a positive whole number, got {self.pair_size}")
        super().__post_init__(**kwargs)


__all__ = ["JointSpanConfig"]
