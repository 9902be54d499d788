"""How much each head matters for a task: by gradients of gates on the heads, and by taking heads out.

Michel et al. (2019), "Are Sixteen Heads Really Better than One?". The gradient needs one backward pass over the data
for all heads together (section 4.1); taking out is exact and needs one evaluation a head (section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .encoding import device_of
from .gates import ablated, gated
from .recording import evaluating

Numbers = NDArray[np.float64]
Loss = Callable[[Any, Mapping[str, torch.Tensor]], torch.Tensor]
"""Loss of a batch from the model's output and the batch, a mean over the examples."""


def head_importance(
    model: nn.Module,
    batches: Iterable[Mapping[str, torch.Tensor]],
    *,
    loss: Loss | None = None,
    normalize: bool = True,
) -> tuple[Numbers, ...]:
    """Return the importance of each head of each layer, `(heads,)` a layer.

    I_h = E_x |∂L(x) / ∂ξ_h| (equation 2), with every example of a batch taken by itself. The model runs without
    dropout; its gradients and its mode are left as they were.

    Args:
        model: A model of transformers with a head for the task.
        batches: Inputs of the model with their labels, on any device.
        loss: The loss; None for the model's own, `output.loss`. It must be a mean over the batch's examples. A mean
            over all tokens of a batch counts examples by their length: give batches of one where that matters.
        normalize: Whether to divide each layer's numbers by their Euclidean norm, as the paper does before heads of
            different layers are compared.

    Raises:
        ValueError: There are no batches, the model gave no loss, or its attention could not be gated.
    """
    device = device_of(model)
    totals: dict[int, torch.Tensor] = {}
    examples = 0
    with evaluating(model):
        for batch in batches:
            on_device = {name: value.to(device) for name, value in batch.items()}
            gradients, size = _gate_gradients(model, on_device, loss)
            examples += size
            for layer, gradient in gradients.items():
                # The loss is a mean: an example's own gradient is `size` times its part of it.
                share = gradient.abs().double().sum(0).cpu() * size
                totals[layer] = totals[layer] + share if layer in totals else share
    if not examples:
        raise ValueError("there are no batches: expected at least one")
    result = [(totals[layer] / examples).numpy() for layer in sorted(totals)]
    if normalize:
        result = [numbers / max(float(np.linalg.norm(numbers)), np.finfo(np.float64).tiny) for numbers in result]
    return tuple(result)


def head_ablation(model: nn.Module, score: Callable[[], float]) -> tuple[Numbers, ...]:
    """Return what `score` changes by when one head is taken out, for each head: `(heads,)` a layer.

    Args:
        model: The model that `score` runs.
        score: Evaluates the model as it is at that moment, accuracy on a development set for example. It is called
            once for the whole model and once for each head.

    Raises:
        ValueError: `score` did not run the model, or its attention could not be gated.
    """
    heads: dict[int, int] = {}

    def look(layer: int, _batch: int, count: int) -> None:
        heads[layer] = count

    with gated(model, look):
        whole = score()
    if not heads:
        raise ValueError(f"no attention of {type(model).__name__} ran in score(): expected it to run the model")
    result: list[Numbers] = []
    for layer in sorted(heads):
        changes = []
        for head in range(heads[layer]):
            with ablated(model, {layer: [head]}):
                changes.append(score() - whole)
        result.append(np.array(changes, dtype=np.float64))
    return tuple(result)


def _gate_gradients(
    model: nn.Module, batch: Mapping[str, torch.Tensor], loss: Loss | None
) -> tuple[dict[int, torch.Tensor], int]:
    """Return each layer's gradient of the loss at its gates, `(batch, heads)`, and the number of examples."""
    gates: dict[int, torch.Tensor] = {}

    def gate(layer: int, size: int, heads: int) -> torch.Tensor:
        gates[layer] = torch.ones(size, heads, requires_grad=True)
        return gates[layer]

    with gated(model, gate), torch.enable_grad():
        output = model(**batch)
        value = getattr(output, "loss", None) if loss is None else loss(output, batch)
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{type(model).__name__} gave no loss: give batches with labels, or loss=")
    if not gates:
        raise ValueError(f"no attention of {type(model).__name__} could be gated")
    found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(value, list(gates.values()), allow_unused=True)
    size = next(iter(batch.values())).shape[0]
    zeros = (torch.zeros_like(gate) for gate in gates.values())
    return {
        layer: zero if gradient is None else gradient
        for layer, gradient, zero in zip(gates, found, zeros, strict=True)
    }, size
