"""The same attention as transformers' own, with and without padding, in float32 and bfloat16."""

import pytest
import torch
from transformers import BertConfig, BertModel

from hf_nlpnotes.pretraining import bfloat16_attention


@pytest.fixture(scope="module")
def model():
    bfloat16_attention.register()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    return BertModel(config).eval()


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(("bfloat16", "tolerance"), [(False, 1e-5), (True, 4e-2)])
@torch.no_grad()
def test_equals_sdpa(model, padding, bfloat16, tolerance):
    ids = torch.randint(60, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 20 - padding :] = 0
    model.set_attn_implementation("sdpa")
    expected = model(ids, attention_mask=mask).last_hidden_state
    model.set_attn_implementation(bfloat16_attention.NAME)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        found = model(ids, attention_mask=mask).last_hidden_state
        changed = ids.clone()
        changed[0, 20 - padding :] = 7
        again = model(changed, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()].float(), expected[mask.bool()], rtol=0, atol=tolerance)
    assert torch.equal(found[mask.bool()], again[mask.bool()])  # padding is not seen
