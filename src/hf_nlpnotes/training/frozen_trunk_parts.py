"""The trunk of a model: its embeddings and lowest layers, found by structure, frozen and kept in evaluation mode."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from hf_nlpnotes.layers.layer_discovery import layer_groups, layer_stacks

from .unfreezing.reducer import ReducerKeeper
from .unfreezing.trainable import set_trainable


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

    def beside_layers(self, model: nn.Module) -> list[nn.Module]:
        """Return the encoder's outermost modules that are no layers and hold none: embeddings, pooler, last norm."""
        layers = (*self.layers, *self.upper_layers)
        found: list[nn.Module] = []

        def visit(module: nn.Module, path: str) -> None:
            for name, child in module.named_children():
                full = f"{path}.{name}".strip(".")
                if any(layer.startswith(f"{full}.") for layer in layers):
                    visit(child, full)
                elif full not in layers:
                    found.append(child)

        visit(model.get_submodule(self.encoder), self.encoder)
        return found


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

    `model.train()`, which the Trainer calls before every step, does not reach the trunk; and where something else
    turned its dropout on, a forward pre-hook turns it off. Modules without parameters that stand beside the layers
    (the dropout of GPT-2's embeddings) are in evaluation mode until the trunk has run, and in their own above it.
    """

    def __init__(self, model: nn.Module, trunk: Trunk) -> None:
        self.model = model
        self.trunk = trunk
        frozen = set(trunk.parameters)
        self._keeper: ReducerKeeper | None = None
        identities = {id(parameter) for name, parameter in model.named_parameters() if name in frozen}
        self._encoder = model.get_submodule(trunk.encoder)
        beside = trunk.beside_layers(model)
        self._own = [model.get_submodule(path) for path in trunk.layers]
        self._own += [m for m in beside if _holds_only(m, identities) and any(True for _ in m.parameters())]
        self._loose = [module for module in beside if not any(True for _ in module.parameters())]
        self._handles: list[RemovableHandle] = []
        self._before: list[str] = []
        self._modes: list[bool] | None = None

    def attach(self) -> None:
        """Freeze, and watch the forwards."""
        self._before = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        self._keeper = ReducerKeeper(self.model)
        self._train_only(set(self._before) - set(self.trunk.parameters))
        for module in self._own:
            module.eval()
            module.train = _Stays(module)  # type: ignore[method-assign]  # undone by detach
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
        for module in self._own:
            module.__dict__.pop("train", None)
            module.train(self._encoder.training)
        self._train_only(self._before)
        if self._keeper is not None:
            self._keeper.close()

    def _train_only(self, names: Collection[str]) -> None:
        set_trainable(self.model, names)
        if self._keeper is not None:
            self._keeper.changed()  # DDP waits for the gradients of what trained when it wrapped the model

    def enter(self) -> None:
        """Set the modes for a run of the trunk; what stands beside it gets its own back where the trunk ends."""
        for part in self._own:
            for inner in part.modules():
                if inner.training:
                    inner.training = False
        if self._modes is None:
            self._modes = [part.training for part in self._loose]
        for part in self._loose:
            part.training = False

    # Hooks are bound methods: a deep copy of the model then has hooks of its own, on its own modules.
    def _enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.enter()

    def _leave(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if self._modes is not None:
            for part, mode in zip(self._loose, self._modes, strict=True):
                part.training = mode
            self._modes = None


class _Stays:
    """Stands in for the `train` of a module that stays in evaluation mode; a class, so that models can be copied."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.module


def _holds_only(module: nn.Module, parameters: set[int]) -> bool:
    return all(id(parameter) in parameters for parameter in module.parameters())
