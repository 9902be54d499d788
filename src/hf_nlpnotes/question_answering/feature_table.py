"""Features as `postprocess_predictions` reads them: from a list of dicts, a table of columns, or a `datasets.Dataset`.

Only what an answer needs is read. A list of features holds a Python tuple for each token; most are never looked at.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, Protocol

import numpy as np

OFFSETS = "offset_mapping"
_HOW = (
    "Features must come from prepare_validation_features, or have the columns example_id and offset_mapping of"
    " transformers' example script"
)


class Offsets(Protocol):
    """Character offsets of the tokens of all features; a token outside the context has none."""

    def side(self, rows: np.ndarray, tokens: np.ndarray, end: int) -> np.ndarray:
        """Where single tokens begin (`end=0`) or end (`end=1`), (tokens,) int64; -1 outside the context or feature."""

    def pairs(self, rows: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Both of `side`, quickest where tokens of a row stand together."""

    def spans(self, rows: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where tokens `firsts` begin and tokens `lasts` of the same rows end."""

    def mask(self, width: int, rows: np.ndarray | None = None) -> np.ndarray:
        """Where tokens of the context are in features, all of them or `rows`, (features, width) bool."""


class _Sides:
    """Offsets that are looked up one side at a time."""

    def side(self, rows: np.ndarray, tokens: np.ndarray, end: int) -> np.ndarray:
        """See `Offsets`."""
        raise NotImplementedError

    def pairs(self, rows: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Offsets`."""
        return self.side(rows, tokens, 0), self.side(rows, tokens, 1)

    def spans(self, rows: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Offsets`."""
        return self.side(rows, firsts, 0), self.side(rows, lasts, 1)


class ArrayOffsets(_Sides):
    """Offsets in one array, (features, width, 2), negative outside the context."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def side(self, rows: np.ndarray, tokens: np.ndarray, end: int) -> np.ndarray:
        """See `Offsets`."""
        within = tokens < self.values.shape[1]
        found = self.values[rows, np.where(within, tokens, 0), end]
        return np.where(within & (found >= 0), found, -1)

    def mask(self, width: int, rows: np.ndarray | None = None) -> np.ndarray:
        """See `Offsets`."""
        values = self.values if rows is None else self.values[rows]
        return _fit(values[..., 0] >= 0, width)


class ListOffsets:
    """Offsets in lists: for each token a pair, or `None` or less than a pair outside the context."""

    def __init__(self, rows: Sequence[Sequence[Sequence[int] | None]]) -> None:
        self.rows = rows

    def side(self, rows: np.ndarray, tokens: np.ndarray, end: int) -> np.ndarray:
        """See `Offsets`."""
        table = self.rows
        places = zip(rows.tolist(), tokens.tolist(), strict=True)
        found = [
            pair[end] if token < len(table[row]) and (pair := table[row][token]) and len(pair) > 1 else -1
            for row, token in places
        ]
        return np.array(found, dtype=np.int64)

    def pairs(self, rows: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Offsets`."""
        if not len(rows):
            return rows, rows
        table = self.rows
        stops = np.append(np.flatnonzero(np.diff(rows)) + 1, len(rows))
        numbers = tokens.tolist()
        try:
            # Quick where every token is a pair of the context: one call takes all tokens out of a row.
            found: list[Any] = []
            begin = 0
            for row, stop in zip(rows[stops - 1].tolist(), stops.tolist(), strict=True):
                if stop - begin == 1:
                    found.append(table[row][numbers[begin]])
                else:
                    found.extend(itemgetter(*numbers[begin:stop])(table[row]))
                begin = stop
            begins = np.fromiter(map(itemgetter(0), found), dtype=np.int64, count=len(found))
            return begins, np.fromiter(map(itemgetter(1), found), dtype=np.int64, count=len(found))
        except (TypeError, IndexError):
            return self.side(rows, tokens, 0), self.side(rows, tokens, 1)

    def spans(self, rows: np.ndarray, firsts: np.ndarray, lasts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Offsets`."""
        table = self.rows
        try:
            # Quick where every token is a pair of the context; the second of each shows that it is one.
            found = [
                (begin[0], begin[1], end[1])
                for row, first, last in zip(rows.tolist(), firsts.tolist(), lasts.tolist(), strict=True)
                for own in (table[row],)
                for begin, end in ((own[first], own[last]),)
            ]
        except (TypeError, IndexError):
            return self.side(rows, firsts, 0), self.side(rows, lasts, 1)
        values = np.array(found, dtype=np.int64).reshape(len(found), 3)
        return values[:, 0], values[:, 2]

    def mask(self, width: int, rows: np.ndarray | None = None) -> np.ndarray:
        """See `Offsets`."""
        numbers = range(len(self.rows)) if rows is None else rows.tolist()
        return np.array([self.row_mask(row, width) for row in numbers], dtype=bool).reshape(len(numbers), width)

    def row_mask(self, row: int, width: int) -> np.ndarray:
        """Where tokens of the context are in one feature, (width,) bool."""
        pairs = self.rows[row]
        values = [pair is not None and len(pair) > 1 and pair[0] >= 0 for pair in pairs[:width]]
        return np.array(values + [False] * (width - len(values)), dtype=bool)


class ArrowOffsets(_Sides):
    """Offsets in an Arrow array, list<list<int>> with or without nulls, read where it lies."""

    def __init__(self, array: Any) -> None:
        array = getattr(array, "storage", array)  # an extension type, as `datasets` has for arrays of fixed shape
        self.first, pairs = _list_places(array)
        self.places, values = _list_places(pairs)
        self.values = values.to_numpy(zero_copy_only=False)
        # Bits, not looked at before they are needed: there is one for each token of the data set.
        bits = pairs.buffers()[0] if pairs.null_count else None
        self.valid = None if bits is None else np.frombuffer(bits, dtype=np.uint8)
        self.shift = pairs.offset

    def side(self, rows: np.ndarray, tokens: np.ndarray, end: int) -> np.ndarray:
        """See `Offsets`."""
        place = self.first[rows] + tokens
        within = place < self.first[rows + 1]
        place = np.where(within, place, 0)
        within &= self._present(place)
        found = self.values[np.where(within, self.places[place] + end, 0)]
        return np.where(within & (found >= 0), found, -1)

    def mask(self, width: int, rows: np.ndarray | None = None) -> np.ndarray:
        """See `Offsets`."""
        rows = np.arange(len(self.first) - 1) if rows is None else rows
        return self.side(rows[:, None], np.arange(width), 0) >= 0

    def _present(self, place: np.ndarray) -> np.ndarray:
        """Whether there is a pair in places of the tokens' array."""
        present = np.asarray(self.places[place + 1] - self.places[place] > 1)
        if self.valid is not None:
            bit = place + self.shift
            present &= (self.valid[bit >> 3] >> (bit & 7) & 1).astype(bool)
        return present


class ChunkedOffsets(_Sides):
    """Offsets in the chunks of an Arrow column: joining them would copy all there is."""

    def __init__(self, column: Any) -> None:
        self.chunks = [ArrowOffsets(chunk) for chunk in column.chunks]
        self.first = np.cumsum([0, *map(len, column.chunks)])

    def side(self, rows: np.ndarray, tokens: np.ndarray, end: int) -> np.ndarray:
        """See `Offsets`."""
        rows, tokens = np.broadcast_arrays(rows, tokens)
        found = np.full(rows.shape, -1, dtype=np.int64)
        for chunk, low, high in zip(self.chunks, self.first[:-1], self.first[1:], strict=True):
            own = (rows >= low) & (rows < high)
            found[own] = chunk.side(rows[own] - low, tokens[own], end)
        return found

    def mask(self, width: int, rows: np.ndarray | None = None) -> np.ndarray:
        """See `Offsets`."""
        rows = np.arange(self.first[-1]) if rows is None else rows
        return self.side(rows[:, None], np.arange(width), 0) >= 0


@dataclass(frozen=True)
class FeatureTable:
    """Features of examples.

    Attributes:
        example_ids: Ids of the examples, in their order.
        contexts: Their contexts.
        example: Number of each feature's example, (features,) int64.
        offsets: Offsets of the features' tokens.
        cls_index: Place of the classification token in each feature, (features,) int64.
        max_context: `token_is_max_context` of each feature: a bool for each token, or as the example script has it
            a dict from tokens' numbers as strings, or `None` for all of them; `None` where features do not have it.
    """

    example_ids: list[Hashable]
    contexts: list[str]
    example: np.ndarray
    offsets: Offsets
    cls_index: np.ndarray
    max_context: np.ndarray | Sequence[Mapping[str, bool] | Sequence[bool] | None] | None

    def __len__(self) -> int:
        return len(self.example)

    @cached_property
    def order(self) -> np.ndarray:
        """Numbers of the features, those of one example together and in their order, (features,)."""
        if len(self.example) < 2 or bool((np.diff(self.example) >= 0).all()):
            return np.arange(len(self.example))
        return np.argsort(self.example, kind="stable")

    @cached_property
    def first(self) -> np.ndarray:
        """Where each example's features begin in `order`, and their number last, (examples + 1,)."""
        counts = np.bincount(self.example, minlength=len(self.example_ids))
        return np.concatenate([[0], np.cumsum(counts)])

    def rows_of(self, examples: np.ndarray) -> np.ndarray:
        """Features of some examples, whose numbers rise; those of one example together, (rows,)."""
        if len(examples) == len(self.example_ids):
            return self.order
        chosen = np.zeros(len(self.example_ids), dtype=bool)
        chosen[examples] = True
        return self.order[chosen[self.example[self.order]]]

    def has_max_context(self, row: int, tokens: np.ndarray) -> np.ndarray:
        """Which tokens of a feature have most context there, or were not asked about, (tokens,) bool."""
        best = None if self.max_context is None else self.max_context[row]
        if best is None:
            return np.ones(len(tokens), dtype=bool)
        if isinstance(best, Mapping):
            return np.array([bool(best.get(str(token), False)) for token in tokens.tolist()], dtype=bool)
        flags = np.append(np.asarray(best, dtype=bool), False)
        return flags[np.minimum(tokens, len(flags) - 1)]

    def sizes_of(self, examples: np.ndarray) -> np.ndarray:
        """Number of features of some examples, (examples,)."""
        return np.diff(self.first)[examples]


def read_features(
    examples: Any,
    features: Any,
    *,
    id_column: str = "id",
    context_column: str = "context",
) -> FeatureTable:
    """Reads examples and features, whatever they are held in.

    Args:
        examples: `datasets.Dataset`, mapping of columns or list of dicts, with ids and contexts.
        features: The same, with `example_id` and `offset_mapping`, optionally `cls_index`, `token_is_max_context`.
        id_column, context_column: Names of the examples' columns.

    Raises:
        ValueError: A column is absent, an id stands twice, or a feature belongs to no example.
    """
    ids = column_of(examples, id_column, "examples")
    contexts = column_of(examples, context_column, "examples")
    number = dict(zip(ids, range(len(ids)), strict=True))
    if len(number) != len(ids):
        raise ValueError(f"Ids of examples must differ: {len(ids)} examples have {len(number)} ids.")
    owners = column_of(features, "example_id", "features", _HOW)
    try:
        example = np.fromiter(map(number.__getitem__, owners), dtype=np.int64, count=len(owners))
    except KeyError as error:
        raise ValueError(f"A feature belongs to {error.args[0]!r}, which is no id of the examples.") from error
    present = columns_of(features)
    if OFFSETS not in present and len(owners):
        raise ValueError(f"features has no column {OFFSETS!r}: it has {sorted(present)}. {_HOW}.")
    cls_index = np.zeros(len(owners), dtype=np.int64)
    if "cls_index" in present:
        cls_index = np.asarray(column_of(features, "cls_index", "features"), dtype=np.int64)
    max_context = None
    if "token_is_max_context" in present:
        best = features["token_is_max_context"] if isinstance(features, Mapping) else None
        max_context = best if isinstance(best, np.ndarray) else column_of(features, "token_is_max_context", "features")
    return FeatureTable(ids, contexts, example, _offsets(features), cls_index, max_context)


def check_characters(table: FeatureTable, examples: np.ndarray, ends: np.ndarray) -> None:
    """Checks that answers lie in their contexts: features may have been made from other texts.

    Args:
        table: The features.
        examples: Numbers of examples, which rise, of the shape of `ends`.
        ends: Where answers end, characters.

    Raises:
        ValueError: An answer ends behind its context.
    """
    every = len(examples) == len(table.contexts)
    contexts = table.contexts if every else map(table.contexts.__getitem__, examples.tolist())
    sizes = np.fromiter(map(len, contexts), dtype=np.int64, count=len(examples))
    beyond = np.flatnonzero(ends > sizes)
    if len(beyond):
        number = int(examples[beyond[0]])
        raise ValueError(
            f"The features of example {table.example_ids[number]!r} are those of another text: an answer ends at"
            f" character {int(ends[beyond[0]])}, but the context has {int(sizes[beyond[0]])}."
        )


def columns_of(table: Any) -> list[str]:
    """Names of the columns of a data set, a mapping of columns or a list of dicts."""
    names = getattr(table, "column_names", None)
    if names is not None:
        return list(names)
    if isinstance(table, Mapping):
        return list(table)
    return list(table[0]) if len(table) else []


def column_of(table: Any, name: str, what: str, how: str = "") -> list[Any]:
    """A column as a list.

    Raises:
        ValueError: The column is absent.
    """
    present = columns_of(table)
    if name not in present and (isinstance(table, Mapping) or hasattr(table, "column_names") or len(table)):
        raise ValueError(f"{what} has no column {name!r}: it has {sorted(map(str, present))}. {how}".rstrip())
    if _is_dataset(table):
        values = _arrow_column(table, name)
        return values.to_pylist() if values is not None else list(table[name])
    if isinstance(table, Mapping):
        values = table[name]
        return values.tolist() if isinstance(values, np.ndarray) else list(values)
    try:
        return [row[name] for row in table]
    except KeyError as error:
        raise ValueError(f"One of the {what} has no {name!r}. {how}".rstrip()) from error


def _is_dataset(table: Any) -> bool:
    return hasattr(table, "column_names") and hasattr(table, "with_format")


def _arrow_column(table: Any, name: str) -> Any:
    """The column in Arrow, rows selected and in order; `None` where the data set is not on Arrow."""
    data = getattr(table, "data", None)
    if data is None:
        return None
    if getattr(table, "_indices", None) is None:
        return data.column(name)
    return table.select_columns([name]).with_format("arrow")[:].column(name)


def _offsets(features: Any) -> Offsets:
    if _is_dataset(features):
        column = _arrow_column(features, OFFSETS)
        if column is None:
            return ListOffsets(list(features[OFFSETS]))
        chunks = getattr(column, "chunks", None)
        if chunks is None:
            return ArrowOffsets(column)
        return ArrowOffsets(chunks[0]) if len(chunks) == 1 else ChunkedOffsets(column)
    values = features[OFFSETS] if isinstance(features, Mapping) else [row[OFFSETS] for row in features]
    if isinstance(values, np.ndarray) and values.dtype != object:
        if values.ndim != 3 or values.shape[2] != 2:
            raise ValueError(f"{OFFSETS} must be (features, width, 2), got {values.shape}.")
        return ArrayOffsets(values)
    return ListOffsets(values)


def _list_places(array: Any) -> tuple[np.ndarray, Any]:
    """Where each list of an Arrow array begins in its values, the last end, (lists + 1,); the values."""
    if hasattr(array, "offsets"):
        return array.offsets.to_numpy(), array.values
    size = array.type.list_size
    return (array.offset + np.arange(len(array) + 1)) * size, array.values


def _fit(mask: np.ndarray, width: int) -> np.ndarray:
    """Cuts or fills up columns with False."""
    mask = mask[:, :width]
    return np.pad(mask, ((0, 0), (0, width - mask.shape[1]))) if mask.shape[1] < width else mask
