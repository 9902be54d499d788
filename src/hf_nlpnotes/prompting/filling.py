"""Predictions at a prompt's masks after some of them have been filled in: what word-by-word readings are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from .predictions import predict_masks
from .verbalizer import WordGroup

Token: TypeAlias = tuple[int, ...]
"""Everything that the model reads about one token: its id, then the features of the group's words in their order."""


@dataclass(frozen=True)
class Filling:
    """A prompt with some of its masks filled in.

    Args:
        row (`int`):
            Which prompt.
        tokens (`tuple[Token | None, ...]`):
            What stands at each of its masks; `None` leaves the mask.
    """

    row: int
    tokens: tuple[Token | None, ...]


Question: TypeAlias = tuple[Filling, int, int]
"""A filling, the mask to look at (its number among the masks), the token id to score there."""


def words_of(group: WordGroup) -> list[tuple[Token, ...]]:
    """The tokens of each word of a group.

    >>> words_of(WordGroup(2, (0,), ((7, 8),), {"pinyin_ids": ((3, 4),)}))
    [((7, 3), (8, 4))]
    """
    columns = (group.token_ids, *group.features.values())
    return [tuple(zip(*values, strict=True)) for values in zip(*columns, strict=True)]


def answer_questions(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    positions: torch.Tensor,
    questions: Sequence[Question],
    feature_names: Sequence[str] = (),
    max_rows: int = 64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and centred logit of a token at a mask of a filling, for each of Q questions.

    Every distinct filling is read once, however many questions are about it.

    Args:
        model (`nn.Module`):
            A masked language model.
        inputs (`Mapping[str, torch.Tensor]`):
            Its inputs, of shape (batch, length), with all masks open.
        positions (`torch.Tensor` of shape `(batch, K)`):
            Where the masks are.
        questions (`Sequence[Question]`):
            What to score.
        feature_names (`Sequence[str]`):
            Names of the inputs, beside `input_ids`, that a `Token` has values for.
        max_rows (`int`, defaults to 64):
            Fillings a forward pass.

    Returns:
        Two tensors of shape `(Q,)`.
    """
    by_filling: dict[Filling, list[int]] = {}
    for index, (filling, _, _) in enumerate(questions):
        by_filling.setdefault(filling, []).append(index)
    fillings = sorted(by_filling, key=lambda filling: filling.row)
    order: list[int] = []
    log_probs, centred = [torch.zeros(0, device=positions.device)], [torch.zeros(0, device=positions.device)]
    columns = {name: place for place, name in enumerate(("input_ids", *feature_names)) if name in inputs}
    for start in range(0, len(fillings), max_rows):
        chunk = fillings[start : start + max_rows]
        rows = torch.tensor([filling.row for filling in chunk], device=positions.device)
        predictions = predict_masks(model, _filled(inputs, positions, chunk, columns), positions[rows])
        asked = [(place, index) for place, filling in enumerate(chunk) for index in by_filling[filling]]
        tokens = torch.tensor([questions[index][2] for _, index in asked], device=positions.device)
        distinct, inverse = tokens.unique(return_inverse=True)
        at = torch.tensor([place for place, _ in asked], device=positions.device)
        masks = torch.tensor([questions[index][1] for _, index in asked], device=positions.device)
        logits = predictions.logits_of(distinct)[at, masks, inverse]
        log_probs.append(logits - predictions.log_normaliser()[at, masks])
        centred.append(logits - predictions.centre()[at, masks])
        order += [index for _, index in asked]
    back = torch.tensor(order, dtype=torch.long, device=positions.device).argsort()
    return torch.cat(log_probs)[back], torch.cat(centred)[back]


def _filled(
    inputs: Mapping[str, torch.Tensor],
    positions: torch.Tensor,
    fillings: Sequence[Filling],
    columns: Mapping[str, int],
) -> dict[str, torch.Tensor]:
    """Inputs of the fillings, one row each; `columns` says where a token has the value of an input."""
    rows = torch.tensor([filling.row for filling in fillings], device=positions.device)
    places = [
        (at, mask, token)
        for at, filling in enumerate(fillings)
        for mask, token in enumerate(filling.tokens)
        if token is not None
    ]
    batch = {name: value[rows] for name, value in inputs.items()}
    if not places:
        return batch
    at = torch.tensor([place for place, _, _ in places], device=positions.device)
    to = positions[rows[at], torch.tensor([mask for _, mask, _ in places], device=positions.device)]
    for name, column in columns.items():
        batch[name][at, to] = torch.tensor([token[column] for *_, token in places], device=positions.device)
    return batch
