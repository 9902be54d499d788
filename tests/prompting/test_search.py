"""Search for label words: planted words are found; the papers' formulas and full enumeration are the oracles."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from hf_nlpnotes.prompting.expansion import vocabulary_words
from hf_nlpnotes.prompting.search import (
    best_assignments,
    choose_words,
    label_word_scores,
    search_assignments,
    search_label_words,
)

TEMPLATE = "下面一则{label}新闻。{text}"
PLANTED = {"体育": ["赛", "球队", "日本"], "财经": ["涨", "业绩", "股票"]}
DISTRACTORS = ["的", "电影", "北京", "天气", "学生", "服务", "手机", "问题", "老师", "行长"]


def candidates(tokenizer: Any) -> list[str]:
    """Planted words, all of the vocabulary, and two-character words, the planted ones last."""
    first = {word[0] for words in PLANTED.values() for word in words if len(word) > 1}
    single = [word for word in vocabulary_words(tokenizer) if word not in first]
    return [*DISTRACTORS, *single, *(word for words in PLANTED.values() for word in words)]


def random_problem(labels: int, words: int = 6, examples: int = 15) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(labels)
    log_probs = torch.randn(examples, words, generator=generator).mul(2).sub(3).clamp(max=-0.01)
    return log_probs, torch.arange(examples) % labels


def official_scores(probabilities: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Likelihood ratio and cross-entropy as petal.py of the authors computes them, normalised."""
    scale = sum(1 - expected) / sum(expected)
    log_p, log_not = np.log(probabilities), np.log(1 - probabilities)
    ratio = scale * ((log_p - log_not) @ expected) + (log_not - log_p) @ (1 - expected)
    return float(ratio), float(scale * (log_p @ expected) + log_not @ (1 - expected))


@pytest.mark.parametrize("labels", [2, 3])
def test_scores_are_petals(labels: int) -> None:
    log_probs, targets = random_problem(labels)
    ratio = label_word_scores(log_probs, targets, labels)
    entropy = label_word_scores(log_probs, targets, labels, "cross-entropy")
    likelihood = label_word_scores(log_probs, targets, labels, "likelihood")
    for word, label in itertools.product(range(log_probs.shape[1]), range(labels)):
        expected = (targets == label).double().numpy()
        official = official_scores(log_probs[:, word].double().exp().numpy(), expected)
        others = (1 - expected).sum()  # theirs are sums over the other examples, ours means
        assert float(ratio[word, label]) * others == pytest.approx(official[0])
        assert float(entropy[word, label]) * others == pytest.approx(official[1])
        assert float(likelihood[word, label]) == pytest.approx(float(log_probs[targets == label, word].mean()))


def test_a_certain_word_has_finite_scores() -> None:
    log_probs = torch.tensor([[0.0, -1e-30], [-200.0, 0.0]])
    assert label_word_scores(log_probs, torch.tensor([0, 1]), 2).isfinite().all()


@pytest.mark.parametrize("criterion", ["likelihood-ratio", "cross-entropy"])
def test_planted_words_are_found(
    planted_model: Any, bert_tokenizer: Any, planted_examples: Any, criterion: str
) -> None:
    texts, labels = planted_examples
    found = search_label_words(
        planted_model, bert_tokenizer, TEMPLATE, texts, labels, candidates(bert_tokenizer), 3, criterion
    )
    assert found.labels == ("体育", "财经")
    if criterion == "likelihood-ratio":
        assert [set(words) for words in found.words] == [set(words) for words in PLANTED.values()]
    else:  # which prefers what is likely anyway
        assert "的" in {*found.words[0], *found.words[1]}
    again = search_label_words(
        planted_model, bert_tokenizer, TEMPLATE, texts, labels, candidates(bert_tokenizer), 3, criterion
    )
    assert again == found


def test_words_that_stay(planted_model: Any, bert_tokenizer: Any, planted_examples: Any) -> None:
    keep = {"财经": ["财经", "赛"], "体育": "体育"}
    found = search_label_words(
        planted_model, bert_tokenizer, TEMPLATE, *planted_examples, candidates(bert_tokenizer), 3, keep=keep
    )
    assert found.labels == ("财经", "体育")
    assert found.words[0][:2] == ("财经", "赛")
    assert set(found.words[1]) == {"体育", "球队", "日本"}, "赛 is taken"


