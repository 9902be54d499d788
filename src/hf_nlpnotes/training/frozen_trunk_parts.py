"""The trunk of a model: its embeddings and lowest layers, found by structure, frozen and kept in evaluation mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from hf_nlpnotes.layers.layer_discovery import layer_groups, layer_stacks


@dataclass(frozen=True)
class Trunk:
    """What is frozen: embeddings and the lowest layers.

    Attributes:
        encoder: Path of the module whose forward runs the layers, "bert"; "" for the model itself.
        layers: Paths of the frozen layers, the first to run first.
        upper_layers: Paths of the layers above them, which train.
        parameters: Names of the frozen parameters, as in `model.named_parameters()`.
        one_by_one: Whether the frozen layers are modules that each run once in a forward, one on the output of the
            one before; if not, `why_not` says what else they are.
    """

    encoder: str
    layers: tuple[str, ...]
    upper_layers: tuple[str, ...]
    parameters: tuple[str, ...]
    why_not: str | None = None

    @property
    def one_by_one(self) -> bool:
        """Whether there is one tensor between the frozen layers and the rest."""
        return self.why_not is None


def find_trunk(model: nn.Module, layers: int | None = None) -> Trunk:
    """Find the trunk of `model`.

    Args:
        layers: How many layers are frozen, from the bottom, the embeddings with them. 0: the embeddings alone; None:
            all layers. What runs above the last layer (a pooler, a last norm, the new head) never belongs to the
            trunk.

    Raises:
        ValueError: The model has no stack of layers, or not so many, or "the lowest layers" has no one meaning in it.
    """
    stacks, groups = layer_stacks(model), layer_groups(model)
    name = type(model).__name__
    paths = tuple(path for stack in stacks for path in stack.layers)
    runs = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    shared = len(stacks) == 1 and isinstance(runs, int) and len(paths) < runs
    if layers is not None and not 0 <= layers <= len(paths):
        raise ValueError(f"{name} has {len(paths)} layers: layers={layers} is not between 0 and {len(paths)}")
    why_not = None
    if len(stacks) > 1:
        why_not = f"{name} has {len(stacks)} stacks of layers ({', '.join(stack.name for stack in stacks)})"
    elif stacks[0].parallel:
        why_not = f"a layer of {name} is spread over {', '.join((stacks[0].name, *stacks[0].parallel))}"
    elif shared:
        why_not = f"{name} runs {len(paths)} shared module(s) as its {runs} layers"
    if layers and layers < max(len(paths), runs if shared and runs else 0) and (len(stacks) > 1 or shared):
        raise ValueError(f"{why_not}: its lowest {layers} cannot be frozen alone. Take layers=None (all) or 0")
    depth = len(paths) if layers is None else layers
    kept = [group for group in groups if group.kind == "layer"][:depth]
    frozen = [group for group in groups if group.kind == "embeddings"] + kept
    return Trunk(
        encoder=_encoder_of(model, stacks[0].name if len(stacks) == 1 else ""),
        layers=paths[:depth],
        upper_layers=paths[depth:],
        parameters=tuple(parameter for group in frozen for parameter in group.parameters),
        why_not=why_not,
    )


def _encoder_of(model: nn.Module, stack: str) -> str:
    """Return the path of the innermost whole model around the stack."""
    above = [stack.rpartition(".")[0]] if stack else []
    while above and above[-1]:
        above.append(above[-1].rpartition(".")[0])
    for path in above:
        module = model.get_submodule(path)
        if hasattr(module, "base_model_prefix") and hasattr(module, "config"):
            return path
    return ""


class FrozenMode:
    """Keeps a trunk frozen and in evaluation mode, from `attach` to `detach`.

    `model.train()`, which the Trainer calls before every step, turns dropout in the trunk on again; a forward pre-hook
    turns it off. Modules without parameters that stand beside the layers (the dropout of GPT-2's embeddings) are in
    evaluation mode until the trunk has run, and in their own mode above it.
    """

    def __init__(self, model: nn.Module, trunk: Trunk) -> None:
        self.model = model
        self.trunk = trunk
        frozen, named = set(trunk.parameters), dict(model.named_parameters(remove_duplicate=False))
        identities = {id(parameter) for name, parameter in named.items() if name in frozen}
        self._parameters = [parameter for name, parameter in model.named_parameters() if name in frozen]
        self._encoder = model.get_submodule(trunk.encoder)
        own: dict[nn.Module, None] = {}
        loose: dict[nn.Module, None] = {}
        inside_upper = tuple(f"{path}." for path in trunk.upper_layers)
        for path, module in self._encoder.named_modules():
            full = f"{trunk.encoder}.{path}".strip(".")
            if full in trunk.upper_layers or full.startswith(inside_upper):
                continue
            parameters = list(module.parameters())
            if parameters and all(id(parameter) in identities for parameter in parameters):
                own.update(dict.fromkeys(module.modules()))
            elif not parameters and not list(module.children()) and not self._belongs_to_head(full, identities):
                loose[module] = None
        self._own = list(own)
        self._loose = [module for module in loose if module not in own]
        self._handles: list[RemovableHandle] = []
        self._required: list[bool] = []
        self._modes: list[bool] | None = None

    def _belongs_to_head(self, path: str, frozen: set[int]) -> bool:
        """Whether a module without parameters is a part of one that trains: a pooler's activation."""
        encoder = self._encoder
        above = path.rpartition(".")[0]
        while above and above != self.trunk.encoder and len(above) > len(self.trunk.encoder):
            module = self.model.get_submodule(above)
            holds_layers = any(layer.startswith(f"{above}.") for layer in self._all_layers())
            trains = any(id(parameter) not in frozen for parameter in module.parameters())
            if module is not encoder and trains and not holds_layers:
                return True
            above = above.rpartition(".")[0]
        return False

    def _all_layers(self) -> tuple[str, ...]:
        return (*self.trunk.layers, *self.trunk.upper_layers)

    def attach(self) -> None:
        """Freeze, and watch the forwards."""
        self._required = [parameter.requires_grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.requires_grad_(False)
            parameter.grad = None  # else an earlier gradient would go into the clipping norm and the optimizer
        self._handles.append(self._encoder.register_forward_pre_hook(self._enter))
        if self.trunk.layers:
            last = self.model.get_submodule(self.trunk.layers[-1])
            self._handles.append(last.register_forward_hook(self._leave, always_call=True))
        self._handles.append(self._encoder.register_forward_hook(self._leave, always_call=True))

    def detach(self) -> None:
        """Undo `attach`: parameters require gradients again where they did."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for parameter, required in zip(self._parameters, self._required, strict=False):
            parameter.requires_grad_(required)
        self._required = []

    # Hooks are bound methods: a deep copy of the model then has hooks of its own, on its own modules.
    def _enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        for part in self._own:
            if part.training:
                part.training = False
        self._modes = [part.training for part in self._loose]
        for part in self._loose:
            part.training = False

    def _leave(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if self._modes is not None:
            for part, mode in zip(self._loose, self._modes, strict=True):
                part.training = mode
            self._modes = None
