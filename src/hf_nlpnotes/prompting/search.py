"""Label words from a few labelled examples: which words does the model itself expect where a label is right?

Two ways to choose, from the log-probabilities of candidate words in the prompts of the examples:

- `search_label_words`, PETAL (Schick, Schmid & Schütze, COLING 2020, https://arxiv.org/abs/2010.13641, section 4):
  each label gets the words with the highest likelihood ratio of "this label" against "all other labels". Several words
  a label, any number of labels.
- `search_assignments`, LM-BFF (Gao, Fisch & Chen, ACL 2021, https://arxiv.org/abs/2012.15723, section 5.1): one word
  a label, chosen together, so that the examples themselves are classified well.

Candidates are words of any number of tokens: the vocabulary's (`vocabulary_words`), those of unlabelled texts
(`candidate_words`), or a list. When to use: some sixteen examples a label or more, and labels whose names are no good
words (ratings, codes). How it fails: with few examples and thousands of candidates some words fit by chance. Then
give candidates that make sense (frequent words of the domain), search several words a label, and keep known words
with `keep`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch.nn import functional as F

from .encoding import PromptEncoder
from .template import Template
from .text_scores import score_texts, targets_of
from .verbalizer import Verbalizer, Words

Criterion: TypeAlias = Literal["likelihood-ratio", "cross-entropy", "likelihood"]
"""How a word is judged for a label."""

CRITERIA: tuple[str, ...] = get_args(Criterion)

_EXHAUSTIVE = 20_000
"""Most assignments of words to labels that are tried one by one."""


def label_word_scores(
    log_probs: torch.Tensor, targets: torch.Tensor, num_labels: int, criterion: str = "likelihood-ratio"
) -> torch.Tensor:
    """How well each word stands for each label, by the examples.

    With q = P(w | x), and means over the examples of the label (+) and of all others (−):

    - `likelihood-ratio`: mean₊ log q/(1−q) − mean₋ log q/(1−q) (PETAL, balanced);
    - `cross-entropy`: mean₊ log q + mean₋ log(1−q) (PETAL's baseline, balanced): favours words that are likely
      whatever the text says;
    - `likelihood`: mean₊ log q (LM-BFF, and PETAL's choice of candidates).

    Args:
        log_probs (`torch.Tensor` of shape `(N, W)`):
            Log-probabilities of the words on the examples; of a word of several tokens, their mean.
        targets (`torch.Tensor` of shape `(N,)`):
            Number of each example's label.
        num_labels (`int`):
            L.
        criterion (`str`, defaults to `"likelihood-ratio"`):
            One of the above.

    Returns:
        `torch.Tensor` of shape `(W, L)`, float64: larger is better.

    Raises:
        `ValueError`: an unknown criterion, or one that compares labels where there is one.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {', '.join(CRITERIA)}, got {criterion!r}.")
    if num_labels < 2 and criterion != "likelihood":
        raise ValueError(f"{criterion} compares labels with each other, and there is {num_labels}: give two or more.")
    log_q = log_probs.double().clamp(max=-1e-12)  # a probability of 1 has no finite odds
    own = F.one_hot(targets, num_labels).double()  # (N, L)
    positive = log_q.T @ (own / own.sum(dim=0))
    if criterion == "likelihood":
        return positive
    log_not_q = (-torch.expm1(log_q)).log()
    others = 1 - own
    others = others / others.sum(dim=0)
    if criterion == "cross-entropy":
        return positive + log_not_q.T @ others
    odds = log_q - log_not_q
    return odds.T @ (own / own.sum(dim=0)) - odds.T @ others


def search_label_words(
    model: Any,
    tokenizer: Any,
    template: Template | str,
    texts: Sequence[str | Mapping[str, str]],
    labels: Sequence[str],
    candidates: Iterable[str],
    words_per_label: int = 8,
    criterion: str = "likelihood-ratio",
    keep: Verbalizer | Mapping[str, Words] | None = None,
    **scoring: Any,
) -> Verbalizer:
    """Label words from a few labelled examples, by PETAL.

    Args:
        model, tokenizer, template, texts:
            As for `score_texts`: the N examples.
        labels (`Sequence[str]`):
            The label of each example, two or more different ones.
        candidates (`Iterable[str]`):
            Words to choose from, such as `vocabulary_words(tokenizer)` or `candidate_words(texts)`; words that the
            vocabulary cannot spell are left out.
        words_per_label (`int`, defaults to 8):
            Most words of a label, kept ones included. A word serves the label that it suits best, and only where it
            speaks for it (a likelihood ratio above 0).
        criterion (`str`, defaults to `"likelihood-ratio"`):
            See `label_word_scores`.
        keep (`Verbalizer` or mapping from labels to words, *optional*):
            Words that stay, first. Gives the order of the labels too.
        **scoring:
            `batch_size` and `max_length` of `score_texts`.

    Returns:
        The `Verbalizer`, words of a label from the best on, all of equal weight.

    Raises:
        `ValueError`: labels and texts do not fit together, no candidate, or a label left without a word.
    """
    if words_per_label < 1:
        raise ValueError(f"words_per_label must be 1 or more, got {words_per_label}.")
    kept, order, targets = _checked(texts, labels, keep)
    candidates = spelled(candidates, tokenizer, template)
    log_probs = score_texts(model, tokenizer, template, texts, candidates, **scoring).log_probs
    scores = label_word_scores(log_probs, targets, len(order), criterion)
    floor = 0.0 if criterion == "likelihood-ratio" else -math.inf
    return choose_words(scores, candidates, order, words_per_label, kept, floor)


def choose_words(
    scores: torch.Tensor,
    candidates: Sequence[str],
    labels: Sequence[str],
    words_per_label: int,
    kept: Mapping[str, Sequence[str]] | None = None,
    floor: float = -math.inf,
) -> Verbalizer:
    """The best words of each label, each word for the label that it suits best.

    Args:
        scores (`torch.Tensor` of shape `(W, L)`):
            How well each candidate suits each label. Equal scores: the earlier candidate, the earlier label.
        candidates, labels:
            Their names.
        words_per_label (`int`):
            Most words of a label, kept ones included.
        kept (`Mapping[str, Sequence[str]]`, *optional*):
            Words of the labels that come first, and are taken from no label.
        floor (`float`, *optional*):
            Words must score more than this.

    Raises:
        `ValueError`: a label is left without a word.
    """
    kept = kept or {}
    taken = {word for words in kept.values() for word in words}
    best = scores.argmax(dim=1)
    table: dict[str, list[str]] = {}
    for column, label in enumerate(labels):
        ranked = scores[:, column].sort(descending=True, stable=True).indices.tolist()
        own = [i for i in ranked if best[i] == column and scores[i, column] > floor and candidates[i] not in taken]
        first = list(kept.get(label, ()))
        table[label] = first + [candidates[i] for i in own][: max(0, words_per_label - len(first))]
        if not table[label]:
            raise ValueError(
                f"None of the {len(candidates)} candidates speaks for the label {label!r} more than for others: give"
                " more candidates or more examples, or words to keep."
            )
    return Verbalizer.of(table)


@dataclass(frozen=True)
class Assignment:
    """One word a label, and how it classifies the examples that it was chosen on.

    Args:
        words (`dict[str, str]`): label → word.
        accuracy (`float`): share of the examples that are classified right.
        log_likelihood (`float`): mean log-probability of the right label among the labels.
    """

    words: dict[str, str]
    accuracy: float
    log_likelihood: float

    @property
    def verbalizer(self) -> Verbalizer:
        """The same as a verbalizer."""
        return Verbalizer.of(self.words)


def search_assignments(
    model: Any,
    tokenizer: Any,
    template: Template | str,
    texts: Sequence[str | Mapping[str, str]],
    labels: Sequence[str],
    candidates: Iterable[str],
    shortlist: int = 30,
    top: int = 10,
    calibrated: bool = True,
    **scoring: Any,
) -> list[Assignment]:
    """One word a label, chosen together so that the examples are classified right, by LM-BFF.

    Each label's `shortlist` words of the highest likelihood (of the likelihood ratio where `calibrated`) are combined;
    a word stands for one label. All combinations are tried where they are few; otherwise the search starts with the
    best words and changes one label's word at a time until none improves.

    Args:
        model, tokenizer, template, texts, labels, candidates, scoring:
            As for `search_label_words`.
        shortlist (`int`, defaults to 30):
            Words of each label to combine.
        top (`int`, defaults to 10):
            Assignments to return: LM-BFF takes the one that does best on more examples after fine-tuning.
        calibrated (`bool`, defaults to `True`):
            Subtract from a word's log-probabilities their mean over the examples, every label counting the same. The
            paper does not; without it frequent words win.

    Returns:
        Assignments, best first: by accuracy, then by likelihood.

    Raises:
        `ValueError`: limits below 1, and as of `search_label_words`.
    """
    _, order, targets = _checked(texts, labels, None)
    if shortlist < 1 or top < 1:
        raise ValueError(f"shortlist and top must be 1 or more, got {shortlist} and {top}.")
    candidates = spelled(candidates, tokenizer, template)
    log_probs = score_texts(model, tokenizer, template, texts, candidates, **scoring).log_probs
    found = best_assignments(log_probs, targets, len(order), shortlist, top, calibrated)
    return [
        Assignment(dict(zip(order, (candidates[i] for i in words), strict=True)), accuracy, likelihood)
        for words, accuracy, likelihood in found
    ]


def best_assignments(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    num_labels: int,
    shortlist: int = 30,
    top: int = 10,
    calibrated: bool = True,
) -> list[tuple[tuple[int, ...], float, float]]:
    """The choice of `search_assignments` on a matrix of log-probabilities, of shape `(N, W)`.

    Args:
        log_probs (`torch.Tensor` of shape `(N, W)`):
            Log-probabilities of the words on the examples.
        targets (`torch.Tensor` of shape `(N,)`):
            Each example's label, a number from 0.
        num_labels (`int`):
            How many labels there are.
        shortlist (`int`, defaults to 30):
            As of `search_assignments`.
        top (`int`, defaults to 10):
            As of `search_assignments`.
        calibrated (`bool`, defaults to `True`):
            As of `search_assignments`.

    Returns:
        Numbers of the words (one a label), accuracy and log-likelihood, best first.

    Raises:
        `ValueError`: fewer words than labels.
    """
    scores = log_probs.double()
    if calibrated:
        own = F.one_hot(targets, num_labels).double()
        scores = scores - ((own / own.sum(dim=0)).T @ scores).mean(dim=0)
    ranking = label_word_scores(log_probs, targets, num_labels, "likelihood-ratio" if calibrated else "likelihood")
    ranked = ranking.sort(dim=0, descending=True, stable=True).indices.T[:, :shortlist].tolist()

    seen: dict[tuple[int, ...], tuple[float, float]] = {}

    def judge(words: tuple[int, ...]) -> tuple[float, float]:
        if words not in seen:
            chosen = scores[:, list(words)]  # (N, L)
            # A tie is no answer: right is who is ahead of all others.
            rival = chosen.scatter(1, targets[:, None], -math.inf).amax(dim=1)
            right = chosen.gather(1, targets[:, None])[:, 0]
            likelihood = float((right - chosen.logsumexp(dim=1)).mean())
            seen[words] = (float((right > rival).double().mean()), likelihood)
        return seen[words]

    if len(ranked[0]) ** num_labels <= _EXHAUSTIVE:
        for words in itertools.product(*ranked):
            if len(set(words)) == num_labels:
                judge(words)
    else:
        _climb(ranked, judge)
    if not seen:
        raise ValueError(f"There are fewer than {num_labels} different candidates for {num_labels} labels: give more.")
    best = sorted(seen.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))[:top]
    return [(words, accuracy, likelihood) for words, (accuracy, likelihood) in best]


def _climb(ranked: Sequence[Sequence[int]], judge: Any) -> None:
    """Change one label's word at a time for the best, until none changes."""
    current: list[int] = []
    for own in ranked:
        free = [word for word in own if word not in current]
        if not free:
            return
        current.append(free[0])
    changed = True
    while changed:
        changed = False
        for label, own in enumerate(ranked):
            rest = {*current[:label], *current[label + 1 :]}
            options = [(*current[:label], word, *current[label + 1 :]) for word in own if word not in rest]
            best = max([tuple(current), *options], key=judge)  # the first of equals: no change for nothing
            changed |= best[label] != current[label]
            current = list(best)


def spelled(candidates: Iterable[str], tokenizer: Any, template: Template | str) -> list[str]:
    """The different candidates that the vocabulary can spell in a template, in their order.

    Raises:
        `ValueError`: there is none.
    """
    template = template if isinstance(template, Template) else Template(template)
    encoder = PromptEncoder(template, tokenizer)
    given = list(dict.fromkeys(candidates))
    words = [word for word in given if encoder.can_spell(word)]
    if not words:
        raise ValueError(f"None of the {len(given)} candidate words can be spelled by the vocabulary: give others.")
    return words


def _checked(
    texts: Sequence[Any], labels: Sequence[str], keep: Verbalizer | Mapping[str, Words] | None
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...], torch.Tensor]:
    """Words to keep, the labels in their order, and the number of each example's label."""
    if len(texts) != len(labels):
        raise ValueError(f"There must be one label a text, got {len(labels)} labels for {len(texts)} texts.")
    kept = {}
    if keep is not None:
        verbalizer = Verbalizer.of(keep)
        kept = dict(zip(verbalizer.labels, verbalizer.words, strict=True))
    order = tuple(kept) or tuple(dict.fromkeys(labels))
    if len(order) < 2:
        raise ValueError(f"A search needs examples of two labels or more, got {list(order)}.")
    return kept, order, targets_of(labels, order)
