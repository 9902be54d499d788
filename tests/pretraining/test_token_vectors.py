"""Token vectors against direct computations: pairs counted one by one, PPMI by its formula, the SVD exact."""

import math

import numpy as np
import pytest
import torch

from hf_nlpnotes.pretraining.token_vectors import (
    cooccurrence_counts,
    positive_pmi,
    token_vectors,
    unigram_log_probabilities,
)


@pytest.fixture
def ids():
    return np.random.default_rng(0).zipf(1.5, 400).clip(max=20) - 1


def test_counts_pair_by_pair(ids):
    expected = torch.zeros(20, 20)
    for i, left in enumerate(ids):
        for j, right in enumerate(ids):
            if 0 < abs(i - j) <= 3:
                expected[left, right] += abs(i - j) ** -0.5
    torch.testing.assert_close(cooccurrence_counts(ids, 20, window=3), expected, rtol=1e-5, atol=1e-4)


def test_ppmi_entry_by_entry(ids):
    counts = cooccurrence_counts(ids, 22)  # two tokens never stand in the text
    ppmi = positive_pmi(counts)
    context_mass = [counts[:, c].sum().item() ** 0.75 for c in range(22)]
    for w in range(22):
        for c in range(22):
            count = counts[w, c].item()
            expected = 0.0
            if count:
                expected = max(
                    0.0, math.log(count / counts[w].sum().item() / (context_mass[c] / math.fsum(context_mass)))
                )
            assert ppmi[w, c].item() == pytest.approx(expected, abs=1e-4)


def test_vectors_have_the_directions_of_the_exact_svd(ids):
    counts = cooccurrence_counts(ids, 20)
    vectors = token_vectors(counts, 12, reserved=4, norm=0.5)
    assert torch.count_nonzero(vectors[:, :4]) == 0
    torch.testing.assert_close(vectors.norm(dim=1), torch.full((20,), 0.5))
    u, s, _ = torch.linalg.svd(positive_pmi(counts))
    exact = torch.nn.functional.normalize(u[:, :8] * s[:8].sqrt(), dim=1) * 0.5
    # Rotations and signs are free: compare inner products.
    torch.testing.assert_close(vectors @ vectors.T, exact @ exact.T, atol=2e-3, rtol=0)


def test_unseen_tokens_get_a_random_direction_and_seeds_repeat(ids):
    counts = cooccurrence_counts(ids, 25)
    first, second = token_vectors(counts, 12, reserved=4), token_vectors(counts, 12, reserved=4)
    assert torch.equal(first, second)
    torch.testing.assert_close(first.norm(dim=1), torch.full((25,), 0.7))
    assert (first[20] - first[21]).norm() > 0.1
    with pytest.raises(ValueError, match="rank of 0"):
        token_vectors(counts, 12, reserved=12)


def test_unigram_probabilities(ids):
    probabilities = unigram_log_probabilities(ids, 22).exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-6)
    assert (probabilities[0] / probabilities[21]).item() == pytest.approx(((ids == 0).sum() + 0.5) / 0.5, rel=1e-5)
