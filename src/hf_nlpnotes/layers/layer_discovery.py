"""Find the layers of any model by its structure, and put every parameter into one group of them.

Unfreezing, learning rates that fall with depth and caches of frozen layers need to know which parameters belong to
layer 7. Names differ from model to model (`encoder.layer.7`, `transformer.h.7`, `attentions.7` with `ffns.7`), the
structure does not: a stack is an `nn.ModuleList` of modules that each hold several weight matrices. Nothing is
computed, so a model on the meta device serves as well as a real one:

    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    layer_groups(model)

What stands where:

- `embeddings`: all that runs below the first layer, and all that every layer reads (relative position embeddings of
  MPNet and DeBERTa). Embeddings of a decoder or of a second tower too.
- one group a layer. Layers that are one module (ALBERT) are one group. A model with two stacks has the groups of the
  first, then those of the second; what stands between two stacks (the last norm of an encoder that a decoder reads)
  belongs to the layer below it. Parallel lists (XLM's `attentions` and `ffns`) make up one stack.
- `head`: all that runs above the last layer, whether new or pretrained: a classifier, the last norm, a pooler. It is
  exactly what can be trained without a backward pass through any layer.

A tied parameter stands once, at its lowest place. The order in which modules were registered tells what is below a
stack and what is above it; three habits of naming override it, see `_place_by_name`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

EMBEDDINGS, LAYER, HEAD = "embeddings", "layer", "head"

# A list of modules counts as a stack from this share of the largest stack on: heads of a multi-task model do not.
_SMALLEST_SHARE = 0.02
# Stages are opened (Swin, Funnel) when their inner lists hold this share of them; lists inside a layer hold less.
_STAGE_SHARE = 0.6


@dataclass(frozen=True)
class LayerStack:
    """Layers that run one after another.

    Attributes:
        name: Path of the container, "bert.encoder.layer".
        layers: Paths of the layers' modules, the first to run first. A module that the container holds several times
            stands once.
        parallel: Paths of further containers whose i-th module is a part of the i-th layer; empty for most models.
    """

    name: str
    layers: tuple[str, ...]
    parallel: tuple[str, ...] = ()


@dataclass(frozen=True)
class LayerGroup:
    """Parameters that are frozen, or learn at one rate, together.

    Attributes:
        name: "embeddings", "layer.0", …, "head"; with several stacks "encoder.layer.0", …
        kind: "embeddings", "layer" or "head".
        parameters: Names as in `model.named_parameters()`.
    """

    name: str
    kind: str
    parameters: tuple[str, ...]


def layer_stacks(model: nn.Module) -> tuple[LayerStack, ...]:
    """Return the stacks of layers of `model`, the first to run first.

    Args:
        model: A model of transformers, or any module with its repeated layers in one `nn.ModuleList`.

    Raises:
        ValueError: The model has no stack of layers.
    """
    stacks: list[LayerStack] = []
    taken: set[str] = set()
    for name, module in _large_or_whole(model, list(_candidates(model, "", set()))):
        if name in taken:
            continue
        parallel = tuple(_parallel_lists(model, name, module))
        taken.update(parallel)
        layers = tuple(path for path, _ in _opened(name, module))
        stacks.append(LayerStack(name, layers, parallel))
    if not stacks:
        raise ValueError(
            f"{type(model).__name__} has no stack of layers: expected an nn.ModuleList whose modules hold several "
            "weight matrices each. Put the repeated layers into one nn.ModuleList"
        )
    return tuple(stacks)


def layer_groups(model: nn.Module) -> tuple[LayerGroup, ...]:
    """Return the groups of `model`'s parameters, bottom first: embeddings, layers, head.

    Every name of `model.named_parameters()` stands in exactly one group, in that order inside the group. Embeddings
    and head are left out where they hold no parameters.

    Args:
        model: A model of transformers, or any module with its repeated layers in one `nn.ModuleList`.

    Raises:
        ValueError: The model has no stack of layers.
    """
    stacks = layer_stacks(model)
    names = _group_names(stacks)
    rank_of = _ranker(model, stacks)
    lowest: dict[int, int] = {}  # id of the parameter -> rank of its lowest place
    for name, parameter in model.named_parameters(remove_duplicate=False):
        rank = rank_of(name)
        lowest[id(parameter)] = min(rank, lowest.get(id(parameter), rank))
    members: list[list[str]] = [[] for _ in names]
    for name, parameter in model.named_parameters():
        members[lowest[id(parameter)]].append(name)
    kinds = [EMBEDDINGS, *[LAYER] * (len(names) - 2), HEAD]
    return tuple(
        LayerGroup(name, kind, tuple(group))
        for name, kind, group in zip(names, kinds, members, strict=True)
        if group or kind == LAYER
    )


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 0


def _is_pretrained(module: nn.Module) -> bool:
    """Whether this is a whole model of transformers, told without importing it."""
    return hasattr(module, "base_model_prefix") and hasattr(module, "config")


def _is_layer(module: nn.Module) -> bool:
    """A layer holds at least two weight matrices; one convolution with its norm is none."""
    return sum(parameter.dim() >= 2 for parameter in module.parameters()) >= 2


def _candidates(module: nn.Module, path: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the outermost lists that look like stacks, in the order of registration."""
    for name, child in module.named_children():
        child_path = f"{path}.{name}" if path else name
        if id(child) in seen:
            continue
        seen.add(id(child))
        if _looks_like_a_stack(child):
            yield child_path, child
        else:
            yield from _candidates(child, child_path, seen)


