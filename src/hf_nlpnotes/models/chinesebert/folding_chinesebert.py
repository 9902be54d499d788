"""ChineseBERT's embeddings at inference: the fusion of character, pinyin and glyph, folded into a table.

The fusion W [c; p; g] + b is linear in the vectors of character, pinyin and glyph, and all but p depend on the token
alone. With W = [Wc Wp Wg] it is (Wc c + Wg g + b) + Wp p: a row a token plus a row a reading. One more row for each
pair of token type and position, and the input of LayerNorm is the sum of three rows of one table.

Token rows are computed when their token is first met, in blocks of neighbours, so that a first short text costs a few
blocks and not the vocabulary. A row does not depend on what was met before: blocks are always computed alike.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from .configuration_chinesebert import ChineseBertConfig
from .embeddings_chinesebert import FusedEmbeddings, GlyphTable, runs_on_cpu, within

_BLOCK = 32
# In eval mode without any training in between, weights that change this often are not worth folding again.
_MAX_REFOLDS = 3
_RELEASED = (
    "The weights behind the folded embeddings were freed by fold_embeddings(release=True): this model can only infer. "
    "Load it again to train, resize or save it."
)
_NOT_PLAIN = (
    "The embeddings cannot be folded: one of their layers is wrapped, quantised or has hooks, or their weights are "
    "sharded, offloaded or made in inference mode. Merge adapters (merge_and_unload), remove hooks (those of "
    "activation checkpointing: disable_input_require_grads), or leave fold_embeddings out: the model infers the same "
    "without it."
)


class _Fold(NamedTuple):
    """A table under way. One object, so that threads that share a model never see parts of two."""

    table: torch.Tensor
    pending: torch.Tensor  # (blocks,) bool: token rows yet to be computed
    sources: tuple[object, ...]  # the state of the weights behind it


class ChineseBertEmbeddings(FusedEmbeddings):
    """Fused embeddings that read a folded table where the model infers.

    The table has a row a token, a row a reading, and a row for each token type and position: in all `vocab_size +
    pinyin_table_size + type_vocab_size * max_position_embeddings`, each of `hidden_size`. It is not saved, is dropped
    in training, and made anew when a weight behind it has changed, and in copies. Once whole, by [`fold`], it is the
    buffer `folded`.
    """

    folded: torch.Tensor | None

    def __init__(self, config: ChineseBertConfig) -> None:
        super().__init__(config)
        self.register_buffer("folded", None, persistent=False)
        self.released = False
        self._fold: _Fold | None = None
        self._refolds = 0

    def forward(  # type: ignore[override]  # pinyin_ids stand second, as in the official code
        self,
        input_ids: torch.Tensor | None = None,
        pinyin_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As of [`FusedEmbeddings`]."""
        if self.folded is not None or self._fold is not None:
            self._drop_in_training()
        if input_ids is not None and inputs_embeds is None:
            self._check_length(input_ids.shape[1], position_ids)
            pinyin_ids = self._checked_pinyin(input_ids, pinyin_ids)
            table = self._table_for(input_ids) if pinyin_ids.dim() == 2 else None
            if table is not None:
                summed = self._look_up(table, input_ids, pinyin_ids, token_type_ids, position_ids)
                embeddings: torch.Tensor = self.dropout(self.LayerNorm(summed))
                return embeddings
        return super().forward(input_ids, pinyin_ids, token_type_ids, position_ids, inputs_embeds)

    def fuse(self, input_ids: torch.Tensor, pinyin_ids: torch.Tensor | None = None) -> torch.Tensor:
        """As of [`FusedEmbeddings`]."""
        table = self._table_for(input_ids)
        if table is None:
            return super().fuse(input_ids, pinyin_ids)
        pinyin_ids = self._checked_pinyin(input_ids, pinyin_ids)
        tokens, readings, _ = self._blocks(table)
        if pinyin_ids.dim() == 2:
            return nn.functional.embedding(input_ids, tokens) + nn.functional.embedding(pinyin_ids, readings)
        pinyin = nn.functional.linear(self._pinyin(pinyin_ids), self._fusion_weights()[1])
        return nn.functional.embedding(input_ids, tokens) + pinyin

    # ----------------------------------------------------------------------------------------------------- look-up

    def _blocks(self, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Views of the table: tokens, readings, token types × positions."""
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
        limits = [
            (input_ids, len(tokens)),
            (pinyin_ids, len(readings)),
            (position_ids, positions),
            (token_type_ids, types),
        ]
        if runs_on_cpu(table) and all(within(ids, limit) for ids, limit in limits):
            # One pass over the memory instead of five.
            places = (token_type_ids * positions + position_ids).expand_as(input_ids) + (len(tokens) + len(readings))
            rows = torch.stack([input_ids, pinyin_ids + len(tokens), places], -1)
            return nn.functional.embedding_bag(rows.flatten(0, 1), table, mode="sum").view(*input_ids.shape, -1)
        summed = nn.functional.embedding(input_ids, tokens) + nn.functional.embedding(pinyin_ids, readings)
        return summed + self.token_type_embeddings(token_type_ids) + self.position_embeddings(position_ids)

    def _table_for(self, input_ids: torch.Tensor) -> torch.Tensor | None:
        """The folded table with the rows of these tokens, where it may stand in for the fusion."""
        if self.released:
            return self.folded
        if not self._may_fold():
            return None
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.folded  # a graph takes the table as it is: a whole one
        if not self._is_plain():
            self.unfold()
            return None
        fold, sources = self._fold, self._state_of_sources()
        if fold is None or fold.sources != sources:
            self._refolds += fold is not None
            self.unfold()
            if self._refolds > _MAX_REFOLDS:
                return None
            fold = self._begin()
        self._compute(fold, input_ids)
        return fold.table

    def _drop_in_training(self) -> None:
        # Some optimizers change weights without a trace, but none without a forward pass that wants gradients.
        if not self.released and not torch.compiler.is_compiling() and not self._may_fold():
            self.unfold()

    def _may_fold(self) -> bool:
        """Whether the folded table may stand in: not where the weights behind it are to get gradients."""
        if self.training:
            return False
        return not torch.is_grad_enabled() or not any(source.requires_grad for source in self._sources())

    # ----------------------------------------------------------------------------------------------------- folding

    @torch.no_grad()
    def fold(self) -> None:
        """Compute the whole table now, unless it is there: compiled and exported models take it as it is.

        Raises:
            RuntimeError: when a table would not stand for what the layers compute.
        """
        if not self._is_plain():
            raise RuntimeError(_NOT_PLAIN)
        fold = self._fold
        if fold is None or fold.sources != self._state_of_sources():
            fold = self._begin()
        self._compute(fold, torch.arange(len(self.default_pinyin_ids), device=fold.pending.device))
        self.folded = fold.table

    def unfold(self) -> None:
        """Drop the folded table.

        Raises:
            RuntimeError: when what the folded table was computed from was released.
        """
        if self.released:
            raise RuntimeError(_RELEASED)
        self.folded = self._fold = None

    def release(self) -> None:
        """Free what the folded table was computed from: the bitmaps and their map, and the characters' vectors.

        The letters of pinyin stay, for callers who give letters instead of rows of the table.
        """
        self.fold()
        self.released = True
        self._fold = None  # the buffer alone, which moves with the model
        self.word_embeddings.weight = None  # type: ignore[assignment]
        self.glyph_embeddings.embedding.weight = None  # type: ignore[assignment]
        self.glyph_map.weight = self.glyph_map.bias = None  # type: ignore[assignment]
        self.register_state_dict_pre_hook(_refuse_to_save)

    @torch.inference_mode(mode=False)  # a table made in that mode could not be written outside of it
    @torch.no_grad()
    def _begin(self) -> _Fold:
        """Make the table with the rows of readings and places; those of tokens follow when they are met."""
        like = self.map_fc.weight
        num_tokens, num_readings = len(self.default_pinyin_ids), len(self.pinyin_table)
        types, positions = self.token_type_embeddings.weight, self.position_embeddings.weight
        # Zeros, of which the system gives no memory before they are written.
        table = like.new_zeros(num_tokens + num_readings + len(types) * len(positions), len(like))
        _, readings, places = self._blocks(table)
        with torch.autocast(like.device.type, enabled=False):
            vectors = self._pinyin(torch.arange(num_readings, device=like.device).unsqueeze(0))[0]
            readings.copy_(nn.functional.linear(vectors.float(), self._fusion_weights()[1].float()))
        places.copy_((types.float().unsqueeze(1) + positions.float()).flatten(0, 1))
        pending = torch.ones(-(-num_tokens // _BLOCK), dtype=torch.bool, device=like.device)
        self._fold = _Fold(table, pending, self._state_of_sources())
        return self._fold

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def _compute(self, fold: _Fold, input_ids: torch.Tensor) -> None:
        """Compute the pending blocks that hold these tokens, in float32; on other devices than a CPU, all."""
        if fold.pending.device.type == "cpu":
            blocks = input_ids.flatten() // _BLOCK
            # A token out of range is reported by the look-up.
            blocks = blocks[(blocks >= 0) & (blocks < len(fold.pending))]
            blocks = blocks[fold.pending[blocks]].unique()
        elif self.folded is fold.table:
            return
        else:
            blocks = torch.arange(len(fold.pending))
        if len(blocks):
            self._compute_blocks(fold.table, blocks.tolist())
            fold.pending[blocks.to(fold.pending.device)] = False
        if fold.pending.device.type != "cpu":
            self.folded = fold.table

    def _compute_blocks(self, table: torch.Tensor, blocks: list[int]) -> None:
        tokens = self._blocks(table)[0]
        character, _, glyph = (block.float() for block in self._fusion_weights())
        bias, pixels, pixel_bias = self.map_fc.bias.float(), self.glyph_map.weight.float(), self.glyph_map.bias.float()
        with torch.autocast(table.device.type, enabled=False):
            for block in blocks:
                ids = torch.arange(block * _BLOCK, min((block + 1) * _BLOCK, len(tokens)), device=table.device)
                glyphs = nn.functional.linear(self.glyph_embeddings(ids).float(), pixels, pixel_bias)
                rows = nn.functional.linear(self.word_embeddings(ids).float(), character, bias)
                tokens[block * _BLOCK : (block + 1) * _BLOCK] = rows + nn.functional.linear(glyphs, glyph)

    # ----------------------------------------------------------------------------------------------------- sources

    def _fusion_weights(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The blocks of the fusion for character, pinyin and glyph, each `(hidden, hidden)`."""
        character, pinyin, glyph = self.map_fc.weight.chunk(3, dim=1)
        return character, pinyin, glyph

    def _layers(self) -> list[nn.Module]:
        layers: list[nn.Module] = [self.word_embeddings, self.token_type_embeddings, self.position_embeddings]
        layers += [self.pinyin_embeddings.embedding, self.pinyin_embeddings.conv]
        return [*layers, self.glyph_embeddings.embedding, self.glyph_map, self.map_fc]

    def _is_plain(self) -> bool:
        """Whether a table can stand for the layers: they compute what their weights say, and those last."""
        # FSDP and DataParallel gather the weights anew for each forward.
        gathered = hasattr(self, "_get_fsdp_state") or getattr(self, "_is_replica", False)
        hooked = any(map(_has_hooks, (self.pinyin_embeddings, self.glyph_embeddings, *self._layers())))
        plain = not gathered and not hooked and all(map(_is_plain_layer, self._layers()))
        return plain and all(map(_is_plain_tensor, self._sources()))

    def _sources(self) -> list[torch.Tensor]:
        # Layers that are not plain may lack either.
        tensors = [getattr(layer, name, None) for layer in self._layers() for name in ("weight", "bias")]
        return [self.pinyin_table, *(tensor for tensor in tensors if isinstance(tensor, torch.Tensor))]

    def _state_of_sources(self) -> tuple[object, ...]:
        # torch counts the in-place changes of each tensor. A new tensor has a new address, dtype or device.
        return tuple((s.data_ptr(), s._version, s.dtype, s.device, _sample(s)) for s in self._sources())

    def __getstate__(self) -> dict[str, object]:
        """What copies and pickles hold: a table under way would be made anew there, and only take room."""
        return {**self.__dict__, "_fold": None}

    def train(self, mode: bool = True) -> ChineseBertEmbeddings:
        """Set the mode; training undoes the folding."""
        if mode:
            self.unfold()
            self._refolds = 0
        super().train(mode)
        return self

    def resize(self, num_tokens: int) -> None:
        """As of [`FusedEmbeddings`]."""
        self.unfold()
        super().resize(num_tokens)


def _sample(tensor: torch.Tensor) -> tuple[float, ...] | None:
    """A few values: fused optimizers and writes through `.data` are not counted. On a CPU, where reading is free."""
    if tensor.device.type != "cpu":
        return None
    return tuple(tensor.detach().reshape(-1)[:: max(1, tensor.numel() // 4)].tolist())


def _refuse_to_save(*_: object) -> None:
    raise RuntimeError(_RELEASED)


def _is_plain_layer(layer: nn.Module) -> bool:
    """Whether a layer computes what its weights say: no adapter, no quantised stand-in."""
    return type(layer) in {nn.Embedding, nn.Linear, nn.Conv1d, GlyphTable}


def _has_hooks(module: nn.Module) -> bool:
    """Whether something wants to be called with the module: also accelerate, which brings its weights."""
    return bool(module._forward_hooks) or bool(module._forward_pre_hooks) or hasattr(module, "_hf_hook")


def _is_plain_tensor(tensor: torch.Tensor) -> bool:
    """Whether a tensor has an address and a count of changes: not so sharded, offloaded and inference-mode ones."""
    return type(tensor) in {torch.Tensor, nn.Parameter} and not tensor.is_meta and not tensor.is_inference()
