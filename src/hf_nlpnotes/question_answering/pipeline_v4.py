"""The decoding of transformers 4's question-answering pipeline, for many windows at once.

Start and end logits become probabilities within a window, the classification token's are then set to 0, and a span
scores their product (after Chen et al., ACL 2017). v4 fills a (width, width) matrix for each window and sorts all of
it; here the best end of every start is a running maximum, and only the best starts' spans are ever multiplied out.

Numerators of the softmax rank spans as probabilities do, up to rounding, so that only winners are divided, in v4's
order of operations: scores are v4's to the last bit. Where rounding could decide, a window's probabilities are ranked
themselves, and where equal or zero scores decide, it is decoded as v4 does it, so that ties fall as they fell there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .span_search import check_below_infinity, check_shapes, maximum_of_next

# Windows that are decoded together: what is computed of them stays in a core's cache.
_ROWS = 256
_MASKED = -10000.0


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
        ValueError: Shapes differ, a number is not positive, or logits that p_mask lets pass are not numbers.
    """
    start, end = check_shapes(start_logits, end_logits)
    if top_k < 1 or max_answer_len < 1:
        raise ValueError(f"top_k and max_answer_len must be at least 1, got {top_k} and {max_answer_len}.")
    p_mask = np.asarray(p_mask)
    attention_mask = None if attention_mask is None else np.asarray(attention_mask)
    for mask in (p_mask, attention_mask):
        if mask is not None and mask.shape != start.shape:
            raise ValueError(f"Masks must have the shape of the logits, {start.shape}, got {mask.shape}.")
    windows, width = start.shape
    shape = (windows, top_k)
    dtype = np.result_type(start, end)
    result = WindowSpans(
        np.full(shape, -1, dtype=np.int64),
        np.full(shape, -1, dtype=np.int64),
        np.zeros(shape, dtype=dtype),
        np.zeros(windows, dtype=np.int64),
        np.zeros(windows, dtype=dtype),
    )
    if not width:
        return result
    length = min(max_answer_len, width)
    # Rows end in columns of 0: the maximum over the next ends may then run over all rows as if they were one.
    span = width + length - 1
    memory = np.empty((4, min(windows, _ROWS) * span), dtype=dtype)
    for low in range(0, windows, _ROWS):
        rows = slice(low, min(low + _ROWS, windows))
        size = (2, rows.stop - low, span)
        terms, work = (part.reshape(-1)[: size[1] * 2 * span].reshape(size) for part in (memory[:2], memory[2:]))
        blocked = p_mask[rows] != 0
        if attention_mask is not None:
            blocked |= attention_mask[rows] == 0
        sums = _softmax_terms(start[rows], end[rows], blocked, terms)
        result.null_scores[rows] = (terms[0, :, 0] / sums[0]) * (terms[1, :, 0] / sums[1])
        terms[:, :, 0] = 0
        *found, sure = _best_spans(terms, sums, top_k, length, work, margin=16 * float(np.finfo(dtype).eps))
        sure &= _allowed(blocked, *found[:2])
        result.starts[rows], result.ends[rows], result.scores[rows] = found
        result.counts[rows] = top_k
        unsure = np.flatnonzero(~sure)
        if len(unsure):
            _settle(result, low, unsure, terms[:, unsure] / sums[:, unsure, None], blocked[unsure], length)
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

    Args:
        start: Logits of first tokens.
        end: Logits of last tokens.
        p_mask: 1 for tokens that cannot be of an answer.
        attention_mask: 0 for padding; None: there is none.
        min_null_score: The lowest null score of the windows before.
        top_k: As of `decode_windows`.
        handle_impossible_answer: Whether the null score is computed.
        max_answer_len: As of `decode_windows`.

    Returns:
        First tokens, last tokens (included), scores, and the lower of `min_null_score` and this window's null score
        where impossible answers are handled.

    Raises:
        ValueError: Several windows, and as of `decode_windows`.
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


