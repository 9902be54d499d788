"""The best spans against all spans."""

import numpy as np
import pytest

from hf_nlpnotes.question_answering import top_spans
from hf_nlpnotes.question_answering.span_search import running_maximum


def every_span(start, end, start_mask, end_mask, length):
    found = [
        (start[i] + end[j], i, j + 1)
        for i in range(len(start))
        for j in range(i, min(len(end), i + length))
        if start_mask[i] and end_mask[j]
    ]
    return sorted(found, key=lambda span: (-span[0], span[1], span[2]))


@pytest.mark.parametrize("k", [1, 3, 20, 200])
@pytest.mark.parametrize("length", [1, 2, 7, 100])
@pytest.mark.parametrize("coarse", [False, True])
def test_they_are_the_best_of_all(k, length, coarse):
    rng = np.random.default_rng(k * 1000 + length)
    start, end = rng.standard_normal((2, 20, 13))
    if coarse:  # many equal scores
        start, end = start.round(), end.round()
    start_mask, end_mask = rng.random((2, 20, 13)) < 0.7
    found = top_spans(start, end, k, start_mask=start_mask, end_mask=end_mask, max_answer_length=length)
    for row in range(len(start)):
        expected = every_span(start[row], end[row], start_mask[row], end_mask[row], length)[:k]
        count = len(expected)
        assert found.scores[row, :count].tolist() == [score for score, _, _ in expected]
        assert (found.starts[row, count:] == -1).all()
        assert (found.ends[row, count:] == -1).all()
        assert np.isneginf(found.scores[row, count:]).all()
        places = zip(found.starts[row, :count].tolist(), found.ends[row, :count].tolist(), strict=True)
        assert list(places) == [(first, last) for _, first, last in expected]


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_to_search(shape):
    found = top_spans(np.zeros(shape), np.zeros(shape), 2)
    assert (found.starts.tolist(), found.ends.tolist()) == ([[-1, -1]] * shape[0],) * 2
    assert found.scores.shape == (shape[0], 2)
    assert np.isneginf(found.scores).all()


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 9, 30])
def test_the_running_maximum(length):
    values = np.random.default_rng(length).standard_normal((4, 11)).astype(np.float32)
    expected = [[row[place : place + length].max() for place in range(11)] for row in values]
    np.testing.assert_array_equal(running_maximum(values, length), expected)


@pytest.mark.parametrize(
    ("start", "end", "options", "message"),
    [
        (np.zeros(3), np.zeros(3), {}, "must both be"),
        (np.zeros((1, 3)), np.zeros((1, 4)), {}, "must both be"),
        (np.zeros((1, 3), dtype=int), np.zeros((1, 3)), {}, "floating-point"),
        (np.zeros((1, 3)), np.zeros((1, 3), dtype=int), {}, "floating-point"),
        (np.full((1, 3), np.nan), np.zeros((1, 3)), {}, "NaN or infinite"),
        (np.zeros((1, 3)), np.zeros((1, 3)), {"k": 0}, "at least 1"),
        (np.zeros((1, 3)), np.zeros((1, 3)), {"max_answer_length": 0}, "at least 1"),
        (np.zeros((1, 3)), np.zeros((1, 3)), {"start_mask": np.ones((1, 2), bool)}, "shape of the logits"),
    ],
)
def test_bad_input_is_named(start, end, options, message):
    with pytest.raises(ValueError, match=message):
        top_spans(start, end, **{"k": 1, **options})
