"""Calibration: taking out what the model prefers before it has read anything.

A masked language model gives frequent words high probabilities whatever the text says. Each method estimates a bias
b(y) of every label and classifies by the softmax of s(y | x) − b(y), where s is the score of the label.

- `contextual` (Zhao et al., ICML 2021, https://arxiv.org/abs/2102.09690): b(y) is the mean score on texts without
  content, such as "N/A".
- `domain` (Holtzman et al., EMNLP 2021, https://arxiv.org/abs/2104.08315): the score of the template without a text.
- `batch` (Zhou et al., ICLR 2024, https://arxiv.org/abs/2309.17249): the mean score on the texts to classify.
- `prior` (Liusie et al. 2023, https://arxiv.org/abs/2309.04992): such that the mean prediction is a given label prior.

When to use which: `batch` and `prior` are the strongest and need an unlabelled sample, of which `batch` assumes that
the labels are about equally frequent and `prior` is told how frequent they are; both spoil a sample of one class.
`contextual` and `domain` need nothing and judge each text by itself; they fail where a short prompt without content
is unlike the prompts with one.

Two details. Means are taken over log-scores, where the contextual and batch papers average probabilities: a constant
in a token's output bias then cancels exactly, with any number of texts and words. For the same reason calibrated
scores are centred logits (`WordScores.centred`) rather than log-probabilities, so that it also cancels between words
of different lengths, which have different masks and hence different normalisers; each length is compared with
content-free prompts of that length. Among words of one length the two are the same after the softmax.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import torch

Calibration: TypeAlias = Literal["none", "contextual", "domain", "batch", "prior"]
"""Names of the methods."""

CALIBRATIONS: tuple[str, ...] = get_args(Calibration)
"""Names of the methods, to list or to loop over."""

CONTENT_FREE_TEXTS: tuple[str, ...] = ("N/A", "。", "")
"""Texts without content for `contextual`, in the manner of Zhao et al. (2021), section 4.

A word such as 无 would not do: it speaks against a text, and so for the labels of bad news.
"""


def mean_bias(scores: torch.Tensor) -> torch.Tensor:
    """Bias of each label as its mean score, for `contextual`, `domain` and `batch`.

    Args:
        scores (`torch.Tensor` of shape `(N, labels)`):
            Scores of the labels on N content-free texts, on the template without a text, or on the batch.

    Returns:
        `torch.Tensor` of shape `(labels,)`.
    """
    return scores.mean(dim=0)


def prior_bias(
    scores: torch.Tensor, prior: torch.Tensor, tolerance: float = 1e-9, max_steps: int = 1000
) -> torch.Tensor:
    """The bias with which the mean prediction over the sample is the given prior.

    Solves 1/N Σₙ softmax(s(xₙ) − b) = π for b: it minimises the convex function
    f(b) = 1/N Σₙ logsumexp(s(xₙ) − b) + π·b. Damped Newton steps. The solution is unique up to a constant, and the one
    with the mean of the scores is returned, so that calibrated scores have mean 0, as they have with `mean_bias`.

    Args:
        scores (`torch.Tensor` of shape `(N, labels)`):
            Scores of the labels on an unlabelled sample.
        prior (`torch.Tensor` of shape `(labels,)`):
            Wanted mean, positive; only the proportions count.
        tolerance (`float`, defaults to 1e-9):
            Largest deviation of the mean prediction from the prior.
        max_steps (`int`, defaults to 1000):
            Give up after this many steps.

    Raises:
        `ValueError`: no such bias was found; the texts are then too few, or too one-sided, for the prior.
    """
    scores = scores.double()
    prior = prior.double() / prior.double().sum()

    def objective(bias: torch.Tensor) -> torch.Tensor:
        return (scores - bias).logsumexp(dim=1).mean() + prior @ bias

    bias = scores.mean(dim=0)
    value, damping = objective(bias), 1e-3
    for _ in range(max_steps):
        predictions = (scores - bias).softmax(dim=1)  # (N, labels)
        mean = predictions.mean(dim=0)
        gradient = prior - mean
        if gradient.abs().max() <= tolerance:
            return bias - bias.mean() + scores.mean()
        hessian = mean.diag() - predictions.T @ predictions / len(scores)
        step = torch.linalg.solve(hessian + damping * torch.eye(len(prior), dtype=torch.float64), -gradient)
        if (new := objective(bias + step)) <= value + 1e-15 * value.abs():
            bias, value, damping = bias + step, new, max(damping / 10, 1e-12)
        else:
            damping *= 10
    raise ValueError(
        f"No label bias makes the mean of the {len(scores)} predictions equal to the prior {prior.tolist()} after"
        f" {max_steps} steps: give more texts, a less extreme prior, or another calibration."
    )


def label_prior_tensor(
    label_prior: Mapping[str, float] | Sequence[float] | None, labels: Sequence[str]
) -> torch.Tensor:
    """A label prior as a tensor of shape `(labels,)` and sum 1.

    Args:
        label_prior (`Mapping[str, float]` or `Sequence[float]`, *optional*):
            How frequent each label is, as counts or shares, by label or in the order of the labels. `None`: equally.
        labels (`Sequence[str]`):
            The labels.

    Raises:
        `ValueError`: a label without a value, a value without a label, or one that is not positive.
        `TypeError`: a value that is no number.
    """
    if label_prior is None:
        return torch.full((len(labels),), 1 / len(labels), dtype=torch.float64)
    if isinstance(label_prior, Mapping):
        missing = [label for label in labels if label not in label_prior]
        unknown = [label for label in label_prior if label not in labels]
        if missing or unknown:
            raise ValueError(
                f"label_prior must have one value a label: none for {missing}, and {unknown} are no labels of"
                f" {list(labels)}."
            )
        values = [label_prior[label] for label in labels]
    else:
        values = list(label_prior)
        if len(values) != len(labels):
            raise ValueError(f"label_prior has {len(values)} values for {len(labels)} labels {list(labels)}.")
    try:
        prior = torch.tensor([float(value) for value in values], dtype=torch.float64)
    except (TypeError, ValueError):
        raise TypeError(f"label_prior is one number a label, got {values}.") from None
    if not bool((prior > 0).all() & prior.isfinite().all()):
        raise ValueError(f"label_prior must be positive, got {values}.")
    return prior / prior.sum()
