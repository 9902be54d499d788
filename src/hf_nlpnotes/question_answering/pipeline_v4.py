"""The decoding of transformers 4's question-answering pipeline, for many windows at once.

Start and end logits become probabilities within a window, the classification token's are then set to 0, and a span
scores their product (after Chen et al., ACL 2017). v4 fills a (width, width) matrix for each window and sorts all of
it; here the best end of every start is a running maximum, and only the best starts' spans are ever multiplied out. A
window in which equal or zero scores decide is decoded as v4 does it, so that ties fall as they fell there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .span_search import check_logits, running_maximum

_ROWS = 128
_MASKED = -10000.0
# Logits below this in size: a masked one's distance from any other is then far beyond what exp() can tell from 0.
_USUAL = 1000.0


@dataclass(frozen=True)
class WindowSpans:
    """The best spans of each window, best first.

    Attributes:
        starts, ends: First and last token, both included as in v4, (windows, top_k) int64; -1 where there are fewer.
        scores: Products of probabilities, (windows, top_k); 0 where there are fewer.
        counts: Number of spans, (windows,).
        null_scores: Product of the first token's two probabilities, (windows,).
    """

    starts: np.ndarray
    ends: np.ndarray
    scores: np.ndarray
    counts: np.ndarray
    null_scores: np.ndarray


def decode_windows(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    p_mask: np.ndarray,
    attention_mask: np.ndarray | None = None,
    *,
    top_k: int = 1,
    max_answer_len: int = 15,
) -> WindowSpans:
    """Decodes windows as v4's pipeline does each of them.

    Args:
        start_logits, end_logits: (windows, width). Windows of another length belong in a call of their own: padding
            changes the last bits of the probabilities.
        p_mask: 1 where a token cannot be in an answer, (windows, width).
        attention_mask: 0 where padding is, (windows, width).
        top_k: Number of spans of a window.
        max_answer_len: Tokens of the longest span.

    Raises:
        ValueError: Shapes differ, a number is not positive, or logits are not numbers.
    """
    start, end = check_logits(start_logits, end_logits)
    if top_k < 1 or max_answer_len < 1:
        raise ValueError(f"top_k and max_answer_len must be at least 1, got {top_k} and {max_answer_len}.")
    allowed = np.asarray(p_mask) == 0
    if attention_mask is not None:
        allowed &= np.asarray(attention_mask) != 0
    if allowed.shape != start.shape:
        raise ValueError(f"Masks must have the shape of the logits, {start.shape}, got {allowed.shape}.")
    windows = len(start)
    shape = (windows, top_k)
    result = WindowSpans(
        np.full(shape, -1, dtype=np.int64),
        np.full(shape, -1, dtype=np.int64),
        np.zeros(shape, dtype=np.result_type(start, end)),
        np.zeros(windows, dtype=np.int64),
        np.zeros(windows, dtype=np.result_type(start, end)),
    )
    width = start.shape[1]
    room = min(windows, _ROWS)
    probabilities = np.empty((2, room, width), dtype=result.scores.dtype)
    work = np.empty((3, room, width + min(max_answer_len, width) - 1), dtype=result.scores.dtype)
    for low in range(0, windows if width else 0, _ROWS):
        rows = slice(low, min(low + _ROWS, windows))
        first, last = probabilities[:, : rows.stop - low]
        for logits, out in ((start, first), (end, last)):
            _probabilities(logits[rows], allowed[rows], out)
        result.null_scores[rows] = first[:, 0] * last[:, 0]
        first[:, 0] = last[:, 0] = 0
        if top_k == 1:
            starts, ends, scores, sure = _best_span(first, last, max_answer_len, work)
        else:
            starts, ends, scores, sure = _best_spans(first, last, top_k, max_answer_len, work)
        result.starts[rows], result.ends[rows], result.scores[rows] = starts, ends, scores
        result.counts[rows] = top_k
        for row in np.flatnonzero(~sure).tolist():
            found = _as_v4(first[row], last[row], allowed[low + row], top_k, max_answer_len)
            count = len(found[0])
            result.counts[low + row] = count
            for values, own, nothing in zip(
                (result.starts, result.ends, result.scores), found, (-1, -1, 0), strict=True
            ):
                values[low + row] = nothing
                values[low + row, :count] = own
    return result


def select_starts_ends(
    start: np.ndarray,
    end: np.ndarray,
    p_mask: np.ndarray,
    attention_mask: np.ndarray | None,
    min_null_score: float = 1000000,
    top_k: int = 1,
    handle_impossible_answer: bool = False,
    max_answer_len: int = 15,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """v4's function of this name for one window, (1, width) or (width,); `decode_windows` takes many.

    Returns:
        First tokens, last tokens (included), scores, and the lower of `min_null_score` and this window's null score
        where impossible answers are handled.
    """
    found = decode_windows(
        np.atleast_2d(start),
        np.atleast_2d(end),
        np.atleast_2d(p_mask),
        None if attention_mask is None else np.atleast_2d(attention_mask),
        top_k=top_k,
        max_answer_len=max_answer_len,
    )
    if len(found.counts) != 1:
        raise ValueError(f"One window is expected, got {len(found.counts)}: decode_windows takes many.")
    count = int(found.counts[0])
    if handle_impossible_answer:
        min_null_score = min(min_null_score, found.null_scores[0].item())
    return found.starts[0, :count], found.ends[0, :count], found.scores[0, :count], min_null_score


def _probabilities(logits: np.ndarray, allowed: np.ndarray, out: np.ndarray) -> None:
    """Softmax of each row, in the logits' own precision; what is not allowed counts as a logit of -10000."""
    usual = float(logits.min()) > -_USUAL and float(logits.max()) < _USUAL
    if usual and bool(allowed.any(axis=1).all()):
        # A masked logit may keep its own value on top: its probability is exactly 0 either way.
        np.multiply(~allowed, out.dtype.type(_MASKED), out=out)
        out += logits
    else:
        out[:] = np.where(allowed, logits, logits.dtype.type(_MASKED))
    out -= out.max(axis=-1, keepdims=True)
    np.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)