def _softmax_terms(start: np.ndarray, end: np.ndarray, blocked: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Numerators of the softmax of each row into `out`, (2, rows, span), 0 behind the width.

    What is `blocked`, (rows, width), counts as a logit of -10000, as in v4.

    Returns:
        Denominators, (2, rows).
    """
    width = start.shape[1]
    for logits, side in zip((start, end), out, strict=True):
        side[:, :width] = logits
        np.copyto(side[:, :width], out.dtype.type(_MASKED), where=blocked)
        side[:, width:] = -np.inf
    rows = out.reshape(-1, out.shape[2])
    top = rows[np.arange(len(rows)), rows.argmax(axis=1)]
    check_below_infinity(top)
    rows -= top[:, None]
    np.exp(out, out=out)
    return np.asarray(out[:, :, :width].sum(axis=2))


def _best_spans(
    terms: np.ndarray, sums: np.ndarray, top_k: int, length: int, work: np.ndarray, *, margin: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The best spans of each row.

    Args:
        terms: Numerators of starts' and ends' probabilities, (2, rows, width + length - 1), 0 behind the width.
        sums: Denominators, (2, rows).
        top_k: Number of spans.
        length: Tokens of the longest span.
        work: Room, of the shape of `terms`.
        margin: Share of a score by which rounding can move products of numerators against those of probabilities.

    Returns:
        Starts, ends and scores, (rows, top_k) each, and where they are sure, (rows,): spans differ by more than the
        margin, or with margin 0 the leftmost of equals is wanted, and none is near 0, where shares mean nothing.
    """
    first, last = terms
    rows, span = first.shape
    width, row = span - length + 1, np.arange(rows)
    lowest = float(np.finfo(terms.dtype).tiny) * 4 * width**2 if margin else 0.0
    products = maximum_of_next(last, length, work)
    products *= first
    steps = np.arange(length)
    if top_k == 1:
        start = products.argmax(axis=1)
        best = products[row, start]
        products[row, start] = 0
        next_best = products[row, products.argmax(axis=1)]
        scores = last[row[:, None], start[:, None] + steps]
        scores /= sums[1][:, None]
        scores *= (first[row, start] / sums[0])[:, None]
        step = scores.argmax(axis=1)
        sure = (next_best <= best * (1 - margin)) & (best > lowest)
        return start[:, None], (start + step)[:, None], scores[row, step][:, None], sure

    shape = (rows, top_k)
    none = np.zeros(shape, dtype=np.int64)
    if top_k >= width:
        return none, none, np.zeros(shape, dtype=terms.dtype), np.zeros(rows, dtype=bool)
    # The k best spans begin at the k starts whose best spans are best.
    ordered = np.sort(products, axis=1)
    sure = ordered[:, -top_k - 1] < ordered[:, -top_k]
    place = _reaching(products, ordered[:, -top_k], sure, top_k)
    start = place % span
    scores = last.reshape(-1)[place[:, :, None] + steps]
    scores *= first.reshape(-1)[place][:, :, None]
    scores = scores.reshape(rows, -1)
    ranked = np.sort(scores, axis=1)[:, ::-1][:, : top_k + 1]
    worst = ranked[:, top_k - 1]
    sure &= (worst > lowest) & (ordered[:, -top_k - 1] < worst * (1 - margin))
    sure &= (ranked[:, 1:] < ranked[:, :-1] * (1 - margin)).all(axis=1)
    place = _reaching(scores, worst, sure, top_k) % scores.shape[1]
    start = start[row[:, None], place // length]
    end = start + place % length
    scores = last[row[:, None], end] / sums[1][:, None] * (first[row[:, None], start] / sums[0][:, None])
    order = row[:, None], np.argsort(-scores, axis=1)
    return start[order], end[order], scores[order], sure


def _reaching(values: np.ndarray, cuts: np.ndarray, sure: np.ndarray, k: int) -> np.ndarray:
    """Flat places of the elements of each row that reach its cut, k in `sure` rows; any k of the others, (rows, k)."""
    kept = values >= cuts[:, None]
    if not sure.all():
        kept[~sure] = np.arange(values.shape[1]) < k
    return np.flatnonzero(kept).reshape(-1, k)


def _allowed(blocked: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Where no span of a row begins or ends at a blocked token, as it may where all are blocked, (rows,) bool."""
    row = np.arange(len(blocked))[:, None]
    return np.asarray(~(blocked[row, starts] | blocked[row, ends]).any(axis=1))


def _settle(
    result: WindowSpans,
    low: int,
    rows: np.ndarray,
    probabilities: np.ndarray,
    blocked: np.ndarray,
    length: int,
) -> None:
    """Decodes some of the windows from `low` on again, by their probabilities, (2, rows, span)."""
    ones, work = np.ones(probabilities.shape[:2], dtype=probabilities.dtype), np.empty_like(probabilities)
    top_k = result.starts.shape[1]
    *found, sure = _best_spans(probabilities, ones, top_k, length, work, margin=0.0)
    sure &= _allowed(blocked, *found[:2])
    columns = (result.starts, result.ends, result.scores)
    for values, own in zip(columns, found, strict=True):
        values[low + rows] = own
    for number in np.flatnonzero(~sure).tolist():
        row = low + rows[number]
        first, last = probabilities[:, number, : blocked.shape[1]]
        spans = _as_v4(first, last, ~blocked[number], top_k, length)
        result.counts[row] = count = len(spans[0])
        for values, own, nothing in zip(columns, spans, (-1, -1, 0), strict=True):
            values[row] = nothing
            values[row, :count] = own


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
    # Where any token passes, the first one does in v4, which looks for it among the numbers of rows as well.
    passing = allowed.copy()
    passing[0] = allowed.any()
    kept = passing[starts] & passing[ends]
    return starts[kept], ends[kept], flat[order][kept]
