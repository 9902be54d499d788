"""Question answering on strange texts: windows lead back to the answer, and metrics score what they are given."""

import numpy as np
import pytest
from hardening_inputs import json_values, nearly, refused, strange_text
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hf_nlpnotes.question_answering import (
    cmrc2018,
    postprocess_predictions,
    prepare_train_features,
    prepare_validation_features,
    squad_v1,
    squad_v2,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


plain = st.text("国足今晚出战对阵球队，。", min_size=1, max_size=6)


@given(before=strange_text, answer=plain, after=strange_text, question=plain, stride=st.integers(0, 8))
def test_an_answer_is_found_again_in_its_windows(tokenizer, before, answer, after, question, stride):
    # Beside a character of its own word or cluster an answer has no token of its own.
    context = f"{before} {answer} {after}"
    examples = {
        "id": ["0"],
        "question": [question],
        "context": [context],
        "answers": [{"text": [answer], "answer_start": [len(before) + 1]}],
    }
    options = {"max_length": 24, "doc_stride": stride}
    train = prepare_train_features(examples, tokenizer, **options)
    features = prepare_validation_features(examples, tokenizer, **options)
    shape = np.asarray(features["input_ids"]).shape
    start, end = np.zeros(shape), np.zeros(shape)
    places = zip(train["start_positions"], train["end_positions"], strict=True)
    for window, (first, last) in enumerate(places):
        if first or last:
            start[window, first] = end[window, last] = 9
    assume(start.any())  # an answer that no window holds as a whole
    found = postprocess_predictions(examples, features, (start, end), max_answer_length=20)
    assert getattr(found, "answers", found)["0"] == answer


@given(texts=st.dictionaries(st.sampled_from("abc"), st.tuples(strange_text, strange_text), min_size=1))
def test_scores_lie_between_0_and_100_and_a_gold_answer_has_100(texts):
    predictions = {name: found for name, (found, _) in texts.items()}
    # An answer of articles and punctuation alone is nothing to the official programs, which give it an F1 of 0.
    references = {name: [f"国 {gold}"] for name, (_, gold) in texts.items()}
    gold = {name: answers[0] for name, answers in references.items()}
    for metric in (squad_v1, cmrc2018):
        scores = refused(metric, predictions, references)
        if scores is not None:
            assert all(0 <= scores[name] <= 100 for name in ("f1", "exact_match") if name in scores)
        assert metric(gold, references)["f1"] == pytest.approx(100)


PREDICTIONS = [
    {"id": "a", "prediction_text": "国足", "no_answer_probability": 0.2},
    {"id": "b", "prediction_text": ""},
]
REFERENCES = [
    {"id": "a", "answers": {"text": ["国足"], "answer_start": [0]}},
    {"id": "b", "answers": {"text": [], "answer_start": []}},
]


@given(predictions=nearly(PREDICTIONS) | json_values, references=nearly(REFERENCES) | json_values)
def test_metrics_score_their_inputs_or_refuse_them(predictions, references):
    for metric in (squad_v1, squad_v2, cmrc2018):
        refused(metric, predictions, references, kinds=(ValueError, TypeError))
