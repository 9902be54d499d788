"""Embeddings of ChineseBERT: character, pinyin and glyph fused into one vector a token.

Sun et al. 2021, "ChineseBERT: Chinese Pretraining Enhanced by Glyph and Pinyin Information"
(https://aclanthology.org/2021.acl-long.161), section 3. Modules and parameters carry the names of the official
checkpoints.

The fusion is linear in its three inputs, and two of them depend on the token alone. At inference it therefore folds
into two tables, one row a token and one row a reading: see [`ChineseBertEmbeddings.fold`].
"""

from __future__ import annotations

import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertEmbeddings
from transformers.utils import logging

from .configuration_chinesebert import ChineseBertConfig

logger = logging.get_logger(__name__)

# Rows folded at a time: bounds the transient memory of folding to a few tens of MB at the base size.
_FOLD_CHUNK = 1024
# In eval mode without any training in between, weights that change this often are not worth folding again.
_MAX_REFOLDS = 3
_RELEASED = (
    "The weights behind the folded embeddings were freed by fold_embeddings(release=True): this model can only infer. "
    "Load it again to train, resize or save it."
)


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
        """Bitmaps of tokens `(...)` as `(..., pixels)` in uint8: 0 and 1 (bits, first pixel highest), or 0 to 255."""
        rows = nn.functional.embedding(input_ids, self.weight)
        if not self.bits:
            return rows
        shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=rows.device)
        return (rows.unsqueeze(-1) >> shifts & 1).flatten(-2)[..., : self.pixels]


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


