"""The window with most context, against BERT's definition token by token."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from hf_nlpnotes.question_answering import extract_spans, postprocess_predictions, prepare_validation_features

CONTEXT = "国足今晚出战，对阵北京国安队。比赛在广州天河体育场举行，票价一百元，早已售完。" * 14
EXAMPLES = {
    "id": ["a", "b", "c", "d"],
    "question": ["谁？", "在什么地方举行？", "谁？", "票价是多少？"],
    "context": [CONTEXT, CONTEXT, "国足。", CONTEXT[:70]],
}


@pytest.fixture
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


def spans_of(sizes, doc_stride, side):
    """(start, length) of the windows of one context, from their lengths."""
    starts = [0]
    for before in sizes[:-1]:
        starts.append(starts[-1] + before - doc_stride)
    if side == "left":  # from the end, and the last one begins at 0
        total = starts[-1] + sizes[-1]
        starts = [total - start - size for start, size in zip(starts, sizes, strict=True)]
    return list(zip(starts, sizes, strict=True))


def is_max_context(spans, current, position):
    """BERT's definition, in run_squad.py."""
    best_score, best_span = None, None
    for number, (start, length) in enumerate(spans):
        end = start + length - 1
        if start <= position <= end:
            score = min(position - start, end - position) + 0.01 * length
            if best_score is None or score > best_score:
                best_score, best_span = score, number
    return current == best_span


@pytest.mark.parametrize("padding", ["max_length", False])
@pytest.mark.parametrize("sides", [("right", "right"), ("left", "right"), ("right", "left"), ("left", "left")])
@pytest.mark.parametrize(("max_length", "doc_stride"), [(64, 0), (48, 29), (300, 100)])
def test_every_token(tokenizer, sides, max_length, doc_stride, padding):
    tokenizer.padding_side, tokenizer.truncation_side = sides
    features = prepare_validation_features(
        EXAMPLES, tokenizer, max_length, doc_stride, padding=padding, token_is_max_context=True
    )
    assert len(set(map(len, features["offset_mapping"]))) == 1 or padding is False
    for name in EXAMPLES["id"]:
        rows = [row for row, owner in enumerate(features["example_id"]) if owner == name]
        inside = [[pair is not None and pair[0] >= 0 for pair in features["offset_mapping"][row]] for row in rows]
        spans = spans_of([sum(tokens) for tokens in inside], doc_stride, sides[1])
        for number, (row, tokens) in enumerate(zip(rows, inside, strict=True)):
            first = tokens.index(True)
            expected = [
                token and is_max_context(spans, number, spans[number][0] + place - first)
                for place, token in enumerate(tokens)
            ]
            assert list(features["token_is_max_context"][row]) == expected


def test_answers_begin_in_the_window_that_shows_them_best(tokenizer):
    """The answer scores highest where it stands at the edge of a window: it is then found in the other one."""
    import datasets

    features = prepare_validation_features(EXAMPLES, tokenizer, 64, 16, token_is_max_context=True)
    best = features["token_is_max_context"]
    shared = (features["offset_mapping"][..., 0] >= 0) & ~best
    row, token = np.argwhere(shared)[0]
    start, end = np.zeros((2, *best.shape), dtype=np.float32)
    start[row, token] = end[row, token] = 9
    name, (begin, finish) = features["example_id"][row], features["offset_mapping"][row, token]
    text = CONTEXT[begin:finish]
    free = {key: values for key, values in features.items() if key != "token_is_max_context"}
    table = datasets.Dataset.from_dict(features)
    for mode in ("exact", "example_script"):
        assert postprocess_predictions(EXAMPLES, free, (start, end), mode=mode)[name] == text
        found = extract_spans(EXAMPLES, features, (start, end), mode=mode)
        assert found.n_best[name][0]["start_logit"] == 0
        assert extract_spans(EXAMPLES, table, (start, end), mode=mode) == found


def test_it_is_no_column_unless_asked_for(tokenizer):
    assert "token_is_max_context" not in prepare_validation_features(EXAMPLES, tokenizer, 64, 16)
