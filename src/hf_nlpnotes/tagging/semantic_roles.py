"""F1 of semantic roles as CoNLL-2005 and 2012 count it (Carreras and Màrquez, 2005).

An argument is right when its predicate, its label and all its words are. `C-A1` continues the `A1` before it: both
make one argument in pieces. `R-A1` is a label of its own. The predicate itself, `V`, does not count.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from .metrics import Scores

Argument = tuple[str, tuple[tuple[int, int], ...]]
"""A label and its pieces `[start, end)`."""

Frames = Mapping[Any, Iterable[tuple[str, int, int]]]
"""Predicate (its position, say: anything hashable) -> spans (label, start, end)."""


def join_continuations(spans: Iterable[tuple[str, int, int]]) -> list[Argument]:
    """Join `C-X` with the nearest `X` before it; one without stands for itself under the label `C-X`."""
    arguments: list[tuple[str, list[tuple[int, int]]]] = []
    for name, start, end in sorted(spans, key=lambda span: span[1]):
        base = name.removeprefix("C-")
        whole = next((pieces for label, pieces in reversed(arguments) if label == base), None)
        if name != base and whole is not None:
            whole.append((start, end))
        else:
            arguments.append((name, [(start, end)]))
    return [(label, tuple(pieces)) for label, pieces in arguments]


def srl_scores(true: Sequence[Frames], pred: Sequence[Frames], *, exclude: Collection[str] = ("V",)) -> Scores:
    """Precision, recall and F1 of arguments, and the number of gold ones.

    Args:
        true: for each sentence its gold frames.
        pred: the same for the predictions.
        exclude: labels that do not count.

    Raises:
        ValueError: other numbers of sentences.
    """
    overall, _ = _count(true, pred, exclude)
    return Scores.of_counts(*overall)


def srl_scores_by_label(
    true: Sequence[Frames], pred: Sequence[Frames], *, exclude: Collection[str] = ("V",)
) -> dict[str, Scores]:
    """Give the scores of each label, in alphabetical order; arguments as in `srl_scores`.

    Args:
        true: for each sentence its gold frames.
        pred: the same for the predictions.
        exclude: labels that do not count.
    """
    _, by_label = _count(true, pred, exclude)
    return {label: Scores.of_counts(*by_label[label]) for label in sorted(by_label)}


def _count(
    true: Sequence[Frames], pred: Sequence[Frames], exclude: Collection[str]
) -> tuple[list[int], dict[str, list[int]]]:
    """Correct, predicted and gold arguments, of all labels and of each."""
    if len(true) != len(pred):
        raise ValueError(f"{len(true)} gold sentences and {len(pred)} predicted ones: expected as many")
    by_label: dict[str, list[int]] = {}
    for gold_frames, predicted_frames in zip(true, pred, strict=True):
        gold, predicted = _arguments(gold_frames, exclude), _arguments(predicted_frames, exclude)
        for place, arguments in enumerate((gold & predicted, predicted, gold)):
            for _, (label, _) in arguments:
                by_label.setdefault(label, [0, 0, 0])[place] += 1
    return [sum(counts[place] for counts in by_label.values()) for place in range(3)], by_label


def _arguments(frames: Frames, exclude: Collection[str]) -> set[tuple[Hashable, Argument]]:
    return {
        (predicate, argument)
        for predicate, spans in frames.items()
        for argument in join_continuations(spans)
        if argument[0].removeprefix("C-") not in exclude
    }
