"""Token vectors from co-occurrence counts: PPMI and a truncated SVD.

A small masked language model spends its first hours on learning which tokens go together. Counting them takes seconds.
The vectors are U·√S of the positive pointwise mutual information matrix with weighted windows and a smoothed context
distribution (Levy, Goldberg & Dagan 2015, "Improving distributional similarity with lessons learned from word
embeddings", equations 3 and 6). They know the company that a token keeps, not the order in which it stands: on their
own they are a poor start, together with `offset_heads` a good one.
"""

from __future__ import annotations

import numpy as np
import torch


def cooccurrence_counts(input_ids: np.ndarray, vocab_size: int, *, window: int = 5) -> torch.Tensor:
    """Count pairs of tokens within a window, a pair at distance d weighing 1/√d.

    Args:
        input_ids: (tokens,) the stream.
        vocab_size: V; takes 12·V² bytes while counting.
        window: largest distance counted, on both sides.

    Returns:
        (V, V) float32, symmetric.
    """
    counts = np.zeros((vocab_size, vocab_size), dtype=np.float32)
    ids = input_ids.astype(np.int64)
    for distance in range(1, window + 1):
        pairs = np.bincount(ids[:-distance] * vocab_size + ids[distance:], minlength=vocab_size**2)
        counts += pairs.reshape(vocab_size, vocab_size) * np.float32(distance**-0.5)
    return torch.from_numpy(counts + counts.T)


def positive_pmi(counts: torch.Tensor, *, context_exponent: float = 0.75) -> torch.Tensor:
    """max(0, log P(w, c) / (P(w) P_α(c))) with P_α(c) ∝ count(c)^α.

    Args:
        counts: (words, contexts), not negative.
        context_exponent: α; below 1 it keeps rare contexts from scoring high by chance.

    Returns:
        (words, contexts), 0 where a count is 0.
    """
    words = counts.sum(1, keepdim=True)  # (words, 1)
    contexts = counts.sum(0, keepdim=True) ** context_exponent  # (1, contexts)
    ratio = counts * contexts.sum() / (words * contexts)
    return torch.where(counts > 0, ratio, 1.0).clamp_min(1.0).log()  # 0/0 where a token was never seen


def token_vectors(
    counts: torch.Tensor,
    hidden_size: int,
    *,
    reserved: int = 32,
    norm: float = 0.7,
    context_exponent: float = 0.75,
    seed: int = 0,
) -> torch.Tensor:
    """Rows of one length from the SVD of the PPMI matrix, the first dimensions left free.

    Args:
        counts: (V, V) from `cooccurrence_counts`.
        hidden_size: H, the width of the vectors.
        reserved: leading dimensions that are zero for every token (see `offset_heads.position_vectors`).
        norm: length of every row. A token that was never seen gets a random direction.
        context_exponent: as of `positive_pmi`.
        seed: of the randomised SVD and of the random directions.

    Returns:
        (V, H) float32.

    Raises:
        ValueError: `hidden_size` minus `reserved` is not from 1 to V.
    """
    rank = hidden_size - reserved
    if not 0 < rank <= len(counts):
        raise ValueError(
            f"hidden_size={hidden_size} minus reserved={reserved} leaves a rank of {rank}: expected 1 to "
            f"{len(counts)}, the size of the vocabulary"
        )
    ppmi = positive_pmi(counts, context_exponent=context_exponent)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        u, s, _ = torch.svd_lowrank(ppmi, q=min(rank + 32, len(counts)), niter=3)
        vectors = u[:, :rank] * s[:rank].sqrt()
        unseen = vectors.norm(dim=1) < 1e-4 * s[0].sqrt()
        vectors[unseen] = torch.randn(int(unseen.sum()), rank)
    vectors = vectors * (norm / vectors.norm(dim=1, keepdim=True))
    return torch.cat([torch.zeros(len(counts), reserved), vectors], dim=1)


def unigram_log_probabilities(input_ids: np.ndarray, vocab_size: int, *, smoothing: float = 0.5) -> torch.Tensor:
    """(V,) log of the tokens' relative frequencies, counts raised by `smoothing`: a start for the output's bias.

    Args:
        input_ids: (tokens,) the training text.
        vocab_size: V.
        smoothing: what is added to each count.
    """
    counts = torch.from_numpy(np.bincount(input_ids.astype(np.int64), minlength=vocab_size)).double() + smoothing
    return (counts / counts.sum()).log().float()
