"""Scores of label words under a masked language model.

A word of K tokens is asked for with K masks, all at once. Its score is the mean log-probability of its tokens,

    s(w | x) = 1/K Σₖ log P(mask k = wₖ | x with K masks),

the parallel approximation of Schick & Schütze (NAACL 2021, https://arxiv.org/abs/2009.07118, equation 4), divided by
the length as one does for answers of unequal length (Brown et al. 2020, https://arxiv.org/abs/2005.14165, section
2.4). Words of one length share one forward pass; the encoder reads every text once a length, the prediction head sees
the masks only, and of the vocabulary only the label words' tokens are computed (see `predictions`).

`WordScorer` puts it together; other ways to read words of several tokens are in `sequential` and `reranking`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import methodcaller

import torch

from .mask_predictions import MaskPredictions, full_logits
from .predictions import mask_logits
from .verbalizer import WordGroup

__all__ = [
    "WordScores",
    "centred_scores",
    "log_prob_scores",
    "mask_logits",
    "mask_positions",
    "word_scores",
]


@dataclass(frozen=True)
class WordScores:
    """What the model says about the words, for N texts and W words.

    Args:
        log_probs (`torch.Tensor` of shape `(N, W)`):
            Mean log-probability of the word's tokens, over the whole vocabulary.
        centred (`torch.Tensor` of shape `(N, W)`):
            Mean logit of the word's tokens minus the mean logit of the whole vocabulary at the same masks. The two
            differ by a constant for each text and word length; this one changes by the same amount for every text when
            a token's output bias changes, which is what calibration needs (see `hf_nlpnotes.prompting.calibration`).
    """

    log_probs: torch.Tensor
    centred: torch.Tensor


def word_scores(
    logits: torch.Tensor, mask_counts: torch.Tensor, groups: Sequence[WordGroup], num_words: int
) -> WordScores:
    """Scores of all words whose length is the number of masks of the row.

    Args:
        logits (`torch.Tensor` of shape `(batch, K, vocabulary)`):
            Logits at the masks. A row with fewer masks than K has anything after them.
        mask_counts (`torch.Tensor` of shape `(batch,)`):
            Number of masks of each row.
        groups (`Sequence[WordGroup]`):
            Words by length.
        num_words (`int`):
            Number of words, W.

    Returns:
        `WordScores` of shape `(batch, W)`; words of other lengths than the row's are 0, so that the scores of the rows
        of one text add up to those of all words.
    """
    predictions = full_logits(logits)
    return WordScores(
        log_prob_scores(predictions, mask_counts, groups, num_words),
        centred_scores(predictions, mask_counts, groups, num_words),
    )


def log_prob_scores(
    predictions: MaskPredictions, mask_counts: torch.Tensor, groups: Sequence[WordGroup], num_words: int
) -> torch.Tensor:
    """`WordScores.log_probs` from predictions at the masks; needs the normaliser over the whole vocabulary."""
    return _scores(predictions, mask_counts, groups, num_words, methodcaller("log_normaliser"))


def centred_scores(
    predictions: MaskPredictions, mask_counts: torch.Tensor, groups: Sequence[WordGroup], num_words: int
) -> torch.Tensor:
    """`WordScores.centred` from predictions at the masks; needs no more than the words' own tokens."""
    return _scores(predictions, mask_counts, groups, num_words, methodcaller("centre"))


def _scores(
    predictions: MaskPredictions,
    mask_counts: torch.Tensor,
    groups: Sequence[WordGroup],
    num_words: int,
    origin: Callable[[MaskPredictions], torch.Tensor],
) -> torch.Tensor:
    """Mean over a word's masks of its tokens' logits minus `origin`, (batch, W); 0 for words of other lengths."""
    parts = []
    for group in groups:
        rows = (mask_counts == group.num_masks).nonzero().squeeze(1)
        if not len(rows):
            continue
        here = predictions.select(rows, group.num_masks)
        ids = torch.tensor(group.token_ids, device=rows.device).T  # (K, words)
        tokens, index = ids.unique(return_inverse=True)
        logits = here.logits_of(tokens)  # (rows, K, tokens)
        chosen = logits.gather(2, index.expand(len(rows), *index.shape))  # (rows, K, words)
        words = torch.tensor(group.positions, device=rows.device)
        parts.append((rows, words, (chosen - origin(here)[:, :, None]).mean(dim=1)))
    dtype = parts[0][2].dtype if parts else torch.float32
    scores = torch.zeros(len(mask_counts), num_words, dtype=dtype, device=mask_counts.device)
    for rows, words, values in parts:
        scores[rows[:, None], words] = values
    return scores


def mask_positions(label_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the masks of each row, and how many there are.

    Args:
        label_mask (`torch.Tensor` of shape `(batch, length)`):
            1 where the label word goes.

    Returns:
        Positions of shape `(batch, K)` for the largest number K of masks (a row with fewer is filled with 0), and
        counts of shape `(batch,)`.
    """
    counts = label_mask.sum(dim=1)
    width = int(counts.max())
    # A stable sort of the negated mask brings the masks to the front in their order.
    positions = torch.argsort(1 - label_mask, dim=1, stable=True)[:, :width]
    valid = torch.arange(width, device=counts.device) < counts[:, None]
    return positions.where(valid, 0), counts
