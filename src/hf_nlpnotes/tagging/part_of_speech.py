"""Part-of-speech accuracy, also apart for words that training has not seen, and the F1 of joint segmentation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .metrics import Scores
from .word_segmentation import words_to_spans


@dataclass(frozen=True)
class PosScores:
    """Right tags by words.

    Attributes:
        words, correct: words, and those with the right tag.
        unknown, unknown_correct: words outside of the vocabulary, and those of them with the right tag; None without.
    """

    words: int
    correct: int
    unknown: int | None = None
    unknown_correct: int | None = None

    @property
    def accuracy(self) -> float:
        """Share of the words with the right tag."""
        return self.correct / self.words

    @property
    def unknown_accuracy(self) -> float | None:
        """The same of the words outside of the vocabulary; None without any."""
        return self.unknown_correct / self.unknown if self.unknown and self.unknown_correct is not None else None


def pos_accuracy(
    y_true: Sequence[Sequence[str]],
    y_pred: Sequence[Sequence[str]],
    *,
    words: Sequence[Sequence[str]] | None = None,
    vocabulary: Collection[str] | None = None,
) -> PosScores:
    """Count right tags of words that both sides share.

    Args:
        y_true: for each sentence one gold tag a word.
        y_pred: the same for the predictions.
        words: the words, needed with `vocabulary`.
        vocabulary: the words of the training data.

    Raises:
        ValueError: other numbers of sentences, words or tags, no words, a vocabulary without words.
    """
    if vocabulary is not None and words is None:
        raise ValueError("vocabulary needs words=, the words of each sentence, to look them up")
    if not len(y_true) == len(y_pred) == len(words if words is not None else y_true):
        raise ValueError(
            f"{len(y_true)} gold sentences and {len(y_pred)} predicted ones: expected as many, as of words"
        )
    known = None if vocabulary is None else frozenset(vocabulary)
    total = correct = unknown = unknown_correct = 0
    for number, (gold, predicted) in enumerate(zip(y_true, y_pred, strict=True)):
        of_sentence = gold if words is None else words[number]
        if not len(gold) == len(predicted) == len(of_sentence):
            raise ValueError(
                f"sentence {number} has {len(of_sentence)} words, {len(gold)} gold tags and {len(predicted)} "
                "predicted ones: expected as many"
            )
        for word, tag, other in zip(of_sentence, gold, predicted, strict=True):
            total += 1
            correct += tag == other
            if known is not None and word not in known:
                unknown += 1
                unknown_correct += tag == other
    if not total:
        raise ValueError("no words: nothing to count")
    return PosScores(total, correct, None if known is None else unknown, None if known is None else unknown_correct)


def joint_scores(true: Sequence[Sequence[tuple[str, str]]], pred: Sequence[Sequence[tuple[str, str]]]) -> Scores:
    """Precision, recall and F1 of segmentation and tagging together: a word counts with both ends and its tag.

    Args:
        true: for each sentence (word, tag) pairs.
        pred: the same for the predictions, over the same characters.

    Raises:
        ValueError: other numbers of sentences, or sentences of different characters.
    """
    if len(true) != len(pred):
        raise ValueError(f"{len(true)} gold sentences and {len(pred)} predicted ones: expected as many")
    gold = predicted = correct = 0
    for number, sides in enumerate(zip(true, pred, strict=True)):
        texts = ["".join(word for word, _ in side) for side in sides]
        if texts[0] != texts[1]:
            raise ValueError(
                f"sentence {number} has other characters in the prediction: {texts[1]!r} for {texts[0]!r}"
            )
        units = [
            {(span, tag) for span, (_, tag) in zip(words_to_spans([word for word, _ in side]), side, strict=True)}
            for side in sides
        ]
        gold += len(units[0])
        predicted += len(units[1])
        correct += len(units[0] & units[1])
    return Scores.of_counts(correct, predicted, gold)
