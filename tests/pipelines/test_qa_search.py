"""The search for the most probable spans of characters, against enumeration; and where words begin and end."""

import numpy as np
import pytest

from hf_nlpnotes.pipelines._qa_search import WindowScores, best_spans, character_places, word_bounds

TOKENS = 14


def windows_of(generator, *, pairs):
    """Three windows with a context somewhere, tokens that share characters, and tokens where nothing may begin."""
    starts, ends = np.full((3, TOKENS), -1), np.full((3, TOKENS), -1)
    for window in range(3):
        first = generator.integers(2, 6)
        number = generator.integers(1, TOKENS - first + 1)
        begin = np.sort(generator.integers(0, 8, number))
        starts[window, first : first + number] = begin
        ends[window, first : first + number] = np.maximum.accumulate(begin + generator.integers(1, 3, number))
        blank = generator.random(TOKENS) < 0.1
        starts[window, blank] = ends[window, blank] = -1
    logits = generator.normal(size=(4, 3, TOKENS)).astype(np.float32) * 3
    span_logits = generator.normal(size=(3, TOKENS, TOKENS)).astype(np.float32) * 3 if pairs else None
    cls_index = np.array([0, 1, 0])
    if generator.random() < 0.5:  # as XLNet has it, in the last place
        cls_index[:] = TOKENS - 1
        starts[:, -1] = ends[:, -1] = -1
    return WindowScores(logits[0], logits[1], span_logits, starts, ends, cls_index)


def enumerated(windows, window, max_answer_len):
    """Probability of every span of characters, and of no answer."""
    tokens = (windows.starts[window] >= 0) | (windows.ends[window] >= 0)
    cls = windows.cls_index[window]
    tokens[cls] = True
    if windows.span_logits is None:
        parts = [np.where(tokens, part[window], -np.inf) for part in (windows.start_logits, windows.end_logits)]
        first, last = (np.exp(part.astype(float)) / np.exp(part.astype(float)).sum() for part in parts)
        scores = np.outer(first, last)
    else:
        scores = np.exp(windows.span_logits[window].astype(float))
        for first in range(TOKENS):
            for last in range(TOKENS):
                is_null = first == last == cls
                if not (tokens[first] and tokens[last] and first <= last and (is_null or cls not in (first, last))):
                    scores[first, last] = 0
        scores /= scores.sum()
    spans = {}
    for first in range(TOKENS):
        for last in range(first, min(first + max_answer_len, TOKENS)):
            start, end = int(windows.starts[window, first]), int(windows.ends[window, last])
            if start >= 0 and end > start:
                spans[start, end] = max(spans.get((start, end), 0), scores[first, last])
    return spans, scores[cls, cls]


@pytest.mark.parametrize("pairs", [False, True])
def test_best_spans_are_those_of_an_enumeration(pairs):
    generator = np.random.default_rng(0)
    exact = 1e-6 if pairs else 1e-9  # pairs are many, and stay in single precision
    for _ in range(60):
        windows = windows_of(generator, pairs=pairs)
        top_k, max_answer_len = int(generator.integers(1, 12)), int(generator.integers(1, TOKENS + 3))
        for window, found in enumerate(best_spans(windows, top_k, max_answer_len)):
            cls = windows.cls_index[window]
            spans, null = enumerated(windows, window, max_answer_len)
            best = sorted(spans.values(), reverse=True)[:top_k]
            np.testing.assert_allclose(np.exp(list(found.spans.values())), best, rtol=exact)
            for span, score in found.spans.items():
                assert np.exp(score) == pytest.approx(spans[span], rel=exact)
            assert np.exp(found.null) == pytest.approx(null, rel=exact)
            if not pairs:
                logits = windows.start_logits[window, cls] + windows.end_logits[window, cls]
                assert found.null + found.normalizer == pytest.approx(float(logits), rel=1e-5)


def test_of_equal_spans_the_first_is_found():
    flat = np.zeros((1, 4), dtype=np.float32)
    places = np.array([[-1, 0, 1, 2]])
    windows = WindowScores(flat, flat, None, places, np.where(places >= 0, places + 1, -1), np.array([0]))
    (found,) = best_spans(windows, 3, 2)
    assert list(found.spans) == [(0, 1), (0, 2), (1, 2)]


def inside(text):
    """The text with a mark wherever an answer could not begin or end."""
    bounds = word_bounds(text)
    assert not bounds[0]
    assert not bounds[-1]
    return "".join("+" * int(middle) + character for character, middle in zip(text, bounds, strict=False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two words", "t+w+o w+o+r+d+s"),
        ("don't 1,5", "d+o+n't 1,5"),
        ("曹雪芹写的", "曹雪芹写的"),
        ("iPhone手机12台", "i+P+h+o+n+e手机1+2台"),
        ("café cafe\u0301", "c+a+f+é c+a+f+e+\u0301"),
        ("서울에서 かな", "서울에서 かな"),
        ("ภาษา हिन्दी", "ภาษา ह+ि+न+्+द+ी"),
        ("", ""),
    ],
)
def test_words_of_a_text(text, expected):
    assert inside(text) == expected


@pytest.mark.parametrize(("align", "expected"), [(True, [(0, 7), (8, 12)]), (False, [(0, 3), (3, 7), (8, 12)])])
def test_places_of_pieces_of_words(align, expected):
    offsets = np.array([[-1, -1], [0, 3], [3, 7], [7, 8], [7, 12], [-1, -1]])
    starts, ends = character_places("playing ball", offsets, align)
    assert starts.tolist()[0] == starts.tolist()[-1] == ends.tolist()[0] == -1
    # A token of a blank alone is no place; one that begins with a blank begins after it.
    assert (starts[3], ends[3]) == (-1, -1)
    assert sorted({(int(starts[i]), int(ends[i])) for i in (1, 2, 4)}) == expected


def test_trailing_blanks_are_not_of_an_answer():
    starts, ends = character_places(" 甲 \n乙　", np.array([[0, 3], [3, 6]]), True)
    assert (starts.tolist(), ends.tolist()) == ([1, 4], [2, 5])