def _large_or_whole(model: nn.Module, found: list[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    """Leave out lists that are small beside the largest, as heads are; a small tower, a whole model, stays."""
    largest_name, largest = max(found, key=lambda item: _size(item[1]), default=("", model))
    threshold = _SMALLEST_SHARE * _size(largest)
    modules = dict(model.named_modules())
    for name, module in found:
        parts = name.split(".")
        above = [".".join(parts[:end]) for end in range(1, len(parts))]
        own = [path for path in above if not largest_name.startswith(f"{path}.") and _is_pretrained(modules[path])]
        if own or _size(module) >= threshold:
            yield name, module


def _looks_like_a_stack(module: nn.Module) -> bool:
    if not _is_list(module):
        return False
    children = list(module.children())
    if isinstance(module, nn.Sequential) and (len(children) < 2 or len({type(child) for child in children}) > 1):
        return False  # a head or a stem
    if any(_is_pretrained(child) for child in children):
        return False  # a list of models, each with its own layers
    return 2 * sum(_is_layer(child) for child in children) >= len(children)


def _opened(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of a stack; where its children are stages, the layers in them."""
    children: dict[int, tuple[str, nn.Module]] = {}
    for name, child in module._modules.items():  # named_children() leaves out repeated modules, but so do we
        if child is not None:
            children.setdefault(id(child), (f"{path}.{name}", child))
    unique = list(children.values())
    inner = {name: _inner_list(name, child) for name, child in unique}
    held = sum(_size(found[1]) for found in inner.values() if found)
    if held < _STAGE_SHARE * sum(_size(child) for _, child in unique) or not held:
        yield from unique
        return
    for name, child in unique:
        found = inner[name]
        if found:
            yield from _opened(*found)
        else:
            yield name, child


def _inner_list(path: str, module: nn.Module) -> tuple[str, nn.Module] | None:
    """Return the list of like layers that a stage is, or holds directly."""
    if _is_list(module):
        return path, module
    for name, child in module.named_children():
        parts = list(child.children())
        if _is_list(child) and len({type(part) for part in parts}) == 1 and all(map(_is_layer, parts)):
            return f"{path}.{name}", child
    return None


def _is_part(module: nn.Module) -> bool:
    """Whether this is one sub-layer: its own children are plain modules (or plain modules that PEFT wrapped)."""
    return all(hasattr(child, "base_layer") or not list(child.children()) for child in module.children())


def _parallel_lists(model: nn.Module, name: str, module: nn.Module) -> Iterator[str]:
    """Yield the siblings of a list of sub-layers that run in lockstep with it: as many, each one sub-layer too."""
    parts = list(module.children())
    if not all(map(_is_part, parts)):
        return
    parent = name.rpartition(".")[0]
    for sibling_name, sibling in model.get_submodule(parent).named_children():
        if sibling is module or not isinstance(sibling, nn.ModuleList) or len(sibling) != len(parts):
            continue
        others = list(sibling.children())
        if all(map(_is_part, others)) and not any(isinstance(part, nn.Embedding) for part in others):
            yield f"{parent}.{sibling_name}" if parent else sibling_name


def _group_names(stacks: tuple[LayerStack, ...]) -> list[str]:
    prefixes = [""]
    if len(stacks) > 1:
        paths = [stack.name.split(".") for stack in stacks]
        shared = 0
        while len({tuple(path[: shared + 1]) for path in paths}) == 1:
            shared += 1
        prefixes = [path[shared] for path in paths]  # "encoder", "decoder"
        if len(set(prefixes)) < len(prefixes):
            prefixes = [stack.name for stack in stacks]
        prefixes = [f"{prefix}." for prefix in prefixes]
    layers = [f"{p}layer.{i}" for p, stack in zip(prefixes, stacks, strict=True) for i in range(len(stack.layers))]
    return [EMBEDDINGS, *layers, HEAD]


class _ranker:  # noqa: N801 -- a function with a table behind it
    """Give the rank of a parameter's group from its name: 0 for embeddings, then the layers, then the head."""

    def __init__(self, model: nn.Module, stacks: tuple[LayerStack, ...]) -> None:
        self.model = model
        self.stacks = stacks
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.base = _smallest_model_with(self.modules, stacks)
        self.of_module: dict[str, int] = {}
        self.last: list[int] = []  # rank of the last layer of each stack
        rank = 0
        for stack in stacks:
            for index, path in enumerate(stack.layers):
                rank += 1
                self.of_module[path] = rank
                for parallel in stack.parallel:
                    self.of_module[f"{parallel}.{index}"] = rank
                self._place_stages(stack, path, rank)
            self.last.append(rank)
        self.head = rank + 1

    def _place_stages(self, stack: LayerStack, layer: str, rank: int) -> None:
        """Give what else the stages around a layer hold to the stage's first layer, or its last, by registration."""
        stage, _, inner = layer.rpartition(".")
        while stage not in {stack.name, ""}:
            below = True
            for name, _ in self.modules[stage].named_children():
                below = below and name != inner
                path = f"{stage}.{name}"
                if name != inner:
                    self.of_module[path] = self.of_module.get(path, rank) if below else rank
            self.of_module[stage] = rank  # bare parameters
            stage, _, inner = stage.rpartition(".")

    def __call__(self, name: str) -> int:
        module = name.rpartition(".")[0]
        path = module
        while path:
            if path in self.of_module:
                return self.of_module[path]
            path = path.rpartition(".")[0]
        return self._outside(name)

    def _outside(self, name: str) -> int:
        """Place a parameter that is in no layer."""
        parts = name.split(".")
        depths = [_shared_depth(parts, stack.name.split(".")) for stack in self.stacks]
        depth = max(depths)
        ancestor = ".".join(parts[:depth])
        below = _place_by_name(self.modules, parts, depth)
        if below is not None:
            return 0 if below else self._above(max(i for i, d in enumerate(depths) if d == depth))
        if self.base and not name.startswith(f"{self.base}."):
            return self.head  # a head may have been registered before the model that it stands on
        order = [child for child, _ in self.modules[ancestor].named_children()] if depth < len(parts) - 1 else []
        if parts[depth] not in order:  # a bare parameter: mask and class embeddings, position tables
            return 0
        mine = order.index(parts[depth])
        passed = [
            i
            for i, (d, stack) in enumerate(zip(depths, self.stacks, strict=True))
            if d == depth and order.index(stack.name.split(".")[depth]) < mine
        ]
        if not passed or _follows_an_embedding(self.modules[ancestor], order, self.stacks, depth, mine):
            return 0
        return self._above(passed[-1])

    def _above(self, stack: int) -> int:
        return self.head if stack == len(self.stacks) - 1 else self.last[stack]


def _shared_depth(first: list[str], second: list[str]) -> int:
    depth = 0
    while depth < min(len(first), len(second)) and first[depth] == second[depth]:
        depth += 1
    return depth


def _smallest_model_with(modules: dict[str, nn.Module], stacks: tuple[LayerStack, ...]) -> str:
    """Return the path of the innermost whole model that holds every stack, "" if that is the root."""
    holders = [
        path
        for path, module in modules.items()
        if path and _is_pretrained(module) and all(stack.name.startswith(f"{path}.") for stack in stacks)
    ]
    return max(holders, key=len, default="")


def _place_by_name(modules: dict[str, nn.Module], parts: list[str], depth: int) -> bool | None:
    """Return True for below the layers, False for above, None if neither type nor name tells.

    An `nn.Embedding`, and what has "emb" in its name, is below. A pooler and a last norm are above, and a scalar (the
    temperature of a contrastive loss), even where they were registered first.
    """
    for end in range(depth + 1, len(parts)):
        part = parts[end - 1].lower()
        if any(word in part for word in ("pool", "final", "after", "classifier")):
            return False
        if "emb" in part or isinstance(modules.get(".".join(parts[:end])), nn.Embedding):
            return True
    last = parts[-1].lower()
    if "emb" in last:
        return True
    return False if "logit" in last and len(parts) == depth + 1 else None


def _follows_an_embedding(
    parent: nn.Module, order: list[str], stacks: tuple[LayerStack, ...], depth: int, mine: int
) -> bool:
    """Whether an `nn.Embedding` was registered between the stack and this module: then both serve every layer.

    DeBERTa's encoder holds its layers, then the relative position embeddings, then their norm.
    """
    containers = {stack.name.split(".")[depth] for stack in stacks if len(stack.name.split(".")) == depth + 1}
    own = [order.index(name) for name in containers if name in order]
    if not own:
        return False
    return any(isinstance(parent.get_submodule(order[place]), nn.Embedding) for place in range(max(own), mine))
