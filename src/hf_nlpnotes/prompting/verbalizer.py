"""Verbalizers: which words of the language stand for which label.

A label is scored through its words, one or several, of any length in tokens, each with a weight. The score of a label
is the weighted mean of its words' scores; for log-probabilities that is the weighted geometric mean of the words'
probabilities, as in knowledgeable prompt-tuning (Hu et al., ACL 2022, https://arxiv.org/abs/2108.02035, section 3.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

Words: TypeAlias = "str | Sequence[str] | Mapping[str, float]"
"""The words of a label: one, several, or several with weights."""


@dataclass(frozen=True)
class Verbalizer:
    """Labels, their words and the words' weights.

    Args:
        labels (`tuple[str, ...]`):
            Distinct labels.
        words (`tuple[tuple[str, ...], ...]`):
            The words of each label.
        weights (`tuple[tuple[float, ...], ...]`):
            The weight of each word, positive; they sum to 1 within a label.

    Most callers write `Verbalizer.of(...)`.
    """

    labels: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    weights: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, words: Verbalizer | Mapping[str, Words] | Sequence[str]) -> Verbalizer:
        """From a mapping label → words, or from labels that are their own words.

        Args:
            words (`Verbalizer`, mapping from labels to words, or labels):
                A label's words are one string, several, or a mapping from words to weights.

        Raises:
            `ValueError`: no label, a label twice, a label without words, an empty word, a weight that is not positive.
            `TypeError`: anything but strings and weights.

        >>> Verbalizer.of({"体育": ["体育", "足球"], "财经": "财经"}).words
        (('体育', '足球'), ('财经',))
        """
        if isinstance(words, Verbalizer):
            return words
        if isinstance(words, str) or not isinstance(words, (Mapping, Sequence)):
            raise TypeError(
                "A verbalizer is a mapping from labels to words, such as {'体育': ['体育', '足球']}, or a list of"
                f" labels, got {words!r}."
            )
        _check_labels(list(words))
        table = words if isinstance(words, Mapping) else {label: label for label in words}
        weighted = {label: _weighted_words(label, own) for label, own in table.items()}
        return cls(
            tuple(weighted),
            tuple(tuple(own) for own in weighted.values()),
            tuple(tuple(weight / sum(own.values()) for weight in own.values()) for own in weighted.values()),
        )

    def select(self, labels: Sequence[str]) -> Verbalizer:
        """The verbalizer of the given labels; one that this verbalizer does not know is its own word.

        Args:
            labels (`Sequence[str]`):
                The labels, in the order that the result is to have.
        """
        known: dict[str, Words] = {
            label: dict(zip(own, weights, strict=True))
            for label, own, weights in zip(self.labels, self.words, self.weights, strict=True)
        }
        _check_labels(labels)
        return Verbalizer.of({label: known.get(label, label) for label in labels})

    @property
    def all_words(self) -> tuple[str, ...]:
        """Every word once, in order of appearance: the order of `word_scores`."""
        return tuple(dict.fromkeys(word for own in self.words for word in own))

    def main_word(self, number: int) -> str:
        """Of the label with this number, the word with the greatest weight; the first of several.

        Args:
            number (`int`):
                The label's place in `labels`.
        """
        words, weights = self.words[number], self.weights[number]
        return words[weights.index(max(weights))]

    def weight_matrix(self) -> torch.Tensor:
        """Weights of all words (rows) for all labels (columns), float64 of shape (words, labels)."""
        index = {word: i for i, word in enumerate(self.all_words)}
        matrix = torch.zeros(len(index), len(self.labels), dtype=torch.float64)
        for column, (own, weights) in enumerate(zip(self.words, self.weights, strict=True)):
            for word, weight in zip(own, weights, strict=True):
                matrix[index[word], column] = weight
        return matrix


@dataclass(frozen=True)
class WordGroup:
    """The words of one length: their places in `Verbalizer.all_words` and their token ids.

    `features` has what else the model reads about the words' tokens, one value a token as in `token_ids`: the pinyin
    of ChineseBERT. It matters where words are written into the prompt, as they are read one token after another.

    Attributes:
        num_masks (`int`):
            Tokens of each word.
        positions (`tuple[int, ...]`):
            The words' places in `Verbalizer.all_words`.
        token_ids (`tuple[tuple[int, ...], ...]`):
            The ids of each word.
        features (`Mapping[str, tuple[tuple[int, ...], ...]]`):
            Other inputs of the model for these tokens, by name, shaped as `token_ids`.
    """

    num_masks: int
    positions: tuple[int, ...]
    token_ids: tuple[tuple[int, ...], ...]
    features: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict, hash=False)


def group_words(
    verbalizer: Verbalizer, word_ids: Callable[[str], Sequence[int] | Mapping[str, Sequence[int]]]
) -> tuple[WordGroup, ...]:
    """Group a verbalizer's words by their length in tokens, shortest first.

    Args:
        verbalizer (`Verbalizer`):
            The words.
        word_ids (`Callable`):
            Token ids of a word, as `PromptEncoder.word_ids` gives them, or a mapping with `input_ids` and more
            features of its tokens.
    """
    groups: dict[int, list[tuple[int, dict[str, tuple[int, ...]]]]] = {}
    for position, word in enumerate(verbalizer.all_words):
        given = word_ids(word)
        table = given if isinstance(given, Mapping) else {"input_ids": given}
        tokens = {name: tuple(values) for name, values in table.items()}
        groups.setdefault(len(tokens["input_ids"]), []).append((position, tokens))
    return tuple(_group(length, groups[length]) for length in sorted(groups))


def _group(num_masks: int, words: Sequence[tuple[int, Mapping[str, tuple[int, ...]]]]) -> WordGroup:
    columns = {name: tuple(tokens[name] for _, tokens in words) for name in words[0][1]}
    token_ids = columns.pop("input_ids")
    return WordGroup(num_masks, tuple(position for position, _ in words), token_ids, columns)


def _check_labels(labels: Sequence[Any]) -> None:
    if not labels:
        raise ValueError("There is no label: give at least one, such as candidate_labels=['体育', '财经'].")
    seen = set()
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"A label is a string, got {label!r}.")
        if not label.strip():
            raise ValueError(f"The label {label!r} is empty: give it a name.")
        if label in seen:
            raise ValueError(f"The label {label!r} is given twice: labels must be distinct.")
        seen.add(label)


def _weighted_words(label: str, words: Any) -> dict[str, float]:
    """The words of a label with their weights, as given."""
    if isinstance(words, str):
        words = {words: 1.0}
    elif isinstance(words, Sequence):
        repeated = [word for word in words if list(words).count(word) > 1]
        if repeated:
            raise ValueError(f"The label {label!r} has the word {repeated[0]!r} twice: give it a weight instead.")
        words = dict.fromkeys(words, 1.0)
    elif not isinstance(words, Mapping):
        raise TypeError(f"The words of the label {label!r} are a word, a list or {{word: weight}}, got {words!r}.")
    if not words:
        raise ValueError(f"The label {label!r} has no words: give it at least one.")
    for word, weight in words.items():
        if not isinstance(word, str):
            raise TypeError(f"A word of the label {label!r} is not a string but {word!r}.")
        if not word.strip():
            raise ValueError(f"The label {label!r} has the empty word {word!r}: remove it or give a word.")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise TypeError(f"The weight of the word {word!r} of the label {label!r} is not a number but {weight!r}.")
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"The weight of the word {word!r} of the label {label!r} must be positive, got {weight}.")
    return {word: float(weight) for word, weight in words.items()}
