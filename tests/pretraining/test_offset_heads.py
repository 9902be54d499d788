"""Offset heads: the rotation is exact, and in a real BERT layer each head looks where it was told to."""

import pytest
import torch
from transformers import BertConfig, BertModel

from hf_nlpnotes.pretraining.offset_heads import (
    DEFAULT_OFFSETS,
    calibrated_gain,
    frequencies,
    offset_head_weights,
    position_vectors,
    rotation,
    value_output_weights,
    weight_on_offset,
)

OMEGA = frequencies()


@pytest.mark.parametrize("offset", [-4, 1, 7])
def test_rotation_moves_positions(offset):
    positions = position_vectors(40, 40, OMEGA)[:, :32].double()
    moved = positions @ rotation(OMEGA, offset).T
    start, stop = max(0, -offset), min(40, 40 - offset)
    torch.testing.assert_close(moved[start:stop], positions[start + offset : stop + offset], atol=1e-6, rtol=0)


def test_products_are_sums_of_cosines():
    query, key = offset_head_weights(64, 32, OMEGA, (-1, 3), gain=0.5)
    positions = position_vectors(30, 64, OMEGA, scale=1.0)
    q, k = positions @ query.T, positions @ key.T
    i, j = 11, 17
    for head, offset in enumerate((-1, 3)):
        part = slice(32 * head, 32 * (head + 1))
        expected = 0.25 * (OMEGA * (j - i - offset)).cos().sum()
        assert (q[i, part] @ k[j, part]).item() == pytest.approx(expected.item(), abs=1e-4)


def test_rows_have_the_length_of_token_vectors():
    torch.testing.assert_close(position_vectors(128, 256, OMEGA).norm(dim=1), torch.full((128,), 0.7))
    assert OMEGA.min() > 0
    assert OMEGA.max() < torch.pi


@pytest.fixture
def bert():
    """One layer of BERT at the embedded model's width, with random tokens of norm 0.7 and the heads set."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=200, hidden_size=256, num_hidden_layers=1, num_attention_heads=8, intermediate_size=64,
        max_position_embeddings=128, attn_implementation="eager",
    )  # fmt: skip
    model = BertModel(config).eval()
    tokens = torch.nn.functional.normalize(torch.randn(200, 224), dim=1) * 0.7
    query, key = offset_head_weights(256, 32, OMEGA, DEFAULT_OFFSETS)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.copy_(torch.cat([torch.zeros(200, 32), tokens], 1))
        model.embeddings.position_embeddings.weight.copy_(position_vectors(128, 256, OMEGA))
        model.embeddings.token_type_embeddings.weight.zero_()
        model.encoder.layer[0].attention.self.query.weight.copy_(query)
        model.encoder.layer[0].attention.self.key.weight.copy_(key)
    return model


def attention(bert):
    with torch.no_grad():
        ids = torch.randint(200, (4, 128), generator=torch.Generator().manual_seed(1))
        return bert(ids, output_attentions=True).attentions[0]  # (batch, heads, length, length)


def test_heads_look_at_their_offsets_in_a_real_layer(bert):
    weights = attention(bert)
    for head, offset in enumerate(DEFAULT_OFFSETS):
        assert weight_on_offset(weights[:, head], offset).mean() >= 0.93


def test_longer_token_vectors_blur_the_heads_and_calibration_restores_them(bert):
    with torch.no_grad():
        bert.embeddings.word_embeddings.weight *= 1.4
    blurred = attention(bert)[:, 0]
    assert weight_on_offset(blurred, -1).mean() < 0.93
    # Weights and logits differ by a constant a row, which the softmax ignores.
    gain = calibrated_gain(blurred.log(), -1)
    assert 1 < gain < 2
    with torch.no_grad():
        bert.encoder.layer[0].attention.self.query.weight[:32] *= gain
    assert weight_on_offset(attention(bert)[:, 0], -1).mean() >= 0.93


def test_calibration_gives_up_without_positions():
    with pytest.raises(ValueError, match="offset 1"):
        calibrated_gain(torch.zeros(2, 8, 8), 1)


def test_value_and_output_undo_each_other():
    value, output = value_output_weights(64, value_scale=0.5, output_scale=0.3)
    torch.testing.assert_close(output @ value, 0.3 * 0.25 * torch.eye(64), atol=1e-6, rtol=0)


def test_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="head_size >= 32"):
        offset_head_weights(64, 16, OMEGA, DEFAULT_OFFSETS[:4])
    with pytest.raises(ValueError, match="16 frequencies"):
        position_vectors(10, 16, OMEGA)