class ChineseBertEmbeddings(BertEmbeddings):
    """BERT's embeddings, of which the token's vector is fused from character, pinyin and glyph.

    Buffers beside those of BERT: `pinyin_table` `(pinyin_table_size, pinyin_length)`, the letters of each reading, and
    `default_pinyin_ids` `(vocab_size,)`, the reading that a token gets when the caller gives none.
    """

    pinyin_table: torch.Tensor
    default_pinyin_ids: torch.Tensor
    folded_tokens: torch.Tensor | None
    folded_pinyin: torch.Tensor | None

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
        self.register_buffer("folded_tokens", None, persistent=False)
        self.register_buffer("folded_pinyin", None, persistent=False)
        self._folded_from: tuple[object, ...] | None = None
        self.released = False
        self._refolds = 0

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pinyin_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Embed a batch: fused vectors (see [`fuse`]) or `inputs_embeds` in their place, positions, token types."""
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.fuse(input_ids, pinyin_ids)
        embeddings: torch.Tensor = super().forward(
            token_type_ids=token_type_ids, position_ids=position_ids, inputs_embeds=inputs_embeds
        )
        return embeddings

    # ------------------------------------------------------------------------------------------------------ fusion

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
        self._refresh_fold()
        if self.folded_tokens is None or self.folded_pinyin is None or not self._may_fold():
            fused: torch.Tensor = self.map_fc(
                torch.cat([self.word_embeddings(input_ids), self._pinyin(pinyin_ids), self._glyph(input_ids)], -1)
            )
            return fused
        tokens = nn.functional.embedding(input_ids, self.folded_tokens)
        if pinyin_ids.dim() == 2:
            return tokens + nn.functional.embedding(pinyin_ids, self.folded_pinyin)
        return tokens + nn.functional.linear(self._pinyin(pinyin_ids), self._fusion_weights()[1])

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

    def _pinyin(self, pinyin_ids: torch.Tensor) -> torch.Tensor:
        letters = nn.functional.embedding(pinyin_ids, self.pinyin_table) if pinyin_ids.dim() == 2 else pinyin_ids
        vectors: torch.Tensor = self.pinyin_embeddings(letters.int())
        return vectors

    def _glyph(self, input_ids: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.glyph_map(self.glyph_embeddings(input_ids).to(self.glyph_map.weight.dtype))
        return vectors

    # ----------------------------------------------------------------------------------------------------- folding

    def _fusion_weights(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The blocks of the fusion for character, pinyin and glyph, each `(hidden, hidden)`."""
        character, pinyin, glyph = self.map_fc.weight.chunk(3, dim=1)
        return character, pinyin, glyph

    @torch.no_grad()
    def fold(self) -> None:
        """Compute the two tables that replace the fusion: tokens `(vocab, hidden)` and readings `(readings, hidden)`.

        With W = [Wc Wp Wg] the fusion's blocks and c, p, g the three vectors, W[c; p; g] + b =
        (Wc c + Wg g + b) + Wp p. Computed in float32, held in the weights' dtype.
        """
        dtype, device = self.map_fc.weight.dtype, self.map_fc.weight.device
        character, pinyin, glyph = (block.float() for block in self._fusion_weights())
        # Wg (M x + m) = (Wg M) x + Wg m: one product a pixel instead of two.
        pixels = glyph @ self.glyph_map.weight.float()
        bias = self.map_fc.bias.float() + glyph @ self.glyph_map.bias.float()
        num_tokens, hidden = self.word_embeddings.weight.shape
        tokens = torch.empty(num_tokens, hidden, dtype=dtype, device=device)
        for start in range(0, num_tokens, _FOLD_CHUNK):
            ids = torch.arange(start, min(start + _FOLD_CHUNK, num_tokens), device=device)
            rows = torch.addmm(bias, self.word_embeddings.weight[ids].float(), character.T)
            tokens[ids] = rows.addmm_(self.glyph_embeddings(ids).float(), pixels.T).to(dtype)
        readings = torch.empty(len(self.pinyin_table), hidden, dtype=dtype, device=device)
        for start in range(0, len(readings), _FOLD_CHUNK):
            letters = self.pinyin_table[start : start + _FOLD_CHUNK].int()
            readings[start : start + _FOLD_CHUNK] = (self.pinyin_embeddings(letters).float() @ pinyin.T).to(dtype)
        self.folded_tokens, self.folded_pinyin = tokens, readings
        self._folded_from = self._state_of_sources()

    def unfold(self) -> None:
        """Drop the folded tables.

        Raises:
            RuntimeError: when what they were computed from was released.
        """
        if self.released:
            raise RuntimeError(_RELEASED)
        self.folded_tokens = self.folded_pinyin = self._folded_from = None

    def release(self) -> None:
        """Free what the folded tables were computed from: the bitmaps and their map, and the characters' vectors.

        The letters of pinyin stay, for callers who give letters instead of rows of the table.
        """
        if self.folded_tokens is None:
            self.fold()
        self.released = True
        self.word_embeddings.weight = None  # type: ignore[assignment]
        self.glyph_embeddings.embedding.weight = None  # type: ignore[assignment]
        self.glyph_map.weight = self.glyph_map.bias = None  # type: ignore[assignment]
        self.register_state_dict_pre_hook(_refuse_to_save)

    def _sources(self) -> list[torch.Tensor]:
        glyphs: torch.Tensor = self.glyph_embeddings.embedding.weight  # type: ignore[assignment]
        pinyin = self.pinyin_embeddings
        parameters = [self.word_embeddings.weight, glyphs, self.glyph_map.weight, self.glyph_map.bias]
        parameters += [self.map_fc.weight, self.map_fc.bias, self.pinyin_table]
        return [*parameters, pinyin.embedding.weight, pinyin.conv.weight, pinyin.conv.bias]  # type: ignore[list-item]

    def _state_of_sources(self) -> tuple[object, ...]:
        # torch counts the in-place changes of each tensor. A new tensor has a new address, dtype or device.
        return tuple((source.data_ptr(), source._version, source.dtype, source.device) for source in self._sources())

    def _may_fold(self) -> bool:
        """Whether the folded tables may stand in: not where the fusion's weights are to get gradients."""
        if self.released:
            return True
        if self.training:
            return False
        return not torch.is_grad_enabled() or not any(source.requires_grad for source in self._sources())

    def _refresh_fold(self) -> None:
        """Fold when it is due, and again when a weight has changed since."""
        if self.released or torch.compiler.is_compiling() or torch.jit.is_tracing() or not self._may_fold():
            return  # a graph takes the tables as they are
        # FSDP gathers the weights anew for each forward, so that no table would last.
        if hasattr(self, "_get_fsdp_state") or any(map(_has_no_plain_storage, self._sources())):
            self.unfold()
            return
        if self._folded_from is not None and self._folded_from == self._state_of_sources():
            return
        if self.folded_tokens is not None:
            self.unfold()
            self._refolds += 1
        if self._refolds <= _MAX_REFOLDS:
            self.fold()

    def train(self, mode: bool = True) -> ChineseBertEmbeddings:
        """Set the mode; training undoes the folding."""
        if mode:
            self.unfold()
            self._refolds = 0
        super().train(mode)
        return self

    # ---------------------------------------------------------------------------------------------------- resizing

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
        self.unfold()


def _refuse_to_save(module: nn.Module, prefix: str, keep_vars: bool) -> None:
    raise RuntimeError(_RELEASED)


def _resized(table: torch.Tensor, num_rows: int) -> torch.Tensor:
    resized = table.new_zeros(num_rows, *table.shape[1:])
    resized[: len(table)] = table[:num_rows]
    return resized


def _has_no_plain_storage(tensor: torch.Tensor) -> bool:
    """Sharded, offloaded and inference-mode tensors: no address or no count of changes to recognise them by."""
    return tensor.is_meta or tensor.is_inference() or type(tensor) not in (torch.Tensor, nn.Parameter)
