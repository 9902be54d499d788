"""What a call of the `zero-shot-prompt` pipeline needs to know: options, checked and bound to the tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from hf_nlpnotes.prompting.demonstrations import DemonstrationPool
from hf_nlpnotes.prompting.encoding import PromptEncoder
from hf_nlpnotes.prompting.label_paths import LabelPaths
from hf_nlpnotes.prompting.static_prior import StaticVectors
from hf_nlpnotes.prompting.template_parts import LABEL_SLOT
from hf_nlpnotes.prompting.verbalizer import Verbalizer, WordGroup, group_words


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
        node = self.paths.paths[self.labels.index(label)][-1]
        words, weights = self.verbalizer.words[node], self.verbalizer.weights[node]
        return words[weights.index(max(weights))]


@dataclass(frozen=True)
class Sample:
    """One text to score: what was given, its columns, and its labels."""

    item: Any
    values: Mapping[str, str]
    labels: LabelSet


class PromptReader:
    """One of the templates of a plan: encodes samples, and knows the tokens of label words in their place.

    Args:
        encoder (`PromptEncoder`):
            Of the template.
        weight (`float`):
            Its share in the vote of all templates.
        demonstrations (`Sequence`, *optional*):
            Examples to choose from, for a template with `{demos:…}`.
        vectors (`Callable`):
            Makes the model's `StaticVectors`.

    Raises:
        `ValueError`: the template has soft tokens, or asks for demonstrations that are not given.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        weight: float,
        demonstrations: Sequence[Any] | None,
        vectors: Callable[[], StaticVectors],
    ) -> None:
        template = encoder.template
        if encoder.soft_tokens:
            raise ValueError(
                f"The template {template.source!r} has soft tokens, whose vectors are trained; a masked language model"
                " by itself has none: train it with PromptForSequenceClassification, or write words instead."
            )
        self.encoder = encoder
        self.weight = weight
        self.pool = None
        if template.demonstrations is not None:
            if demonstrations is None:
                example = {**dict.fromkeys(template.columns, "…"), LABEL_SLOT: "…"}
                raise ValueError(
                    f"The template {template.source!r} shows demonstrations: give demonstrations=[{example}, …]."
                )
            self.pool = DemonstrationPool(demonstrations, template, vectors)
        # A word is looked up for every text where each text has its own labels.
        self.word = lru_cache(maxsize=1 << 16)(encoder.word_features)
        self.lengths = lru_cache(maxsize=1 << 10)(self._lengths)

    @property
    def depends_on_labels(self) -> bool:
        """Whether the prompt of a text is another one with other labels."""
        return self.pool is not None or self.encoder.template.has_options

    def groups(self, verbalizer: Verbalizer) -> tuple[WordGroup, ...]:
        """The words by length."""
        return group_words(verbalizer, self.word)

    def _lengths(self, verbalizer: Verbalizer) -> list[int]:
        """How many tokens the words of a verbalizer have, each number once."""
        return sorted({len(self.word(word)["input_ids"]) for word in verbalizer.all_words})

    def encode(self, sample: Sample) -> list[dict[str, list[int]]]:
        """The inputs of a sample, one for each length of its words."""
        labels = sample.labels
        shown: list[tuple[Mapping[str, str], str]] = []
        if self.pool is not None:
            chosen = self.pool.choose(sample.values, labels.labels)
            shown = [(row, labels.word_of(row[LABEL_SLOT])) for row in chosen]
        return self.encoder.encode(sample.values, self.lengths(labels.verbalizer), labels.labels, shown)


@dataclass(frozen=True)
class Plan:
    """Templates and labels of a call.

    Args:
        readers (`tuple[PromptReader, ...]`):
            The templates.
        verbalizer (`Verbalizer`, *optional*):
            The words of labels; others are their own words.
        ready (`Callable`, *optional*):
            Finds the words of labels instead.
        hierarchy (`str`, *optional*):
            What stands between the levels of a label.
    """

    readers: tuple[PromptReader, ...]
    verbalizer: Verbalizer | None
    ready: Callable[[Sequence[str]], Mapping[str, Any]] | None
    hierarchy: str | None
    _sets: dict[tuple[str, ...], LabelSet] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the input that any template names."""
        return tuple(dict.fromkeys(c for reader in self.readers for c in reader.encoder.template.columns))

    @property
    def source(self) -> str:
        """The templates, for messages."""
        return " + ".join(reader.encoder.template.source for reader in self.readers)

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
                lengths = reader.lengths(words)  # a word that cannot be spelled is told before any text
                if not reader.depends_on_labels:  # and a template without room for its own masks
                    reader.encoder.encode(dict.fromkeys(reader.encoder.template.columns, ""), lengths)
            while len(self._sets) >= 1024:
                del self._sets[next(iter(self._sets))]
            self._sets[key] = made
        return self._sets[key]


def united(sets: Iterable[LabelSet]) -> Verbalizer:
    """All words of some label sets, as labels of their own."""
    sets = list(dict.fromkeys(sets))
    if len(sets) == 1:
        return sets[0].verbalizer
    return Verbalizer.of(list(dict.fromkeys(word for one in sets for word in one.verbalizer.all_words)))
