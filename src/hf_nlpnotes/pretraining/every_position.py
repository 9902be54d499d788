"""Stages that predict every position at once with the first layer and the head of a BERT-shaped model.

Masked language modelling trains on the 15 % of positions that it hides. A single layer can train on all of them: the
query stream is ``[MASK]`` plus position, keys and values come from the tokens' own embeddings, and a position does not
see itself. Nothing can leak, because one layer of keys and values holds nothing but each token's own embedding (the
two-stream attention of XLNet, Yang et al. 2019, section 2.3, is the same idea for many layers, at a price).

Layer 0 and the head learn in minutes what masking teaches in hours: which tokens follow each other. The layers above
are left alone. When it fails: a long stage makes layer 0 do work that deeper layers would do better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

_BLOCK = 256


def word_ids(continues_word: torch.Tensor) -> torch.Tensor:
    """(batch, length) bool → (batch, length) int64, 0, 1, 2, … the number of the word in its row."""
    return (~continues_word).cumsum(-1) - (~continues_word[:, :1]).long()


def draw_words(words: torch.Tensor, share: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """(batch, length) bool: each word of a row chosen with probability `share`, all of its tokens or none."""
    drawn = torch.rand(words.shape, generator=generator) < share
    return drawn.gather(1, words)


def sampled_softmax_loss(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    embedding: torch.Tensor,
    bias: torch.Tensor,
    unigram: torch.Tensor,
    *,
    negatives: int = 1500,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Cross-entropy over the batch's own targets and some random tokens instead of the whole vocabulary.

    Each logit is lowered by the log of the probability that its token is among the candidates, so that the loss aims
    at the full softmax (sampled softmax, Jean et al. 2015, section 3).

    Args:
        hidden: (n, H) rows before the output embedding.
        targets: (n,) int64.
        embedding: (V, H), and `bias` (V,).
        unigram: (V,) relative frequencies, the distribution that the targets come from.
        negatives: least size of the random part, drawn without replacement from the tokens that are no targets.
    """
    size = len(embedding)
    present = torch.zeros(size, dtype=torch.bool)
    present[targets] = True
    # Rounded to whole blocks: matrix kernels are compiled, and cached, for each size that they meet.
    wanted = min(size, -(-(int(present.sum()) + negatives) // _BLOCK) * _BLOCK)
    extra = torch.randperm(size, generator=generator)
    extra = extra[~present[extra]][: wanted - int(present.sum())]
    share = len(extra) / max(1, size - int(present.sum()))
    present[extra] = True
    candidates = present.nonzero().squeeze(1)  # (c,), sorted
    missed = (1 - unigram[candidates]).pow(len(targets)) * (1 - share)
    inclusion = (1 - missed).clamp_min(1e-6).log()
    logits = F.linear(hidden, embedding[candidates], bias[candidates])  # (n, c)
    return F.cross_entropy(logits.float() - inclusion, torch.searchsorted(candidates, targets))


class EveryPosition(nn.Module):
    """Layer 0 and the head of a BERT-like masked language model, applied to all positions at once.

    The module holds no weights: it uses the model's, so that training it trains the model.

    Args:
        model: a `BertForMaskedLM` or a model with the same parts (`bert.embeddings.word_embeddings`, …).
        mask_token_id: id of ``[MASK]``.
        offsets: for each head of layer 0 the position that it sees in `shifts`.
    """

    def __init__(self, model: Any, mask_token_id: int, offsets: Sequence[int]) -> None:
        super().__init__()
        # A tuple hides the model from nn.Module's registry: its parameters must not be counted twice.
        self._model = (model,)
        self.mask_token_id = mask_token_id
        self.offsets = tuple(offsets)

    def streams(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Content (batch, length, H) and query (1, length, H): the tokens' and [MASK]'s embeddings with positions."""
        embeddings = self._model[0].bert.embeddings
        place = (
            embeddings.position_embeddings.weight[: input_ids.shape[1]] + embeddings.token_type_embeddings.weight[0]
        )
        content = embeddings.LayerNorm(embeddings.word_embeddings(input_ids) + place)
        query = embeddings.LayerNorm(embeddings.word_embeddings.weight[self.mask_token_id] + place)[None]
        return content, query

    def shifts(
        self, input_ids: torch.Tensor, continues_word: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Stage A: each head copies the neighbour at its offset. Returns hidden states (batch, length, H).

        Neighbours of the same word are shown as [MASK] for half of the words, as whole-word masking will show them.
        """
        content, query = self.streams(input_ids)
        value = self._model[0].bert.encoder.layer[0].attention.self.value
        words = word_ids(continues_word)
        hidden_words = draw_words(words, 0.5, generator)
        reach = max(abs(offset) for offset in self.offsets)
        length = input_ids.shape[1]
        seen = F.pad(value(content), (0, 0, reach, reach))
        blank = F.pad(value(query), (0, 0, reach, reach))
        neighbours = F.pad(words, (reach, reach), value=-1)
        head_size = seen.shape[-1] // len(self.offsets)
        heads = []
        for head, offset in enumerate(self.offsets):
            at, part = slice(reach + offset, reach + offset + length), slice(head * head_size, (head + 1) * head_size)
            hide = hidden_words & (neighbours[:, at] == words)  # (batch, length)
            heads.append(torch.where(hide[..., None], blank[:, at, part], seen[:, at, part]))
        return self._finish(query, torch.cat(heads, dim=-1))

    def attention(
        self, input_ids: torch.Tensor, continues_word: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Stage B: layer 0's own attention, own token and 70 % of the words' other tokens hidden. As `shifts`."""
        content, query = self.streams(input_ids)
        layer = self._model[0].bert.encoder.layer[0].attention.self
        words = word_ids(continues_word)
        hidden_words = draw_words(words, 0.7, generator)
        own = torch.eye(input_ids.shape[1], dtype=torch.bool)
        blocked = own | (
            hidden_words[:, :, None] & (words[:, :, None] == words[:, None, :])
        )  # (batch, length, length)
        q, k, v = (self.split_heads(x) for x in (layer.query(query), layer.key(content), layer.value(content)))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (batch, heads, length, length)
        weights = scores.masked_fill(blocked[:, None], torch.finfo(scores.dtype).min).softmax(-1).to(v.dtype)
        return self._finish(query, (weights @ v).transpose(1, 2).flatten(2))

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, H) → (batch, heads, length, H / heads)."""
        return x.unflatten(-1, (len(self.offsets), -1)).transpose(1, 2)

    def _finish(self, query: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The rest of layer 0 on the query stream, then the head's transform: (batch, length, H)."""
        layer = self._model[0].bert.encoder.layer[0]
        output = layer.attention.output
        hidden = output.LayerNorm(output.dense(attended) + query)
        hidden = layer.output(layer.intermediate(hidden), hidden)
        return self._model[0].cls.predictions.transform(hidden)
