"""The fields of the form become the pipeline's options, and its scores come back."""

from typing import Any

import pytest

from hf_nlpnotes.app import classify_text, parse_label_words, parse_labels


@pytest.mark.parametrize(
    "text", ["体育,财经,科技", "体育，财经，科技", " 体育 、财经;科技,,", "体育\n财经\n科技\n", "体育； 财经,科技"]
)
def test_labels_are_separated_as_people_do(text: str) -> None:
    assert parse_labels(text) == ["体育", "财经", "科技"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no labels"),
        (None, "no labels"),
        (" ，, ", "no labels"),
        ("体育,财经,体育", "体育 stands twice"),
        (",".join(map(str, range(51))), "51 labels"),
        ("体" * 21, "too long"),
        ("体," * 600, "1,200 characters"),
    ],
)
def test_labels_that_are_none(text: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_labels(text)


def test_words_of_labels() -> None:
    lines = "体育: 足球 篮球，比赛\n\n财经：银行、股票"
    words = parse_label_words(lines, ["体育", "财经", "科技"])
    assert words == {"体育": ["足球", "篮球", "比赛"], "财经": ["银行", "股票"], "科技": ["科技"]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "label words is empty"),
        ("体育 足球", "no words for a label"),
        ("体育:", "no words for a label"),
        ("教育: 学校", "is of no label: expected one of 体育, 财经"),
        ("体育: 足球\n体育: 篮球", "has two lines"),
        ("体育: 足球 足球", "足球 stands twice"),
        ("体育: " + " ".join(map(str, range(21))), "21 words"),
    ],
)
def test_words_that_are_none(lines: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_label_words(lines, ["体育", "财经"])


TEXT, LABELS = "国足今晚出战", ["体育", "财经", "科技"]


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"verbalizer": "ready"}),
        ({"words": "names"}, {}),
        ({"words": "names", "calibration": "domain"}, {"calibration": "domain"}),
        ({"words": "names", "template": "{text}，{label}"}, {"template": "{text}，{label}"}),
        (
            {"words": "own", "own_words": "体育：足 篮"},
            {"verbalizer": {"体育": ["足", "篮"], "财经": "财经", "科技": "科技"}},
        ),
        ({"words": "names", "own_words": "ignored"}, {}),
    ],
)
def test_the_scores_are_the_pipelines(classifier: Any, fields: dict[str, str], options: dict[str, Any]) -> None:
    found = classify_text(classifier, TEXT, "体育，财经，科技", **fields)
    expected = classifier(TEXT, candidate_labels=LABELS, **options)
    assert list(found) == expected["labels"]
    assert list(found.values()) == pytest.approx(expected["scores"])
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": " \n"}, "text is empty"),
        ({"text": "我" * 2001}, "2,001 characters, and this page takes up to 2,000"),
        ({"words": "all"}, "expected one of ready, names, own"),
        ({"calibration": "batch"}, "expected one of contextual, domain, none"),
        ({"template": "{label}"}, r"no \{text\}"),
        ({"template": "{text}"}, "label"),
        ({"template": "{text}{label}{"}, "template"),
        ({"template": "{text}{label}" + "。" * 300}, "313 characters"),
    ],
)
def test_what_is_refused(classifier: Any, fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classify_text(classifier, **{"text": TEXT, "labels": "体育,财经"} | fields)
