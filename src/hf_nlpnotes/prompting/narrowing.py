"""The end of the last layer at the masks only.

Attention mixes positions; what comes after it in a layer does not. In the last layer nothing is asked of any position
but the masks, so that its output projection, its norms and its feed-forward part, some three quarters of its work,
need run on the masks alone. Where that begins is found by trying: the inputs of one module after another of the last
layer are cut down to the masks, and the first with which the model still says the same is the place. Models whose
residual connection goes around that place (pre-norm: ModernBERT, …) have none, and run in full.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_TRIES = 16
"""Most modules to try."""


@dataclass(frozen=True)
class Narrowing:
    """Where a model is narrowed: at the inputs of a module of the last layer of a stack."""

    module: nn.Module
    stack: nn.ModuleList
    state: tuple[int, ...]

    @classmethod
    def at(cls, module: nn.Module, stack: nn.ModuleList) -> Narrowing:
        """Here, as the stack is now."""
        return cls(module, stack, _state(stack))

    def holds(self) -> bool:
        """Whether the stack still has the same layers."""
        return _state(self.stack) == self.state

    @contextmanager
    def applied(self, positions: torch.Tensor, length: int) -> Iterator[list[int]]:
        """Inside the `with` block the module is given `positions`, (batch, K), of inputs of that `length`.

        Yields a list that has an entry for each time that it was.
        """
        owner = threading.get_ident()
        times: list[int] = []
        whole = (len(positions), length)

        def narrow(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if threading.get_ident() != owner:
                return None
            times.append(1)
            return tuple(map(chosen, args)), {name: chosen(value) for name, value in kwargs.items()}

        def chosen(value: Any) -> Any:
            if isinstance(value, torch.Tensor) and value.dim() == 3 and value.shape[:2] == whole:
                return take(value, positions.to(value.device))
            return value

        handle = self.module.register_forward_pre_hook(narrow, with_kwargs=True)
        try:
            yield times
        finally:
            handle.remove()


def take(values: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Rows of (batch, length, size) at (batch, K): (batch, K, size)."""
    return values.gather(1, positions[:, :, None].expand(-1, -1, values.shape[2]))


def candidates(encoder: nn.Module, run: Callable[[], object]) -> list[Narrowing]:
    """Places to try, in the order in which a run of the encoder comes to them."""
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) > 1]
    called: list[nn.Module] = []
    handles = [
        module.register_forward_pre_hook(lambda module, _: called.append(module)) for module in encoder.modules()
    ]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    once = [module for module in called if called.count(module) == 1]
    ends = {stack[-1]: stack for stack in stacks if stack[-1] in once}
    last = next((module for module in reversed(once) if module in ends), None)
    if last is None:
        return []
    inside = set(last.modules()) - {last}
    return [Narrowing.at(module, ends[last]) for module in once if module in inside][:_TRIES]


def _state(stack: nn.ModuleList) -> tuple[int, ...]:
    return tuple(map(id, stack))
