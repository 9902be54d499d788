"""What the `zero-shot-prompt` pipeline scores: texts, each with its labels and the words of their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from hf_nlpnotes.prompting.label_paths import LabelPaths
from hf_nlpnotes.prompting.verbalizer import Verbalizer


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Labels with their levels, and the words of each level's names. Compared by identity: a plan makes each once."""

    paths: LabelPaths
    verbalizer: Verbalizer
    weights: torch.Tensor  # (words, nodes), float64

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels."""
        return self.paths.labels

    def word_of(self, label: str) -> str:
        """The word that a demonstration of this label shows: the one with the greatest weight."""
        return self.verbalizer.main_word(self.paths.paths[self.labels.index(label)][-1])


@dataclass(frozen=True)
class Sample:
    """One text to score: what was given, its columns, and its labels."""

    item: Any
    values: Mapping[str, str]
    labels: LabelSet


def united(sets: Iterable[LabelSet]) -> Verbalizer:
    """All words of some label sets, as labels of their own."""
    sets = list(dict.fromkeys(sets))
    if len(sets) == 1:
        return sets[0].verbalizer
    return Verbalizer.of(list(dict.fromkeys(word for one in sets for word in one.verbalizer.all_words)))
