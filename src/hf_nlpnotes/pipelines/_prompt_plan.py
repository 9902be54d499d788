"""What a call of the `zero-shot-prompt` pipeline needs to know: options, checked and bound to the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hf_nlpnotes.prompting.label_paths import LabelPaths
from hf_nlpnotes.prompting.verbalizer import Verbalizer

from ._prompt_readers import Reader
from ._prompt_samples import LabelSet


@dataclass(frozen=True)
class Plan:
    """Templates and labels of a call.

    Args:
        readers (`tuple[Reader, ...]`):
            The templates.
        verbalizer (`Verbalizer`, *optional*):
            The words of labels; others are their own words.
        ready (`Callable`, *optional*):
            Finds the words of labels instead.
        hierarchy (`str`, *optional*):
            What stands between the levels of a label.
        biases (`dict`):
            Measured biases, by labels and options, each with the state of the weights that it was measured with.
    """

    readers: tuple[Reader, ...]
    verbalizer: Verbalizer | None
    ready: Callable[[Sequence[str]], Mapping[str, Any]] | None
    hierarchy: str | None
    biases: dict[tuple[LabelSet, str], tuple[bytes | None, torch.Tensor]] = field(default_factory=dict)
    _sets: dict[tuple[str, ...], LabelSet] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the input that any template names."""
        return tuple(dict.fromkeys(c for reader in self.readers for c in reader.template.columns))

    @property
    def source(self) -> str:
        """The templates, for messages."""
        return " + ".join(reader.template.source for reader in self.readers)

    @property
    def depends_on_labels(self) -> bool:
        """Whether the prompt of a text is another one with other labels."""
        return any(reader.depends_on_labels for reader in self.readers)

    def own_labels(self) -> list[str] | None:
        """The verbalizer's labels; with levels, those of its names that are not above others."""
        if self.verbalizer is None:
            return None
        labels = list(self.verbalizer.labels)
        if self.hierarchy is None:
            return labels
        return [one for one in labels if not any(other.startswith(one + self.hierarchy) for other in labels)]

    def word_set(self, words: Sequence[str]) -> LabelSet:
        """Words as labels of their own."""
        return LabelSet(LabelPaths.of(words), Verbalizer.of(list(words)), torch.eye(len(words), dtype=torch.float64))

    def label_set(self, labels: Sequence[str]) -> LabelSet:
        """Labels, checked once and remembered.

        Raises:
            `ValueError`, `TypeError`: labels that are none, twice there, or cannot be spelled.
        """
        Verbalizer.of(labels)  # tells of labels that are none
        key = tuple(labels)
        if key not in self._sets:
            paths = LabelPaths.of(key, self.hierarchy)
            verbalizer = self.verbalizer
            if self.ready is not None:
                names = [name for node in paths.nodes for name in {node, node.rpartition(self.hierarchy or node)[2]}]
                verbalizer = Verbalizer.of(self.ready(list(dict.fromkeys(filter(None, names)))))
            words = paths.words(verbalizer, self.hierarchy)
            made = LabelSet(paths, words, words.weight_matrix())
            for reader in self.readers:
                reader.check(words)  # a word that cannot be spelled is told before any text
            while len(self._sets) >= 1024:
                del self._sets[next(iter(self._sets))]
            self._sets[key] = made
        return self._sets[key]
