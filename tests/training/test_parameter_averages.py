"""Averages against brute force over the whole history."""

import math
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hf_nlpnotes.training.parameter_averages import (
    RunningAverage,
    WindowAverage,
    exponential_decay,
    parameters_as,
)

SHAPES = [(7, 3), (5,), ()]


def walk(steps, seed=0, dtype=torch.float32):
    """Values of a few parameters at each step of a random walk, as a training makes it."""
    random = np.random.default_rng(seed)
    values = [random.normal(size=shape) for shape in SHAPES]
    history = []
    for _ in range(steps):
        values = [value + 1e-3 * random.normal(size=value.shape) for value in values]
        history.append([torch.tensor(value, dtype=dtype) for value in values])
    return history


def assert_equal_lists(found, expected, atol=0.0):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), torch.as_tensor(other).double(), rtol=0, atol=atol)


def brute_force(history):
    """Mean of each parameter over a history, in numpy's float64."""
    return [np.mean([value.double().numpy() for value in column], axis=0) for column in zip(*history, strict=True)]


@pytest.mark.parametrize("running_sum", [False, True])
@pytest.mark.parametrize("size", [1, 2, 5, 50])
def test_window_average_is_the_mean_of_the_last_values(size, running_sum):
    history = walk(23)
    window = WindowAverage(size, running_sum=running_sum)
    for step, values in enumerate(history, 1):
        window.update(values)
        assert window.count == min(step, size)
        assert_equal_lists(window.average(), brute_force(history[max(0, step - size) : step]), atol=1e-6)
        assert_equal_lists(window.values[-1], values)


def test_a_running_sum_does_not_drift():
    """20,000 steps: the sum is that of the values in the window, bit for bit."""
    window, last = WindowAverage(10, running_sum=True), []
    for values in walk(20_000):
        window.update(values)
        last = [*last, values][-10:]
    groups, _ = window.state()
    exact = [sum(value.double() for value in column) for column in zip(*last, strict=True)]
    assert_equal_lists(groups["sum"], exact)
    assert_equal_lists(window.average(), brute_force(last), atol=1e-6)


def test_a_window_keeps_copies():
    values = [torch.ones(3)]
    window = WindowAverage(2)
    window.update(values)
    values[0].fill_(5)
    window.update(values)
    assert_equal_lists(window.average(), [[3.0, 3.0, 3.0]])


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_cumulative_average_is_the_mean_of_all_values(dtype):
    history = walk(200)
    running = RunningAverage(dtype=dtype)
    for values in history:
        running.update(values)
    assert_equal_lists(running.average(), brute_force(history), atol=1e-12 if dtype else 1e-6)
    assert running.average()[0].dtype == (dtype or torch.float32)


@pytest.mark.parametrize("warm_up", [False, True])
@pytest.mark.parametrize("bias_correction", [False, True])
def test_exponential_average_is_its_closed_form(bias_correction, warm_up):
    """Value i weighs (1 − dᵢ) dᵢ₊₁ ⋯ dₙ; the first takes what is left, or all are scaled to a sum of 1."""
    history, decay = walk(30), 0.9
    running = RunningAverage(decay, warm_up=warm_up, bias_correction=bias_correction, dtype=torch.float64)
    for values in history:
        running.update(values)
    decays = [min(decay, (1 + n) / (10 + n)) if warm_up else decay for n in range(1, 31)]
    weights = [(1 - d) * math.prod(decays[i + 1 :]) for i, d in enumerate(decays)]
    if bias_correction:
        weights = [weight / sum(weights) for weight in weights]
    else:
        weights[0] = math.prod(decays[1:])
    expected = [
        sum(weight * value.double() for weight, value in zip(weights, column, strict=True))
        for column in zip(*history, strict=True)
    ]
    assert math.isclose(sum(weights), 1)
    assert_equal_lists(running.average(), expected, atol=1e-12)


def test_the_warm_up_rises_to_the_decay():
    decays = [exponential_decay(update, 0.99, warm_up=True) for update in range(1, 2000)]
    assert all(a <= b for a, b in pairwise(decays))
    assert decays[0] == 2 / 11
    assert decays[-1] == 0.99


def test_half_precision_is_averaged_in_float32():
    """1 + 2⁻⁸ is no bfloat16: an average kept in that dtype would stay at 1."""
    running = RunningAverage(0.99)
    for value in [1.0, *[2.0] * 20]:
        running.update([torch.tensor([value], dtype=torch.bfloat16)])
    assert running.average()[0].dtype == torch.float32
    window = WindowAverage(4)
    for value in (1.0, 1.0, 2.0, 2.0):
        window.update([torch.tensor([value], dtype=torch.bfloat16)])
    assert window.average()[0].item() == 1.5
    assert window.average()[0].dtype == torch.bfloat16


@pytest.mark.parametrize(
    "make",
    [
        lambda: WindowAverage(3),
        lambda: WindowAverage(3, running_sum=True),
        RunningAverage,
        lambda: RunningAverage(0.9, warm_up=True),
        lambda: RunningAverage(0.9, bias_correction=False),
    ],
)
@pytest.mark.parametrize("stop", [1, 2, 8])
def test_a_loaded_state_goes_on_bit_for_bit(make, stop):
    history = walk(17)
    whole, first, second = make(), make(), make()
    for values in history:
        whole.update(values)
    for values in history[:stop]:
        first.update(values)
    groups, numbers = first.state()
    second.load({name: [tensor.clone() for tensor in tensors] for name, tensors in groups.items()}, numbers)
    for values in history[stop:]:
        second.update(values)
    assert second.count == whole.count
    assert_equal_lists(second.average(), whole.average())


def test_an_empty_average_says_so():
    for average in (WindowAverage(2), RunningAverage()):
        with pytest.raises(RuntimeError, match="no value"):
            average.average()
    with pytest.raises(ValueError, match="size is a whole number, at least 1, got 0"):
        WindowAverage(0)


def test_other_values_stand_in_for_a_block_only():
    """A backward pass that waits gets the gradients of the parameters' own values."""
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    own = [parameter.detach().clone() for parameter in layer.parameters()]
    (expected,) = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x)
    loss = layer(x).square().sum()
    other = [torch.zeros_like(value) for value in own]
    with suppress(KeyError), parameters_as(list(layer.parameters()), other):
        assert not layer(x).any()
        raise KeyError
    assert_equal_lists(layer.parameters(), own)
    (found,) = torch.autograd.grad(loss, x)
    assert torch.equal(found, expected)


def test_autocast_does_not_answer_with_the_old_values():
    layer, x = nn.Linear(4, 4), torch.ones(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = layer(x)
        with torch.no_grad(), parameters_as(list(layer.parameters()), [torch.zeros(4, 4), torch.zeros(4)]):
            assert not layer(x).any()
        assert torch.equal(layer(x), before)
    assert before.any()
