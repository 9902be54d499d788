"""The warm start as a whole: heads at their offsets in every layer, upper layers near the identity, unigram output."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_nlpnotes.pretraining.offset_heads import DEFAULT_OFFSETS, weight_on_offset
from hf_nlpnotes.pretraining.warm_start import free_heads, sharpen_heads, warm_start

TEXT = np.random.default_rng(0).zipf(1.3, 20_000).clip(max=295) + 4


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=300, hidden_size=256, num_hidden_layers=2, num_attention_heads=8, intermediate_size=256,
        max_position_embeddings=64, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )  # fmt: skip
    model = BertForMaskedLM(config).eval()
    warm_start(model, TEXT)
    return model


@torch.no_grad()
def outputs(model):
    ids = torch.from_numpy(TEXT[:256].reshape(4, 64).astype(np.int64))
    return model.bert(ids, output_attentions=True, output_hidden_states=True)


def test_heads_look_at_their_offsets_in_both_layers(model):
    for number, least in ((0, 0.93), (1, 0.8)):
        weights = outputs(model).attentions[number]
        for head, offset in enumerate(DEFAULT_OFFSETS):
            assert weight_on_offset(weights[:, head], offset).mean() > least


def test_upper_layers_begin_near_the_identity(model):
    states = outputs(model).hidden_states
    similarity = torch.cosine_similarity(states[-2], states[-1], dim=-1)
    assert similarity.min() > 0.95


@torch.no_grad()
def test_output_bias_is_the_unigrams(model):
    counts = np.bincount(TEXT, minlength=300)
    bias = model.cls.predictions.bias
    assert (bias[5] - bias[6]).item() == pytest.approx(np.log((counts[5] + 0.5) / (counts[6] + 0.5)), abs=1e-4)


@torch.no_grad()
def test_blurred_heads_are_sharpened_and_two_set_free(model):
    ids = torch.from_numpy(TEXT[:256].reshape(4, 64).astype(np.int64))
    model.bert.embeddings.word_embeddings.weight *= 1.3
    gains = sharpen_heads(model, ids, mask_token_id=4)
    assert all(gain > 1 for gain in gains)
    assert all(gain == 1 for gain in sharpen_heads(model, ids, mask_token_id=4))
    free_heads(model, heads=(6, 7))
    query = model.bert.encoder.layer[0].attention.self.query
    assert torch.count_nonzero(query.weight[192:]) == 0
    assert torch.count_nonzero(query.weight[:192]) > 0
    assert query.bias[192:].std().item() == pytest.approx(1, abs=0.3)
