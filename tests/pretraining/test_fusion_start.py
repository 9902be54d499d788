"""The fusion's start: the characters' model unchanged, and all branches within reach of gradients."""

import pytest
import torch

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertForMaskedLM
from hf_nlpnotes.pretraining.fusion_start import start_fusion


@pytest.fixture
def embeddings():
    torch.manual_seed(0)
    config = ChineseBertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, glyph_size=4, pinyin_embedding_size=8, glyph_storage="bits", pinyin_table_size=30,
    )  # fmt: skip
    model = ChineseBertForMaskedLM(config)
    table = torch.randint(32, (30, 8), generator=torch.Generator().manual_seed(1))
    model.set_readings(table, torch.arange(60) % 30)
    model.set_glyphs(torch.rand(60, 3, 4, 4) < 0.5)
    torch.nn.init.normal_(model.bert.embeddings.map_fc.bias)
    return model.bert.embeddings


@torch.no_grad()
def test_starts_as_the_characters_alone(embeddings):
    start_fusion(embeddings, reserved=4)
    ids, pinyin = torch.randint(60, (2, 9)), torch.randint(30, (2, 9))
    fused = embeddings.fuse(ids, pinyin)
    assert torch.equal(fused[..., 4:], embeddings.word_embeddings(ids)[..., 4:])
    assert torch.count_nonzero(fused[..., :4]) == 0


def test_gradients_reach_every_branch_after_one_step(embeddings):
    start_fusion(embeddings)
    ids, pinyin = torch.randint(60, (2, 9)), torch.randint(30, (2, 9))
    target = torch.randn(2, 9, 16)
    for _ in range(2):
        embeddings.zero_grad()
        (embeddings.fuse(ids, pinyin) - target).square().sum().backward()
        with torch.no_grad():
            embeddings.map_fc.weight -= 1e-2 * embeddings.map_fc.weight.grad
    for parameter in (embeddings.glyph_map.weight, embeddings.pinyin_embeddings.conv.weight):
        assert parameter.grad.abs().max() > 0
