"""The best of some templates, by a few labelled examples.

Accuracy swings widely between templates that mean the same to a reader, and nobody can tell in advance which is best
(Zhao et al., ICML 2021, https://arxiv.org/abs/2102.09690, section 3; Perez et al., NeurIPS 2021,
https://arxiv.org/abs/2105.11447, on how little a few examples tell). Templates are compared by likelihood first,
which says more about few examples than accuracy does: sixteen examples know 17 accuracies.

Label preferences are calibrated on one part of the examples and judged on another, in turn. With fewer than some ten
examples a label the ranking is mostly chance; the standard error beside each figure says so. Then use all templates
together instead of one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from .template import Template
from .text_scores import score_texts, targets_of
from .verbalizer import Verbalizer, Words


@dataclass(frozen=True)
class TemplateScore:
    """How a template does on examples that its calibration has not seen.

    Args:
        template (`str`): the template.
        log_likelihood (`float`): mean log-probability of the right label among the labels, every label counting the
            same.
        accuracy (`float`): mean over the labels of the share that is classified right.
        standard_error (`float`): of the log-likelihood, over the examples.
    """

    template: str
    log_likelihood: float
    accuracy: float
    standard_error: float


def search_templates(
    model: Any,
    tokenizer: Any,
    templates: Sequence[str | Template],
    texts: Sequence[str | Mapping[str, str]],
    labels: Sequence[str],
    verbalizer: Verbalizer | Mapping[str, Words] | Sequence[str],
    folds: int = 4,
    seed: int = 0,
    by: str = "log_likelihood",
    **scoring: Any,
) -> list[TemplateScore]:
    """Rank templates by cross-validation on a few labelled examples.

    In each fold the labels' mean scores on the other examples are subtracted, and the examples of the fold judged.

    Args:
        model, tokenizer, texts, scoring:
            As for `score_texts`: the N examples, and `batch_size`, `max_length`.
        templates (`Sequence[str]`):
            The candidates.
        labels (`Sequence[str]`):
            The label of each example; at least two of each label.
        verbalizer (`Verbalizer`, mapping from labels to words, or labels):
            The words of each label.
        folds (`int`, defaults to 4):
            Parts of the examples, 2 or more; as many as the rarest label has examples, where that is less.
        seed (`int`, defaults to 0):
            Which example goes into which fold.
        by (`str`, defaults to `"log_likelihood"`):
            `"log_likelihood"` or `"accuracy"` (then by log-likelihood).

    Returns:
        One score a template, best first.

    Raises:
        `ValueError`: no template, one twice, a label with fewer than two examples, or what `score_texts` refuses.
    """
    if by not in ("log_likelihood", "accuracy"):
        raise ValueError(f"by must be 'log_likelihood' or 'accuracy', got {by!r}.")
    sources = [str(template) for template in templates]
    if not sources or len(set(sources)) < len(sources):
        raise ValueError(f"templates must be one or more different templates, got {sources}.")
    parsed = [Template(source) for source in sources]  # a wrong one is told before any work
    if len(texts) != len(labels):
        raise ValueError(f"There must be one label a text, got {len(labels)} labels for {len(texts)} texts.")
    verbalizer = Verbalizer.of(verbalizer)
    targets = targets_of(labels, verbalizer.labels)
    parts = stratified_folds(targets, folds, seed)
    results = []
    for template in parsed:
        words = score_texts(model, tokenizer, template, texts, verbalizer.all_words, **scoring).centred
        scores = words.double() @ verbalizer.weight_matrix()
        results.append(cross_validated(template.source, scores, targets, parts))
    if by == "accuracy":
        return sorted(results, key=lambda result: (-result.accuracy, -result.log_likelihood))
    return sorted(results, key=lambda result: -result.log_likelihood)


def stratified_folds(targets: torch.Tensor, folds: int, seed: int = 0) -> torch.Tensor:
    """The fold of each example, of shape `(N,)`: each label's examples are spread evenly.

    Args:
        targets (`torch.Tensor` of shape `(N,)`):
            Each example's label, a number from 0.
        folds (`int`):
            How many; no more are made than the rarest label has examples.
        seed (`int`, defaults to 0):
            Of the order within a label.

    Raises:
        `ValueError`: fewer than two folds, or a label with fewer than two examples.
    """
    counts = torch.bincount(targets)
    rarest = int(counts[counts > 0].min())
    if folds < 2 or rarest < 2:
        raise ValueError(
            f"Cross-validation needs two folds and two examples a label, got folds={folds} and a label with {rarest}."
        )
    folds = min(folds, rarest)
    generator = random.Random(seed)  # noqa: S311 (no secret)
    parts = torch.empty_like(targets)
    for label in range(len(counts)):
        places = (targets == label).nonzero()[:, 0].tolist()
        generator.shuffle(places)
        for i, place in enumerate(places):
            parts[place] = i % folds
    return parts


def cross_validated(name: str, scores: torch.Tensor, targets: torch.Tensor, parts: torch.Tensor) -> TemplateScore:
    """Judge label scores `(N, L)` on each fold, with the labels' means over the other folds subtracted.

    Args:
        name (`str`):
            The template, as the result names it.
        scores (`torch.Tensor` of shape `(N, L)`):
            Scores of the labels on the examples.
        targets (`torch.Tensor` of shape `(N,)`):
            Each example's label, a number from 0.
        parts (`torch.Tensor` of shape `(N,)`):
            Each example's fold, from `stratified_folds`.
    """
    num_labels = scores.shape[1]
    own = F.one_hot(targets, num_labels).double()
    held_out = torch.empty_like(scores)
    for part in parts.unique().tolist():
        rest = own[parts != part]
        # The mean over the labels of the mean over their examples: which labels are frequent must not matter.
        bias = ((rest / rest.sum(dim=0)).T @ scores[parts != part]).mean(dim=0)
        held_out[parts == part] = scores[parts == part] - bias
    log_likelihood = held_out.log_softmax(dim=1).gather(1, targets[:, None])[:, 0]
    right = (held_out.argmax(dim=1) == targets).double()
    weights = (own / own.sum(dim=0)).sum(dim=1) / num_labels  # sums to 1
    mean = float(weights @ log_likelihood)
    error = float(((weights * (log_likelihood - mean)).square().sum()).sqrt())
    return TemplateScore(name, mean, float(weights @ right), error)
