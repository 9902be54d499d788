"""Modules of question answering, loaded from their scripts by `evaluate`."""

import evaluate
import pytest

from hf_nlpnotes.evaluate_modules import module_path
from hf_nlpnotes.question_answering import cmrc2018, drcd, squad_v1, squad_v2

REFERENCES = [
    {"id": "1", "answers": {"text": ["the Seine", "Seine, Paris"], "answer_start": [3, 3]}},
    {"id": "2", "answers": {"text": ["塞纳河。"], "answer_start": [0]}},
]
PREDICTIONS = [{"id": "1", "prediction_text": "Seine, in Paris"}, {"id": "2", "prediction_text": "塞纳河"}]


@pytest.fixture
def compute(tmp_path):
    def loaded(name, predictions, references, **options):
        module = evaluate.load(module_path(name), cache_dir=str(tmp_path), keep_in_memory=True)
        return module.compute(predictions=predictions, references=references, **options)

    return loaded


@pytest.mark.parametrize("metric", [squad_v1, cmrc2018, drcd], ids=lambda metric: metric.__name__)
def test_a_module_gives_what_its_function_gives(metric, compute):
    assert compute(metric.__name__, PREDICTIONS, REFERENCES) == metric(PREDICTIONS, REFERENCES)


def test_the_second_squad_takes_probabilities_and_a_threshold(compute):
    predictions = [{**row, "no_answer_probability": p} for row, p in zip(PREDICTIONS, (0.2, 0.7), strict=True)]
    references = [REFERENCES[0], {"id": "2", "answers": {"text": [], "answer_start": []}}]
    scores = compute("squad_v2", predictions, references, no_answer_threshold=0.5)
    assert scores == squad_v2(predictions, references, threshold=0.5)
    assert scores["NoAns_exact"] == 100.0


def test_an_unknown_module_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"no evaluate module is called 'squad'; there are .*cmrc2018, .*squad_v1"):
        module_path("squad")
