"""Word segmentation: words, spans and tags of a sentence, and the scores of the SIGHAN bakeoffs.

A word is right when both of its ends are (Sproat and Emerson, 2003, "The First International Chinese Word
Segmentation Bakeoff"). Recall is also given apart for words outside of the training vocabulary (OOV) and inside of it
(IV). These are the numbers of the bakeoff's score program. Between two right words, as many words as both sides have
are substitutions, and what one side has more is inserted or deleted; the program takes these three from `diff`, which
now and then pairs equal words of different places, so its three numbers can differ by a few in a thousand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from .metrics import Scores
from .schemes import Scheme, Span, spans_to_tags, tags_to_spans


@dataclass(frozen=True)
class SegmentationScores:
    """Word counts and scores of segmented sentences.

    Attributes:
        gold, predicted, correct: words.
        insertions, deletions, substitutions: words between right words that one side has alone, or both differently.
        oov, oov_correct: gold words outside of the vocabulary, and those of them that are right; None without one.
    """

    gold: int
    predicted: int
    correct: int
    insertions: int
    deletions: int
    substitutions: int
    oov: int | None = None
    oov_correct: int | None = None

    @property
    def precision(self) -> float:
        """Right words by predicted ones."""
        return self._scores.precision

    @property
    def recall(self) -> float:
        """Right words by gold ones."""
        return self._scores.recall

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return self._scores.f1

    @property
    def _scores(self) -> Scores:
        return Scores.of_counts(self.correct, self.predicted, self.gold)

    @property
    def oov_rate(self) -> float | None:
        """Share of the gold words that are outside of the vocabulary."""
        return None if self.oov is None else self.oov / self.gold if self.gold else 0.0

    @property
    def oov_recall(self) -> float | None:
        """Right words by gold ones outside of the vocabulary; None without any."""
        return self.oov_correct / self.oov if self.oov and self.oov_correct is not None else None

    @property
    def iv_recall(self) -> float | None:
        """Right words by gold ones inside of the vocabulary; None without any."""
        if self.oov is None or self.oov_correct is None or self.oov == self.gold:
            return None
        return (self.correct - self.oov_correct) / (self.gold - self.oov)

    def as_dict(self) -> dict[str, float | None]:
        """All counts and scores."""
        names = ("precision", "recall", "f1", "oov_rate", "oov_recall", "iv_recall")
        return {**vars(self), **{name: getattr(self, name) for name in names}}


def words_to_spans(words: Sequence[str]) -> list[tuple[int, int]]:
    """Character spans `[start, end)` of words that follow each other without spaces.

    Args:
        words: the words of a text, in order.

    Raises:
        ValueError: an empty word.
    """
    if not all(words):
        raise ValueError(f"word {list(map(bool, words)).index(False)} is empty: expected at least one character")
    ends = list(accumulate(map(len, words)))
    return list(zip([0, *ends], ends, strict=False))


def words_to_tags(words: Sequence[str], scheme: str | Scheme = "BMES") -> list[str]:
    """One tag a character of the words: `["我", "喜欢"]` is `S B E`.

    Args:
        words: the words of a text, in order.
        scheme: the tagging scheme.

    Raises:
        ValueError: no words, or an empty one.
    """
    spans = words_to_spans(words)
    return spans_to_tags([("", start, end) for start, end in spans], spans[-1][1] if spans else 0, scheme)


def tags_to_words(text: str, tags: Sequence[str], scheme: str | Scheme = "BMES") -> list[str]:
    """Cut a text into words by one tag a character; tags that break the scheme are repaired, `O` is a word alone.

    Args:
        text: the characters.
        tags: one tag a character.
        scheme: the tagging scheme.

    Raises:
        ValueError: another number of tags than characters, no characters, an unknown tag.
    """
    if len(text) != len(tags):
        raise ValueError(f"{len(tags)} tags for {len(text)} characters: expected one tag a character")
    covered: list[Span] = tags_to_spans(tags, scheme, illegal="repair")
    words: list[str] = []
    place = 0
    for span in covered:
        words += text[place : span.start]  # each character outside of the words by itself
        words.append(text[span.start : span.end])
        place = span.end
    return [*words, *text[place:]]


def segmentation_scores(
    true: Iterable[Sequence[str]], pred: Iterable[Sequence[str]], *, vocabulary: Collection[str] | None = None
) -> SegmentationScores:
    """Compare predicted with gold words.

    Args:
        true: for each sentence its gold words.
        pred: for each sentence the predicted words, of the same characters.
        vocabulary: the words of the training data, for OOV and IV recall; a set, for speed.

    Raises:
        ValueError: other numbers of sentences, sentences of different characters, an empty word.
        TypeError: a sentence that is a string instead of a list of words.
    """
    gold_sentences, predicted_sentences = list(true), list(pred)
    if len(gold_sentences) != len(predicted_sentences):
        raise ValueError(f"{len(gold_sentences)} gold sentences and {len(predicted_sentences)} predicted ones")
    known = None if vocabulary is None else frozenset(vocabulary)
    gold = predicted = correct = oov = oov_correct = insertions = deletions = substitutions = 0
    for number, (words, others) in enumerate(zip(gold_sentences, predicted_sentences, strict=True)):
        if isinstance(words, str) or isinstance(others, str):
            raise TypeError(f"sentence {number} is a string: expected a list of words")
        if "".join(words) != "".join(others):
            raise ValueError(
                f"sentence {number} has other characters in the prediction: {''.join(others)!r} for {''.join(words)!r}"
            )
        spans, other_spans = words_to_spans(words), words_to_spans(others)
        right = set(spans).intersection(other_spans)
        gold += len(spans)
        predicted += len(other_spans)
        correct += len(right)
        for lost, added in _between(spans, other_spans, right):
            paired = min(lost, added)
            substitutions += paired
            deletions += lost - paired
            insertions += added - paired
        if known is not None:
            new = [span for word, span in zip(words, spans, strict=True) if word not in known]
            oov += len(new)
            oov_correct += len(right.intersection(new))
    return SegmentationScores(
        gold,
        predicted,
        correct,
        insertions,
        deletions,
        substitutions,
        None if known is None else oov,
        None if known is None else oov_correct,
    )


def _between(
    spans: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]], right: Collection[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Numbers of gold and predicted words in each stretch between right words."""
    cuts = [-1, *(i for i, span in enumerate(spans) if span in right), len(spans)]
    other_cuts = [-1, *(i for i, span in enumerate(others) if span in right), len(others)]
    return [
        (end - begin - 1, other_end - other_begin - 1)
        for begin, end, other_begin, other_end in zip(cuts, cuts[1:], other_cuts, other_cuts[1:], strict=False)
    ]
