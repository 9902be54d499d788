"""The released checkpoint, from the hub: `HF_HUB_OFFLINE=0 pytest -m hub`."""

import pytest
import torch

from hf_nlpnotes.models.chinesebert import ChineseBertModel, ChineseBertTokenizer

# First values of each token's vector for 我喜欢猫, as the README of ShannonAI/ChineseBert prints them.
PUBLISHED = [
    [0.0287, -0.0126, 0.0389],
    [0.0144, -0.2494, -0.1853],
    [0.0839, -0.2989, -0.2421],
    [-0.0499, -0.2983, -0.1604],
    [0.1428, -0.0682, -0.1310],
    [0.0287, -0.0126, 0.0389],
]


@pytest.mark.hub
def test_base_gives_the_published_output():
    name = "ShannonAI/ChineseBERT-base"
    model, tokenizer = ChineseBertModel.from_pretrained(name), ChineseBertTokenizer.from_pretrained(name)
    with torch.no_grad():
        states = model(**tokenizer("我喜欢猫", return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(states[0, :, :3], torch.tensor(PUBLISHED), rtol=0, atol=1e-4)
