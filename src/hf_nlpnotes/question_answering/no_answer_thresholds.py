"""From how likely a question has no answer to the decision that it has none: thresholds and curves over them.

As the official script of SQuAD 2.0 (Rajpurkar et al. 2018) has them. A probability is any number that grows with the
model's doubt, such as the null score less the best answer's score.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def best_threshold(
    scores: Mapping[Any, float],
    probabilities: Mapping[Any, float],
    predictions: Mapping[Any, str],
    answerable: Mapping[Any, bool],
) -> tuple[float, float]:
    """The threshold that would have given the best mean score, and that score.

    Questions above the threshold count as predicted to have no answer. The search starts where all do (threshold 0,
    whatever the range of the probabilities) and lets the surest answers in, one at a time. Tune it on one data set and
    use it on another: on the same one it is an upper bound.

    Args:
        scores: A question's exact match or F1 with its predicted text.
        probabilities: A question's probability of having no answer.
        predictions: Texts; "" is no answer.
        answerable: Whether a question has an answer.

    Returns:
        The mean score in per cent and the threshold.

    Raises:
        ValueError: No scores.

    Example:
        >>> best_threshold({1: 1.0, 2: 0.0}, {1: 0.2, 2: 0.6}, {1: "x", 2: "y"}, {1: True, 2: False})
        (100.0, 0.2)
    """
    if not scores:
        raise ValueError("no scores: there is nothing to choose a threshold by")
    current: float = sum(not has for has in answerable.values())
    best, threshold = current, 0.0
    for key in sorted(probabilities, key=probabilities.__getitem__):
        if key not in scores:
            continue
        if answerable[key]:
            current += scores[key]
        elif predictions[key]:
            current -= 1
        if current > best:
            best, threshold = current, probabilities[key]
    return 100.0 * best / len(scores), threshold


def average_precision(
    scores: Mapping[Any, float], probabilities: Mapping[Any, float], answerable: Mapping[Any, bool]
) -> float:
    """Area under precision over recall while the threshold rises, in per cent.

    Args:
        scores: A question's exact match or F1 with its predicted text.
        probabilities: A question's probability of having no answer.
        answerable: Whether a question has an answer; at least one has.
    """
    total = sum(answerable.values())
    order = sorted(probabilities, key=probabilities.__getitem__)
    found = area = before = 0.0
    for count, key in enumerate(order, 1):
        if answerable[key]:
            found += scores[key]
        # Questions of the same probability come in together: no threshold lies between them.
        if count == len(order) or probabilities[order[count]] != probabilities[key]:
            recall = found / total
            area += found / count * (recall - before)
            before = recall
    return 100.0 * area