_Found = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _best_span(first: np.ndarray, last: np.ndarray, max_answer_len: int, work: np.ndarray) -> _Found:
    """The best span of each row, the leftmost among equals; sure where its score is not 0."""
    width = first.shape[1]
    length = min(max_answer_len, width)
    row = np.arange(len(first))
    products = work[2, : len(first), :width]
    np.multiply(running_maximum(last, length, work), first, out=products)
    start = products.argmax(axis=1)
    best = products[row, start]
    reached = start[:, None] + np.arange(length)
    scores = first[row, start][:, None] * last[row[:, None], np.minimum(reached, width - 1)]
    end = start + (scores == best[:, None]).argmax(axis=1)
    return start[:, None], end[:, None], best[:, None], best > 0


def _best_spans(first: np.ndarray, last: np.ndarray, top_k: int, max_answer_len: int, work: np.ndarray) -> _Found:
    """The best spans of each row; sure where they differ in score and from the next, and none is 0."""
    rows, width = first.shape
    length = min(max_answer_len, width)
    shape = (rows, top_k)
    none = np.zeros(shape, dtype=np.int64)
    if top_k >= width:
        return none, none, np.zeros(shape, dtype=first.dtype), np.zeros(rows, dtype=bool)
    row = np.arange(rows)[:, None]
    products = work[2, : len(first), :width]
    np.multiply(running_maximum(last, length, work), first, out=products)
    # The k best spans begin at the k starts whose best spans are best.
    ordered = np.sort(products, axis=1)
    next_best = ordered[:, width - top_k - 1]
    kept = products >= ordered[:, width - top_k, None]
    sure = np.count_nonzero(kept, axis=1) == top_k
    kept[~sure] = np.arange(width) < top_k
    start = (np.flatnonzero(kept) % width).reshape(shape)
    reached = start[:, :, None] + np.arange(length)
    closing = np.pad(last, ((0, 0), (0, length - 1)))[row[:, :, None], reached]
    closing *= first[row, start][:, :, None]
    scores = closing.reshape(rows, -1)
    ranked = np.sort(scores, axis=1)[:, ::-1][:, : top_k + 1]
    kept = scores >= ranked[:, top_k - 1, None]
    sure &= (ranked[:, top_k - 1] > np.maximum(next_best, 0)) & (np.diff(ranked, axis=1) < 0).all(axis=1)
    kept[~sure] = np.arange(scores.shape[1]) < top_k
    place = (np.flatnonzero(kept) % scores.shape[1]).reshape(shape)
    order = np.argsort(-scores[row, place], axis=1)
    place = place[row, order]
    begin = start[row, place // length]
    return begin, begin + place % length, scores[row, place], sure


def _as_v4(
    first: np.ndarray, last: np.ndarray, allowed: np.ndarray, top_k: int, max_answer_len: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One window over its whole matrix; the order of equal scores is that of numpy's sorts."""
    width = len(first)
    distance = np.arange(width) - np.arange(width)[:, None]
    matrix = np.where((distance >= 0) & (distance < max_answer_len), np.outer(first, last), first.dtype.type(0))
    flat = matrix.ravel()
    if top_k == 1:
        order = np.array([flat.argmax()])
    elif len(flat) < top_k:
        order = np.argsort(-flat)
    else:
        order = np.argpartition(-flat, top_k)[:top_k]
        order = order[np.argsort(-flat[order])]
    starts, ends = np.divmod(order, width)
    # The first token always passes in v4, which looks for it among the numbers of rows as well.
    passing = allowed.copy()
    passing[0] = True
    kept = passing[starts] & passing[ends]
    return starts[kept], ends[kept], flat[order][kept]
