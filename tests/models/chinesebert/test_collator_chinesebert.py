"""Masking: the laws of its proportions, nothing of a hidden reading left, masks that depend on the example alone."""

import math

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_nlpnotes.models.chinesebert import ChineseBertTokenizer, DataCollatorForChineseBertMaskedLM
from hf_nlpnotes.models.chinesebert.collator_chinesebert import (
    IGNORED,
    NO_WORD,
    characters_as_words,
    choose_words,
    replace_tokens,
    words_of_tokens,
)

CHI_SQUARE_999 = {1: 10.83, 2: 13.82, 3: 16.27, 9: 27.88}
"""Quantiles of the chi-square distribution: a right program fails one of a thousand fixed seeds."""


def chi_square(observed, expected):
    return float(((np.asarray(observed) - expected) ** 2 / np.asarray(expected)).sum())


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return ChineseBertTokenizer.from_pretrained(tiny_chinesebert_folder)


# ------------------------------------------------------------------------------------------------------ pure functions


def rows_of_words(rows=4000, seed=0):
    """(rows, 25) words of one to three tokens: special token, 10 words, special tokens to the end."""
    rng = np.random.default_rng(seed)
    result = np.full((rows, 32), NO_WORD)
    for row in result:
        tokens = np.repeat(np.arange(10), rng.integers(1, 4, 10))
        row[1 : 1 + len(tokens)] = tokens
    return result


def test_every_word_is_chosen_whole_and_as_often_as_the_others():
    words = rows_of_words(8000)
    chosen = choose_words(words, np.random.default_rng(1).random(words.shape), 0.15)
    assert not chosen[words == NO_WORD].any()
    per_word = np.zeros((len(words), 10), dtype=bool)
    for word in range(10):
        members, hit = words == word, chosen & (words == word)
        assert np.array_equal(hit.sum(1) == members.sum(1), hit.any(1))  # all of its tokens or none
        per_word[:, word] = hit.any(1)
    p = 0.15 + 0.85**10 / 10  # the second part: rows that would have none get one
    expected = np.full(10, p * len(words))
    # Words of a row are nearly independent: the sum of ten squared standard scores.
    assert chi_square(per_word.sum(0), expected) / (1 - p) < CHI_SQUARE_999[9]
    share = chosen.sum() / (words != NO_WORD).sum()
    assert abs(share - p) < 0.005
    assert per_word.any(1).all()


def test_long_rows_have_the_plain_share():
    words = np.arange(200)[None].repeat(1000, 0)
    chosen = choose_words(words, np.random.default_rng(2).random(words.shape), 0.15)
    assert abs(chosen.mean() - 0.15) < 4 * math.sqrt(0.15 * 0.85 / chosen.size)


def test_rows_without_words_get_nothing():
    words = np.full((2, 4), NO_WORD)
    assert not choose_words(words, np.zeros((2, 4)), 0.5).any()


def test_replacement_follows_80_10_10():
    rng = np.random.default_rng(0)
    ids = np.full((1000, 100), 7)
    chosen = np.ones_like(ids, dtype=bool)
    new, _, labels = replace_tokens(ids, None, chosen, rng.random(ids.shape), np.full_like(ids, 9), mask_token_id=4)
    counts = [(new == token).sum() for token in (4, 9, 7)]
    assert chi_square(counts, np.array([0.8, 0.1, 0.1]) * ids.size) < CHI_SQUARE_999[2]
    assert (labels == 7).all()


def test_no_reading_of_a_hidden_token_is_left():
    rng = np.random.default_rng(0)
    shape = (200, 60)
    ids, pinyin = rng.integers(5, 50, shape), rng.integers(100, 150, shape)
    default = np.arange(50) + 1  # readings of 1 to 50 are defaults, those from 100 on come from the text
    chosen, random_ids = rng.random(shape) < 0.3, rng.integers(5, 50, shape)
    new, new_pinyin, labels = replace_tokens(
        ids, pinyin, chosen, rng.random(shape), random_ids, mask_token_id=4, default_pinyin_ids=default
    )
    masked, random = new == 4, chosen & (new != ids) & (new != 4)
    assert masked.any()
    assert random.any()
    assert (new_pinyin[masked] == 0).all()
    assert np.array_equal(new_pinyin[random], default[new[random]])
    same = ~chosen | (new == ids)
    assert np.array_equal(new_pinyin[~chosen], pinyin[~chosen])
    assert np.array_equal(new[same], ids[same])
    assert np.array_equal(labels, np.where(chosen, ids, IGNORED))


