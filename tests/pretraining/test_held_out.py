"""Held-out accuracy: what is asked, that nothing of the answers is shown, and the counting."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hf_nlpnotes.pretraining.held_out import held_out_rows, masked_accuracy, one_of_each_word
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
    for chosen in (asked.whole_words, asked.scattered):
        assert not (chosen & ~text).any()
        assert abs(chosen.sum() / text.sum() - 0.15) < 0.03
    assert not torch.equal(asked.whole_words, asked.scattered)
    # Words are pairs of tokens from the second on: both or none (a cut at the row's end may part a pair).
    assert torch.equal(asked.whole_words[:, 1:9:2] & text[:, 2:10:2], asked.whole_words[:, 2:10:2])


def test_single_is_one_token_of_each_chosen_word():
    asked = rows()
    text = asked.input_ids > 4
    assert not (asked.single & ~asked.whole_words).any()
    for first in range(1, 11, 2):  # pairs of tokens are words; the second may be missing
        pair = slice(first, first + 2)
        chosen = asked.whole_words[:, pair].any(1)
        assert torch.equal(asked.single[:, pair].sum(1) == 1, chosen)
        assert chosen.any()
    complete = text[:, 1:11].unflatten(1, (5, 2)).all(-1)
    second = asked.single[:, 1:11].unflatten(1, (5, 2))[..., 1][complete & asked.whole_words[:, 1:11:2]]
    assert abs(second.float().mean() - 0.5) < 4 * 0.5 / len(second) ** 0.5  # neither place of a pair is preferred


def test_one_of_each_word_by_counting():
    words = torch.tensor([[0, 1, 1, 1, 2, 2]]).expand(6000, -1)
    chosen = torch.tensor([[False, True, True, True, False, True]]).expand(6000, -1)
    picked = one_of_each_word(chosen, words, torch.Generator().manual_seed(0))
    assert (picked[:, 1:4].sum(1) == 1).all()
    assert picked.sum(0)[[0, 4, 5]].tolist() == [0, 0, 6000]
    observed = picked[:, 1:4].sum(0)
    assert ((observed - 2000) ** 2 / 2000).sum() < 13.82  # 99.9 % of the chi-square distribution, 2 degrees of freedom


def test_nothing_to_find_and_arguments_out_of_range():
    none = held_out_rows([], 12, cls_token_id=2, sep_token_id=3)
    result = masked_accuracy(Constant(5, none), none, VOCABULARY, 4)
    assert result["single_tokens"] == 0
    assert np.isnan(result["single"])
    with pytest.raises(ValueError, match="length=2"):
        held_out_rows(streams(3), 2, cls_token_id=2, sep_token_id=3)
    with pytest.raises(ValueError, match="share=0"):
        held_out_rows(streams(3), 12, cls_token_id=2, sep_token_id=3, share=0.0)


class Constant(nn.Module):
    """Always answers with one token, and checks that it was shown nothing of the answers."""

    def __init__(self, answer, asked):
        super().__init__()
        self.config, self.device = SimpleNamespace(model_type="chinesebert"), torch.device("cpu")
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
    for kind in ("whole_words", "single", "scattered"):
        targets = asked.input_ids[getattr(asked, kind)]
        assert result[kind] == round(100 * (targets == 5).float().mean().item(), 2)
        assert result[f"{kind}_han"] == round(100 * (targets[targets < 9] == 5).float().mean().item(), 2)
        assert result[f"{kind}_tokens"] == len(targets)
    assert model.hidden_tokens == sum(value for name, value in result.items() if name.endswith("_tokens"))
    assert model.training
    without = masked_accuracy(model, replace(asked, scattered=None), VOCABULARY, 4)
    assert without == {name: value for name, value in result.items() if not name.startswith("scattered")}
