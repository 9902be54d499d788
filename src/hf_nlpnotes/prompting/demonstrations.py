"""In-context demonstrations: which of some labelled examples stand in a prompt beside the text.

Sampled examples take turns between the labels, as in LM-BFF (Gao et al., ACL 2021, https://arxiv.org/abs/2012.15723,
section 6). Nearest examples have the highest cosine with the text, by mean token vectors of the model (after Liu et
al. 2022, https://arxiv.org/abs/2101.06804, who use sentence encoders); the nearest one stands beside the text.

Masked language models gain less from demonstrations than large causal ones, and every example takes room from the
text. An example that is the text itself is left out. A text that is one of the examples gets a sample of its own,
drawn by the seed and its words, so that a model in training does not see the same ones in every prompt; all other
texts get the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from .static_prior import StaticVectors
from .template import Template
from .template_parts import LABEL_SLOT

_READ = 4096
"""Characters of a text that its mean vector is made of."""


class DemonstrationPool:
    """Labelled examples to choose demonstrations from.

    Args:
        rows (`Sequence[Mapping[str, str]]`):
            Examples: the template's columns, and `"label"`.
        template (`Template`):
            The template, which has `{demos:…}`.
        vectors (`Callable`, *optional*):
            The model's `StaticVectors`, made when it is called; for `{demos:2,nearest}`.

    Raises:
        `ValueError`: a row without a column or a label.
        `TypeError`: a row that is no mapping, a value that is no string.
    """

    def __init__(
        self, rows: Sequence[Any], template: Template, vectors: Callable[[], StaticVectors] | None = None
    ) -> None:
        slot = template.demonstrations
        assert slot is not None
        self.template = template
        self.slot = slot
        self.rows = [_checked_row(number, row, template) for number, row in enumerate(rows)]
        self._labels = [row[LABEL_SLOT] for row in self.rows]
        self._texts = {self._key(row) for row in self.rows}
        self._order = _taking_turns(self._labels, slot.seed)
        self._vectors: StaticVectors | None = None
        if slot.nearest:
            if vectors is None:
                raise ValueError(
                    f"The template {template.source!r} asks for the nearest demonstrations: give vectors."
                )
            self._vectors = vectors()
            self._matrix = torch.stack([self._vector(row) for row in self.rows])  # (rows, size)

    def choose(self, values: Mapping[str, str], labels: Collection[str]) -> list[dict[str, str]]:
        """The demonstrations of a text, in the order in which they stand.

        Args:
            values (`Mapping[str, str]`):
                The text of each column.
            labels (`Collection[str]`):
                Labels that a demonstration may have.

        Raises:
            `ValueError`: there are too few examples with these labels.
        """
        own = self._key(values)
        known = [i for i in self._order if self._labels[i] in labels and self._key(self.rows[i]) != own]
        if own in self._texts:
            known = [known[i] for i in _taking_turns([self._labels[i] for i in known], f"{self.slot.seed} {own}")]
        count = self.slot.count
        if len(known) < count:
            raise ValueError(
                f"The template {self.template.source!r} shows {count} demonstrations, and {len(known)} of the"
                f" {len(self.rows)} that were given have one of the labels {list(labels)} and are not the text itself:"
                " give more demonstrations, or show fewer."
            )
        if self._vectors is None:
            return [self.rows[i] for i in known[:count]]
        cosines = self._matrix[known] @ self._vector(values)
        nearest = cosines.argsort(descending=True, stable=True)[:count].tolist()
        place = self.template.parts.index(self.slot)
        if place < self.template.label_position:
            nearest = nearest[::-1]  # the nearest one last, where the text follows
        return [self.rows[known[i]] for i in nearest]

    def _key(self, values: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(values[column] for column in self.template.columns)

    def _vector(self, values: Mapping[str, str]) -> torch.Tensor:
        assert self._vectors is not None
        text = "\n".join(self._key(values))
        return self._vectors.words([self._vectors.token_ids(text[:_READ])])[0]


def _checked_row(number: int, row: Any, template: Template) -> dict[str, str]:
    if not isinstance(row, Mapping):
        raise TypeError(
            f"Demonstration number {number} is a mapping from columns and 'label' to strings, got {row!r}."
        )
    needed = [*template.columns, LABEL_SLOT]
    missing = [name for name in needed if name not in row]
    if missing:
        raise ValueError(
            f"Demonstration number {number} has no {missing[0]!r}, only {list(row)}: give each of {needed}."
        )
    for name in needed:
        if not isinstance(row[name], str):
            raise TypeError(f"Demonstration number {number} has {row[name]!r} as its {name!r}, expected a string.")
    return {name: row[name] for name in needed}


def _taking_turns(labels: Sequence[str], seed: int | str) -> list[int]:
    """A random order in which the labels take turns.

    >>> sorted(["b", "a", "a", "a"][i] for i in _taking_turns(["b", "a", "a", "a"], seed=1)[:2])
    ['a', 'b']
    """
    rng = random.Random(seed)  # noqa: S311 (examples, not secrets)
    order = list(range(len(labels)))
    rng.shuffle(order)
    of_label: dict[str, list[int]] = {}
    for i in order:
        of_label.setdefault(labels[i], []).append(i)
    longest = max(map(len, of_label.values()), default=0)
    return [rows[turn] for turn in range(longest) for rows in of_label.values() if turn < len(rows)]
