"""Scores of spans as pairs, against enumeration and the closed form of the untrained head."""

import itertools
import math

import pytest
import torch

from hf_nlpnotes.layers.span_pairs import SpanPairs, span_loss, span_scores


@pytest.fixture
def trained():
    torch.manual_seed(0)
    pairs = SpanPairs(8, 4)
    torch.nn.init.normal_(pairs.last.weight)
    return pairs


def test_a_new_head_adds_nothing():
    torch.manual_seed(0)
    assert SpanPairs(8, 4)(torch.randn(2, 5, 8)).eq(0).all()


def test_a_new_head_learns():
    torch.manual_seed(0)
    pairs = SpanPairs(8, 4)
    (pairs(torch.randn(2, 5, 8)) * torch.randn(2, 5, 5)).sum().backward()
    assert pairs.last.weight.grad.abs().sum() > 0


def test_products_of_all_pairs(trained):
    features = torch.randn(2, 5, 8)
    scores = trained(features)
    for batch, first, last in itertools.product(range(2), range(5), range(5)):
        expected = trained.first(features[batch, first]) @ trained.last(features[batch, last]) / math.sqrt(4)
        assert scores[batch, first, last].item() == pytest.approx(expected.item(), abs=1e-5)


def test_loss_is_the_negative_log_likelihood_of_the_pair(trained):
    features, mask = torch.randn(3, 6, 8), torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [0] * 2 + [1] * 4])
    start, end = torch.randn(3, 6), torch.randn(3, 6)
    pairs = trained(features)
    scores = span_scores(start, end, pairs, mask)
    starts, ends = torch.tensor([1, 0, 3]), torch.tensor([4, 3, 3])
    losses = []
    for batch in range(3):
        allowed = {
            (s, e): (start[batch, s] + end[batch, e] + pairs[batch, s, e]).item()
            for s in range(6)
            for e in range(s, 6)
            if mask[batch, s] and mask[batch, e]
        }
        total = math.log(sum(math.exp(score) for score in allowed.values()))
        losses.append(total - allowed[starts[batch].item(), ends[batch].item()])
        outside = [(s, e) for s, e in itertools.product(range(6), range(6)) if (s, e) not in allowed]
        assert scores[batch].exp()[tuple(zip(*outside, strict=True))].eq(0).all()
    assert span_loss(scores, starts, ends).item() == pytest.approx(sum(losses) / 3, rel=1e-5)


@pytest.mark.parametrize("outside", [(6, 2), (1, 6), (-1, -1), (-100, 3)])
def test_spans_outside_do_not_count(trained, outside):
    start, end = torch.randn(2, 6), torch.randn(2, 6)
    scores = span_scores(start, end, trained(torch.randn(2, 6, 8)))
    both = span_loss(scores, torch.tensor([1, outside[0]]), torch.tensor([2, outside[1]]))
    assert both.item() == pytest.approx(span_loss(scores[:1], torch.tensor([1]), torch.tensor([2])).item())


def test_no_span_at_all_is_no_loss(trained):
    features = torch.randn(2, 6, 8)
    scores = span_scores(torch.randn(2, 6), torch.randn(2, 6), trained(features))
    loss = span_loss(scores, torch.tensor([6, 6]), torch.tensor([6, 6]))
    loss.backward()
    assert loss.item() == 0
    assert trained.first.weight.grad.isfinite().all()


def test_half_precision_is_scored_in_float32(trained):
    scores = span_scores(torch.randn(1, 4).half(), torch.randn(1, 4).half(), torch.randn(1, 4, 4).half())
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


def test_wrong_sizes_and_masks():
    with pytest.raises(ValueError, match="size=0"):
        SpanPairs(8, 0)
    with pytest.raises(ValueError, match=r"got \(1, 5\)"):
        span_scores(torch.randn(1, 4), torch.randn(1, 4), torch.randn(1, 4, 4), torch.ones(1, 5))
