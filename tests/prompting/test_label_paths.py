"""Label paths: probabilities by hand, and by enumeration of random trees."""

import itertools

import pytest
import torch

from hf_nlpnotes.prompting.label_paths import LabelPaths
from hf_nlpnotes.prompting.verbalizer import Verbalizer

LABELS = ["体育/足球", "体育/篮球", "财经", "教育/学校/老师", "教育/学校/学生", "教育/考试"]


def test_labels_without_levels_are_a_plain_softmax() -> None:
    labels = ["a/b", "a", "b"]
    scores = torch.randn(4, 3, dtype=torch.float64)
    paths = LabelPaths.of(labels)
    assert paths.nodes == tuple(labels)
    assert torch.equal(paths.log_probabilities(scores), scores.log_softmax(dim=1))
    assert torch.allclose(paths.log_sigmoids(scores), scores.sigmoid().log())


def test_probabilities_are_products_over_levels() -> None:
    paths = LabelPaths.of(LABELS, "/")
    scores = torch.randn(3, len(paths.nodes), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = paths.log_probabilities(scores).exp()
    assert torch.allclose(found.sum(dim=1), torch.ones(3, dtype=torch.float64))
    for row, own in zip(scores.tolist(), found.tolist(), strict=True):
        value = dict(zip(paths.nodes, torch.tensor(row).double().exp().tolist(), strict=True))
        for label, probability in zip(LABELS, own, strict=True):
            expected = 1.0
            names = label.split("/")
            for depth in range(len(names)):
                parent = names[:depth]
                siblings = {
                    "/".join(other.split("/")[: depth + 1])
                    for other in LABELS
                    if other.split("/")[:depth] == parent and len(other.split("/")) > depth
                }
                expected *= value["/".join(names[: depth + 1])] / sum(value[sibling] for sibling in siblings)
            assert probability == pytest.approx(expected, rel=1e-5)


def test_the_order_of_the_labels_does_not_matter() -> None:
    reference = LabelPaths.of(LABELS, "/")
    scores = torch.randn(1, len(reference.nodes), dtype=torch.float64)
    values = dict(zip(reference.nodes, scores[0], strict=True))
    expected = dict(zip(LABELS, reference.log_probabilities(scores)[0].tolist(), strict=True))
    for order in itertools.islice(itertools.permutations(LABELS), 0, 720, 97):
        paths = LabelPaths.of(order, "/")
        found = paths.log_probabilities(torch.stack([values[node] for node in paths.nodes])[None])[0]
        assert dict(zip(order, found.tolist(), strict=True)) == pytest.approx(expected)


def test_words_of_a_path_go_before_words_of_its_name() -> None:
    words = Verbalizer.of({"足球": ["球", "足"], "体育/篮球": "篮", "教育": {"学": 2, "校": 1}})
    found = LabelPaths.of(LABELS, "/").words(words, "/")
    table = dict(zip(found.labels, found.words, strict=True))
    assert table["体育/足球"] == ("球", "足")
    assert table["体育/篮球"] == ("篮",)
    assert table["教育/考试"] == ("考试",)
    assert table["教育"] == ("学", "校")
    assert found.weights[found.labels.index("教育")] == pytest.approx((2 / 3, 1 / 3))


@pytest.mark.parametrize(
    ("labels", "what"),
    [
        (["体育", "体育/足球"], "'体育' is the beginning of '体育/足球'"),
        (["a/b/c", "a/b"], "'a/b' is the beginning of 'a/b/c'"),
        (["a", "a/b/c", "d"], "'a' is the beginning of 'a/b/c'"),
        (["a/"], "'a/' has a level without a name"),
        (["a// b"], "a level without a name"),
    ],
)
def test_paths_that_are_none(labels: list[str], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        LabelPaths.of(labels, "/")
