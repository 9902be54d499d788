"""Self-training: a few labelled examples, and many texts that the model labels itself.

In the manner of iPET (Schick & Schütze, EACL 2021, https://arxiv.org/abs/2001.07676, section 3.4). A generation
begins from the model as it was at first, and learns from the labelled examples together with unlabelled texts under
the labels that the generation before gave them: those it is surest of, as many of each label as its share says, and
more of them from generation to generation. iPET trains an ensemble of templates that label for one another; here one
model with any number of templates labels for its successor, at the cost of one training a generation.

When to use it: when there are unlabelled texts of the same kind, some hundreds a label, and the first generation is
right more often than not. How it fails: a label that the model confuses with another at first is confused for good;
and where labels are unequally frequent, equal shares force wrong labels on texts: say so by `label_shares`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from transformers import Trainer, TrainingArguments

Train: TypeAlias = "TrainingArguments | Callable[[Any, list[dict[str, Any]], int], object]"
"""How to train: arguments of the stock Trainer, or a function of a model, its examples and the generation's number."""


@dataclass(frozen=True)
class Generation:
    """What happened in one generation.

    Args:
        number: 0 for the labelled examples alone.
        added: numbers of the unlabelled texts that were learnt from.
        labels: the label that each of them was given.
        confidence: the model's mean probability for these labels.
    """

    number: int
    added: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    confidence: float | None = None


def self_train(
    model: Any,
    unlabelled: Sequence[Mapping[str, Any]],
    train: Train,
    labelled: Sequence[Mapping[str, Any]] = (),
    generations: int = 3,
    growth: float = 5.0,
    min_confidence: float = 0.0,
    label_shares: Sequence[float] | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Generation]:
    """Train a model generation after generation, each on more texts that the one before has labelled.

    Args:
        model (`PromptForSequenceClassification` or `PeftModelForPrompts`):
            The model, trained in place. Each generation begins from its weights as they are now.
        unlabelled (`Sequence[Mapping]`):
            Examples with the columns of the templates; their labels, if they have any, are not looked at.
        train (`TrainingArguments` or `Callable`):
            `train(model, examples, generation)` trains the model in place; arguments do so by the stock Trainer.
        labelled (`Sequence[Mapping]`, *optional*):
            Examples with a label. Without any the first generation is the model as it is.
        generations (`int`, defaults to 3):
            Generations after the first.
        growth (`float`, defaults to 5.0):
            How many times more examples a generation has than the one before, as in the paper. It begins with the
            number of labelled examples, without these with the number of labels.
        min_confidence (`float`, defaults to 0.0):
            Take no text whose label has a smaller probability.
        label_shares (`Sequence[float]`, *optional*):
            How frequent the labels are; `None`: as in `labelled`, equally without them.
        seed (`int`, defaults to 0):
            Of the random numbers, set before each generation, also instead of the arguments' own: the same seed, the
            same result.
        batch_size (`int`, defaults to 64):
            Texts at a time when they are labelled.

    Returns:
        A record of each generation.

    Raises:
        `ValueError`: no unlabelled text, or an option out of its range.
    """
    _check(unlabelled, generations, growth, min_confidence)
    shares = _shares(model, labelled, label_shares)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    prompt = _prompted(model).prompt
    first = max(len(labelled), len(shares))

    def run(examples: list[dict[str, Any]], number: int) -> None:
        model.load_state_dict(weights)
        _prompted(model).set_bias(prompt)
        torch.manual_seed(seed)
        if examples:
            _train(model, train, examples, number, seed)

    run([dict(example) for example in labelled], 0)
    records = [Generation(0)]
    for number in range(1, generations + 1):
        probabilities = model.predict(unlabelled, batch_size).softmax(dim=1)
        added = choose(probabilities, shares, round(first * growth**number) - len(labelled), min_confidence)
        records.append(
            Generation(
                number,
                tuple(place for place, _ in added),
                tuple(label for _, label in added),
                sum(float(probabilities[place, label]) for place, label in added) / len(added) if added else None,
            )
        )
        own = [{**_without_label(unlabelled[place]), "label": label} for place, label in added]
        run([*(dict(example) for example in labelled), *own], number)
    return records


def choose(
    probabilities: torch.Tensor, shares: torch.Tensor, count: int, min_confidence: float = 0.0
) -> list[tuple[int, int]]:
    """The texts that a model is surest of, as many of each label as its share says.

    A text goes to its most probable label; a label with fewer texts than its share leaves the rest untaken, since
    texts of other labels would unbalance what is learnt.

    Args:
        probabilities (`torch.Tensor` of shape `(texts, labels)`):
            What the model says.
        shares (`torch.Tensor` of shape `(labels,)`):
            How frequent the labels are; they sum to 1.
        count (`int`):
            Texts to take, at most.
        min_confidence (`float`, defaults to 0.0):
            Smallest probability of a text's label.

    Returns:
        Numbers of texts with their labels, in the order of the texts.

    >>> probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]])
    >>> choose(probabilities, torch.tensor([0.5, 0.5]), 4)
    [(0, 0), (2, 1), (3, 0)]
    """
    confidence, labels = probabilities.max(dim=1)
    chosen = []
    for label, share in enumerate(shares.tolist()):
        own = ((labels == label) & (confidence >= min_confidence)).nonzero().flatten()
        order = confidence[own].argsort(descending=True, stable=True)
        chosen += [(int(place), label) for place in own[order][: round(share * count)]]
    return sorted(chosen)


def _check(unlabelled: Sequence[Any], generations: int, growth: float, min_confidence: float) -> None:
    if not unlabelled:
        raise ValueError("There is no unlabelled text: self-training needs some hundreds, or train without it.")
    if generations < 1:
        raise ValueError(f"generations must be a positive whole number, got {generations!r}.")
    if not growth > 1:
        raise ValueError(f"growth must be above 1, got {growth!r}: each generation has more examples than the last.")
    if not 0 <= min_confidence < 1:
        raise ValueError(f"min_confidence is a probability below 1, got {min_confidence!r}.")


def _train(model: Any, train: Train, examples: list[dict[str, Any]], number: int, seed: int) -> None:
    if isinstance(train, TrainingArguments):
        train = copy.copy(train)
        train.seed = seed
        Trainer(model, train, model.data_collator(), examples).train()
    else:
        train(model, examples, number)


def _prompted(model: Any) -> Any:
    """The prompted model, also under an adapter."""
    return getattr(model, "prompted", model)


def _shares(model: Any, labelled: Sequence[Mapping[str, Any]], given: Sequence[float] | None) -> torch.Tensor:
    """How frequent the labels are, of sum 1."""
    names = _prompted(model).prompt.labels
    if given is not None:
        shares = torch.tensor(list(given), dtype=torch.float64)
        if shares.shape != (len(names),) or not bool((shares > 0).all() & shares.isfinite().all()):
            raise ValueError(f"label_shares must be one positive number for each of {list(names)}, got {list(given)}.")
    elif labelled:
        numbers = model.data_collator()(list(labelled)).get("labels")
        if numbers is None:
            raise ValueError("The labelled examples have no label: give each a column 'label'.")
        shares = torch.bincount(numbers, minlength=len(names)).double()
    else:
        shares = torch.ones(len(names), dtype=torch.float64)
    return shares / shares.sum()


def _without_label(example: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in example.items() if name not in ("label", "labels", "label_ids")}
