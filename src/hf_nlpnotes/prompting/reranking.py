"""A second, more careful look at the labels that came out best.

The pseudo-log-likelihood of a word (Salazar et al., ACL 2020, https://arxiv.org/abs/1910.14659, equation 2) is read
with the whole word filled in and one of its tokens masked at a time,

    s(w | x) = 1/K Σₖ log P(mask k = wₖ | x, all other tokens of w filled in):

every token sees both sides. It costs K rows in a forward pass a word, so that one asks it about a few words only. It
judges words of one length better than words of unequal length: the rest of a long word gives each of its tokens away,
as in 经济 after 济 was seen, and so long words gain. Calibration takes the mean of that gain out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .filling import Filling, Question, answer_questions, words_of
from .scoring import WordScores
from .verbalizer import WordGroup


def pseudo_log_likelihood(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    positions: torch.Tensor,
    mask_counts: torch.Tensor,
    groups: Sequence[WordGroup],
    num_words: int,
    words: Sequence[Collection[int]] | None = None,
    max_rows: int = 64,
) -> WordScores:
    """Pseudo-log-likelihood of the words whose length is the row's number of masks, a mean over their tokens.

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
        words (`Sequence[Collection[int]]`, *optional*):
            For each row the words to score, by their place in `Verbalizer.all_words`. Default: all.
        max_rows (`int`, defaults to 64):
            Rows a forward pass.

    Returns:
        `WordScores` of shape `(batch, W)`, 0 for words of other lengths and for words that were not asked for.
    """
    scores = torch.zeros(2, len(mask_counts), num_words, device=positions.device)
    for group in groups:
        rows = (mask_counts == group.num_masks).nonzero().squeeze(1).tolist()
        asked = [
            (row, place, word)
            for row in rows
            for place, word in zip(group.positions, words_of(group), strict=True)
            if words is None or place in words[row]
        ]
        if not asked:
            continue
        questions: list[Question] = [
            (Filling(row, (*word[:mask], None, *word[mask + 1 :])), mask, word[mask][0])
            for row, _, word in asked
            for mask in range(group.num_masks)
        ]
        at_masks = positions[:, : group.num_masks]
        answers = answer_questions(model, inputs, at_masks, questions, tuple(group.features), max_rows)
        values = torch.stack(answers).view(2, len(asked), group.num_masks).mean(dim=2)
        scores = scores.to(values.dtype)
        scores[:, [row for row, _, _ in asked], [place for _, place, _ in asked]] = values
    return WordScores(scores[0], scores[1])


def best(scores: torch.Tensor, k: Any) -> torch.Tensor:
    """Where the k highest scores of each row are: a mask of the shape of `scores`, `(N, L)`.

    Of equal scores the first ones count. With k ≥ L all of them.

    Args:
        scores (`torch.Tensor` of shape `(N, L)`):
            A row a text, a column a label.
        k (`int`):
            How many a row.

    Raises:
        `ValueError`: k is no positive whole number.
    """
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"rerank is how many of the best to look at again, a positive whole number, got {k!r}.")
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, True)


def rerank(first: torch.Tensor, second: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Second scores for those that were chosen as the best, and the rest below them in its first order.

    The first of the rest comes as far below the last of the chosen as it was in the first scores, and the rest keeps
    its differences: the two kinds of scores have no common zero.

    Args:
        first, second (`torch.Tensor` of shape `(N, L)`):
            Scores of labels (or words), both calibrated if either is. Of `second` only what was chosen is read.
        chosen (`torch.Tensor` of shape `(N, L)`):
            As `best(first, k)` gives it.

    >>> first = torch.tensor([[3.0, 2.0, 1.0, -1.0]])
    >>> second = torch.tensor([[-7.0, -5.0, 0.0, 0.0]])
    >>> rerank(first, second, best(first, 2)).tolist()
    [[-7.0, -5.0, -8.0, -10.0]]
    """
    infinity = torch.tensor(torch.inf, dtype=first.dtype, device=first.device)
    last_first = first.where(chosen, infinity).amin(dim=1, keepdim=True)
    last_second = second.to(first.dtype).where(chosen, infinity).amin(dim=1, keepdim=True)
    return second.to(first.dtype).where(chosen, last_second + (first - last_first))
