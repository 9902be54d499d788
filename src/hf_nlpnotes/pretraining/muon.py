"""Muon for the matrices inside a transformer and Adam for everything else, as one optimizer.

Muon replaces the momentum of a matrix by an orthogonal matrix near it, by a few Newton-Schulz steps (Jordan et al.
2024, https://kellerjordan.github.io/posts/muon/); scaled by 0.2·√max(dimensions) an update has the root mean square
of Adam's (Liu et al. 2025, arXiv:2502.16982, section 2.2), so that both share one learning rate. Embeddings, biases,
LayerNorms and output layers are left to Adam. The stock Trainer and its schedules want one optimizer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class MuonAdamW(Optimizer):
    """`torch.optim.Muon` for some groups of parameters and `torch.optim.AdamW` for the others.

    The groups of both stand in `param_groups`, Muon's first, so that a schedule moves all learning rates alike.

    Args:
        muon_groups: groups of matrices (two dimensions), each with its `lr`.
        adam_groups: groups of anything else, each with its `lr`.
        ns_steps: Newton-Schulz steps.
        weight_decay: of the matrices.
        betas: of Adam.
    """

    def __init__(
        self,
        muon_groups: Iterable[dict[str, Any]],
        adam_groups: Iterable[dict[str, Any]],
        *,
        ns_steps: int = 4,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        self.muon = torch.optim.Muon(
            list(muon_groups), weight_decay=weight_decay, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
        )
        self.adam = torch.optim.AdamW(list(adam_groups), betas=betas, weight_decay=0.0)
        super().__init__([*self.muon.param_groups, *self.adam.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        # Optimizer.__init__ and load_state_dict make group dicts of their own; schedules must reach the parts'.
        self.param_groups = [*self.muon.param_groups, *self.adam.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.muon.step()
        self.adam.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both, by their names."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""
        self.muon.load_state_dict(state_dict["muon"])
        self.adam.load_state_dict(state_dict["adam"])
        self._share_groups()


def muon_adamw(model: nn.Module, learning_rate: float) -> MuonAdamW:
    """The optimizer of a BERT-shaped masked language model.

    Muon takes the encoder's matrices and the head's, those of queries and keys at a third of the rate: heads that were
    set to look at one offset (see `offset_heads`) are lost at the full one. Adam takes the rest at 0.7 of it.

    Args:
        model: the model; parameters that require no gradient are left out.
        learning_rate: rate of Muon.

    Raises:
        ValueError: no matrix is named as in BERT's encoder.
    """
    looks, carries, others = [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.dim() == 2 and re.search(r"\.(query|key)\.weight$", name):
            looks.append(parameter)
        elif parameter.dim() == 2 and re.search(r"encoder\.layer\.|transform\.dense\.", name):
            carries.append(parameter)
        else:
            others.append(parameter)
    if not carries:
        raise ValueError(
            f"{type(model).__name__} has no matrices named as BERT's encoder (encoder.layer.…): expected a "
            "BERT-shaped model; use torch.optim.AdamW for others"
        )
    return MuonAdamW(
        [{"params": looks, "lr": learning_rate / 3}, {"params": carries, "lr": learning_rate}],
        [{"params": others, "lr": 0.7 * learning_rate}],
    )
