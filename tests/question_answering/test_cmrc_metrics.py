"""The scores of CMRC 2018 against brute force, and the forms in which data come."""

import itertools
import random

import pytest

from hf_nlpnotes.question_answering.cmrc_metrics import (
    _longest_common_run,
    bare_text,
    cmrc2018,
    cmrc2018_scores,
    drcd,
    mixed_words,
)


def longest_by_table(one, other):
    """The textbook's dynamic program: length of the common run that ends at (i, j)."""
    ending = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, j in itertools.product(range(len(one)), range(len(other))):
        ending[i + 1][j + 1] = ending[i][j] + 1 if one[i] == other[j] else 0
    return max(map(max, ending))


@pytest.mark.parametrize("words", [list("北京上"), ["北", "ab", "a", "b"]], ids=["characters", "words"])
def test_the_longest_common_run_is_that_of_the_table(words):
    rng = random.Random(0)
    for _ in range(300):
        one, other = (rng.choices(words, k=rng.randrange(9)) for _ in range(2))
        assert _longest_common_run(one, other) == longest_by_table(one, other)
        if all(len(word) == 1 for word in words):
            assert _longest_common_run("".join(one), "".join(other)) == longest_by_table(one, other)


def test_words_of_several_letters_are_not_cut():
    assert _longest_common_run(["ab", "c"], ["a", "bc"]) == 0
    assert cmrc2018_scores(["1998"], "998") == (0.0, 0)


@pytest.mark.parametrize(("gold", "predicted"), [("北京2008年", "北京"), ("北京", "北京2008年")])
def test_a_text_of_han_characters_alone_against_one_with_words(gold, predicted):
    """Four words and two, which are a run in both: 北 京 2008 年."""
    assert cmrc2018_scores([gold], predicted) == (pytest.approx(2 * 1 * (2 / 4) / (1 + 2 / 4)), 0)


def test_marks_and_case_do_not_count():
    assert bare_text(" 《Red Alert》：完结！ ") == "red alert完结"
    assert list(mixed_words("A.B.公司3,000元")) == ["a.b", ".", "公", "司", "3,000", "元"]
    assert cmrc2018_scores(["《红楼梦》"], "红楼梦。") == (1.0, 1)


def test_the_best_answer_counts():
    assert cmrc2018_scores(["上海", "北京", "北京市"], "北京") == (1.0, 1)
    f1, em = cmrc2018_scores(["北京市", "上海"], "北京")
    assert (f1, em) == (pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3)), 0)


NESTED = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "…",
                    "qas": [
                        {"id": "1", "answers": [{"text": "北京", "answer_start": 0}]},
                        {"id": "2", "answers": [{"text": "上海", "answer_start": -1}]},
                    ],
                }
            ]
        }
    ]
}
REFERENCES = [
    NESTED,
    NESTED["data"],
    [{"context_id": "c", "qas": [{"query_id": "1", "answers": ["北京"]}, {"query_id": "2", "answers": ["上海"]}]}],
    [{"id": "1", "answers": {"text": ["北京"], "answer_start": [0]}}, {"id": "2", "answers": ["上海"]}],
    {"1": ["北京"], "2": ["上海"]},
]
PREDICTIONS = [
    {"1": "北京", "2": "广州", "other": "x"},
    [{"id": "1", "prediction_text": "北京"}, {"id": "2", "prediction_text": "广州"}],
]


@pytest.mark.parametrize("references", REFERENCES, ids=["squad", "articles", "cmrc", "rows", "dict"])
@pytest.mark.parametrize("predictions", PREDICTIONS, ids=["dict", "rows"])
def test_every_form_of_the_data_gives_the_same(predictions, references):
    expected = {"f1": 50.0, "em": 50.0, "average": 50.0, "total": 2, "skip": 0}
    assert cmrc2018(predictions, references) == drcd(predictions, references) == expected


def test_a_missing_prediction_is_wrong_and_counted():
    scores = cmrc2018({"1": "北京"}, NESTED, per_question=True)
    assert (scores["em"], scores["total"], scores["skip"]) == (50.0, 2, 1)
    assert scores["per_question"] == {"1": (1.0, 1)}


@pytest.mark.parametrize(
    ("predictions", "references", "error", "message"),
    [
        ({"9": "x"}, NESTED, ValueError, r"no prediction is of any of the 2 questions.*'9'.*'1'"),
        ({}, NESTED, ValueError, "no prediction"),
        ("x", NESTED, TypeError, "predictions are a dict"),
        ({"1": None}, NESTED, TypeError, r"question '1' is a text, '' for no answer; got None"),
        ([{"id": "1"}], NESTED, ValueError, "prediction_text"),
        ([{"id": "1", "prediction_text": t} for t in "ab"], NESTED, ValueError, "two predictions: 'a' and 'b'"),
        ({"1": "x"}, [], ValueError, "no references"),
        ({"1": "x"}, "text", TypeError, "references are a data set"),
        ({"1": "x"}, [1], ValueError, "references are a data set.*got 1"),
        ({"1": "x"}, [{"id": "1"}], ValueError, r"a question has \['id'\]"),
        ({"1": "x"}, {"1": "x"}, TypeError, "a list of texts, got 'x'"),
        ({"1": "x"}, {"1": [None]}, TypeError, r"are texts, got \[None\]"),
        ({"1": "x"}, {"1": []}, ValueError, "no questions without an answer"),
    ],
)
def test_bad_input_says_what_is_wrong(predictions, references, error, message):
    with pytest.raises(error, match=message):
        cmrc2018(predictions, references)