def test_planted_assignment_is_found(planted_model: Any, bert_tokenizer: Any, planted_examples: Any) -> None:
    words = candidates(bert_tokenizer)
    best = search_assignments(planted_model, bert_tokenizer, TEMPLATE, *planted_examples, words, 8, 3)
    assert len(best) == 3
    assert best[0].accuracy == 1.0
    assert best[0].words["体育"] in PLANTED["体育"]
    assert best[0].words["财经"] in PLANTED["财经"]
    assert best[0].verbalizer.words == tuple((word,) for word in best[0].words.values())
    assert [(a.accuracy, a.log_likelihood) for a in best] == sorted(
        ((a.accuracy, a.log_likelihood) for a in best), reverse=True
    )


@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("labels", [2, 3])
def test_best_assignments_are_those_of_enumeration(labels: int, calibrated: bool) -> None:
    log_probs, targets = random_problem(labels)
    scores = log_probs.double().numpy()
    if calibrated:
        scores = scores - np.mean([scores[targets == label].mean(axis=0) for label in range(labels)], axis=0)
    expected = []
    for words in itertools.permutations(range(scores.shape[1]), labels):
        chosen = scores[:, words]
        right = chosen[range(len(chosen)), targets]
        likelihood = (right - np.log(np.exp(chosen).sum(axis=1))).mean()
        expected.append(((chosen.argmax(axis=1) == targets.numpy()).mean(), likelihood, words))
    expected.sort(key=lambda item: (-item[0], -item[1]))
    found = best_assignments(log_probs, targets, labels, shortlist=6, top=5, calibrated=calibrated)
    for (words, accuracy, likelihood), other in zip(found, expected, strict=False):
        assert words == other[2]
        assert accuracy == pytest.approx(other[0])
        assert likelihood == pytest.approx(other[1])


def test_many_labels_are_searched_without_enumeration() -> None:
    """Eight labels, 20 words each: the diagonal is planted."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(64) % 8
    log_probs = -6 + torch.randn(64, 40, generator=generator)
    log_probs[torch.arange(64), 2 * targets] += 2.5
    words, accuracy, _ = best_assignments(log_probs, targets, 8, shortlist=20, top=1)[0]
    assert words == tuple(range(0, 16, 2))
    assert accuracy > 0.6


def test_a_word_serves_the_label_that_it_suits_best() -> None:
    scores = torch.tensor([[1.0, 2.0], [1.0, 1.0], [0.5, 0.1], [-1.0, -2.0], [0.2, 0.9]])
    names = ["a", "b", "c", "d", "e"]
    found = choose_words(scores, names, ["x", "y"], 2)
    assert found.words == (("b", "c"), ("a", "e"))
    assert choose_words(scores, names, ["x", "y"], 9, floor=0.0).words == (("b", "c"), ("a", "e"))
    assert choose_words(scores, names, ["x", "y"], 3, kept={"y": ["c"]}).words == (("b", "d"), ("c", "a", "e"))
    with pytest.raises(ValueError, match="speaks for the label 'y'"):
        choose_words(scores[2:4], ["c", "d"], ["x", "y"], 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["体育"]}, "1 labels for 3 texts"),
        ({"labels": ["体育"] * 3}, "two labels or more"),
        ({"candidates": ["鑫"]}, "None of the 1 candidate words"),
        ({"words_per_label": 0}, "words_per_label must be 1 or more, got 0"),
        ({"criterion": "best"}, "likelihood-ratio, cross-entropy, likelihood, got 'best'"),
        ({"keep": {"体育": "体育", "科技": "科技"}}, "label '财经' of an example is none of"),
    ],
)
def test_errors(planted_model: Any, bert_tokenizer: Any, options: Any, message: str) -> None:
    arguments = {
        "texts": ["足", "银", "足"],
        "labels": ["体育", "财经", "体育"],
        "candidates": ["赛", "涨"],
        **options,
    }
    with pytest.raises(ValueError, match=message):
        search_label_words(planted_model, bert_tokenizer, TEMPLATE, **arguments)


def test_errors_of_assignments(planted_model: Any, bert_tokenizer: Any) -> None:
    examples = (["足", "银"], ["体育", "财经"])
    with pytest.raises(ValueError, match="fewer than 2 different candidates"):
        search_assignments(planted_model, bert_tokenizer, TEMPLATE, *examples, ["赛"])
    with pytest.raises(ValueError, match="shortlist and top"):
        search_assignments(planted_model, bert_tokenizer, TEMPLATE, *examples, ["赛", "涨"], shortlist=0)
