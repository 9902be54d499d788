"""Embeddings of ChineseBERT: character, pinyin and glyph fused into one vector a token.

Sun et al. 2021, "ChineseBERT: Chinese Pretraining Enhanced by Glyph and Pinyin Information"
(https://aclanthology.org/2021.acl-long.161), section 3. Modules and parameters carry the names of the official
checkpoints.

This is the definition. What models are built with, `ChineseBertEmbeddings` in `folding_chinesebert.py`, computes the
same at inference from a table.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertEmbeddings
from transformers.utils import logging

from .configuration_chinesebert import ChineseBertConfig

logger = logging.get_logger(__name__)

_MANY, _BLOCK = 512, 128
"""A batch of so many tokens is fused by its distinct ones, whose number is filled up to whole blocks."""


class PinyinEmbedding(nn.Module):
    """Vector of a reading: its letters' vectors, a convolution of width 2, the maximum over the windows."""

    def __init__(self, config: ChineseBertConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.pinyin_letters, config.pinyin_embedding_size)
        self.conv = nn.Conv1d(config.pinyin_embedding_size, config.hidden_size, kernel_size=2)

    def forward(self, letters: torch.Tensor) -> torch.Tensor:
        """Embed readings.

        Args:
            letters: `(..., pinyin_length)`, letter ids.

        Returns:
            `(..., hidden_size)`.
        """
        windows: torch.Tensor = self.conv(self.embedding(letters.flatten(0, -2)).transpose(1, 2))
        return windows.amax(-1).unflatten(0, letters.shape[:-1])


