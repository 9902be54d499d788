"""`WordScorer`: one model and one set of words, asked about many prompts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from .predictions import predict_masks
from .reranking import pseudo_log_likelihood
from .scoring import WordScores, centred_scores, log_prob_scores
from .sequential import Order, sequential_scores
from .verbalizer import WordGroup

Scoring: TypeAlias = Literal["parallel", "left-to-right", "max-first"]
"""How the tokens of a word are read: all at once, or one after another."""

SCORINGS: tuple[str, ...] = get_args(Scoring)
"""Names of the scorings."""

PSEUDO_LOG_LIKELIHOOD = "pseudo-log-likelihood"
"""The scoring of a second look at a few words, see `reranking`."""


class WordScorer:
    """Scores the words of a verbalizer at the masks of prompts.

    A call gives `WordScores`; `centred` and `log_probs` compute one of the two only. `centred` is what calibration
    needs, and never reads the whole vocabulary. `ranking` is the cheaper one of those that rank the words of a text.

    Args:
        model (`nn.Module`):
            A masked language model of transformers.
        groups (`Sequence[WordGroup]`):
            Words by length, from `group_words`.
        num_words (`int`):
            Number of words, W.
        scoring (`str`, defaults to `"parallel"`):
            `"parallel"`, `"left-to-right"` or `"max-first"`: see `scoring` and `sequential`; or
            `"pseudo-log-likelihood"`: see `reranking`.
        max_rows (`int`, defaults to 64):
            Rows a forward pass, where the scoring makes several rows of one prompt.

    All methods take the model's inputs of shape (batch, length), and the positions and numbers of their masks as
    `mask_positions` gives them. With `words`, the words that each row is asked about, pseudo-log-likelihood is
    computed for these only. The scores have the shape `(batch, W)`; words of other lengths than the row's are 0, so
    that the rows of one text add up to the scores of all words.

    Raises:
        `ValueError`: there is no such scoring.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[WordGroup],
        num_words: int,
        scoring: str = "parallel",
        max_rows: int = 64,
    ) -> None:
        if scoring not in (*SCORINGS, PSEUDO_LOG_LIKELIHOOD):
            raise ValueError(f"scoring must be one of {', '.join(SCORINGS)}, got {scoring!r}.")
        self.model = model
        self.groups = tuple(groups)
        self.num_words = num_words
        self.scoring = scoring
        self.max_rows = max_rows

    def __call__(
        self,
        inputs: Mapping[str, torch.Tensor],
        positions: torch.Tensor,
        mask_counts: torch.Tensor,
        words: Sequence[Collection[int]] | None = None,
    ) -> WordScores:
        """Both kinds of scores."""
        if self.scoring != "parallel":
            return self._token_by_token(inputs, positions, mask_counts, words)
        predictions = predict_masks(self.model, inputs, positions)
        return WordScores(
            log_prob_scores(predictions, mask_counts, self.groups, self.num_words),
            centred_scores(predictions, mask_counts, self.groups, self.num_words),
        )

    def log_probs(
        self,
        inputs: Mapping[str, torch.Tensor],
        positions: torch.Tensor,
        mask_counts: torch.Tensor,
        words: Sequence[Collection[int]] | None = None,
    ) -> torch.Tensor:
        """`WordScores.log_probs`.

        Args:
            inputs (`Mapping[str, torch.Tensor]`):
                The model's inputs, of shape (batch, length).
            positions (`torch.Tensor`):
                As `mask_positions` gives them.
            mask_counts (`torch.Tensor`):
                As `mask_positions` gives them.
            words (`Sequence[Collection[int]]`, *optional*):
                For each row the words to score, by their place in `Verbalizer.all_words`. Default: all.
        """
        if self.scoring != "parallel":
            return self._token_by_token(inputs, positions, mask_counts, words).log_probs
        predictions = predict_masks(self.model, inputs, positions)
        return log_prob_scores(predictions, mask_counts, self.groups, self.num_words)

    def centred(
        self,
        inputs: Mapping[str, torch.Tensor],
        positions: torch.Tensor,
        mask_counts: torch.Tensor,
        words: Sequence[Collection[int]] | None = None,
    ) -> torch.Tensor:
        """`WordScores.centred`.

        Args:
            inputs (`Mapping[str, torch.Tensor]`):
                The model's inputs, of shape (batch, length).
            positions (`torch.Tensor`):
                As `mask_positions` gives them.
            mask_counts (`torch.Tensor`):
                As `mask_positions` gives them.
            words (`Sequence[Collection[int]]`, *optional*):
                For each row the words to score, by their place in `Verbalizer.all_words`. Default: all.
        """
        if self.scoring != "parallel":
            return self._token_by_token(inputs, positions, mask_counts, words).centred
        predictions = predict_masks(self.model, inputs, positions)
        return centred_scores(predictions, mask_counts, self.groups, self.num_words)

    def ranking(
        self,
        inputs: Mapping[str, torch.Tensor],
        positions: torch.Tensor,
        mask_counts: torch.Tensor,
        words: Sequence[Collection[int]] | None = None,
    ) -> torch.Tensor:
        """Log-probabilities up to a constant of the text, which no softmax over the words sees.

        Words of one length that are read at once have the same masks, hence the same normaliser: their centred scores
        do. Otherwise the log-probabilities themselves.

        Args:
            inputs (`Mapping[str, torch.Tensor]`):
                The model's inputs, of shape (batch, length).
            positions (`torch.Tensor`):
                As `mask_positions` gives them.
            mask_counts (`torch.Tensor`):
                As `mask_positions` gives them.
            words (`Sequence[Collection[int]]`, *optional*):
                For each row the words to score, by their place in `Verbalizer.all_words`. Default: all.
        """
        same_masks = len(self.groups) == 1 and self.scoring == "parallel"
        return (self.centred if same_masks else self.log_probs)(inputs, positions, mask_counts, words)

    def _token_by_token(
        self,
        inputs: Mapping[str, torch.Tensor],
        positions: torch.Tensor,
        mask_counts: torch.Tensor,
        words: Sequence[Collection[int]] | None,
    ) -> WordScores:
        arguments = (self.model, inputs, positions, mask_counts, self.groups, self.num_words)
        if self.scoring == PSEUDO_LOG_LIKELIHOOD:
            return pseudo_log_likelihood(*arguments, words, self.max_rows)
        order: Order = "left-to-right" if self.scoring == "left-to-right" else "max-first"
        return sequential_scores(*arguments, order, self.max_rows)
