"""Stages that predict every position at once with the first layer and the head of a BERT-shaped model.

Masked language modelling trains on the 15 % of positions that it hides. A single layer can train on all of them: the
query stream is ``[MASK]`` plus position, keys and values come from the tokens' own embeddings, and a position does not
see itself. Nothing can leak, because one layer of keys and values holds nothing but each token's own embedding (the
two-stream attention of XLNet, Yang et al. 2019, section 2.3, is the same idea for many layers, at a price).

Layer 0 and the head learn in minutes what masking teaches in hours: which tokens follow each other. The layers above
are left alone. When it fails: a long stage makes layer 0 do work that deeper layers would do better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

_BLOCK = 256
_IGNORED = -100  # target of a row that does not count, as torch has it


def word_ids(continues_word: torch.Tensor) -> torch.Tensor:
    """(batch, length) bool → (batch, length) int64, 0, 1, 2, … the number of the word in its row."""
    return (~continues_word).cumsum(-1) - (~continues_word[:, :1]).long()


def draw_words(words: torch.Tensor, share: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """(batch, length) bool: each word of a row chosen with probability `share`, all of its tokens or none."""
    drawn = torch.rand(words.shape, generator=generator, device=words.device) < share
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
    reduction: str = "mean",
) -> torch.Tensor:
    """Cross-entropy over the batch's own targets and some random tokens instead of the whole vocabulary.

    Each logit is lowered by the log of the probability that its token is among the candidates, so that the loss aims
    at the full softmax (sampled softmax, Jean et al. 2015, section 3).

    Args:
        hidden: (n, H) rows before the output embedding.
        targets: (n,) int64, -100 for rows that do not count.
        embedding: (V, H), the output embedding.
        bias: (V,), its bias.
        unigram: (V,) relative frequencies, the distribution that the targets come from.
        negatives: least size of the random part, drawn without replacement from the tokens that are no targets.
        generator: the random tokens are drawn from it; None: torch's own.
        reduction: "mean" or "sum" over the rows that count.
    """
    size, counted = len(embedding), targets != _IGNORED
    present = torch.zeros(size, dtype=torch.bool, device=targets.device)
    present[targets[counted]] = True
    # Rounded to whole blocks: matrix kernels are compiled, and cached, for each size that they meet.
    wanted = min(size, -(-(int(present.sum()) + negatives) // _BLOCK) * _BLOCK)
    extra = torch.randperm(size, generator=generator, device=targets.device)
    extra = extra[~present[extra]][: wanted - int(present.sum())]
    share = len(extra) / max(1, size - int(present.sum()))
    present[extra] = True
    candidates = present.nonzero().squeeze(1)  # (c,), sorted
    missed = (1 - unigram[candidates]).pow(int(counted.sum())) * (1 - share)
    inclusion = (1 - missed).clamp_min(1e-6).log()
    logits = F.linear(hidden, embedding[candidates], bias[candidates])  # (n, c)
    places = torch.where(counted, torch.searchsorted(candidates, targets), _IGNORED)
    return F.cross_entropy(logits.float() - inclusion, places, ignore_index=_IGNORED, reduction=reduction)


class EveryPosition(nn.Module):
    """Layer 0 and the head of a BERT-like masked language model, applied to all positions at once.

    The module holds the model's own parts, and of them only those that take part: training it trains the model, and
    its state is a part of the model's.

    Args:
        model: a `BertForMaskedLM`, a `ChineseBertForMaskedLM` (of which the characters' vectors take part alone), or
            a model with the same parts (`bert.embeddings.word_embeddings`, …).
        mask_token_id: id of ``[MASK]``.
        offsets: for each head of layer 0 the position that it sees in `shifts`.
    """

    def __init__(self, model: Any, mask_token_id: int, offsets: Sequence[int]) -> None:
        super().__init__()
        embeddings, head = model.bert.embeddings, model.cls.predictions
        self.word_embeddings = embeddings.word_embeddings
        self.position_embeddings = embeddings.position_embeddings
        self.token_type_embeddings = embeddings.token_type_embeddings
        self.norm = embeddings.LayerNorm
        self.layer = model.bert.encoder.layer[0]
        self.transform = head.transform
        self.output_bias = head.bias
        self.mask_token_id = mask_token_id
        self.offsets = tuple(offsets)

    def streams(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Content (batch, length, H) and query (1, length, H): the tokens' and [MASK]'s embeddings with positions.

        Args:
            input_ids: (batch, length).
        """
        place = self.position_embeddings.weight[: input_ids.shape[1]] + self.token_type_embeddings.weight[0]
        content = self.norm(self.word_embeddings(input_ids) + place)
        query = self.norm(self.word_embeddings.weight[self.mask_token_id] + place)[None]
        return content, query

    def shifts(
        self, input_ids: torch.Tensor, continues_word: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Stage A: each head copies the neighbour at its offset. Returns hidden states (batch, length, H).

        Neighbours of the same word are shown as [MASK] for half of the words, as whole-word masking will show them.

        Args:
            input_ids: (batch, length).
            continues_word: (batch, length) bool, true for tokens that continue a word.
            generator: which words are hidden is drawn from it; None: torch's own.
        """
        content, query = self.streams(input_ids)
        value = self.layer.attention.self.value
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
        self,
        input_ids: torch.Tensor,
        continues_word: torch.Tensor,
        generator: torch.Generator | None = None,
        is_text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Stage B: layer 0's own attention, own token and 70 % of the words' other tokens hidden. As `shifts`.

        Args:
            input_ids: as of `shifts`.
            continues_word: as of `shifts`.
            generator: as of `shifts`.
            is_text: (batch, length) bool, False at padding; None: there is none.
        """
        content, query = self.streams(input_ids)
        layer = self.layer.attention.self
        words = word_ids(continues_word)
        hidden_words = draw_words(words, 0.7, generator)
        own = torch.eye(input_ids.shape[1], dtype=torch.bool, device=input_ids.device)
        blocked = own | (
            hidden_words[:, :, None] & (words[:, :, None] == words[:, None, :])
        )  # (batch, length, length)
        if is_text is not None:
            blocked = blocked | ~is_text[:, None, :]
        q, k, v = (self.split_heads(x) for x in (layer.query(query), layer.key(content), layer.value(content)))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (batch, heads, length, length)
        weights = scores.masked_fill(blocked[:, None], torch.finfo(scores.dtype).min).softmax(-1).to(v.dtype)
        return self._finish(query, (weights @ v).transpose(1, 2).flatten(2))

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, H) → (batch, heads, length, H / heads).

        Args:
            x: (batch, length, H).
        """
        return x.unflatten(-1, (len(self.offsets), -1)).transpose(1, 2)

    def _finish(self, query: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        """The rest of layer 0 on the query stream, then the head's transform: (batch, length, H)."""
        layer = self.layer
        output = layer.attention.output
        hidden = output.LayerNorm(output.dense(attended) + query)
        hidden = layer.output(layer.intermediate(hidden), hidden)
        return self.transform(hidden)


@dataclass
class DataCollatorForEveryPosition:
    """Pad rows and leave them as they are otherwise: their tokens and words, nothing masked.

    Args:
        pad_token_id: id of ``[PAD]``.
    """

    pad_token_id: int = 0

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """`input_ids` and `word_ids` (-1 at padding), each (batch, length) int64."""
        padding = {"input_ids": self.pad_token_id, "word_ids": -1}
        return {
            name: pad_sequence([torch.as_tensor(row[name]).long() for row in rows], True, value)
            for name, value in padding.items()
        }


class EveryPositionLoss(nn.Module):
    """A stage as the stock Trainer wants it: a module from a batch to a loss.

    Trained are the token vectors, layer 0, and the head; in stage A the queries and keys rest. Positions rest in both,
    and the dimensions that they have for themselves stay as they are in the token vectors: longer token vectors in
    these dimensions would blur the heads. The random numbers are torch's own, so that a resumed training goes on with
    the same ones.

    Args:
        predict: the parts of the model.
        shifts: stage A (`EveryPosition.shifts`); else stage B (`EveryPosition.attention`).
        unigram: (vocab,) relative frequencies of the tokens.
        reserved: leading dimensions of the positions.
        negatives: of `sampled_softmax_loss`.
        pad_token_id: id of ``[PAD]``.
    """

    unigram: torch.Tensor

    def __init__(
        self,
        predict: EveryPosition,
        *,
        shifts: bool,
        unigram: torch.Tensor,
        reserved: int,
        negatives: int = 1500,
        pad_token_id: int = 0,
    ) -> None:
        super().__init__()
        self.predict, self.shifts, self.reserved = predict, shifts, reserved
        self.negatives, self.pad_token_id = negatives, pad_token_id
        self.register_buffer("unigram", unigram, persistent=False)
        self._hook: Any = None

    def begin(self) -> EveryPositionLoss:
        """Let the stage's parameters rest or train; call `end` when it is over."""
        for name, parameter in self.predict.named_parameters():
            rests = re.search(r"position_embeddings|token_type|^norm\.", name) or (
                self.shifts and re.search(r"attention\.self\.(query|key)\.", name)
            )
            parameter.requires_grad_(not rests)
        self._hook = self.predict.word_embeddings.weight.register_hook(self._without_reserved)
        return self

    def end(self) -> None:
        """Let all parameters train again."""
        self._hook.remove()
        for parameter in self.predict.parameters():
            parameter.requires_grad_(True)

    def _without_reserved(self, gradient: torch.Tensor) -> torch.Tensor:
        kept = gradient.clone()
        kept[:, : self.reserved] = 0
        return kept

    def forward(self, input_ids: torch.Tensor, word_ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """Mean loss over all tokens of the text.

        Args:
            input_ids: (batch, length).
            word_ids: (batch, length), the same number for tokens of one word, -1 for special tokens and padding.
        """
        text = word_ids >= 0
        continues = F.pad((word_ids[:, 1:] == word_ids[:, :-1]) & text[:, 1:], (1, 0))
        if self.shifts:
            hidden = self.predict.shifts(input_ids, continues)
        else:
            hidden = self.predict.attention(input_ids, continues, is_text=input_ids != self.pad_token_id)
        rows, targets = hidden[text], input_ids[text]
        fill = -len(rows) % 128  # few sizes: kernels are compiled for each
        loss = sampled_softmax_loss(
            F.pad(rows, (0, 0, 0, fill)),
            F.pad(targets, (0, fill), value=_IGNORED),
            self.predict.word_embeddings.weight,
            self.predict.output_bias,
            self.unigram,
            negatives=self.negatives,
        )
        return {"loss": loss}
