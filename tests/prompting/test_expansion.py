"""Expansion without a word list: planted neighbours and planted companions of the seeds are found."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from hf_nlpnotes.prompting import Verbalizer
from hf_nlpnotes.prompting.expansion import candidate_words, expand_from_texts, expand_from_vectors, vocabulary_words
from hf_nlpnotes.prompting.static_prior import StaticVectors

SEEDS = {"体育": "球队", "财经": "银行"}


@pytest.fixture(scope="module")
def vectors(bert_tokenizer: Any) -> StaticVectors:
    """足篮赛国 lie where 球队 does, 股票市价 where 银行 does, 电影 between both."""
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(bert_tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    model = BertForMaskedLM(config)
    with torch.no_grad():
        table = model.get_input_embeddings().weight.normal_()
        directions = torch.nn.functional.normalize(torch.randn(2, 32), dim=1) * 12
        for group, direction in [("球队足篮赛国", directions[0]), ("银行股票市价", directions[1])]:
            table[bert_tokenizer.convert_tokens_to_ids(list(group))] += direction
        table[bert_tokenizer.convert_tokens_to_ids(list("电影"))] += directions.sum(dim=0)
    return StaticVectors.of(model, bert_tokenizer, torch.ones(len(bert_tokenizer)))


def test_neighbours_of_the_seeds_are_found(vectors: StaticVectors) -> None:
    candidates = ["电影", "天气", "足球", "国足", "股票", "老师", "篮赛", "市价", "鑫", "银行"]
    found = expand_from_vectors(vectors, SEEDS, candidates, words_per_label=3)
    assert found.labels == ("体育", "财经")
    assert found.words[0][0] == "球队"
    assert set(found.words[0]) == {"球队", "国足", "篮赛"}, "足球 shares a token"
    assert set(found.words[1]) == {"银行", "股票", "市价"}
    assert expand_from_vectors(vectors, SEEDS, candidates, words_per_label=3) == found
    with_shared = expand_from_vectors(vectors, SEEDS, candidates, words_per_label=4, shared_tokens=True)
    assert set(with_shared.words[0]) == {"球队", "国足", "篮赛", "足球"}


def test_a_margin_keeps_what_is_between_out(vectors: StaticVectors) -> None:
    words = expand_from_vectors(vectors, SEEDS, ["电影", "国足"], 8, min_margin=0.3).words
    assert words == (("球队", "国足"), ("银行",))
    assert expand_from_vectors(vectors, SEEDS, ["鑫"], 8) == Verbalizer.of(SEEDS), "nothing to choose from"


def test_companions_of_the_seeds_are_found(vectors: StaticVectors) -> None:
    """北京 comes with sport, 手机 with money, 今天 with both; their vectors say nothing."""
    texts = [f"{cue} 今天 北京 {filler}" for cue in ("球队", "足球") for filler in ("很好", "老师", "吃饭", "学生")]
    texts += [f"{cue} 今天 手机 {filler}" for cue in ("股票", "银行") for filler in ("很好", "老师", "吃饭", "学生")]
    words = candidate_words(texts, str.split, min_texts=3, max_share=0.6)
    found = expand_from_texts(texts, SEEDS, vectors, words, words_per_label=2)
    assert found.words == (("球队", "北京"), ("银行", "手机"))
    assert expand_from_texts(texts, SEEDS, vectors, words, words_per_label=2, rounds=3) == found
    assert expand_from_texts(texts, SEEDS, vectors, {}, words_per_label=2) == Verbalizer.of(SEEDS)

    def turned(batch: Any, verbalizer: Verbalizer) -> torch.Tensor:
        assert list(batch) == texts
        sport = torch.tensor([float("北京" in text) for text in batch])
        return torch.stack([-sport, sport], dim=1)

    other = expand_from_texts(texts, SEEDS, vectors, words, words_per_label=2, classify=turned)
    assert other.words == (("球队", "手机"), ("银行", "北京"))


def test_words_are_ranked_by_the_formula(vectors: StaticVectors) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    words = ["北京", "手机", "老师", "学生", "天气", "电影", "今天", "晚上", "题目", "服务"]
    places = {word: torch.randperm(30, generator=generator)[: 2 + i].tolist() for i, word in enumerate(words)}
    texts = [str(i) for i in range(30)]
    found = expand_from_texts(texts, SEEDS, vectors, places, words_per_label=99, classify=lambda *_: scores)
    centred = scores - scores.mean(dim=0)
    posterior = (2 * centred / centred.std()).softmax(dim=1)
    for label, own in enumerate(found.words):
        prior = float(posterior[:, label].mean())
        worth = {}
        for word, rows in places.items():
            share = (sum(float(posterior[row, label]) for row in rows) + 5 * prior) / (len(rows) + 5)
            worth[word] = math.sqrt(len(rows)) * math.log(share / prior)
        # With two labels a word that is more of one than usual is less of the other.
        assert list(own[1:]) == sorted((w for w in worth if worth[w] > 0), key=lambda w: -worth[w])


def test_candidates_are_words_neither_rare_nor_everywhere() -> None:
    texts = ["the cat sat", "the dog sat !!", "the cat 2024", "a cat cat", "dog the a"]
    assert candidate_words(texts, str.split, min_texts=2, max_share=0.6) == {
        "cat": (0, 2, 3),
        "dog": (1, 4),
        "sat": (0, 1),
    }
    assert list(candidate_words(texts, str.split, min_texts=2, max_share=1.0)) == ["the", "cat", "dog", "sat"]
    assert candidate_words([], str.split) == {}


def test_words_of_chinese_texts() -> None:
    pytest.importorskip("jieba")
    assert "股票" in candidate_words(["股票大涨", "买股票", "天气"], min_texts=2, max_share=1.0)


def test_without_jieba_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(ImportError, match="pass segment="):
        candidate_words(["股票"])


def test_words_of_a_wordpiece_vocabulary(bert_tokenizer: Any) -> None:
    words = vocabulary_words(bert_tokenizer)
    assert {"体", "的"} <= set(words)
    assert not {"[MASK]", "##a", "a", "1", "，", "["} & set(words)


def test_words_of_a_byte_level_vocabulary(tmp_path: Path) -> None:
    trainer = trainers.BpeTrainer(  # type: ignore[call-arg]
        vocab_size=400,
        special_tokens=["<s>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(["great movie, terrible acting", "体育 新闻"] * 9, trainer)
    words = vocabulary_words(PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", mask_token="<mask>"))
    assert {"great", "movie", "terrible", "acting", "体育"} <= set(words)
    assert not {"<mask>", "g", ",", "ible"} & set(words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words_per_label": 0}, "words_per_label"),
        ({"rounds": 0}, "rounds"),
        ({"texts": ["一"]}, "1 texts"),
        ({"sharpness": 0}, "sharpness > 0"),
    ],
)
def test_errors(vectors: StaticVectors, options: Any, message: str) -> None:
    arguments = {"texts": ["足", "银"], "seeds": SEEDS, "vectors": vectors, "candidates": {"天气": (0, 1)}, **options}
    with pytest.raises(ValueError, match=message):
        expand_from_texts(**arguments)


def test_errors_of_the_others(vectors: StaticVectors) -> None:
    with pytest.raises(ValueError, match="words_per_label must be 1 or more, got 0"):
        expand_from_vectors(vectors, SEEDS, ["足球"], words_per_label=0)
    with pytest.raises(ValueError, match="cannot spell the label word '鑫'"):
        expand_from_vectors(vectors, {"体育": "鑫"}, ["足球"])
    with pytest.raises(ValueError, match="min_texts"):
        candidate_words(["a"], str.split, min_texts=0)
    with pytest.raises(ValueError, match="max_share"):
        candidate_words(["a"], str.split, max_share=1.5)