class GlyphTable(nn.Module):
    """Fixed bitmaps, one row a token: a buffer of bytes, which `.half()` and loading in bfloat16 leave alone."""

    weight: torch.Tensor

    def __init__(self, num_tokens: int, pixels: int, bits: bool) -> None:
        super().__init__()
        self.pixels = pixels
        self.bits = bits
        self.register_buffer("weight", torch.zeros(num_tokens, -(-pixels // 8) if bits else pixels, dtype=torch.uint8))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Bitmaps of tokens `(...)` as `(..., pixels)`: bool (bits, the first pixel highest), or 0 to 255."""
        rows = nn.functional.embedding(input_ids, self.weight)
        if not self.bits:
            return rows
        bits = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=rows.device)
        return (rows.unsqueeze(-1) & bits).ne(0).flatten(-2)[..., : self.pixels]


class GlyphEmbedding(nn.Module):
    """Bitmaps of tokens: a [`GlyphTable`], or a trainable table of floats as in the official code."""

    def __init__(self, config: ChineseBertConfig) -> None:
        super().__init__()
        self.embedding: nn.Module
        if config.glyph_storage == "float32":
            self.embedding = nn.Embedding(config.vocab_size, config.glyph_pixels)
        else:
            self.embedding = GlyphTable(config.vocab_size, config.glyph_pixels, bits=config.glyph_storage == "bits")

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Bitmaps of tokens `(...)` as `(..., pixels)`; not divided by 255."""
        bitmaps: torch.Tensor = self.embedding(input_ids)
        return bitmaps


class FusedEmbeddings(BertEmbeddings):
    """BERT's embeddings, of which the token's vector is fused from character, pinyin and glyph.

    Buffers beside those of BERT: `pinyin_table` `(pinyin_table_size, pinyin_length)`, the letters of each reading, and
    `default_pinyin_ids` `(vocab_size,)`, the reading that a token gets when the caller gives none.
    """

    pinyin_table: torch.Tensor
    default_pinyin_ids: torch.Tensor

    def __init__(self, config: ChineseBertConfig) -> None:
        super().__init__(config)
        self.pinyin_embeddings = PinyinEmbedding(config)
        self.glyph_embeddings = GlyphEmbedding(config)
        self.glyph_map = nn.Linear(config.glyph_pixels, config.hidden_size)
        self.map_fc = nn.Linear(3 * config.hidden_size, config.hidden_size)
        self.register_buffer(
            "pinyin_table", torch.zeros(config.pinyin_table_size or 1, config.pinyin_length, dtype=torch.uint8)
        )
        self.register_buffer("default_pinyin_ids", torch.zeros(config.vocab_size, dtype=torch.int32))

    def forward(  # type: ignore[override]  # pinyin_ids stand second, as in the official code
        self,
        input_ids: torch.Tensor | None = None,
        pinyin_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed a batch: fused vectors (see [`fuse`]) or `inputs_embeds` in their place, positions, token types.

        Raises:
            ValueError: when a sequence is longer than the model has positions, or as of [`fuse`].
        """
        if inputs_embeds is None:
            assert input_ids is not None
            self._check_length(input_ids.shape[1], position_ids)
            inputs_embeds = self.fuse(input_ids, pinyin_ids)
        else:
            self._check_length(inputs_embeds.shape[1], position_ids)
        return super().forward(
            token_type_ids=token_type_ids,  # type: ignore[arg-type]
            position_ids=position_ids,  # type: ignore[arg-type]
            inputs_embeds=inputs_embeds,
        )

    def fuse(self, input_ids: torch.Tensor, pinyin_ids: torch.Tensor | None = None) -> torch.Tensor:
        """Fuse character, pinyin and glyph (section 3.3): `W [character; pinyin; glyph] + b`.

        Args:
            input_ids: `(batch, seq)`.
            pinyin_ids: `(batch, seq)`, rows of the pinyin table; or `(batch, seq, pinyin_length)`, letters, as the
                official code has them; or `None` for each token's default reading.

        Returns:
            `(batch, seq, hidden_size)`, what `inputs_embeds` stands for: no position, no token type, no LayerNorm yet.

        Raises:
            ValueError: when the shape of `pinyin_ids` fits neither form.
        """
        pinyin_ids = self._checked_pinyin(input_ids, pinyin_ids)
        many = pinyin_ids.dim() == 2 and input_ids.numel() >= _MANY and runs_on_cpu(input_ids)
        if many and within(pinyin_ids, len(self.pinyin_table)):
            # Each distinct token with its reading once: a batch of 4,096 tokens has about a thousand of them.
            pairs, at = (input_ids * len(self.pinyin_table) + pinyin_ids).unique(return_inverse=True)
            pairs = nn.functional.pad(pairs, (0, -len(pairs) % _BLOCK))  # kernels are compiled for each size
            tokens, readings = pairs // len(self.pinyin_table), pairs % len(self.pinyin_table)
            return nn.functional.embedding(at, self._fused(tokens[None], readings[None])[0])
        return self._fused(input_ids, pinyin_ids)

    def _fused(self, input_ids: torch.Tensor, pinyin_ids: torch.Tensor) -> torch.Tensor:
        characters: torch.Tensor = self.word_embeddings(input_ids)
        # Not of the type of `glyph_map`'s weight, which is whole numbers or no tensor where that is quantised.
        bitmaps = self.glyph_embeddings(input_ids).to(characters.dtype)
        parts = [characters, self._pinyin(pinyin_ids), self.glyph_map(bitmaps)]
        fused: torch.Tensor = self.map_fc(torch.cat(parts, -1))
        return fused

    def _pinyin(self, pinyin_ids: torch.Tensor) -> torch.Tensor:
        letters = nn.functional.embedding(pinyin_ids, self.pinyin_table) if pinyin_ids.dim() == 2 else pinyin_ids
        vectors: torch.Tensor = self.pinyin_embeddings(letters.int())
        return vectors

    def _checked_pinyin(self, input_ids: torch.Tensor, pinyin_ids: torch.Tensor | None) -> torch.Tensor:
        if pinyin_ids is None:
            logger.warning_once(
                "No `pinyin_ids` were given: each token gets its default reading, whatever its context. The inputs of "
                "`ChineseBertTokenizer` have them (`import hf_nlpnotes` makes `AutoTokenizer` return it)."
            )
            return nn.functional.embedding(input_ids, self.default_pinyin_ids.unsqueeze(-1)).squeeze(-1)
        if pinyin_ids.shape == input_ids.shape:
            return pinyin_ids
        length = self.pinyin_table.shape[1]
        if pinyin_ids.dim() == 3 and pinyin_ids.shape == (*input_ids.shape, length):
            return pinyin_ids
        raise ValueError(
            f"pinyin_ids must have the shape of input_ids, {tuple(input_ids.shape)}, or {length} letters a token, "
            f"{(*input_ids.shape, length)}; got {tuple(pinyin_ids.shape)}"
        )

    def _check_length(self, length: int, position_ids: torch.Tensor | None) -> None:
        limit = self.position_embeddings.num_embeddings
        if position_ids is None and not torch.compiler.is_compiling() and length > limit:
            raise ValueError(
                f"A sequence of {length} tokens is longer than the model's {limit} positions; tokenize with "
                f"truncation=True, max_length={limit}."
            )

    @torch.no_grad()
    def resize(self, num_tokens: int) -> None:
        """Give glyphs and default readings `num_tokens` rows: new ones are blank, without a reading."""
        table = self.glyph_embeddings.embedding
        weight: torch.Tensor = _resized(table.weight, num_tokens)  # type: ignore[arg-type]
        if isinstance(table, nn.Embedding):
            table.weight = nn.Parameter(weight, requires_grad=table.weight.requires_grad)
            table.num_embeddings = num_tokens
        else:
            table.weight = weight
        self.default_pinyin_ids = _resized(self.default_pinyin_ids, num_tokens)


def runs_on_cpu(tensor: torch.Tensor) -> bool:
    """Whether values may be looked at here: they are in the CPU's memory, and nothing is compiled or traced."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def within(ids: torch.Tensor, limit: int) -> bool:
    """Whether all ids are rows of a table of `limit` rows."""
    return ids.numel() == 0 or (int(ids.min()) >= 0 and int(ids.max()) < limit)


def _resized(table: torch.Tensor, num_rows: int) -> torch.Tensor:
    resized = table.new_zeros(num_rows, *table.shape[1:])
    resized[: len(table)] = table[:num_rows]
    return resized
