"""Several answers to one question: all good ones that do not overlap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def select_answers(
    n_best: Sequence[Mapping[str, Any]],
    *,
    min_probability: float | None = None,
    min_score: float | None = None,
    max_answers: int | None = None,
) -> list[dict[str, Any]]:
    """Chooses from an n-best list, best first, every answer that reaches the threshold and overlaps no better one.

    Args:
        n_best: Entries of `extract_spans` in mode `"exact"`, best first. "No answer" is passed over.
        min_probability: Least `probability`, a share of this list; it falls with the size of the list.
        min_score: Least sum of `start_logit` and `end_logit`, which does not.
        max_answers: Most answers; `None` for all.

    Raises:
        ValueError: No threshold is given, a number is out of its range, or entries have no place in the context.

    Example:
        >>> places = [(0, 4, 0.5), (2, 4, 0.3), (6, 9, 0.2)]
        >>> entries = [{"start": begin, "end": end, "probability": share} for begin, end, share in places]
        >>> [(entry["start"], entry["end"]) for entry in select_answers(entries, min_probability=0.1)]
        [(0, 4), (6, 9)]
    """
    if min_probability is None and min_score is None:
        raise ValueError("A threshold is needed: give min_probability or min_score.")
    if min_probability is not None and not 0 <= min_probability <= 1:
        raise ValueError(f"min_probability must be between 0 and 1, got {min_probability}.")
    if max_answers is not None and max_answers < 1:
        raise ValueError(f"max_answers must be at least 1, got {max_answers}.")
    if any("start" not in entry or "end" not in entry for entry in n_best):
        raise ValueError("Entries have no 'start' and 'end': n-best lists of mode='exact' are expected.")
    good = [
        entry
        for entry in n_best
        if entry["end"] > entry["start"]
        and (min_probability is None or entry["probability"] >= min_probability)
        and (min_score is None or entry["start_logit"] + entry["end_logit"] >= min_score)
    ]
    chosen = apart((entry["start"], entry["end"]) for entry in good)
    return [dict(good[place]) for place in chosen[:max_answers]]


def apart(spans: Iterable[tuple[int, int]]) -> list[int]:
    """Places of the spans, half-open, that overlap none before them that is kept."""
    kept: list[tuple[int, int]] = []
    places = []
    for place, (start, end) in enumerate(spans):
        if all(end <= other_start or other_end <= start for other_start, other_end in kept):
            kept.append((start, end))
            places.append(place)
    return places
