"""Which window shows a token of the context with most context around it, as in BERT's SQuAD processing.

Where windows overlap, a token stands in several of them. Its own is the one in which the lesser of its left and its
right context is greatest, plus a hundredth of the window's tokens of the context; the first one among equals
(`_check_is_max_context` of google-research/bert, run_squad.py). An answer that begins there was seen best.
"""

from __future__ import annotations

from itertools import count

import numpy as np

from .windows import Windows


def most_context(windows: Windows) -> np.ndarray:
    """Where tokens of the context have most context among the windows of their example, (windows, width) bool."""
    first, last = windows.source, windows.source + windows.context_end - windows.context_start - 1
    everywhere = np.arange(len(windows))
    own = _scores(windows, everywhere, everywhere)
    result = windows.in_context
    # Windows of an example follow one another: those further apart than the first that share nothing share nothing.
    for distance in count(1):
        before, after = everywhere[:-distance], everywhere[distance:]
        shared = np.maximum(first[before], first[after]) <= np.minimum(last[before], last[after])
        shared &= windows.example[before] == windows.example[after]
        before, after = before[shared], after[shared]
        if not len(before):
            return result
        result[before] &= ~(_scores(windows, before, after) > own[before])
        result[after] &= ~(_scores(windows, after, before) >= own[after])
    raise AssertionError("unreachable")


def _scores(windows: Windows, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Context that tokens of windows `rows` have in windows `others`, -inf where they are not there."""
    size = (windows.context_end - windows.context_start)[others][:, None]
    left = windows.index[rows] - windows.source[others][:, None]
    right = size - 1 - left
    scores = np.minimum(left, right) + 0.01 * size
    return np.where((left >= 0) & (right >= 0), scores, -np.inf)
