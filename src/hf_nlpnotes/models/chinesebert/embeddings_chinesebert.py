"""Embeddings of ChineseBERT: character, pinyin and glyph fused into one vector a token.

Sun et al. 2021, "ChineseBERT: Chinese Pretraining Enhanced by Glyph and Pinyin Information"
(https://aclanthology.org/2021.acl-long.161), section 3. Modules and parameters carry the names of the official
checkpoints.

The fusion is linear in its three inputs, and two of them depend on the token alone. At inference it therefore folds
into one table, with a row a token and a row a reading: see [`ChineseBertEmbeddings.fold`].
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


class ChineseBertEmbeddings(BertEmbeddings):
    """BERT's embeddings, of which the token's vector is fused from character, pinyin and glyph.

    Buffers beside those of BERT: `pinyin_table` `(pinyin_table_size, pinyin_length)`, the letters of each reading, and
    `default_pinyin_ids` `(vocab_size,)`, the reading that a token gets when the caller gives none. While the model
    infers: `folded` `(vocab_size + pinyin_table_size + type_vocab_size * max_position_embeddings, hidden_size)`.
    """

    pinyin_table: torch.Tensor
    default_pinyin_ids: torch.Tensor
    folded: torch.Tensor | None

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
        self.register_buffer("folded", None, persistent=False)
        self._folded_from: tuple[object, ...] | None = None
        self._refolds = 0
        self.released = False

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
        shape = input_ids.shape if input_ids is not None else inputs_embeds.shape[:2]  # type: ignore[union-attr]
        limit = self.position_embeddings.num_embeddings
        if position_ids is None and not torch.compiler.is_compiling() and shape[1] > limit:
            raise ValueError(
                f"A sequence of {shape[1]} tokens is longer than the model's {limit} positions; tokenize with "
                f"truncation=True, max_length={limit}."
            )
        if input_ids is not None:
            pinyin_ids = self._checked_pinyin(input_ids, pinyin_ids)
            table = self._current_fold()
            if table is not None and pinyin_ids.dim() == 2:
                summed = self._look_up(table, input_ids, pinyin_ids, token_type_ids, position_ids)
                embeddings: torch.Tensor = self.dropout(self.LayerNorm(summed))
                return embeddings
            inputs_embeds = self._fuse(table, input_ids, pinyin_ids)
        return super().forward(
            token_type_ids=token_type_ids,  # type: ignore[arg-type]
            position_ids=position_ids,  # type: ignore[arg-type]
            inputs_embeds=inputs_embeds,
        )

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
        return self._fuse(self._current_fold(), input_ids, self._checked_pinyin(input_ids, pinyin_ids))

    def _fuse(self, table: torch.Tensor | None, input_ids: torch.Tensor, pinyin_ids: torch.Tensor) -> torch.Tensor:
        if table is None:
            fused: torch.Tensor = self.map_fc(
                torch.cat([self.word_embeddings(input_ids), self._pinyin(pinyin_ids), self._glyph(input_ids)], -1)
            )
            return fused
        tokens, readings, _ = self._blocks(table)
        if pinyin_ids.dim() == 2:
            return nn.functional.embedding(input_ids, tokens) + nn.functional.embedding(pinyin_ids, readings)
        pinyin = nn.functional.linear(self._pinyin(pinyin_ids), self._fusion_weights()[1])
        return nn.functional.embedding(input_ids, tokens) + pinyin

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
        """Compute the table that replaces the fusion at inference: tokens, readings, and types with positions.

        With W = [Wc Wp Wg] the fusion's blocks and c, p, g the three vectors, W[c; p; g] + b =
        (Wc c + Wg g + b) + Wp p: one row a token and one a reading. A row for each pair of token type and position
        joins them, so that an input of LayerNorm is the sum of three rows. Computed in float32, held in the weights'
        dtype.
        """
        like = self.map_fc.weight
        with torch.autocast(like.device.type, enabled=False):
            self.folded = self._folded_table()
        self._folded_from = self._state_of_sources()

    def _folded_table(self) -> torch.Tensor:
        like = self.map_fc.weight
        character, pinyin, glyph = (block.float() for block in self._fusion_weights())
        # Wg (M x + m) = (Wg M) x + Wg m: one product a pixel instead of two.
        pixels = glyph @ self.glyph_map.weight.float()
        bias = self.map_fc.bias.float() + glyph @ self.glyph_map.bias.float()
        num_tokens, num_readings = len(self.word_embeddings.weight), len(self.pinyin_table)
        types, positions = self.token_type_embeddings.weight, self.position_embeddings.weight
        folded = like.new_empty(num_tokens + num_readings + len(types) * len(positions), len(like))
        tokens, readings, places = folded.split([num_tokens, num_readings, len(types) * len(positions)])
        for ids in torch.arange(num_tokens, device=like.device).split(_FOLD_CHUNK):
            rows = torch.addmm(bias, self.word_embeddings.weight[ids].float(), character.T)
            tokens[ids] = rows.addmm_(self.glyph_embeddings(ids).float(), pixels.T).to(like.dtype)
        for ids in torch.arange(num_readings, device=like.device).split(_FOLD_CHUNK):
            readings[ids] = (self._pinyin(self.pinyin_table[ids].unsqueeze(0))[0].float() @ pinyin.T).to(like.dtype)
        places.copy_((types.float().unsqueeze(1) + positions.float()).flatten(0, 1))
        return folded

    def _blocks(self, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Views of the folded table: tokens, readings, types × positions."""
        num_tokens, num_readings = len(self.default_pinyin_ids), len(self.pinyin_table)
        return table[:num_tokens], table[num_tokens : num_tokens + num_readings], table[num_tokens + num_readings :]

    def _look_up(
        self,
        table: torch.Tensor,
        input_ids: torch.Tensor,
        pinyin_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        position_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        """Sum the rows of token, reading and place: `(batch, seq, hidden_size)`."""
        tokens, readings, _ = self._blocks(table)
        positions, types = self.position_embeddings.num_embeddings, self.token_type_embeddings.num_embeddings
        if position_ids is None:
            position_ids = self.position_ids[:, : input_ids.shape[1]]
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(position_ids)
        on_cpu = table.device.type == "cpu" and not torch.compiler.is_compiling() and not torch.jit.is_tracing()
        if on_cpu and all(
            _within(ids, limit)
            for ids, limit in [
                (input_ids, len(tokens)),
                (pinyin_ids, len(readings)),
                (position_ids, positions),
                (token_type_ids, types),
            ]
        ):
            # One pass over the memory instead of five; 0.56 of the time of BERT's three look-ups and two sums.
            places = (token_type_ids * positions + position_ids).expand_as(input_ids) + (len(tokens) + len(readings))
            rows = torch.stack([input_ids, pinyin_ids + len(tokens), places], -1)
            return nn.functional.embedding_bag(rows.flatten(0, 1), table, mode="sum").view(*input_ids.shape, -1)
        summed = nn.functional.embedding(input_ids, tokens) + nn.functional.embedding(pinyin_ids, readings)
        return summed + self.token_type_embeddings(token_type_ids) + self.position_embeddings(position_ids)

    def unfold(self) -> None:
        """Drop the folded table.

        Raises:
            RuntimeError: when what they were computed from was released.
        """
        if self.released:
            raise RuntimeError(_RELEASED)
        self.folded = self._folded_from = None

    def release(self) -> None:
        """Free what the folded table was computed from: the bitmaps and their map, and the characters' vectors.

        The letters of pinyin stay, for callers who give letters instead of rows of the table.
        """
        if self.folded is None:
            self.fold()
        self.released = True
        self.word_embeddings.weight = None  # type: ignore[assignment]
        self.glyph_embeddings.embedding.weight = None  # type: ignore[assignment]
        self.glyph_map.weight = self.glyph_map.bias = None  # type: ignore[assignment]
        self.register_state_dict_pre_hook(_refuse_to_save)

    def _layers(self) -> list[nn.Module]:
        layers: list[nn.Module] = [self.word_embeddings, self.token_type_embeddings, self.position_embeddings]
        layers += [self.pinyin_embeddings.embedding, self.pinyin_embeddings.conv]
        return [*layers, self.glyph_embeddings.embedding, self.glyph_map, self.map_fc]

    def _sources(self) -> list[torch.Tensor]:
        tensors = [tensor for layer in self._layers() for tensor in (layer.weight, getattr(layer, "bias", None))]
        return [self.pinyin_table, *(tensor for tensor in tensors if isinstance(tensor, torch.Tensor))]

    def _state_of_sources(self) -> tuple[object, ...]:
        # torch counts the in-place changes of each tensor. A new tensor has a new address, dtype or device.
        return tuple((source.data_ptr(), source._version, source.dtype, source.device) for source in self._sources())

    def _may_fold(self) -> bool:
        """Whether the folded table may stand in: not where the weights behind it are to get gradients."""
        if self.training:
            return False
        return not torch.is_grad_enabled() or not any(source.requires_grad for source in self._sources())

    def _current_fold(self) -> torch.Tensor | None:
        """The folded table where it may stand in, made when it is due, and again when a weight has changed since."""
        if self.released:
            return self.folded
        if not self._may_fold():
            return None
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.folded  # a graph takes the table as it is
        # FSDP gathers the weights anew for each forward, so that no table would last.
        plain = not hasattr(self, "_get_fsdp_state") and all(map(_is_plain_layer, self._layers()))
        if not plain or not all(map(_is_plain_tensor, self._sources())):
            self.unfold()
        elif self._folded_from is None or self._folded_from != self._state_of_sources():
            if self.folded is not None:
                self.unfold()
                self._refolds += 1
            if self._refolds <= _MAX_REFOLDS:
                self.fold()
        return self.folded

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


def _refuse_to_save(*_: object) -> None:
    raise RuntimeError(_RELEASED)


def _within(ids: torch.Tensor, limit: int) -> bool:
    return ids.numel() == 0 or (int(ids.min()) >= 0 and int(ids.max()) < limit)


def _resized(table: torch.Tensor, num_rows: int) -> torch.Tensor:
    resized = table.new_zeros(num_rows, *table.shape[1:])
    resized[: len(table)] = table[:num_rows]
    return resized


def _is_plain_layer(layer: nn.Module) -> bool:
    """Whether a layer computes what its weights say: no adapter, no quantised stand-in, no hook that wants a call."""
    plain = type(layer) in {nn.Embedding, nn.Linear, nn.Conv1d, GlyphTable}
    return plain and not layer._forward_hooks and not layer._forward_pre_hooks and not hasattr(layer, "_hf_hook")


def _is_plain_tensor(tensor: torch.Tensor) -> bool:
    """Whether a tensor has an address and a count of changes: not so sharded, offloaded and inference-mode ones."""
    return type(tensor) in {torch.Tensor, nn.Parameter} and not tensor.is_meta and not tensor.is_inference()
