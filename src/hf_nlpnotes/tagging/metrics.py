"""Span precision, recall and F1 of tagged corpora, with seqeval 1.2.2's numbers and reports.

Every function takes one list of tags a sentence, gold and predicted, or label ids together with `labels`; with ids,
positions whose gold id is -100 are left out, so the arrays that a Trainer hands to `compute_metrics` go in as they
are. `mode=None` is the default reading, which is conlleval's; `mode="strict"` counts only spans that are whole in
their scheme. See `chunks` for both.

Scores are exact counts and one division each, so equal counts give seqeval's floats bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from .chunks import Chunks, default_reading, detect_strict_scheme, foreign_tags, strict_reading, unknown_to_default
from .schemes import OUTSIDE, Scheme
from .tag_codes import Labels, TagCodes, Tags, encode_tags

Average = Literal["micro", "macro", "weighted"]
Mode = Literal["strict"] | None
ZeroDivision = Literal[0, 1, "warn"]

AVERAGES: tuple[Average, ...] = ("micro", "macro", "weighted")


class Scores(NamedTuple):
    """Precision, recall and F1, and the number of gold spans behind them.

    Attributes:
        precision: correct spans by predicted ones, from 0 to 1.
        recall: correct spans by gold ones.
        f1: their harmonic mean; weighted by `beta` where one was given.
        support: number of gold spans.
    """

    precision: float
    recall: float
    f1: float
    support: int

    @classmethod
    def of_counts(cls, correct: int, predicted: int, gold: int) -> Scores:
        """Scores of what was counted; 0 where there is nothing to divide by.

        Args:
            correct: how many are predicted and gold.
            predicted: how many are predicted.
            gold: how many there are.
        """
        precision = correct / predicted if predicted else 0.0
        recall = correct / gold if gold else 0.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return cls(precision, recall, f1, gold)


@dataclass(frozen=True)
class SpanCounts:
    """Spans of each type, in the order of `types`.

    Attributes:
        types: names, sorted; those of gold or predicted spans.
        correct: (types,); predicted spans that are gold: same sentence, type, start and end.
        predicted, gold: (types,).
    """

    types: tuple[str, ...]
    correct: NDArray[np.int64]
    predicted: NDArray[np.int64]
    gold: NDArray[np.int64]


def count_spans(
    y_true: Tags,
    y_pred: Tags,
    *,
    scheme: str | Scheme | type | None = None,
    mode: Mode = None,
    labels: Labels = None,
    suffix: bool = False,
) -> SpanCounts:
    """Count gold, predicted and correct spans of each type.

    Args:
        y_true: one list of tags a sentence, or label ids (sentences, tokens) with `labels`.
        y_pred: the same for the predictions.
        scheme: for the strict mode: a name, one of seqeval's classes, or None to tell it from the gold tags. The
            default mode reads all schemes alike and ignores it, as seqeval does.
        mode: None or "strict".
        labels: the tags in the order of their ids, or a config's `id2label`.
        suffix: whether prefixes stand behind the types, `PER-B`.

    Raises:
        ValueError: other numbers of sentences or tokens, no token, a tag or id that is not known, an unknown mode.
        TypeError: not lists of sentences, or tags that are neither strings nor, with `labels`, ids.
    """
    return count_coded_spans(encode_tags(y_true, y_pred, labels), scheme=scheme, mode=mode, suffix=suffix)


def count_coded_spans(
    coded: TagCodes, *, scheme: str | Scheme | type | None = None, mode: Mode = None, suffix: bool = False
) -> SpanCounts:
    """Count as `count_spans` does, on tags that are encoded already."""
    if mode is None:
        unknown = unknown_to_default(coded.labels, suffix=suffix)
        if unknown:
            warnings.warn(
                f"not tags of a span in the default reading: {', '.join(unknown)}. It knows O, B, I, E and S; "
                "mode='strict' with a scheme reads BILOU and BMES",
                stacklevel=3,
            )
        read = default_reading(coded.labels, suffix=suffix)
    elif mode == "strict":
        name = _scheme_name(scheme) or detect_strict_scheme(_used(coded, coded.true), suffix=suffix)
        labels = _without_unused(coded, name, suffix=suffix)
        read = strict_reading(labels, name, suffix=suffix)
    else:
        raise ValueError(f"mode must be None or 'strict', got {mode!r}")
    return _compare(read(coded.true), read(coded.pred), len(coded.true))


def span_scores(counts: SpanCounts, *, average: Average, beta: float = 1.0, zero_division: ZeroDivision = 0) -> Scores:
    """Average precision, recall and F over the types of `counts`.

    Args:
        counts: from `count_spans`.
        average: "micro" pools all spans, "macro" is the mean over types, "weighted" weighs types by gold spans.
        beta: weight of recall in F.
        zero_division: the value where there is nothing to divide by; "warn" is 0 with a warning.

    Raises:
        ValueError: an unknown average, or a negative beta.
    """
    if average not in AVERAGES:
        raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}")
    support = int(counts.gold.sum())
    if average == "micro":
        pooled = SpanCounts(
            ("micro",), *(np.array([column.sum()]) for column in (counts.correct, counts.predicted, counts.gold))
        )
        precision, recall, f1 = (float(column[0]) for column in _columns(pooled, beta, zero_division))
        return Scores(precision, recall, f1, support)
    columns = _columns(counts, beta, zero_division)
    if not len(counts.types):
        undefined = float("nan") if average == "macro" else float(zero_division == 1)
        return Scores(undefined, undefined, undefined, support)
    if average == "weighted" and not support:
        empty = float(zero_division == 1)
        none_predicted = empty if not counts.predicted.sum() else 0.0
        return Scores(none_predicted, empty, none_predicted, support)
    weights = counts.gold if average == "weighted" else None
    precision, recall, f1 = (float(np.average(column, weights=weights)) for column in columns)
    return Scores(precision, recall, f1, support)


def scores_by_type(counts: SpanCounts, *, beta: float = 1.0, zero_division: ZeroDivision = 0) -> dict[str, Scores]:
    """Give precision, recall, F and gold spans of each type.

    Args:
        counts: from `count_spans`.
        beta: weight of recall in F.
        zero_division: as in `span_scores`.
    """
    columns = zip(*_columns(counts, beta, zero_division), counts.gold, strict=True)
    return {
        name: Scores(float(p), float(r), float(f), int(support))
        for name, (p, r, f, support) in zip(counts.types, columns, strict=True)
    }


def precision_recall_f1(
    y_true: Tags,
    y_pred: Tags,
    *,
    average: Average = "micro",
    scheme: str | Scheme | type | None = None,
    mode: Mode = None,
    labels: Labels = None,
    suffix: bool = False,
    zero_division: ZeroDivision = 0,
) -> Scores:
    """Precision, recall, F1 and the number of gold spans; arguments as in `count_spans` and `span_scores`.

    Args:
        y_true: as in `count_spans`.
        y_pred: as in `count_spans`.
        average: as in `span_scores`.
        scheme: as in `count_spans`.
        mode: as in `count_spans`.
        labels: as in `count_spans`.
        suffix: as in `count_spans`.
        zero_division: as in `span_scores`.
    """
    counts = count_spans(y_true, y_pred, scheme=scheme, mode=mode, labels=labels, suffix=suffix)
    return span_scores(counts, average=average, zero_division=zero_division)


def accuracy_score(y_true: Tags, y_pred: Tags, *, labels: Labels = None) -> float:
    """Share of tokens whose tag is right, `O` included: part-of-speech accuracy where tags are parts of speech.

    Args:
        y_true: as in `count_spans`.
        y_pred: as in `count_spans`.
        labels: as in `count_spans`.
    """
    coded = encode_tags(y_true, y_pred, labels)
    return coded.right_tokens / coded.tokens


@overload
def classification_report(
    y_true: Tags,
    y_pred: Tags,
    scheme: str | Scheme | type | None = ...,
    mode: Mode = ...,
    output_dict: Literal[False] = ...,
    digits: int = ...,
    *,
    labels: Labels = ...,
    suffix: bool = ...,
    zero_division: ZeroDivision = ...,
) -> str: ...


@overload
def classification_report(
    y_true: Tags,
    y_pred: Tags,
    scheme: str | Scheme | type | None = ...,
    mode: Mode = ...,
    *,
    output_dict: Literal[True],
    digits: int = ...,
    labels: Labels = ...,
    suffix: bool = ...,
    zero_division: ZeroDivision = ...,
) -> dict[str, dict[str, float]]: ...


def classification_report(
    y_true: Tags,
    y_pred: Tags,
    scheme: str | Scheme | type | None = None,
    mode: Mode = None,
    output_dict: bool = False,
    digits: int = 2,
    *,
    labels: Labels = None,
    suffix: bool = False,
    zero_division: ZeroDivision = 0,
) -> str | dict[str, dict[str, float]]:
    """Report precision, recall, F1 and gold spans of each type and of three averages, as seqeval's report does.

    Args:
        y_true: one list of tags a sentence, or label ids (sentences, tokens) with `labels`.
        y_pred: the same for the predictions.
        scheme: for the strict mode: a name, one of seqeval's classes, or None to tell it from the gold tags.
        mode: None or "strict".
        output_dict: whether to give a dictionary instead of text.
        digits: decimals of the text.
        labels: the tags in the order of their ids, or a config's `id2label`.
        suffix: whether prefixes stand behind the types, `PER-B`.
        zero_division: the value where there is nothing to divide by; "warn" is 0 with a warning.

    Returns:
        The text, or row -> {"precision", "recall", "f1-score", "support"}, with the keys and values of seqeval's.

    Raises:
        ValueError, TypeError: as `count_spans`.
    """
    counts = count_spans(y_true, y_pred, scheme=scheme, mode=mode, labels=labels, suffix=suffix)
    rows = scores_by_type(counts, zero_division=zero_division)
    averages = {f"{name} avg": span_scores(counts, average=name, zero_division=zero_division) for name in AVERAGES}
    if output_dict:
        names = ("precision", "recall", "f1-score", "support")
        return {row: dict(zip(names, scores, strict=True)) for row, scores in {**rows, **averages}.items()}
    return _report_text(rows, averages, digits)


def _report_text(rows: Mapping[str, Scores], averages: Mapping[str, Scores], digits: int) -> str:
    width = max(digits, *map(len, [*rows, *averages]))
    head = " " * width + "  " + " ".join(f"{name:>9}" for name in ("precision", "recall", "f1-score", "support"))

    def line(name: str, scores: Scores) -> str:
        values = " ".join(f"{value:>9.{digits}f}" for value in scores[:3])
        return f"{name:>{width}}  {values} {scores.support:>9}"

    lines = [head, "", *(line(*row) for row in rows.items()), "", *(line(*row) for row in averages.items()), ""]
    return "\n".join(lines)


def _scheme_name(scheme: str | Scheme | type | None) -> str | None:
    """Return the name of a scheme; seqeval's schemes are classes."""
    if isinstance(scheme, type):
        return scheme.__name__
    return scheme.name if isinstance(scheme, Scheme) else scheme


