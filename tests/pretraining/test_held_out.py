"""Held-out accuracy: what is asked, that nothing of the answers is shown, and the counting."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from hf_nlpnotes.pretraining.held_out import held_out_rows, masked_accuracy
from hf_nlpnotes.pretraining.packing import TokenStream

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"我喜欢猫", "，", "py"]


def streams(count=200):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 20, count)
    return [
        TokenStream(np.append(rng.integers(5, 11, n), 3), np.append(np.arange(n) % 2 == 1, False), np.full(n + 1, 9))
        for n in lengths
    ]


def rows():
    return held_out_rows(streams(), 12, cls_token_id=2, sep_token_id=3)


def test_rows():
    asked = rows()
    text = asked.input_ids > 4
    assert (asked.input_ids[:, 0] == 2).all()
    assert ((asked.input_ids == 3).sum(1) == 1).all()
    for chosen in (asked.whole_words, asked.single):
        assert not (chosen & ~text).any()
        assert abs(chosen.sum() / text.sum() - 0.15) < 0.03
    # Words are pairs of tokens from the second on: both or none (a cut at the row's end may part a pair).
    assert torch.equal(asked.whole_words[:, 1:9:2] & text[:, 2:10:2], asked.whole_words[:, 2:10:2])


class Constant(nn.Module):
    """Always answers with one token, and checks that it was shown nothing of the answers."""

    def __init__(self, answer, asked):
        super().__init__()
        self.config = SimpleNamespace(model_type="chinesebert")
        self.answer, self.asked, self.hidden_tokens = answer, asked, 0

    def bert(self, input_ids, pinyin_ids, attention_mask):
        assert (pinyin_ids[input_ids == 4] == 0).all()
        assert (pinyin_ids[(input_ids > 4)] == 9).all()
        assert torch.equal(attention_mask == 1, input_ids != 0)
        self.hidden_tokens += int((input_ids == 4).sum())
        return (torch.zeros(*input_ids.shape, len(VOCABULARY)),)

    def cls(self, hidden):
        return hidden + torch.eye(len(VOCABULARY))[self.answer]


def test_share_of_right_answers():
    asked = rows()
    model = Constant(5, asked)
    result = masked_accuracy(model, asked, VOCABULARY, 4, batch_size=30)
    for kind in ("whole_words", "single"):
        targets = asked.input_ids[getattr(asked, kind)]
        assert result[kind] == round(100 * (targets == 5).float().mean().item(), 2)
        assert result[f"{kind}_han"] == round(100 * (targets[targets < 9] == 5).float().mean().item(), 2)
        assert result[f"{kind}_tokens"] == len(targets)
    assert model.hidden_tokens == result["whole_words_tokens"] + result["single_tokens"]
    assert model.training
