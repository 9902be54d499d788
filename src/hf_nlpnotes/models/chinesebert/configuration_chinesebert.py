"""Configuration of ChineseBERT (Sun et al. 2021, https://aclanthology.org/2021.acl-long.161)."""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import BertConfig

from .pinyin_chinesebert import PinyinTable


@strict
class ChineseBertConfig(BertConfig):
    r"""Configuration of a ChineseBERT model: BERT's options and the shape of its pinyin and glyph branches.

    The defaults are those of ShannonAI/ChineseBERT-base.

    Args:
        vocab_size (`int`, defaults to 23236):
            Tokens, and rows of the glyph table. This and all other options of `BertConfig` are documented there.
        pinyin_table_size (`int`, *optional*):
            Number of rows in the model's table of pinyin; an entry of `pinyin_ids` of shape `(batch, seq)` is a row of
            it. Row 0 means no pinyin. Defaults to the size of [`PinyinTable.default`].
        pinyin_letters (`int`, defaults to 32): Size of the alphabet of pinyin: `0` to `5` and `a` to `z`.
        pinyin_length (`int`, defaults to 8): Letters in a row of the pinyin table, padded with 0.
        pinyin_embedding_size (`int`, defaults to 128): Width of a letter's vector before the convolution.
        glyph_fonts (`int`, defaults to 3): Fonts in which each token is drawn.
        glyph_size (`int`, defaults to 24): Height and width of a bitmap, in pixels.
        glyph_storage (`"bits"`, `"uint8"` or `"float32"`, defaults to `"uint8"`):
            How the bitmaps are held, in memory and in the checkpoint. `"bits"`: one bit a pixel, values 0 and 1;
            `"uint8"`: values 0 to 255, as the official tables before training; `"float32"`: a trainable table of
            values 0 to 255, as the official code has it.
        token_classifier (`"linear"` or `"mlp"`, defaults to `"linear"`):
            Head of [`ChineseBertForTokenClassification`]: one linear layer, or two with a tanh between them.

    Raises:
        ValueError: when one of the sizes is not positive, or `pinyin_length` is under 2, the width of the convolution.

    Example:

    ```python
    >>> from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertModel

    >>> config = ChineseBertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    >>> model = ChineseBertModel(config)

    ```
    """

    model_type = "chinesebert"

    vocab_size: int = 23236
    pinyin_table_size: int | None = None
    pinyin_letters: int = 32
    pinyin_length: int = 8
    pinyin_embedding_size: int = 128
    glyph_fonts: int = 3
    glyph_size: int = 24
    glyph_storage: Literal["bits", "uint8", "float32"] = "uint8"
    token_classifier: Literal["linear", "mlp"] = "linear"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.pinyin_table_size is None:
            self.pinyin_table_size = len(PinyinTable.default())
        for name in ("pinyin_table_size", "pinyin_letters", "pinyin_embedding_size", "glyph_fonts", "glyph_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.pinyin_length < 2:
            raise ValueError(f"pinyin_length must be at least 2, the convolution's width; got {self.pinyin_length}")
        super().__post_init__(**kwargs)

    @property
    def glyph_pixels(self) -> int:
        """Pixels of one token over all fonts: the input width of the glyph branch."""
        return self.glyph_fonts * self.glyph_size**2

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read `config.json`; that of an official folder (`model_type: bert`) is completed from its other files."""
        config_dict, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if config_dict.get("model_type") == "bert":
            from .official_chinesebert import official_layout  # needed for official folders alone

            layout = official_layout(pretrained_model_name_or_path, **kwargs)
            if layout is not None:
                config_dict = dict(layout.config)
        return config_dict, kwargs


__all__ = ["ChineseBertConfig"]