def test_readings_need_defaults():
    ids = np.zeros((1, 2), dtype=int)
    with pytest.raises(ValueError, match="default_pinyin_ids"):
        replace_tokens(ids, ids, ids == 0, ids * 0.5, ids, mask_token_id=4)


def test_words_of_tokens():
    tokens = ["[CLS]", "我", "喜", "欢", "py", "##thon", "。", "[SEP]", "##x", "猫", "[SEP]"]
    special = [token.startswith("[") for token in tokens]
    assert words_of_tokens(tokens, special) == [-1, 0, 1, 2, 3, 3, 4, -1, 5, 6, -1]
    cut = lambda text: text.replace("喜欢", " 喜欢 ").split() if "喜欢" in text else list(text)  # noqa: E731
    assert words_of_tokens(tokens, special, cut) == [-1, 0, 1, 1, 2, 2, 3, -1, 4, 5, -1]
    with pytest.raises(ValueError, match="cover 1 of 3"):
        words_of_tokens(tokens, special, lambda text: text[:1])


def test_characters_as_words():
    assert characters_as_words(np.array([[-1, 0, 0, 1, -1]])).tolist() == [[-1, 1, 2, 3, -1]]


# -------------------------------------------------------------------------------------------------------- the collator


SENTENCES = [
    "我喜欢猫，你也喜欢狗吗",
    "国足今晚出战",
    "重庆银行行长还在",
    "今日天气真好，老师和学生都高兴",
    "iphone手机",
]


def examples(tokenizer, count=200):
    rng = np.random.default_rng(0)
    texts = ["，".join(rng.choice(SENTENCES, 6)) for _ in range(count)]
    return [{**dict(tokenizer(text)), "mask_seed": number} for number, text in enumerate(texts)]


def test_batch(tokenizer):
    features = examples(tokenizer, 300)
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, segmenter=list)
    batch = collator(features)
    assert set(batch) == {"input_ids", "token_type_ids", "attention_mask", "pinyin_ids", "labels"}
    padded = tokenizer.pad([{k: v for k, v in f.items() if k != "mask_seed"} for f in features], return_tensors="pt")
    chosen = batch["labels"] != IGNORED
    assert torch.equal(torch.where(chosen, batch["labels"], batch["input_ids"]), padded["input_ids"])
    special = torch.isin(padded["input_ids"], torch.tensor(tokenizer.all_special_ids))
    assert not (chosen & special).any()
    masked = batch["input_ids"] == tokenizer.mask_token_id
    assert (batch["pinyin_ids"][masked] == 0).all()
    assert (padded["pinyin_ids"][masked] > 0).any()
    random = chosen & ~masked & (batch["input_ids"] != padded["input_ids"])
    default = torch.as_tensor(np.asarray(tokenizer.default_pinyin_ids)).long()
    assert torch.equal(batch["pinyin_ids"][random], default[batch["input_ids"][random]])
    text = (~special).sum().item()
    assert abs(chosen.sum().item() / text - 0.15) < 4 * math.sqrt(0.15 * 0.85 / text)
    shares = torch.tensor([masked.sum(), random.sum()]) / chosen.sum()
    assert abs(shares[0] - 0.8) < 0.03
    assert abs(shares[1] - 0.1) < 0.03


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_share_of_whole_word_examples(tokenizer, share):
    """One word of forty tokens and one of one: a whole-word example masks forty at once, or one."""
    ids = [tokenizer.cls_token_id, *[30] * 41, tokenizer.sep_token_id]
    words = [None, *[0] * 40, 1, None]
    features = [{"input_ids": ids, "word_ids": words, "mask_seed": seed} for seed in range(2000)]
    batch = DataCollatorForChineseBertMaskedLM(tokenizer, mlm_probability=0.3, whole_word_share=share)(features)
    count = (batch["labels"][:, 1:41] != IGNORED).sum(1)
    partial = ((count > 0) & (count < 40)).float().mean().item()  # single characters: almost surely between
    assert abs(partial - (1 - share)) < 4 * math.sqrt(share * (1 - share) / 2000) + 1e-3


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_masks_depend_on_the_example_alone(tokenizer, workers, batch_size):
    features = examples(tokenizer, 20)
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, segmenter=list)
    alone = {feature["mask_seed"]: collator([feature]) for feature in features}
    context = "fork" if workers else None  # a lambda does not travel to a spawned worker
    loader = DataLoader(
        features[::-1],
        batch_size=batch_size,
        collate_fn=collator,
        num_workers=workers,
        multiprocessing_context=context,
    )
    seeds = iter([feature["mask_seed"] for feature in features[::-1]])
    for batch in loader:
        for row in range(len(batch["input_ids"])):
            expected = alone[next(seeds)]
            length = expected["input_ids"].shape[1]
            for name in ("input_ids", "pinyin_ids", "labels"):
                assert torch.equal(batch[name][row, :length], expected[name][0])


