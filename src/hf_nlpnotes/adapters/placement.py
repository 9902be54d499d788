"""Find where adapters belong in any encoder: the last linear layers of its sub-layers, by structure.

A layer of a Transformer holds one or two attentions and a feed-forward network, and each ends in a linear layer that
returns to the size of the hidden states; the residual sum follows. Names and nesting differ from model to model,
sizes and the order of registration do not:

- the feed-forward network's last layer is the last one registered that returns to the hidden size from another size;
  its first layers are those right before it that lead to that other size (two of them where it is gated);
- an attention is a largest module with two or more linear layers, and nothing of the feed-forward network, in it.

Nothing is computed, so a model on the meta device serves as well as a real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from hf_nlpnotes.layers.layer_discovery import layer_stacks


@dataclass(frozen=True)
class SubLayers:
    """The linear layers of one layer between which adapters stand, as paths of modules.

    Attributes:
        layer: Path of the layer, "bert.encoder.layer.0".
        index: Its number in its stack.
        attention: Last linear layer of each attention; empty where attention has none (XLNet, FNet).
        feed_forward_input: First linear layer of the feed-forward network.
        feed_forward: Its last one.
        norms: The layer's norms.
    """

    layer: str
    index: int
    attention: tuple[str, ...]
    feed_forward_input: str
    feed_forward: str
    norms: tuple[str, ...]


class _Linear(NamedTuple):
    path: str
    inputs: int
    outputs: int


def sub_layers(model: nn.Module) -> tuple[SubLayers, ...]:
    """Return the ends of the sub-layers of every layer of `model`, the first layer first.

    Args:
        model: Any encoder, with adapters or without.

    Raises:
        ValueError: when the model has no stack of layers, or a layer has no feed-forward network of linear layers, or
            another adapter trains a copy of a whole layer.
    """
    found = []
    for stack in layer_stacks(model):
        for index, layer in enumerate(stack.layers):
            paths = [layer, *(f"{other}.{index}" for other in stack.parallel)]
            found.append(_sub_layers_of(model, paths, index))
    return tuple(found)


def _sub_layers_of(model: nn.Module, paths: list[str], index: int) -> SubLayers:
    parts = [(path, model.get_submodule(path)) for path in paths]
    for path, part in parts:
        if any(isinstance(module, AuxiliaryTrainingWrapper) for module in _heavy(part)):
            raise ValueError(
                f"Another adapter trains a copy of {path} whole, or of a part of it (modules_to_save), which a second "
                "adapter cannot reach into: leave it out there, or load the second adapter into a model of its own"
            )
    linears = [linear for path, part in parts for linear in _linears(path, part)]
    hidden = linears[0].inputs if linears else 0
    ends = [i for i, linear in enumerate(linears) if linear.outputs == hidden and linear.inputs != hidden and i]
    # Where the network is as wide as the hidden states, sizes do not tell: it is last.
    end = ends[-1] if ends else len(linears) - 1
    inner = linears[end].inputs if end > 0 else 0
    start = end
    while start > 0 and linears[start - 1].inputs == hidden and linears[start - 1].outputs in (inner, 2 * inner):
        start -= 1
        if not ends:
            break
    if start == end or linears[end].outputs != hidden:
        raise ValueError(
            f"{paths[0]} has no feed-forward network of linear layers that returns to the hidden size; its linear "
            f"layers are {[(linear.path, linear.inputs, linear.outputs) for linear in linears]}. Name the layers to "
            "adapt: target_modules=[…]"
        )
    feed_forward = {linear.path for linear in linears[start : end + 1]}
    return SubLayers(
        layer=paths[0],
        index=index,
        attention=tuple(path for name, part in parts for path in _attentions(name, part, feed_forward, hidden)),
        feed_forward_input=linears[start].path,
        feed_forward=linears[end].path,
        norms=tuple(path for name, part in parts for path in _norms(name, part)),
    )


def _heavy(module: nn.Module) -> Iterator[nn.Module]:
    """Yield what is more than a norm: copies of norms (`train_layer_norms`) are no obstacle."""
    return (inner for inner in module.modules() if any(parameter.dim() > 1 for parameter in inner.parameters()))


def _linears(path: str, module: nn.Module) -> Iterator[_Linear]:
    if isinstance(module, BaseTunerLayer):
        base = module.get_base_layer()
        if isinstance(base, nn.Linear):
            yield _Linear(path, base.in_features, base.out_features)
    elif isinstance(module, nn.Linear):
        yield _Linear(path, module.in_features, module.out_features)
    else:
        for name, child in module.named_children():
            yield from _linears(f"{path}.{name}", child)


def _attentions(path: str, module: nn.Module, feed_forward: set[str], hidden: int) -> Iterator[str]:
    linears = list(_linears(path, module))
    if len(linears) < 2:
        return
    if not any(linear.path in feed_forward for linear in linears):
        if linears[-1].outputs == hidden:
            yield linears[-1].path
        return
    for name, child in module.named_children():
        yield from _attentions(f"{path}.{name}", child, feed_forward, hidden)


def _norms(path: str, module: nn.Module) -> Iterator[str]:
    if isinstance(module, AuxiliaryTrainingWrapper):
        module = module.original_module
    if "norm" in type(module).__name__.lower() and not list(module.children()):
        if list(module.parameters()):
            yield path
    elif not isinstance(module, BaseTunerLayer):
        for name, child in module.named_children():
            yield from _norms(f"{path}.{name}", child)
