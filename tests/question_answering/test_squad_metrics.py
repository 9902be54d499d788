"""SQuAD's scores: what the rules say, and thresholds by trying them all."""

import random

import pytest

from hf_nlpnotes.question_answering.no_answer_thresholds import average_precision, best_threshold
from hf_nlpnotes.question_answering.squad_metrics import (
    normalize_answer,
    squad_v1,
    squad_v1_scores,
    squad_v2,
    squad_v2_scores,
)


def test_articles_are_words_and_not_letters():
    assert normalize_answer("An apple, the theater & a banana") == "apple theater banana"


def test_words_count_as_often_as_they_stand():
    exact, f1 = squad_v1_scores(["x x y"], "x y y")
    assert (exact, f1) == (0, pytest.approx(2 / 3))


def test_two_empty_texts_agree_in_the_second_version_only():
    assert squad_v1_scores(["the"], "a") == (1, 0.0)
    assert squad_v2_scores(["the"], "a") == squad_v2_scores([], "") == (1, 1.0)


def test_an_empty_answer_among_others_does_not_count_in_the_second_version():
    assert squad_v2_scores(["the", "Seine"], "") == (0, 0.0)


def test_a_missing_prediction_is_wrong_in_the_first_version_and_an_error_in_the_second():
    assert squad_v1({"1": "x"}, {"1": ["x"], "2": ["y"]}) == {"exact_match": 50.0, "f1": 50.0}
    with pytest.raises(ValueError, match=r"1 of 2 questions have no prediction; give '' for no answer: \['2'\]"):
        squad_v2({"1": "x"}, {"1": ["x"], "2": []})
    with pytest.raises(ValueError, match="1 of 2 questions have no probability"):
        squad_v2({"1": "x", "2": ""}, {"1": ["x"], "2": []}, {"1": 0.0})
    with pytest.raises(ValueError, match="no questions without an answer"):
        squad_v1({"1": "x"}, {"1": []})


def test_a_threshold_turns_answers_into_none():
    gold = {"1": ["x"], "2": []}
    texts = {"1": "x", "2": "y"}
    assert squad_v2(texts, gold, {"1": 0.4, "2": 0.6}, 0.5)["exact"] == 100.0
    assert squad_v2(texts, gold, {"1": 0.4, "2": 0.6}, 0.4)["HasAns_exact"] == 100.0
    assert squad_v2(texts, gold, {"1": 0.4, "2": 0.6}, 0.3)["HasAns_exact"] == 0.0
    assert squad_v2(texts, gold)["exact"] == 50.0
    assert squad_v2(texts, gold, {"1": 1.0, "2": 1.1})["exact"] == 100.0, "more than 1.0 is no answer by default"


def test_means_of_the_second_version():
    scores = squad_v2({"1": "x y", "2": "z", "3": ""}, {"1": ["x"], "2": ["z"], "3": []})
    overall = {"exact": 200 / 3, "f1": 100 * (2 / 3 + 1 + 1) / 3, "total": 3}
    answerable = {"HasAns_exact": 50.0, "HasAns_f1": 100 * (2 / 3 + 1) / 2, "HasAns_total": 2}
    others = {"NoAns_exact": 100.0, "NoAns_f1": 100.0, "NoAns_total": 1}
    assert scores == pytest.approx({**overall, **answerable, **others})


@pytest.mark.parametrize("probabilities", [[], [0.9]])
def test_probabilities_of_some_predictions_are_those_of_none(probabilities):
    rows = [{"id": name, "prediction_text": name} for name in "ab"]
    for row, probability in zip(rows, probabilities, strict=False):
        row["no_answer_probability"] = probability
    gold = {"a": ["a"], "b": []}
    assert squad_v2(rows, gold, threshold=0.5) == squad_v2({"a": "a", "b": "b"}, gold)


def test_probabilities_come_along_with_a_list_of_predictions():
    rows = [
        {"id": "1", "prediction_text": "x", "no_answer_probability": 0.4},
        {"id": "2", "prediction_text": "y", "no_answer_probability": 0.6},
    ]
    gold = {"1": ["x"], "2": []}
    expected = squad_v2({"1": "x", "2": "y"}, gold, {"1": 0.4, "2": 0.6}, 0.5)
    assert squad_v2(rows, gold, threshold=0.5) == squad_v2(iter(rows), gold, threshold=0.5) == expected


def test_where_no_question_has_an_answer_there_is_no_curve():
    scores = squad_v2({"1": ""}, {"1": []}, {"1": 0.5})
    assert scores["exact"] == scores["NoAns_exact"] == 100.0
    assert "HasAns_exact" not in scores
    assert "pr_f1_ap" not in scores


def drawn(seed):
    """Scores, probabilities, texts and answerability of twelve questions."""
    rng = random.Random(seed)
    keys = range(12)
    answerable = {key: rng.random() < 0.6 for key in keys}
    texts = {key: rng.choice(["", "x"]) for key in keys}
    scores = {
        key: float(rng.choice([0, 0.5, 1])) if answerable[key] and texts[key] else float(texts[key] == "")
        for key in keys
    }
    scores = {key: score if not (answerable[key] and not texts[key]) else 0.0 for key, score in scores.items()}
    return scores, {key: rng.randrange(1, 8) / 10 for key in keys}, texts, answerable


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_is_better_than_the_best(seed):
    scores, probabilities, texts, answerable = drawn(seed)

    best, threshold = best_threshold(scores, probabilities, texts, answerable)
    # Questions of equal probability are let in one by one, so that the figure may be one that no threshold reaches.
    tried = max(mean_of(scores, probabilities, answerable, t) for t in [0, *probabilities.values()])
    assert best >= tried - 1e-9
    distinct = {key: value + key / 1000 for key, value in probabilities.items()}
    best, threshold = best_threshold(scores, distinct, texts, answerable)
    assert best == pytest.approx(max(mean_of(scores, distinct, answerable, t) for t in [0, *distinct.values()]))
    assert best == pytest.approx(mean_of(scores, distinct, answerable, threshold))


def mean_of(scores, probabilities, answerable, threshold):
    kept = [scores[k] if probabilities[k] <= threshold else float(not answerable[k]) for k in scores]
    return 100 * sum(kept) / len(kept)


def test_average_precision_is_the_sum_over_the_steps_of_recall():
    answerable = {1: True, 2: False, 3: True}
    scores = {1: 1.0, 2: 0.0, 3: 1.0}
    # After 1: precision 1, recall 1/2. After 3 and 2, which come together: precision 2/3, recall 1.
    area = average_precision(scores, {1: 0.1, 3: 0.5, 2: 0.5}, answerable)
    assert area == pytest.approx(100 * (1 / 2 + 2 / 3 * 1 / 2))


def test_a_right_no_answer_is_no_point_of_the_curve():
    """Recall is that of answers: a question without one that was found to have none counts for precision only."""
    area = average_precision({1: 1.0, 2: 1.0}, {1: 0.1, 2: 0.5}, {1: False, 2: True})
    assert area == pytest.approx(100 * 1 / 2)


def test_probabilities_of_other_questions_are_passed_over():
    found = best_threshold({1: 1.0}, {0: 0.1, 1: 0.2}, {0: "x", 1: "x"}, {1: True})
    assert found == (100.0, 0.2)


def test_no_scores_have_no_threshold():
    with pytest.raises(ValueError, match="no scores"):
        best_threshold({}, {}, {}, {})
