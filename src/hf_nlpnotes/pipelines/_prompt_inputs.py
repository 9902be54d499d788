"""Inputs of the `zero-shot-prompt` pipeline: texts and columns in every kind of container, and batches by length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch.utils.data import Dataset

from ._texts import brief, check_characters

Kind: TypeAlias = Literal["single", "list", "stream"]
"""What is answered: one text with one answer, a list with a list, anything else with an iterator."""

T = TypeVar("T")


def items_of(inputs: Any) -> tuple[Kind, Iterable[Any]]:
    """The texts of an input, and what kind of container they came in.

    Raises:
        `TypeError`: neither a text nor a container.
    """
    if isinstance(inputs, (str, Mapping)):
        return "single", [inputs]
    if isinstance(inputs, Dataset):
        if isinstance(inputs, Iterable):
            return "stream", inputs
        return "stream", (inputs[i] for i in range(len(inputs)))  # type: ignore[arg-type]
    if isinstance(inputs, bytes) or not isinstance(inputs, Iterable):
        raise TypeError(
            "The input is a text, a mapping from columns to texts, or a list, generator or data set of them, got"
            f" {type(inputs).__name__}: {inputs!r}."
        )
    if isinstance(inputs, Sequence):
        return "list", list(inputs)
    return "stream", inputs


def column_values(item: Any, columns: Sequence[str], template: str) -> dict[str, str]:
    """The text of each column that the template `template` names.

    Raises:
        `ValueError`: a column that the input does not have, or no text at all.
        `TypeError`: a text that is no string.
    """
    if isinstance(item, str):
        if len(columns) > 1:
            raise ValueError(
                f"The template {template!r} has the columns {list(columns)}, and the input is one text,"
                f" {item[:40]!r}: give a mapping with a text for each column."
            )
        values = {columns[0]: item}
    elif isinstance(item, Mapping):
        missing = [column for column in columns if column not in item]
        if missing:
            raise ValueError(
                f"The template {template!r} has the slot {missing[0]!r}, and the input has only the columns"
                f" {list(item)}: rename the slot or the column."
            )
        values = {column: item[column] for column in columns}
    else:
        raise TypeError(
            f"A text is a string or a mapping from columns to strings, got {type(item).__name__}: {brief(item)}."
        )
    for column, text in values.items():
        if not isinstance(text, str):
            raise TypeError(f"The column {column!r} holds {brief(text)}, expected a string.")
        check_characters(f"The column {column!r}", text)
    if not any(text.strip() for text in values.values()):
        raise ValueError(
            f"The text {brief(item)} is empty, and there is nothing to classify: leave such texts out, or give them"
            " their label yourself."
        )
    return values


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of about equal lengths, so that little is padded; the longest first.

    >>> batches_by_length([3, 9, 4, 8], 2)
    [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def padded(rows: Sequence[Mapping[str, Sequence[int]]], padding: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Rows as tensors of shape (rows, longest), filled up on the right, with 0 where `padding` names no value.

    On the right even if the tokenizer pads on the left: that would move the positions that a text is read at, and
    with them its scores, by the length of its neighbours.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    return {
        name: torch.tensor([[*row[name], *[padding.get(name, 0)] * (longest - len(row[name]))] for row in rows])
        for name in rows[0]
    }
