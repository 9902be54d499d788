"""Scores that give credit for nearly right spans, in nervaluate's four schemas.

The schemas are those of SemEval-2013 task 9 (Segura-Bedmar et al., 2013), as nervaluate 1.2.1 computes them:

    strict    same boundaries and same type
    exact     same boundaries, any type
    partial   overlapping boundaries, any type; an overlap that is not exact counts half
    ent_type  overlapping boundaries, same type

Each predicted span, in order, takes one gold span that is still free: the first perfect one, else the first that it
overlaps (for ent_type: of those with its type the one with the nearest boundaries, the first among equals). What it
takes is correct, incorrect or partial; a predicted span without one is spurious, a gold span left over is missed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .schemes import Span

Schema = Literal["strict", "exact", "partial", "ent_type"]
SCHEMAS: tuple[Schema, ...] = ("strict", "exact", "partial", "ent_type")

SpanLike = tuple[str, int, int]


@dataclass
class MatchCounts:
    """Outcomes of one schema; scores follow from them.

    Attributes:
        correct: predicted spans that are right.
        incorrect: predicted spans that meet a gold span and are wrong.
        partial: predicted spans with boundaries that overlap, in the schema `partial` alone.
        missed: gold spans that no prediction met.
        spurious: predicted spans that met no gold span.
    """

    correct: int = 0
    incorrect: int = 0
    partial: int = 0
    missed: int = 0
    spurious: int = 0

    def add(self, other: MatchCounts) -> None:
        """Add another's outcomes.

        Args:
            other: outcomes of the same schema, of other sentences.
        """
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def actual(self) -> int:
        """Predicted spans."""
        return self.correct + self.incorrect + self.partial + self.spurious

    @property
    def possible(self) -> int:
        """Gold spans."""
        return self.correct + self.incorrect + self.partial + self.missed

    @property
    def precision(self) -> float:
        """Correct spans, a partial one as half, by predicted ones; 0 without any."""
        return (self.correct + 0.5 * self.partial) / self.actual if self.actual else 0.0

    @property
    def recall(self) -> float:
        """Correct spans, a partial one as half, by gold ones; 0 without any."""
        return (self.correct + 0.5 * self.partial) / self.possible if self.possible else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 0 where both are."""
        precision, recall = self.precision, self.recall
        return 2 * (precision * recall) / (precision + recall) if precision + recall else 0.0

    def as_dict(self) -> dict[str, float]:
        """Outcomes and scores under nervaluate's names."""
        scores = {name: getattr(self, name) for name in ("precision", "recall", "f1", "actual", "possible")}
        return {**vars(self), **scores}


@dataclass(frozen=True)
class PartialMatches:
    """Outcomes over a corpus.

    Attributes:
        overall: schema -> outcomes with all types together.
        by_type: type -> schema -> outcomes with only the spans of that type, gold and predicted.
    """

    overall: dict[Schema, MatchCounts] = field(default_factory=dict)
    by_type: dict[str, dict[Schema, MatchCounts]] = field(default_factory=dict)


def partial_matches(
    true: Sequence[Iterable[SpanLike]],
    pred: Sequence[Iterable[SpanLike]],
    *,
    types: Collection[str] | None = None,
    min_overlap: float = 1.0,
) -> PartialMatches:
    """Compare predicted with gold spans in all four schemas.

    Args:
        true: for each sentence its gold spans, (type, start, end), half-open.
        pred: the same for the predictions.
        types: the types that count; None: all.
        min_overlap: per cent of the gold span that a prediction must cover to overlap it, 1 to 100.

    Raises:
        ValueError: other numbers of sentences, a percentage out of range, or a span without a token.
    """
    if len(true) != len(pred):
        raise ValueError(f"true has {len(true)} sentences and pred {len(pred)}: expected as many")
    if not 1 <= min_overlap <= 100:
        raise ValueError(f"min_overlap is per cent of the gold span, from 1 to 100; got {min_overlap}")
    result = PartialMatches({schema: MatchCounts() for schema in SCHEMAS})
    for gold, predicted in zip(true, pred, strict=True):
        sides = [[Span(*span) for span in spans if types is None or span[0] in types] for spans in (gold, predicted)]
        empty = next((span for side in sides for span in side if span.start >= span.end), None)
        if empty is not None:
            raise ValueError(f"{empty} has no token: expected start < end, the end being that after the last token")
        for schema in SCHEMAS:
            result.overall[schema].add(_match(sides[0], sides[1], schema, min_overlap))
        for name in sorted({span.type for side in sides for span in side}):
            of_type = [[span for span in side if span.type == name] for side in sides]
            counts = result.by_type.setdefault(name, {schema: MatchCounts() for schema in SCHEMAS})
            for schema in SCHEMAS:
                counts[schema].add(_match(of_type[0], of_type[1], schema, min_overlap))
    return result


def _match(gold: Sequence[Span], predicted: Sequence[Span], schema: Schema, min_overlap: float) -> MatchCounts:
    counts = MatchCounts()
    free = dict(enumerate(gold))
    for span in predicted:
        overlapped = [number for number, other in free.items() if _overlap(span, other) >= min_overlap]
        perfect = _best(span, free, overlapped, schema)
        if perfect is not None:
            counts.correct += 1
            del free[perfect]
        elif overlapped:
            if schema == "partial":
                counts.partial += 1
            else:
                counts.incorrect += 1
            del free[overlapped[0]]
        else:
            counts.spurious += 1
    counts.missed = len(free)
    return counts


def _best(span: Span, free: dict[int, Span], overlapped: Sequence[int], schema: Schema) -> int | None:
    """Return the number of the free gold span that makes `span` correct."""
    if schema == "ent_type":
        same = [number for number in overlapped if free[number].type == span.type]
        return min(same, key=lambda number: _distance(span, free[number]), default=None)
    for number, other in free.items():
        if span[1:] == other[1:] and (schema != "strict" or span.type == other.type):
            return number
    return None


def _overlap(span: Span, gold: Span) -> float:
    """Per cent of the gold span that `span` covers."""
    return max(0, min(span.end, gold.end) - max(span.start, gold.start)) / (gold.end - gold.start) * 100


def _distance(span: Span, gold: Span) -> int:
    return abs(span.start - gold.start) + abs(span.end - gold.end)