def test_padding_side_changes_nothing_but_the_place(tokenizer):
    features = examples(tokenizer, 6)
    right = DataCollatorForChineseBertMaskedLM(tokenizer)(features)
    left_tokenizer = ChineseBertTokenizer(vocab=tokenizer.get_vocab(), padding_side="left")
    left = DataCollatorForChineseBertMaskedLM(left_tokenizer)(features)
    for row in range(6):
        length = int(right["attention_mask"][row].sum())
        for name in ("input_ids", "pinyin_ids", "labels"):
            assert torch.equal(right[name][row, :length], left[name][row, -length:])


def test_epochs_and_seeds_differ_and_content_stands_in_for_a_seed(tokenizer):
    feature = {key: value for key, value in examples(tokenizer, 1)[0].items() if key != "mask_seed"}
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, mlm_probability=0.5)
    first, again = collator([feature]), collator([feature])
    assert torch.equal(first["input_ids"], again["input_ids"])
    collator.set_epoch(1)
    assert not torch.equal(first["input_ids"], collator([feature])["input_ids"])
    other = DataCollatorForChineseBertMaskedLM(tokenizer, mlm_probability=0.5, seed=1)
    assert not torch.equal(first["input_ids"], other([feature])["input_ids"])


def test_plain_bert_without_pinyin(tmp_path):
    from transformers import BertTokenizer

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"我喜欢猫狗"]
    tokenizer = BertTokenizer(vocab={token: number for number, token in enumerate(vocabulary)})
    batch = DataCollatorForChineseBertMaskedLM(tokenizer)([dict(tokenizer("我喜欢猫")), dict(tokenizer("我喜欢狗狗"))])
    assert "pinyin_ids" not in batch
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 7)
    assert ((batch["labels"] != IGNORED).sum(1) > 0).all()


def test_jieba_words_are_masked_whole(tokenizer):
    pytest.importorskip("jieba")
    options = {"segmenter": "jieba", "whole_word_share": 1.0, "mlm_probability": 0.3}
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, **options)
    features = [{**dict(tokenizer("我喜欢北京大学老师")), "mask_seed": seed} for seed in range(50)]
    hidden = collator(features)["labels"] != IGNORED  # [CLS] 我 喜欢 北京大学 老师 [SEP]
    assert torch.equal(hidden[:, 2], hidden[:, 3])
    assert torch.equal(hidden[:, 4], hidden[:, 7])
    assert torch.equal(hidden[:, 8], hidden[:, 9])
    assert not torch.equal(hidden[:, 3], hidden[:, 4])


@pytest.mark.parametrize(
    "options",
    [{"mlm_probability": 0.0}, {"whole_word_share": 1.5}, {"mask_share": 0.8, "random_share": 0.3}],
)
def test_options_out_of_range(tokenizer, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DataCollatorForChineseBertMaskedLM(tokenizer, **options)


def test_word_ids_of_another_length(tokenizer):
    with pytest.raises(ValueError, match="2 entries for 3 tokens"):
        DataCollatorForChineseBertMaskedLM(tokenizer)([{"input_ids": [2, 30, 3], "word_ids": [0, 1]}])
