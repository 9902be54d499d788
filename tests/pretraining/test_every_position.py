"""Every position at once: equal to the masked model where the two must agree, and blind where they must be blind."""

import math

import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM

from hf_nlpnotes.pretraining.every_position import (
    EveryPosition,
    EveryPositionLoss,
    draw_words,
    sampled_softmax_loss,
    word_ids,
)

MASK = 4
OFFSETS = (-1, 1, -2, 2)


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )  # fmt: skip
    model = BertForMaskedLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def generator():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def ids():
    return torch.randint(5, 50, (3, 12), generator=generator())


def test_word_ids():
    continues = torch.tensor([[False, True, False, False, True, True], [True, False, False, True, False, False]])
    assert word_ids(continues).tolist() == [[0, 0, 1, 2, 2, 2], [0, 1, 2, 2, 3, 4]]


def test_words_are_drawn_whole_and_as_often_as_asked():
    words = torch.tensor([[0, 0, 1, 2, 2, 2]]).repeat(20_000, 1)
    drawn = draw_words(words, 0.3, generator())
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    assert torch.equal(drawn[:, 3], drawn[:, 5])
    for first in (0, 2, 3):  # ± 4 standard deviations
        assert abs(drawn[:, first].float().mean() - 0.3) < 4 * math.sqrt(0.21 / 20_000)