def _used(coded: TagCodes, codes: NDArray[Any]) -> list[str]:
    """List the tags that occur; `O` only where a token has it, which a separator does not show."""
    occurring = np.bincount(codes, minlength=len(coded.labels))
    occurring[coded.separator] -= len(codes) - coded.tokens
    return [label for label, count in zip(coded.labels, occurring, strict=True) if count]


def _without_unused(coded: TagCodes, scheme: str, *, suffix: bool) -> list[str]:
    """Put `O` for labels that are foreign to the scheme but that no token has: they are no reason to refuse it."""
    foreign = foreign_tags(coded.labels, scheme, suffix=suffix)
    unused = {
        label
        for label in foreign
        if not any((codes == coded.labels.index(label)).any() for codes in (coded.true, coded.pred))
    }
    return [OUTSIDE if label in unused else label for label in coded.labels]


def _compare(true: Chunks, pred: Chunks, length: int) -> SpanCounts:
    size = len(true.type_names)
    # No two spans of one reading end at the same place: where one ends, its length and type are its name. Lengths are
    # small, so the array over all positions can be of bytes.
    names_of = [(chunks.ends - chunks.starts) * size + chunks.types for chunks in (true, pred)]
    highest = max(int(names.max(initial=0)) for names in names_of)
    ending_at = np.zeros(length, dtype=np.min_scalar_type(highest))
    ending_at[true.ends] = names_of[0]
    same = ending_at[pred.ends] == names_of[1]
    gold = np.bincount(true.types, minlength=size)
    predicted = np.bincount(pred.types, minlength=size)
    correct = np.bincount(pred.types[same], minlength=size)
    order = sorted(np.flatnonzero(gold + predicted), key=lambda i: true.type_names[i])
    names = tuple(true.type_names[i] for i in order)
    return SpanCounts(names, correct[order], predicted[order], gold[order])


def _columns(
    counts: SpanCounts, beta: float, zero_division: ZeroDivision
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    if beta < 0:
        raise ValueError(f"beta must not be negative, got {beta}")
    if zero_division not in (0, 1, "warn"):
        raise ValueError(f"zero_division must be 0, 1 or 'warn', got {zero_division!r}")
    precision = _divide(counts.correct, counts.predicted, zero_division, "precision: no predicted")
    recall = _divide(counts.correct, counts.gold, zero_division, "recall: no gold")
    if np.isposinf(beta):
        return precision, recall, recall
    weighted = beta**2 * precision + recall
    weighted[weighted == 0] = 1
    return precision, recall, (1 + beta**2) * precision * recall / weighted


def _divide(
    correct: NDArray[np.int64], whole: NDArray[np.int64], zero_division: ZeroDivision, what: str
) -> NDArray[np.float64]:
    none = whole == 0
    if none.any() and zero_division == "warn":
        warnings.warn(f"{what} spans, so it is set to 0. Pass zero_division=0 or 1 to choose", stacklevel=5)
    ratio = correct / np.where(none, 1, whole)
    ratio[none] = float(zero_division == 1)
    return ratio
