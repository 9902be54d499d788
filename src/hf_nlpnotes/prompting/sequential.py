"""Label words read one token after another, each with the tokens before it filled in.

With all masks open (`scoring`) the tokens of a word are predicted independently, so that a word may look good whose
halves never occur together. Filling in the tokens one by one gives the probability of the word as a chain,

    log P(w | x) = Σₜ log P(w at kₜ | x, the tokens at k₁ … kₜ₋₁ filled in),

in one of two orders: from left to right, or the most probable token first at every step (Schick & Schütze, NAACL
2021, https://arxiv.org/abs/2009.07118, equation 3). The score is the mean over the word's tokens, as in `scoring`.

It costs one more row in a forward pass for every distinct beginning of a word: for W words of two tokens up to W + 1
rows a text instead of one. Words of one token have the same score in every order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import nn

from .filling import Filling, Question, Token, answer_questions, words_of
from .scoring import WordScores
from .verbalizer import WordGroup

Order: TypeAlias = Literal["left-to-right", "max-first"]
"""Which token of a word is read next."""


def sequential_scores(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    positions: torch.Tensor,
    mask_counts: torch.Tensor,
    groups: Sequence[WordGroup],
    num_words: int,
    order: Order = "left-to-right",
    max_rows: int = 64,
) -> WordScores:
    """Scores of the words whose length is the row's number of masks, token by token.

    Args:
        model (`nn.Module`):
            A masked language model.
        inputs (`Mapping[str, torch.Tensor]`):
            Its inputs, of shape (batch, length), with masks at `positions`.
        positions, mask_counts:
            As `mask_positions` gives them.
        groups (`Sequence[WordGroup]`):
            Words by length.
        num_words (`int`):
            How many words there are, W.
        order (`str`, defaults to `"left-to-right"`):
            `"left-to-right"`, or `"max-first"`: of the tokens that are left, the one with the highest probability.
        max_rows (`int`, defaults to 64):
            Rows a forward pass.

    Returns:
        `WordScores` of shape `(batch, W)`, 0 for words of other lengths than the row's, as `word_scores` gives them.
    """
    scores = torch.zeros(2, len(mask_counts), num_words, device=positions.device)
    for group in groups:
        rows = (mask_counts == group.num_masks).nonzero().squeeze(1).tolist()
        if not rows:
            continue
        words = words_of(group)
        chains = [(row, word) for row in rows for word in words]
        chain = _left_to_right if order == "left-to-right" else _max_first
        values = chain(model, inputs, positions[:, : group.num_masks], chains, tuple(group.features), max_rows)
        places = torch.tensor(group.positions, device=positions.device)
        values = values.view(2, len(rows), len(words)) / group.num_masks
        scores = scores.to(values.dtype)
        scores[:, torch.tensor(rows, device=positions.device)[:, None], places] = values
    return WordScores(scores[0], scores[1])


def _left_to_right(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    positions: torch.Tensor,
    chains: Sequence[tuple[int, tuple[Token, ...]]],
    feature_names: Sequence[str],
    max_rows: int,
) -> torch.Tensor:
    """Sums over the tokens of each chain, (2, chains). The tokens are known, so every step is asked at once."""
    num_masks = positions.shape[1]
    questions: list[Question] = [
        (Filling(row, (*word[:step], *[None] * (num_masks - step))), step, word[step][0])
        for row, word in chains
        for step in range(num_masks)
    ]
    answers = answer_questions(model, inputs, positions, questions, feature_names, max_rows)
    return torch.stack(answers).view(2, len(chains), num_masks).sum(dim=2)


def _max_first(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    positions: torch.Tensor,
    chains: Sequence[tuple[int, tuple[Token, ...]]],
    feature_names: Sequence[str],
    max_rows: int,
) -> torch.Tensor:
    """As `_left_to_right`; which token is filled in next is known after each step."""
    num_masks = positions.shape[1]
    filled: list[tuple[Token | None, ...]] = [(None,) * num_masks for _ in chains]
    total = torch.zeros(2, len(chains), device=positions.device)
    for _ in range(num_masks):
        open_masks = [[mask for mask, token in enumerate(tokens) if token is None] for tokens in filled]
        questions: list[Question] = [
            (Filling(row, tokens), mask, word[mask][0])
            for (row, word), tokens, masks in zip(chains, filled, open_masks, strict=True)
            for mask in masks
        ]
        answers = torch.stack(answer_questions(model, inputs, positions, questions, feature_names, max_rows))
        answers = answers.view(2, len(chains), -1)  # every chain has the same number of open masks
        best = answers[0].argmax(dim=1)
        total = total + answers.gather(2, best.expand(2, -1)[:, :, None]).squeeze(2)
        for index, (place, masks) in enumerate(zip(best.tolist(), open_masks, strict=True)):
            mask = masks[place]
            filled[index] = (*filled[index][:mask], chains[index][1][mask], *filled[index][mask + 1 :])
    return total