@torch.no_grad()
def test_attention_is_the_masked_model_without_its_own_key(model, ids):
    """Stage B at position i = the real layer with [MASK] at i, position i hidden from attention (words of one)."""
    continues = torch.zeros_like(ids, dtype=torch.bool)
    ours = EveryPosition(model, MASK, OFFSETS).attention(ids, continues, generator())
    for i in (0, 5, 11):
        masked = ids.clone()
        masked[:, i] = MASK
        sees = torch.ones_like(ids)
        sees[:, i] = 0
        hidden = model.bert(masked, attention_mask=sees)[0][:, i]
        torch.testing.assert_close(ours[:, i], model.cls.predictions.transform(hidden), atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("stage", ["shifts", "attention"])
def test_no_position_sees_itself(model, ids, stage):
    continues = torch.zeros_like(ids, dtype=torch.bool)
    forward = getattr(EveryPosition(model, MASK, OFFSETS), stage)
    before = forward(ids, continues, generator())
    changed = ids.clone()
    changed[:, 6] = (ids[:, 6] - 5 + 1) % 45 + 5
    after = forward(changed, continues, generator())
    assert torch.equal(before[:, 6], after[:, 6])
    assert not torch.allclose(before[:, 5], after[:, 5])


@torch.no_grad()
def test_shifts_see_exactly_their_offsets(model, ids):
    stage = EveryPosition(model, MASK, OFFSETS)
    continues = torch.zeros_like(ids, dtype=torch.bool)
    changed = ids.clone()
    changed[:, 6] = (ids[:, 6] - 5 + 1) % 45 + 5
    difference = stage.shifts(ids, continues, generator()) - stage.shifts(changed, continues, generator())
    reached = difference.abs().amax((0, 2)) > 0
    assert reached.nonzero().flatten().tolist() == [6 - 2, 6 - 1, 6 + 1, 6 + 2]


@torch.no_grad()
@pytest.mark.parametrize(("stage", "share"), [("shifts", 0.5), ("attention", 0.7)])
def test_neighbours_of_the_same_word_are_hidden_for_a_share_of_the_words(model, stage, share):
    ids = torch.randint(5, 50, (2000, 3), generator=generator())
    continues = torch.tensor([[False, True, False]]).repeat(2000, 1)
    forward = getattr(EveryPosition(model, MASK, OFFSETS), stage)
    before = forward(ids, continues, generator())
    changed = torch.stack([ids[:, 0], (ids[:, 1] - 4) % 45 + 5, ids[:, 2]], 1)
    after = forward(changed, continues, generator())
    blind = (before[:, 0] == after[:, 0]).all(-1).float().mean()
    assert abs(blind - share) < 4 * math.sqrt(share * (1 - share) / 2000)


def test_sampled_softmax_with_all_tokens_is_the_full_softmax():
    torch.manual_seed(0)
    hidden, embedding, bias = torch.randn(30, 8), torch.randn(40, 8), torch.randn(40)
    targets, unigram = torch.randint(40, (30,)), torch.full((40,), 1 / 40)
    loss = sampled_softmax_loss(hidden, targets, embedding, bias, unigram, negatives=40)
    torch.testing.assert_close(loss, F.cross_entropy(hidden @ embedding.T + bias, targets))


def test_sampled_softmax_has_the_optimum_of_the_full_softmax():
    """Free logits learn the distribution of the targets, though frequent tokens are candidates far more often."""
    torch.manual_seed(0)
    unigram = 1 / torch.arange(1, 2001)
    unigram /= unigram.sum()
    bias = torch.zeros(2000, requires_grad=True)
    optimizer = torch.optim.SGD([bias], lr=30.0)
    hidden, embedding = torch.zeros(256, 4), torch.zeros(2000, 4)
    mean = torch.zeros(2000)
    for step in range(600):
        optimizer.zero_grad()
        targets = torch.multinomial(unigram, 256, replacement=True)
        sampled_softmax_loss(hidden, targets, embedding, bias, unigram, negatives=300).backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 30.0 * (1 - step / 600)
        if step >= 300:
            mean += bias.detach().softmax(0) / 300
    for tokens in (slice(0, 3), slice(3, 20), slice(20, 200), slice(200, 2000)):
        assert (mean[tokens].sum() / unigram[tokens].sum()).item() == pytest.approx(1, abs=0.12)


def test_rows_that_do_not_count_change_nothing():
    hidden = torch.randn(9, 8, generator=generator())
    embedding, bias = torch.randn(30, 8, generator=generator()), torch.randn(30, generator=generator())
    targets, unigram = torch.randint(30, (9,), generator=generator()), torch.full((30,), 1 / 30)
    padded = F.pad(hidden, (0, 0, 0, 7)), F.pad(targets, (0, 7), value=-100)
    for reduction in ("mean", "sum"):
        losses = [
            sampled_softmax_loss(
                *rows, embedding, bias, unigram, negatives=5, generator=generator(), reduction=reduction
            )
            for rows in ((hidden, targets), padded)
        ]
        torch.testing.assert_close(*losses)


@pytest.mark.parametrize("shifts", [True, False])
def test_a_stage_trains_its_part_of_the_model(model, ids, shifts):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    unigram = torch.full((50,), 1 / 50)
    stage = EveryPositionLoss(EveryPosition(model, MASK, OFFSETS), shifts=shifts, unigram=unigram, reserved=6).begin()
    words = torch.arange(12).expand(3, 12) // 2
    optimizer = torch.optim.Adam([p for p in stage.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = stage(ids, words)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    stage.end()
    assert losses[-1] < losses[0]
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    looks = {f"bert.encoder.layer.0.attention.self.{name}.weight" for name in ("query", "key")}
    assert looks & changed == (set() if shifts else looks)
    assert "bert.embeddings.position_embeddings.weight" not in changed
    assert "cls.predictions.bias" in changed
    vectors = model.bert.embeddings.word_embeddings.weight
    assert torch.equal(vectors[:, :6], before["bert.embeddings.word_embeddings.weight"][:, :6])
    assert not torch.equal(vectors[:, 6:], before["bert.embeddings.word_embeddings.weight"][:, 6:])
    assert all(parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_padding_counts_and_is_seen_nowhere(model, ids):
    unigram = torch.full((50,), 1 / 50)
    stage = EveryPositionLoss(
        EveryPosition(model, MASK, OFFSETS), shifts=False, unigram=unigram, reserved=6, negatives=100
    )
    words = torch.arange(12).expand(3, 12).clone()
    torch.manual_seed(0)
    expected = stage(ids, words)["loss"]
    torch.manual_seed(0)
    padded = stage(F.pad(ids, (0, 4)), F.pad(words, (0, 4), value=-1))["loss"]
    torch.testing.assert_close(padded, expected)
