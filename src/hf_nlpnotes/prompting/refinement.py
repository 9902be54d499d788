"""Refinement: many words were found for each label, from a thesaurus or a knowledge base; which of them are any good?

After Hu et al., Knowledgeable prompt-tuning (ACL 2022, https://arxiv.org/abs/2108.02035, section 3.3), on a matrix of
the words' scores over texts (`score_texts`):

- `refine_by_frequency`: words that the model hardly ever expects in this prompt go; their scores are noise;
- `refine_by_relevance`: words that do not rise and fall with their own label's words from text to text, or do so with
  another label's, go. Texts without labels are enough;
- `learn_word_weights`: with a few labelled examples each word gets a weight, small for the useless ones.

The first two together are `refine_label_words`. When to use: long lists from outside. A list of eight chosen words
needs none of it. How it fails: a label whose anchor words say nothing to the model (a name it has never read) keeps
the wrong words; give anchors that the model knows. Fewer than about 100 texts make correlations that are chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from .search import spelled
from .template import Template
from .text_scores import score_texts, targets_of
from .verbalizer import Verbalizer, Words


@dataclass(frozen=True)
class Refinement:
    """What a refinement kept, and why it dropped the rest.

    Args:
        verbalizer (`Verbalizer`): the words that are left, with their weights as they were (scaled to sum 1).
        dropped (`dict[str, dict[str, str]]`): label → word → the reason.
    """

    verbalizer: Verbalizer
    dropped: dict[str, dict[str, str]]


def refine_label_words(
    model: Any,
    tokenizer: Any,
    template: Template | str,
    texts: Sequence[str | Mapping[str, str]],
    verbalizer: Verbalizer | Mapping[str, Words],
    anchors: Verbalizer | Mapping[str, Words] | None = None,
    rarest_share: float = 0.5,
    min_relevance: float = 0.0,
    **scoring: Any,
) -> Refinement:
    """Drop the label words that a model cannot use, by unlabelled texts.

    Args:
        model, tokenizer, template, texts, scoring:
            As for `score_texts`: 100 or more unlabelled texts of the task, with all labels among them.
        verbalizer (`Verbalizer` or mapping from labels to words):
            The words to refine, two labels or more; those that the vocabulary cannot spell are dropped.
        anchors (`Verbalizer` or mapping from labels to words, *optional*):
            Words of each label that are known to be right. Default: each label's first word. They are never dropped.
        rarest_share (`float`, defaults to 0.5):
            See `refine_by_frequency`.
        min_relevance (`float`, defaults to 0):
            See `refine_by_relevance`.

    Raises:
        `ValueError`: fewer than two labels or three texts, anchors for other labels, a share outside [0, 1).
    """
    verbalizer = Verbalizer.of(verbalizer)
    if anchors is None:
        anchors = {label: own[0] for label, own in zip(verbalizer.labels, verbalizer.words, strict=True)}
    anchors = Verbalizer.of(anchors)
    if len(texts) < 3:
        raise ValueError(f"A refinement compares texts with each other, and there are {len(texts)}: give some 100.")
    everything = tuple(dict.fromkeys((*anchors.all_words, *verbalizer.all_words)))
    words = spelled(everything, tokenizer, template)
    lost = set(everything) - set(words)
    if unspelled := [word for word in anchors.all_words if word in lost]:
        raise ValueError(f"The vocabulary cannot spell the anchor {unspelled[0]!r}: give another word for its label.")
    scores = score_texts(model, tokenizer, template, texts, words, **scoring)
    first = _dropped(verbalizer, anchors, dict.fromkeys(lost, "the vocabulary cannot spell it"))
    second = refine_by_frequency(first.verbalizer, words, scores.log_probs, anchors, rarest_share)
    third = refine_by_relevance(second.verbalizer, words, scores.log_probs, anchors, min_relevance)
    dropped = {
        label: {word: reason for step in (first, second, third) for word, reason in step.dropped[label].items()}
        for label in verbalizer.labels
    }
    return Refinement(third.verbalizer, dropped)


def refine_by_frequency(
    verbalizer: Verbalizer,
    words: Sequence[str],
    log_probs: torch.Tensor,
    anchors: Verbalizer,
    rarest_share: float = 0.5,
) -> Refinement:
    """Drop the words that the model expects least, over all texts (their contextualized prior).

    Args:
        verbalizer (`Verbalizer`):
            The words to refine.
        words (`Sequence[str]`):
            W words: the columns of the scores.
        log_probs (`torch.Tensor` of shape `(N, W)`):
            Log-probabilities of the words on unlabelled texts.
        anchors (`Verbalizer`):
            Words that stay.
        rarest_share (`float`, defaults to 0.5):
            The share of the verbalizer's words to drop, those of the lowest mean probability; 0 drops none.

    Raises:
        `ValueError`: `rarest_share` is outside [0, 1).
    """
    if not 0 <= rarest_share < 1:
        raise ValueError(f"rarest_share must be from 0 to below 1, got {rarest_share}.")
    index = {word: i for i, word in enumerate(words)}
    # log of the mean probability, without the underflow of exp
    prior = log_probs.double().logsumexp(dim=0) - torch.tensor(float(len(log_probs))).log()
    ranked = sorted(verbalizer.all_words, key=lambda word: float(prior[index[word]]))  # stable
    rare = ranked[: int(rarest_share * len(ranked))]
    reasons = {word: f"among the rarest (mean log-probability {float(prior[index[word]]):.2f})" for word in rare}
    return _dropped(verbalizer, anchors, reasons)


def refine_by_relevance(
    verbalizer: Verbalizer,
    words: Sequence[str],
    log_probs: torch.Tensor,
    anchors: Verbalizer,
    min_relevance: float = 0.0,
) -> Refinement:
    """Drop the words that go along with their own label's anchors too little, or with another label's as much.

    A word's relevance is its correlation with the mean of its label's anchors over the texts, minus its highest
    correlation with the anchors of another label; and the first must be positive by itself. What all words of a text
    share is taken out first. A word that hardly changes from text to text (less than a tenth of what the anchors do)
    has no relevance, whatever the little that is left correlates with. (The paper divides where we subtract: by the
    mean similarity to the other labels, which is near 0 as often as not where similarities may be negative.)

    Args:
        verbalizer, words, log_probs, anchors:
            As for `refine_by_frequency`.
        min_relevance (`float`, defaults to 0):
            Words must exceed this.

    Raises:
        `ValueError`: fewer than two labels, or anchors with other labels.
    """
    if len(verbalizer.labels) < 2:
        raise ValueError(f"Relevance compares labels with each other, and there is {len(verbalizer.labels)}.")
    if set(anchors.labels) != set(verbalizer.labels):
        raise ValueError(f"anchors must have the labels {list(verbalizer.labels)}, got {list(anchors.labels)}.")
    index = {word: i for i, word in enumerate(words)}
    scores = log_probs.double()
    scores = scores - scores.mean(dim=1, keepdim=True)
    scores = scores - scores.mean(dim=0)
    unit = F.normalize(scores, dim=0)  # (N, W)
    spread = scores.norm(dim=0)
    least = 0.1 * float(spread[[index[word] for word in anchors.all_words]].median())

    def correlation(word: str, label: str) -> float:
        own = [index[a] for a in anchors.words[anchors.labels.index(label)] if a != word]
        return float(unit[:, index[word]] @ F.normalize(unit[:, own].mean(dim=1), dim=0)) if own else 1.0

    reasons: dict[str, dict[str, str]] = {}
    for label, own in zip(verbalizer.labels, verbalizer.words, strict=True):
        reasons[label] = {}
        for word in own:
            if spread[index[word]] < least:
                reasons[label][word] = "hardly changes from text to text"
                continue
            with_own = correlation(word, label)
            rival = max((other for other in verbalizer.labels if other != label), key=lambda o: correlation(word, o))
            with_rival = correlation(word, rival)
            if with_own <= 0 or with_own - with_rival <= min_relevance:
                reasons[label][word] = f"goes with its label by {with_own:.2f}, with {rival!r} by {with_rival:.2f}"
    return _dropped(verbalizer, anchors, reasons)


def learn_word_weights(
    verbalizer: Verbalizer,
    words: Sequence[str],
    scores: torch.Tensor,
    labels: Sequence[str],
    penalty: float = 0.1,
    drop_below: float = 0.0,
    max_steps: int = 200,
) -> Verbalizer:
    """Weights of the label words from a few labelled examples (their learnable refinement).

    The weights of a label's words are the softmax of free numbers vᵥ, which start at 0, so that all words count the
    same. They minimise the mean cross-entropy of the labels' scores Σᵥ αᵥ s(v | x) plus ½ λ mean(v²), found by L-BFGS.
    Each word's mean over the examples, every label counting the same, is subtracted from its scores.

    Args:
        verbalizer (`Verbalizer`):
            The words. Weights that it has are not used.
        words (`Sequence[str]`):
            W words: the columns of the scores.
        scores (`torch.Tensor` of shape `(N, W)`):
            Centred scores or log-probabilities of the words on the examples.
        labels (`Sequence[str]`):
            The label of each example.
        penalty (`float`, defaults to 0.1):
            λ > 0: how much it takes to move a weight.
        drop_below (`float`, defaults to 0):
            Words whose share of their label is below this are dropped, except the heaviest.
        max_steps (`int`, defaults to 200):
            Most steps of L-BFGS.

    Raises:
        `ValueError`: a penalty that is not positive, an example with an unknown label, a label without an example.
    """
    if not penalty > 0:
        raise ValueError(f"penalty must be positive, got {penalty}: with few examples weights would grow for ever.")
    targets = targets_of(labels, verbalizer.labels)
    index = {word: i for i, word in enumerate(words)}
    own = F.one_hot(targets, len(verbalizer.labels)).double()
    scores = scores.detach().cpu().double()
    scores = scores - ((own / own.sum(dim=0)).T @ scores).mean(dim=0)
    columns = [[index[word] for word in mine] for mine in verbalizer.words]
    sizes = [len(mine) for mine in columns]
    free = torch.zeros(sum(sizes), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=max_steps, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def shares() -> list[torch.Tensor]:
        return [part.softmax(dim=0) for part in free.split(sizes)]

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        label_scores = torch.stack([scores[:, mine] @ a for mine, a in zip(columns, shares(), strict=True)], dim=1)
        value = F.cross_entropy(label_scores, targets) + 0.5 * penalty * free.square().mean()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    table: dict[str, dict[str, float]] = {}
    for label, mine, a in zip(verbalizer.labels, verbalizer.words, shares(), strict=True):
        weights = dict(zip(mine, a.tolist(), strict=True))
        heaviest = max(weights, key=lambda word: weights[word])
        table[label] = {word: weight for word, weight in weights.items() if weight >= drop_below or word == heaviest}
    return Verbalizer.of(table)


def _dropped(
    verbalizer: Verbalizer, anchors: Verbalizer, reasons: Mapping[str, str] | Mapping[str, dict[str, str]]
) -> Refinement:
    """The verbalizer without the words that `reasons` names, for all labels or for one; anchors stay.

    A label that would be left without a word gets its anchors.
    """
    table: dict[str, dict[str, float]] = {}
    dropped: dict[str, dict[str, str]] = {}
    for label, own, weights in zip(verbalizer.labels, verbalizer.words, verbalizer.weights, strict=True):
        mine: Any = reasons.get(label, {}) if all(isinstance(r, dict) for r in reasons.values()) else reasons
        safe = anchors.words[anchors.labels.index(label)] if label in anchors.labels else ()
        dropped[label] = {word: mine[word] for word in own if word in mine and word not in safe}
        left = {word: weight for word, weight in zip(own, weights, strict=True) if word not in dropped[label]}
        table[label] = left or dict.fromkeys(safe or own[:1], 1.0)
    return Refinement(Verbalizer.of(table), dropped)
