"""Template search: the template that the model understands is found."""

from typing import Any

import numpy as np
import pytest
import torch

from hf_nlpnotes.prompting.template_search import cross_validated, search_templates, stratified_folds

WORDS = {"体育": ["赛", "球队"], "财经": ["涨", "业绩"]}
GOOD, BAD = "下面一则{label}新闻。{text}", "我说{label}：{text}"


@pytest.mark.parametrize("by", ["log_likelihood", "accuracy"])
def test_the_good_template_wins(planted_model: Any, bert_tokenizer: Any, planted_examples: Any, by: str) -> None:
    found = search_templates(planted_model, bert_tokenizer, [BAD, GOOD], *planted_examples, WORDS, by=by)
    assert [score.template for score in found] == [GOOD, BAD]
    assert found[0].accuracy == 1.0
    assert found[1].accuracy <= 0.5
    assert found[1].log_likelihood == pytest.approx(-np.log(2), abs=1e-6), "it says nothing about the label"
    assert found[0].log_likelihood > found[1].log_likelihood + 0.3
    again = search_templates(planted_model, bert_tokenizer, [BAD, GOOD], *planted_examples, WORDS, by=by)
    assert again == found


def test_folds_hold_every_label_evenly() -> None:
    targets = torch.tensor([0] * 9 + [1] * 5 + [2] * 12)
    parts = stratified_folds(targets, 4, seed=1)
    for label in range(3):
        counts = torch.bincount(parts[targets == label], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert torch.equal(parts, stratified_folds(targets, 4, seed=1))
    assert not torch.equal(parts, stratified_folds(targets, 4, seed=2))
    assert stratified_folds(targets, 99).max() == 4, "no more folds than the rarest label has examples"


def test_held_out_scores_are_those_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(11, 3, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 0])
    parts = stratified_folds(targets, 3)
    likelihood, right = np.zeros(11), np.zeros(11)
    for i in range(11):
        rest = [j for j in range(11) if parts[j] != parts[i]]
        means = [scores[[j for j in rest if targets[j] == label]].mean(dim=0) for label in range(3)]
        row = scores[i] - sum(means) / 3
        likelihood[i] = row.log_softmax(dim=0)[targets[i]]
        right[i] = float(row.argmax() == targets[i])
    by_label = [[i for i in range(11) if targets[i] == label] for label in range(3)]
    found = cross_validated("t", scores, targets, parts)
    assert found.log_likelihood == pytest.approx(np.mean([likelihood[own].mean() for own in by_label]))
    assert found.accuracy == pytest.approx(np.mean([right[own].mean() for own in by_label]))
    assert found.standard_error > 0
    shifted = cross_validated("t", scores + torch.tensor([5.0, -3.0, 0.0]), targets, parts)
    assert shifted.log_likelihood == pytest.approx(found.log_likelihood), "calibration takes out what a label has"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": []}, "one or more different templates"),
        ({"templates": [GOOD, GOOD]}, "different templates"),
        ({"templates": ["{text}"]}, "No '{label}'"),
        ({"labels": ["体育"]}, "1 labels for 4 texts"),
        ({"labels": ["体育", "财经", "体育", "体育"]}, "a label with 1"),
        ({"folds": 1}, "folds=1"),
        ({"by": "f1"}, "got 'f1'"),
    ],
)
def test_errors(planted_model: Any, bert_tokenizer: Any, options: Any, message: str) -> None:
    arguments = {
        "templates": [GOOD, BAD],
        "texts": ["足", "银", "足", "银"],
        "labels": ["体育", "财经", "体育", "财经"],
        "verbalizer": WORDS,
        **options,
    }
    with pytest.raises(ValueError, match=message):
        search_templates(planted_model, bert_tokenizer, **arguments)
