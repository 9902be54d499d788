"""Refinement: planted noise words go, planted label words stay."""

from typing import Any

import numpy as np
import pytest
import torch

from hf_nlpnotes.prompting import Verbalizer
from hf_nlpnotes.prompting.refinement import (
    learn_word_weights,
    refine_by_frequency,
    refine_by_relevance,
    refine_label_words,
)

TEMPLATE = "下面一则{label}新闻。{text}"
# Planted words of the label, one of the other label's, two that the model expects of no text, one it cannot spell.
NOISY = {
    "体育": ["赛", "球队", "日本", "股票", "电影", "天", "鑫"],
    "财经": ["涨", "业绩", "股票", "日本", "北京", "猫"],
}
RIGHT = {"体育": {"赛", "球队", "日本"}, "财经": {"涨", "业绩", "股票"}}


def test_planted_noise_is_dropped(planted_model: Any, bert_tokenizer: Any, planted_examples: Any) -> None:
    texts, _ = planted_examples
    found = refine_label_words(planted_model, bert_tokenizer, TEMPLATE, texts, NOISY, rarest_share=0.0)
    assert {
        label: set(own) for label, own in zip(found.verbalizer.labels, found.verbalizer.words, strict=True)
    } == RIGHT
    for label, own in NOISY.items():
        assert set(found.dropped[label]) == set(own) - RIGHT[label]
    assert "cannot spell" in found.dropped["体育"]["鑫"]
    assert "with '财经'" in found.dropped["体育"]["股票"]
    again = refine_label_words(planted_model, bert_tokenizer, TEMPLATE, texts, NOISY, rarest_share=0.0)
    assert again == found


def test_other_anchors_decide_otherwise(planted_model: Any, bert_tokenizer: Any, planted_examples: Any) -> None:
    anchors = {"体育": ["涨", "业绩"], "财经": "球队"}
    found = refine_label_words(
        planted_model, bert_tokenizer, TEMPLATE, planted_examples[0], NOISY, anchors, rarest_share=0.0
    )
    assert found.verbalizer.words == (("股票",), ("日本",))


def test_rare_words_are_dropped_and_anchors_never() -> None:
    words = ["a", "b", "c", "d"]
    log_probs = torch.tensor([[-9.0, -1.0, -5.0, -2.0], [-900.0, -1.0, -1.5, -2.0]])
    verbalizer = Verbalizer.of({"x": {"a": 3.0, "b": 1.0}, "y": ["c", "d"]})
    # mean probability: a e^-9/2, d e^-2, c (e^-5 + e^-1.5)/2 < e^-2, b e^-1
    found = refine_by_frequency(verbalizer, words, log_probs, Verbalizer.of({"x": "b", "y": "d"}), 0.5)
    assert found.verbalizer.words == (("b",), ("d",))
    assert set(found.dropped["x"]) == {"a"}
    assert set(found.dropped["y"]) == {"c"}
    kept = refine_by_frequency(verbalizer, words, log_probs, Verbalizer.of({"x": "a", "y": "d"}), 0.5)
    assert kept.verbalizer.words == (("a", "b"), ("d",))
    assert kept.verbalizer.weights[0] == (0.75, 0.25)
    none = refine_by_frequency(verbalizer, words, log_probs, Verbalizer.of({"x": "b", "y": "d"}), 0.0)
    assert none.verbalizer == verbalizer


def test_relevance_is_a_correlation() -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(200, 5, generator=generator)
    log_probs[:, 1] = 2 * log_probs[:, 0] + 0.5 * log_probs[:, 1]
    log_probs[:, 2] = -log_probs[:, 0] + 0.1 * log_probs[:, 2]
    words = ["x", "like x", "unlike x", "y", "noise"]
    verbalizer = Verbalizer.of({"x": ["x", "like x", "unlike x"], "y": ["y", "noise"]})
    anchors = Verbalizer.of({"x": "x", "y": "y"})
    found = refine_by_relevance(verbalizer, words, log_probs, anchors)
    assert found.verbalizer.words[0] == ("x", "like x")
    centred = (log_probs - log_probs.mean(dim=1, keepdim=True)).double().numpy()
    with_own = np.corrcoef(centred[:, 2], centred[:, 0])[0, 1]
    with_other = np.corrcoef(centred[:, 2], centred[:, 3])[0, 1]
    assert found.dropped["x"]["unlike x"] == f"goes with its label by {with_own:.2f}, with 'y' by {with_other:.2f}"
    strict = refine_by_relevance(verbalizer, words, log_probs, anchors, min_relevance=1.99)
    assert strict.verbalizer.words == (("x",), ("y",)), "anchors stay"


