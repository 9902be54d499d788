"""Places of answers: right ones are kept, wrong ones repaired or reported."""

import logging

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from hf_nlpnotes.question_answering import answer_report, locate_answer, prepare_train_features

CONTEXT = "国足今晚出战，国足对阵 ABC 队。"


@pytest.mark.parametrize(
    ("text", "stated", "start", "state"),
    [
        ("国足", 0, 0, "aligned"),
        ("国足", 7, 7, "aligned"),
        ("国足", 1, 0, "moved"),
        ("国足", 6, 7, "moved"),
        ("国足", -1, 0, "moved"),
        ("国足", 10**6, 7, "moved"),
        ("对阵", -1, 9, "moved"),
        ("对阵ABC队", -1, 9, "respelled"),
        ("ａｂｃ", 12, 12, "respelled"),
        ("广州", 3, -1, "missing"),
        ("", 0, -1, "missing"),
    ],
)
def test_where_an_answer_is(text, stated, start, state):
    span = locate_answer(CONTEXT, text, stated)
    assert (span.start, span.state, span.text, span.stated) == (start, state, text, stated)
    if state in ("aligned", "moved"):
        assert CONTEXT[span.start : span.end] == text
    if state == "respelled":
        found = CONTEXT[span.start : span.end]
        assert found.replace(" ", "").lower() == text.replace("ａｂｃ", "abc").lower()


def test_the_nearest_occurrence_is_taken():
    context = "a" + "." * 10 + "a" + "." * 4 + "a"
    for stated in range(20):
        nearest = min((0, 11, 16), key=lambda place: (abs(place - stated), place))
        assert locate_answer(context, "a", stated).start == nearest


EXAMPLES = {
    "id": ["a", "b", "c", "d"],
    "question": ["谁", "谁", "谁", "谁"],
    "context": [CONTEXT] * 4,
    "answers": [
        {"text": ["国足"], "answer_start": [0]},
        {"text": ["广州", "对阵"], "answer_start": [0, -1]},
        {"text": ["广州"], "answer_start": [2]},
        {"text": [], "answer_start": []},
    ],
}


def test_the_report_lists_what_was_wrong():
    report = answer_report(EXAMPLES)
    assert (report.answers, report.impossible) == (4, 1)
    assert [(name, span.text) for name, span in report.repaired] == [("b", "对阵")]
    assert [(name, span.text) for name, span in report.missing] == [("b", "广州"), ("c", "广州")]
    assert "1 with a repaired place, 2 not in their context" in str(report)


def test_training_leaves_out_what_nobody_can_find(tiny_chinesebert_folder, caplog):
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    with caplog.at_level(logging.WARNING):
        features = prepare_train_features(EXAMPLES, tokenizer, 32, 8)
    assert "Of 4 examples 1 had" in caplog.text
    # a: tokens 3 and 4, behind [CLS] 谁 [SEP]; b: its second answer; c: left out; d: no answer.
    assert features["start_positions"].tolist() == [3, 12, 0]
    assert features["end_positions"].tolist() == [4, 13, 0]
    with pytest.raises(ValueError, match="'广州' of example 2 is not in its context"):
        prepare_train_features(EXAMPLES, tokenizer, 32, 8, unusable_answers="raise")


@pytest.mark.parametrize("padding", ["max_length", "longest", False])
def test_a_batch_of_which_all_is_left_out_is_empty(tiny_chinesebert_folder, padding):
    """As `map` may meet one, above all as the last and shortest."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    usable, missing = ({"text": [text], "answer_start": [0]} for text in ("猫", "狗"))
    columns = {"question": ["谁"] * 3, "context": ["猫"] * 3, "answers": [missing, usable, missing]}
    rows = Dataset.from_dict(columns)
    options = {"tokenizer": tokenizer, "max_length": 16, "doc_stride": 2, "padding": padding}
    alone = prepare_train_features({name: values[1:2] for name, values in columns.items()}, **options)
    found = rows.map(
        prepare_train_features, batched=True, batch_size=1, remove_columns=rows.column_names, fn_kwargs=options
    )
    assert {name: list(found[name]) for name in found.column_names} == {
        name: [list(row) if hasattr(row, "__len__") else row for row in values] for name, values in alone.items()
    }


def test_answers_have_as_many_texts_as_places(tiny_chinesebert_folder):
    with pytest.raises(ValueError, match="2 texts and 1 answer_start"):
        answer_report({"id": [0], "context": ["x"], "answers": [{"text": ["x", "y"], "answer_start": [0]}]})
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    with pytest.raises(ValueError, match="answers must be"):
        prepare_train_features({"question": ["谁"], "context": ["国"], "answers": ["国"]}, tokenizer, 32, 8)
