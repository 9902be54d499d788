"""v4's decoding against its definition over the whole matrix of starts and ends."""

import numpy as np
import pytest

from hf_nlpnotes.question_answering import decode_windows, select_starts_ends


def over_the_whole_matrix(start, end, p_mask, top_k, length):
    """All products of a window, best first; those that v4 would drop left out."""
    masked = [np.where(p_mask == 1, -10000.0, logits) for logits in (start, end)]
    first, last = (np.exp(logits - logits.max()) for logits in masked)
    first, last = first / first.sum(), last / last.sum()
    null = first[0] * last[0]
    first[0] = last[0] = 0
    spans = [
        (float(first[i] * last[j]), i, j) for i in range(len(start)) for j in range(i, min(len(start), i + length))
    ]
    return sorted(spans, key=lambda span: -span[0])[:top_k], null


@pytest.mark.parametrize("top_k", [1, 2, 12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_probabilities(top_k, dtype):
    rng = np.random.default_rng(top_k)
    start, end = (3 * rng.standard_normal((2, 150, 40))).astype(dtype)
    p_mask = np.ones((150, 40), dtype=int)
    p_mask[:, 8:35] = 0
    p_mask[:, 0] = 0
    found = decode_windows(start, end, p_mask, top_k=top_k, max_answer_len=9)
    for row in range(150):
        spans, null = over_the_whole_matrix(start[row], end[row], p_mask[row], top_k, 9)
        assert found.starts[row].tolist() == [first for _, first, _ in spans]
        assert found.ends[row].tolist() == [last for _, _, last in spans]
        assert found.scores[row].tolist() == [score for score, _, _ in spans]
        assert found.null_scores[row] == null


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_where_rounding_decides(dtype):
    """Whole logits, whose sums are often equal: only the last bits of probabilities tell spans apart, or none."""
    rng = np.random.default_rng(0)
    start, end = np.round(rng.standard_normal((2, 300, 20))).astype(dtype)
    p_mask = np.zeros((300, 20), dtype=int)
    found = decode_windows(start, end, p_mask, max_answer_len=5)
    for row in range(300):
        [(score, first, last)], _ = over_the_whole_matrix(start[row], end[row], p_mask[row], 1, 5)
        assert (found.starts[row, 0], found.ends[row, 0], found.scores[row, 0]) == (first, last, score)


@pytest.mark.parametrize("top_k", [2, 5])
def test_equal_scores_at_the_cut(top_k):
    """Which of the equals are listed is numpy's to say; how good they are is not."""
    rng = np.random.default_rng(top_k)
    start, end = np.round(rng.standard_normal((2, 300, 20))).astype(np.float32)
    p_mask = np.zeros((300, 20), dtype=int)
    found = decode_windows(start, end, p_mask, top_k=top_k, max_answer_len=5)
    for row in range(300):
        spans, _ = over_the_whole_matrix(start[row], end[row], p_mask[row], 100, 5)
        products = {(first, last): score for score, first, last in spans}
        pairs = list(zip(found.starts[row].tolist(), found.ends[row].tolist(), strict=True))
        assert len(set(pairs)) == top_k
        assert found.scores[row].tolist() == [products[pair] for pair in pairs]
        assert found.scores[row].tolist() == [score for score, _, _ in spans[:top_k]]


@pytest.mark.parametrize("top_k", [1, 3])
def test_a_window_without_context_has_no_answer(top_k):
    logits = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    p_mask = np.array([[1] * 8, [0] * 8])
    found = decode_windows(logits, logits, p_mask, top_k=top_k)
    assert found.counts.tolist() == [0, top_k]
    assert (found.starts[0] == -1).all()
    assert (found.scores[0] == 0).all()


def test_equal_scores_fall_as_numpy_sorts_them():
    """One span to find and more asked for: v4 fills up with spans of score 0, those of the context only."""
    start, end = np.zeros((1, 6), dtype=np.float32), np.zeros((1, 6), dtype=np.float32)
    p_mask = np.array([[0, 1, 1, 0, 0, 1]])
    starts, ends, scores, _ = select_starts_ends(start, end, p_mask, np.ones((1, 6), dtype=int), top_k=20)
    assert sorted(zip(starts[:3].tolist(), ends[:3].tolist(), strict=True)) == [(3, 3), (3, 4), (4, 4)]
    assert len(starts) > 3
    assert scores[:3].tolist() == pytest.approx([1 / 9] * 3)
    assert set(starts.tolist()) | set(ends.tolist()) <= {0, 3, 4}


def test_more_asked_for_than_there_are_pairs_of_tokens():
    """v4 then lists its whole matrix, spans that end before they begin at score 0 among them."""
    logits = np.array([[0.0, 1.0, 3.0]], dtype=np.float32)
    p_mask = np.zeros((1, 3), dtype=int)
    found = decode_windows(logits, logits, p_mask, top_k=20)
    spans, _ = over_the_whole_matrix(logits[0], logits[0], p_mask[0], 3, 15)
    assert found.counts.tolist() == [9]
    assert found.starts[0, :3].tolist() == [first for _, first, _ in spans]
    assert found.ends[0, :3].tolist() == [last for _, _, last in spans]
    assert found.scores[0, :3].tolist() == [score for score, _, _ in spans]
    assert found.scores[0, 3:].tolist() == [0.0] * 17
    assert (found.starts[0, 9:] == -1).all()
    assert (found.ends[0, 9:] == -1).all()


def test_windows_without_tokens():
    found = decode_windows(*[np.zeros((2, 0), dtype=np.float32)] * 3, top_k=3)
    assert found.counts.tolist() == [0, 0]
    assert found.starts.tolist() == [[-1] * 3] * 2


def test_padding_is_no_answer():
    start = end = np.arange(6, dtype=np.float32)[None]
    mask = np.array([[1, 1, 1, 1, 0, 0]])
    found = decode_windows(start, end, np.array([[0, 1, 0, 0, 0, 0]]), mask)
    assert (found.starts[0, 0], found.ends[0, 0]) == (3, 3)


def test_the_lowest_null_score_is_kept():
    start = end = np.zeros((1, 4), dtype=np.float32)
    p_mask = np.array([[0, 1, 0, 0]])
    *_, null = select_starts_ends(start, end, p_mask, None, 1.0, handle_impossible_answer=True)
    assert null == pytest.approx(1 / 9)
    *_, null = select_starts_ends(start, end, p_mask, None, 0.01, handle_impossible_answer=True)
    assert null == 0.01


def test_bad_input_is_named():
    zeros = np.zeros((2, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="top_k and max_answer_len"):
        decode_windows(zeros, zeros, zeros, top_k=0)
    with pytest.raises(ValueError, match="shape of the logits"):
        decode_windows(zeros, zeros, zeros[:, :3])
    with pytest.raises(ValueError, match="NaN or infinite"):
        decode_windows(np.full((2, 4), np.nan, dtype=np.float32), zeros, zeros)
    with pytest.raises(ValueError, match="One window is expected, got 2"):
        select_starts_ends(zeros, zeros, zeros, None)