def test_a_word_that_tells_the_labels_apart_gets_the_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = ["x", "y"] * 20
    sign = torch.tensor([1.0, -1.0] * 20)
    scores = torch.randn(40, 6, generator=generator)
    scores[:, 1] += 2 * sign
    scores[:, 4] -= 2 * sign
    scores += torch.tensor([9.0, 0.0, 0.0, -9.0, 0.0, 0.0])  # how frequent a word is must not matter
    names = list("abcdef")
    verbalizer = Verbalizer.of({"x": ["a", "b", "c"], "y": ["d", "e", "f"]})
    found = learn_word_weights(verbalizer, names, scores, labels, penalty=0.1)
    assert found.words == verbalizer.words
    assert max(found.weights[0]) == found.weights[0][1] > 0.6
    assert max(found.weights[1]) == found.weights[1][1] > 0.6
    assert learn_word_weights(verbalizer, names, scores, labels, penalty=0.1) == found
    assert learn_word_weights(verbalizer, names, scores, labels, drop_below=0.5).words == (("b",), ("e",))
    equal = learn_word_weights(verbalizer, names, scores, labels, penalty=1e9)
    np.testing.assert_allclose(equal.weights, 1 / 3, atol=1e-6)

    def loss(weights: np.ndarray) -> float:
        centred = scores.double().numpy()
        centred = centred - (centred[0::2].mean(axis=0) + centred[1::2].mean(axis=0)) / 2
        free = np.log(weights) - np.log(weights).mean(axis=1, keepdims=True)  # least squares among equal softmaxes
        label_scores = np.stack([centred[:, :3] @ weights[0], centred[:, 3:] @ weights[1]], axis=1)
        right = label_scores[range(40), [0, 1] * 20]
        return float(-(right - np.log(np.exp(label_scores).sum(axis=1))).mean() + 0.05 * (free**2).mean())

    best = np.array(found.weights)
    for step in np.random.default_rng(0).normal(size=(20, 2, 3)) * 0.01:
        other = best * np.exp(step)
        assert loss(other / other.sum(axis=1, keepdims=True)) > loss(best)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": ["足"]}, "there are 1"),
        ({"rarest_share": 1.0}, "rarest_share must be from 0 to below 1, got 1.0"),
        ({"verbalizer": {"体育": ["赛", "涨"]}}, "there is 1"),
        ({"anchors": {"体育": "赛", "科技": "涨"}}, "anchors must have the labels"),
        ({"anchors": {"体育": "鑫", "财经": "涨"}}, "anchor '鑫'"),
    ],
)
def test_errors(planted_model: Any, bert_tokenizer: Any, options: Any, message: str) -> None:
    arguments = {"texts": ["足", "银", "市"], "verbalizer": NOISY, **options}
    with pytest.raises(ValueError, match=message):
        refine_label_words(planted_model, bert_tokenizer, TEMPLATE, **arguments)


def test_errors_of_learning() -> None:
    verbalizer = Verbalizer.of(["x", "y"])
    with pytest.raises(ValueError, match="penalty must be positive, got 0"):
        learn_word_weights(verbalizer, ["x", "y"], torch.zeros(2, 2), ["x", "y"], penalty=0)
    with pytest.raises(ValueError, match="'y' has no example"):
        learn_word_weights(verbalizer, ["x", "y"], torch.zeros(2, 2), ["x", "x"])
