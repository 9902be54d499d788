"""Scores of spans as pairs: a first and a last token judged together.

Stock heads for question answering score first and last tokens by themselves, P(s, e) = P(s) P(e). Where a text has
two good answers, the first token of one and the last of the other are as probable as either answer. Fajcik et al.
2021, "Rethinking the Objectives of Extractive Question Answering" (https://arxiv.org/abs/2008.12804), model P(s, e)
itself, with a product of projected token vectors as the score of a pair, and find it best to train that together with
the independent objective. So it is here, and the pair's score is added to those of its ends:

    score(s, e) = a(s) + b(e) + u(s) · v(e) / √d        P(s, e) = softmax of it over all pairs with s ≤ e

`v` begins at zero: a head that has not been trained yet is the stock head.
"""

from __future__ import annotations

import torch
from torch import nn


class SpanPairs(nn.Module):
    """The product u(s) · v(e) / √d of all pairs of tokens.

    Args:
        input_size: Size of the token vectors.
        size: d, that of what they are projected to.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, input_size: int, size: int = 64) -> None:
        super().__init__()
        if input_size < 1 or size < 1:
            raise ValueError(f"Sizes are positive whole numbers, got input_size={input_size}, size={size}")
        self.size = size
        self.first = nn.Linear(input_size, size)
        self.last = nn.Linear(input_size, size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise: all products are zero."""
        self.first.reset_parameters()
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Score pairs: `features (batch, seq, input_size)` → `(batch, first, last)`.

        Args:
            features: `(batch, seq, input_size)`, a vector a token.
        """
        scaled = self.first(features) * self.size**-0.5
        return torch.matmul(scaled, self.last(features).transpose(-1, -2))

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"size={self.size}"


def span_scores(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    pairs: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Put together the scores of spans.

    Args:
        start_logits: `(batch, seq)`, a.
        end_logits: `(batch, seq)`, b.
        pairs: `(batch, seq, seq)`, the output of `SpanPairs`.
        attention_mask: `(batch, seq)`, 0 at padding; None without padding.

    Returns:
        `(batch, seq, seq)` in float32, by first and last token; the lowest finite number where the last token comes
        before the first or either is padding. (Not -inf, of which losses and gradients make NaN.)
    """
    scores = start_logits.float()[:, :, None] + end_logits.float()[:, None, :] + pairs.float()
    length = scores.shape[-1]
    allowed = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu()[None]
    if attention_mask is not None:
        if attention_mask.shape != start_logits.shape:
            raise ValueError(
                f"The attention mask must have the shape of the logits, {tuple(start_logits.shape)}, got "
                f"{tuple(attention_mask.shape)}"
            )
        kept = attention_mask.to(scores.device) != 0
        allowed = allowed & kept[:, :, None] & kept[:, None, :]
    return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)


def span_loss(span_logits: torch.Tensor, start_positions: torch.Tensor, end_positions: torch.Tensor) -> torch.Tensor:
    """The negative log-likelihood of spans, -log P(s, e).

    Args:
        span_logits: `(batch, seq, seq)`, of `span_scores`.
        start_positions: `(batch,)`, the first token; a span with an end outside of `[0, seq)` does not count.
        end_positions: `(batch,)`, the last token.

    Returns:
        The mean over the spans that count, in float32; 0 without any.
    """
    batch, length, _ = span_logits.shape
    starts = start_positions.to(span_logits.device).reshape(batch)
    ends = end_positions.to(span_logits.device).reshape(batch)
    counts = (starts >= 0) & (starts < length) & (ends >= 0) & (ends < length)
    pair = (starts * length + ends).where(counts, 0)
    losses = nn.functional.cross_entropy(span_logits.float().flatten(1), pair, reduction="none")
    return losses.where(counts, 0).sum() / counts.sum().clamp(min=1)


__all__ = ["SpanPairs", "span_loss", "span_scores"]
