"""The digest of a model's weights changes with them and with nothing else."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hf_nlpnotes.prompting.weight_state import weight_state


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(50, 60)
        self.register_buffer("buffer", torch.zeros(3))
        self.meta = nn.Parameter(torch.empty(2, device="meta"))  # weights that are not here


@torch.no_grad()
def in_place(model: Model) -> None:
    model.linear.weight[1, 1] = 5


def unseen(model: Model) -> None:
    model.linear.weight.data.mul_(2)


def replaced(model: Model) -> None:
    model.linear.bias = nn.Parameter(model.linear.bias.detach().clone())


def buffer(model: Model) -> None:
    model.get_buffer("buffer").add_(1)


@pytest.mark.parametrize("change", [in_place, unseen, replaced, buffer, Model.half])
def test_it_changes_with_the_weights(change: Callable[[Model], object]) -> None:
    model = Model()
    before = weight_state(model)
    model.linear(torch.ones(1, 50)).sum().backward()  # gradients are no weights
    model.eval()
    assert weight_state(model) == before
    kept = model.linear.bias  # so that its memory is not used again
    change(model)
    assert weight_state(model) != before
    del kept


def test_models_of_the_same_weights_are_two() -> None:
    assert weight_state(first := Model()) != weight_state(second := Model()), (first, second)
