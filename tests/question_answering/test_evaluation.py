"""Exact match and F1 from what the Trainer gives, and the threshold of "no answer"."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainingArguments,
)

from hf_nlpnotes.question_answering import SpanPredictions, extract_spans, squad_v2
from hf_nlpnotes.question_answering.evaluation import SpanMetrics, best_null_threshold, prepare_evaluation_features

CONTEXT = "国足今晚在北京出战，明日银行公布业绩。学生下午考试，老师中午去上海。"


def example(number, question, *answers, start=None):
    places = [CONTEXT.find(answer) if start is None else start for answer in answers]
    return {
        "id": f"q{number}",
        "question": question,
        "context": CONTEXT,
        "answers": {"text": list(answers), "answer_start": places},
    }


ROWS = [
    example(0, "国足今晚在哪里出战？", "北京", "在北京"),
    example(1, "银行明日公布什么？", "业绩", start=-1),
    example(2, "学生下午做什么？", "考试"),
]
SIZES = {"max_length": 24, "doc_stride": 4}


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


@pytest.fixture(params=[False, "max_length"], ids=["ragged", "padded"])
def padding(request):
    return request.param


def data(rows, tokenizer, padding=False):
    examples = Dataset.from_list(rows)
    features = examples.map(
        prepare_evaluation_features,
        batched=True,
        remove_columns=examples.column_names,
        fn_kwargs={"tokenizer": tokenizer, "padding": padding, **SIZES},
    )
    return examples, features


def perfect(features):
    """Logits that point at the labels, in windows with an answer more than in those without."""
    width = max(map(len, features["input_ids"]))
    logits = []
    for name in ("start_positions", "end_positions"):
        places = np.array(features[name])
        part = np.zeros((len(places), width))
        part[np.arange(len(places)), places] = np.where(places > 0, 9, 1)
        logits.append(part)
    return tuple(logits)


def prediction(features, logits=None):
    labels = tuple(np.array(features[name]) for name in ("start_positions", "end_positions"))
    return EvalPrediction(predictions=logits or perfect(features), label_ids=labels)


@pytest.mark.parametrize("metric", ["squad_v1", "cmrc2018", "drcd"])
def test_right_logits_score_in_full(metric, tokenizer, padding):
    examples, features = data(ROWS, tokenizer, padding)
    assert len(features) > len(examples)
    scores = SpanMetrics(examples, features, metric)(prediction(features))
    assert scores["f1"] == scores["em" if "em" in scores else "exact_match"] == 100.0
    as_lists = SpanMetrics(examples.to_list(), features.to_list(), metric)
    assert as_lists(prediction(features)) == scores


def test_an_answer_that_no_context_has_is_asked_all_the_same(tokenizer, padding):
    rows = [ROWS[0], example(1, "谁出战？", "火星")]
    examples, features = data(rows, tokenizer, padding)
    assert set(features["example_id"]) == {"q0", "q1"}
    lost = [end for key, end in zip(features["example_id"], features["end_positions"], strict=True) if key == "q1"]
    assert set(lost) == {0}
    assert SpanMetrics(examples, features, "cmrc2018")(prediction(features))["em"] == 50.0


def test_questions_without_an_answer_take_the_threshold(tokenizer):
    rows = [*ROWS, example(3, "谁去北京？")]
    examples, features = data(rows, tokenizer)
    measure = SpanMetrics(examples, features, "squad_v2")
    scores = measure(prediction(features))
    assert scores["exact"] == scores["best_f1"] == 100.0
    assert scores["NoAns_total"] == 1
    eager = SpanMetrics(examples, features, "squad_v2", null_score_diff_threshold=1e9)(prediction(features))
    assert (eager["HasAns_exact"], eager["NoAns_exact"]) == (100.0, 0.0)
    assert eager["best_f1"] == 100.0
    tuned = SpanMetrics(examples, features, "squad_v2", null_score_diff_threshold=eager["best_f1_thresh"])
    assert tuned(prediction(features))["f1"] == 100.0


def test_logits_of_other_features_are_refused(tokenizer):
    examples, features = data(ROWS, tokenizer)
    measure = SpanMetrics(examples, features)
    other = features.select(range(len(features) - 1, -1, -1))
    with pytest.raises(
        ValueError, match=r"not the .* start_positions of the features, in their order.*group_by_length"
    ):
        measure(prediction(other))
    with pytest.raises(ValueError, match="features"):
        measure(EvalPrediction(predictions=tuple(part[1:] for part in perfect(features)), label_ids=None))


def test_an_unknown_metric_is_named():
    with pytest.raises(ValueError, match=r"squad_v1, squad_v2, cmrc2018, drcd, got 'rouge'"):
        SpanMetrics([], [], "rouge")


def test_a_data_set_without_answers_says_so(tokenizer):
    with pytest.raises(ValueError, match="no column 'answers'"):
        prepare_evaluation_features({"id": ["1"], "question": ["谁"], "context": ["猫"]}, tokenizer, 24, 4)


def test_the_stock_trainer_evaluates(tokenizer, tiny_chinesebert_folder, tmp_path, padding):
    examples, features = data(ROWS, tokenizer, padding)
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_pretrained(tiny_chinesebert_folder)
    measure = SpanMetrics(examples, features, "cmrc2018")
    arguments = TrainingArguments(tmp_path, per_device_eval_batch_size=2, report_to="none", use_cpu=True)
    trainer = Trainer(
        model, arguments, DataCollatorWithPadding(tokenizer), eval_dataset=features, compute_metrics=measure
    )
    scores = trainer.evaluate()
    # The same by hand: one window at a time, without padding.
    logits = []
    names = ("input_ids", "pinyin_ids", "token_type_ids", "attention_mask")
    with torch.no_grad():
        for row in features:
            output = model(**{name: torch.tensor([row[name]]) for name in names if name in row})
            logits.append((output.start_logits[0].numpy(), output.end_logits[0].numpy()))
    width = max(len(start) for start, _ in logits)
    padded = [np.stack([np.pad(row[side], (0, width - len(row[side]))) for row in logits]) for side in (0, 1)]
    by_hand = measure(prediction(features, tuple(padded)))
    assert {name: scores[f"eval_{name}"] for name in by_hand} == pytest.approx(by_hand)
    assert scores["eval_loss"] > 0


def odds_of(values, right):
    """Questions with one candidate each, some of which have an answer."""
    answers = dict.fromkeys(values, "x")
    n_best = {key: [{"text": ""}, {"text": "x"}] for key in values}
    return SpanPredictions(answers, n_best, dict(values)), {key: ["x"] if has else [] for key, has in right.items()}


@pytest.mark.parametrize("seed", range(10))
def test_the_best_threshold_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    odds = dict(enumerate(rng.normal(size=15).tolist()))
    found, references = odds_of(odds, {key: bool(rng.random() < 0.5) for key in odds})

    def at(threshold):
        texts = {key: "" if value > threshold else "x" for key, value in odds.items()}
        return squad_v2(texts, references)["f1"]

    best, threshold = best_null_threshold(found, references)
    assert best == pytest.approx(max(at(value) for value in [-1e9, *odds.values()]))
    assert at(threshold) == pytest.approx(best)


def test_where_no_question_has_an_answer_the_threshold_lies_below_all_odds():
    found, references = odds_of({1: -5.0, 2: -3.0}, {1: False, 2: False})
    best, threshold = best_null_threshold(found, references)
    assert best == 100.0
    assert threshold < -5.0


def test_the_threshold_needs_odds_and_references(tokenizer):
    examples, features = data(ROWS, tokenizer)
    with pytest.raises(ValueError, match="no null odds"):
        best_null_threshold(extract_spans(examples, features, perfect(features)), {})
    found = extract_spans(examples, features, perfect(features), version_2_with_negative=True)
    with pytest.raises(ValueError, match=r"2 of 3 questions have no references: \['q1', 'q2'\]"):
        best_null_threshold(found, {"q0": ["北京"]})
