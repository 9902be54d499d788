"""Which types are taken for which: a confusion matrix of spans with the same boundaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .schemes import OUTSIDE


@dataclass(frozen=True)
class TypeConfusion:
    """Gold types by predicted types.

    Attributes:
        types: names, sorted, then `O`: no span with these boundaries.
        matrix: (types + 1, types + 1); `matrix[i, j]`: spans of gold type i that were predicted as j.
    """

    types: tuple[str, ...]
    matrix: NDArray[np.int64]

    def __getitem__(self, pair: tuple[str, str]) -> int:
        """Spans of gold type `pair[0]` that were predicted as `pair[1]`."""
        return int(self.matrix[self.types.index(pair[0]), self.types.index(pair[1])])

    def __str__(self) -> str:
        """Show a table, gold types down and predicted ones across."""
        width = max(map(len, (*self.types, *map(str, self.matrix.ravel()))))
        rows = [["", *self.types]]
        rows += [[name, *map(str, row)] for name, row in zip(self.types, self.matrix.tolist(), strict=True)]
        return "\n".join("  ".join(cell.rjust(width) for cell in row) for row in rows)


def type_confusion(
    true: Sequence[Iterable[tuple[str, int, int]]], pred: Sequence[Iterable[tuple[str, int, int]]]
) -> TypeConfusion:
    """Count the types of gold and predicted spans with the same boundaries.

    Args:
        true: for each sentence its gold spans, (type, start, end), flat.
        pred: the same for the predictions.

    Raises:
        ValueError: other numbers of sentences.
    """
    if len(true) != len(pred):
        raise ValueError(f"true has {len(true)} sentences and pred {len(pred)}: expected as many")
    pairs: Counter[tuple[str, str]] = Counter()
    for gold, predicted in zip(true, pred, strict=True):
        gold_types = {(start, end): name for name, start, end in gold}
        predicted_types = {(start, end): name for name, start, end in predicted}
        for place in gold_types.keys() | predicted_types.keys():
            pairs[gold_types.get(place, OUTSIDE), predicted_types.get(place, OUTSIDE)] += 1
    types = (*sorted({name for pair in pairs for name in pair} - {OUTSIDE}), OUTSIDE)
    matrix = np.zeros((len(types), len(types)), dtype=np.int64)
    for (gold_type, predicted_type), count in pairs.items():
        matrix[types.index(gold_type), types.index(predicted_type)] = count
    return TypeConfusion(types, matrix)
