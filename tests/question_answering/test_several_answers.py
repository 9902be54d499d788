"""Several answers against the choice by its definition."""

import numpy as np
import pytest

from hf_nlpnotes.question_answering import select_answers


def entry(start, end, score, probability=0.5):
    return {"start": start, "end": end, "start_logit": score / 2, "end_logit": score / 2, "probability": probability}


@pytest.mark.parametrize("seed", range(20))
def test_every_good_answer_that_overlaps_no_better_one(seed):
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 30, 25)
    ends = starts + rng.integers(0, 6, 25)
    scores = np.sort(rng.standard_normal(25))[::-1]
    entries = [entry(*values) for values in zip(starts.tolist(), ends.tolist(), scores.tolist(), strict=True)]
    taken = np.zeros(40, dtype=bool)
    expected = []
    for one in entries:
        own = slice(one["start"], one["end"])
        if one["end"] > one["start"] and one["start_logit"] * 2 >= -0.5 and not taken[own].any():
            taken[own] = True
            expected.append(one)
    assert select_answers(entries, min_score=-0.5) == expected
    assert select_answers(entries, min_score=-0.5, max_answers=2) == expected[:2]


def test_thresholds_and_no_answer():
    entries = [entry(0, 0, 9, 0.6), entry(0, 3, 5, 0.3), entry(3, 5, 4, 0.1)]
    assert select_answers(entries, min_probability=0.2) == [entries[1]]
    assert select_answers(entries, min_probability=0.0) == entries[1:]
    assert select_answers(entries, min_probability=0.0, min_score=4.5) == [entries[1]]


@pytest.mark.parametrize(
    ("entries", "options", "message"),
    [
        ([], {}, "A threshold is needed"),
        ([], {"min_probability": 1.5}, "between 0 and 1"),
        ([], {"min_score": 0.0, "max_answers": 0}, "at least 1"),
        ([{"text": "a", "probability": 1.0}], {"min_score": 0.0}, "mode='exact'"),
    ],
)
def test_bad_input_is_named(entries, options, message):
    with pytest.raises(ValueError, match=message):
        select_answers(entries, **options)
