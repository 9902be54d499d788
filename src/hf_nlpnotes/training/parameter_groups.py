"""Learning rates that fall from the head down to the embeddings, as parameter groups for any optimizer.

Howard and Ruder (2018) call them discriminative: η of a layer is η of the layer above it divided by 2.6. ELECTRA and
BEiT call the same layer-wise decay, with 0.65 to 0.95 for 12 to 24 layers. The embeddings of a 12-layer model learn at
decay¹³ of the head's rate: 0.25 at 0.9, but 4e-6 at 1/2.6, which is next to frozen. 2.6 was chosen for four groups.

For the stock Trainer:

    Trainer(model=model, args=args, optimizer_cls_and_kwargs=layer_wise_optimizer(args, layer_decay=0.9), ...)

The groups are made when the Trainer makes its optimizer, from the model as it is then; they stay fixed, so freezing
and unfreezing go together with them, and so does resuming.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import Trainer, TrainingArguments

from hf_nlpnotes.layers.layer_discovery import LayerGroup, layer_groups

ULMFIT_DECAY = 1 / 2.6
"""η of a layer over η of the layer above it, from Howard and Ruder (2018), section 3.2."""


def layer_learning_rates(
    model: nn.Module, learning_rate: float, layer_decay: float = ULMFIT_DECAY, head_learning_rate: float | None = None
) -> dict[str, float]:
    """Return the learning rate of each group of `layer_groups(model)`, bottom first.

    The head learns at `learning_rate`, or at `head_learning_rate` where it is given; the highest layer at
    `learning_rate` · decay, the one below at decay², …, and the embeddings once more below the lowest layer. Two
    stacks (encoder and decoder, two towers) count from their own top.

    Args:
        model: a model with a stack of layers.
        learning_rate: rate of the head, and of the highest layer before its decay.
        layer_decay: rate of a layer over that of the layer above it, in (0, 1].
        head_learning_rate: rate of the head; None: `learning_rate`.

    Raises:
        ValueError: A rate is not positive, `layer_decay` is not in (0, 1], or the model has no stack of layers.
    """
    for name, rate in (("learning_rate", learning_rate), ("head_learning_rate", head_learning_rate)):
        if rate is not None and not rate > 0:
            raise ValueError(f"{name} must be positive, got {rate}")
    if not 0 < layer_decay <= 1:
        raise ValueError(
            f"layer_decay is the rate of a layer over that of the layer above it, in (0, 1], got {layer_decay}: "
            "1 gives every layer the same rate"
        )
    head = learning_rate if head_learning_rate is None else head_learning_rate
    depths = _depths(layer_groups(model))
    return {name: head if depth == 0 else learning_rate * layer_decay**depth for name, depth in depths.items()}


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    layer_decay: float = ULMFIT_DECAY,
    weight_decay: float = 0.0,
    head_learning_rate: float | None = None,
) -> list[dict[str, Any]]:
    """Return groups for an optimizer: each layer's matrices, and each layer's biases and norms without weight decay.

    Each has "params", "lr", "weight_decay" and "layer_group", the name of its group in `layer_groups(model)`.
    Parameters that do not require gradients are left out, and groups that hold nothing else.

    Raises:
        ValueError: As `layer_learning_rates`; or `weight_decay` is negative, or nothing can be trained.
    """
    if weight_decay < 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}")
    rates = layer_learning_rates(model, learning_rate, layer_decay, head_learning_rate)
    parameters = dict(model.named_parameters())
    spared = undecayed_parameters(model)
    groups: list[dict[str, Any]] = []
    for group in layer_groups(model):
        trainable = [name for name in group.parameters if parameters[name].requires_grad]
        for decay, undecayed in ((weight_decay, False), (0.0, True)):
            names = [name for name in trainable if (name in spared) == undecayed]
            if names:
                members = [parameters[name] for name in names]
                groups.append(
                    {"params": members, "lr": rates[group.name], "weight_decay": decay, "layer_group": group.name}
                )
    if not groups:
        raise ValueError(f"{type(model).__name__} has no parameter that requires gradients: nothing can be trained")
    return groups


def undecayed_parameters(model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that weight decay leaves alone: biases, norms, all vectors and scalars."""
    modules = dict(model.named_modules())
    names = set()
    for name, parameter in model.named_parameters():
        owner, _, last = name.rpartition(".")
        is_norm = "norm" in type(modules[owner]).__name__.lower()
        if parameter.dim() < 2 or is_norm or last == "bias" or last.endswith("_bias"):
            names.add(name)
    return frozenset(names)


def layer_wise_optimizer(
    args: TrainingArguments, layer_decay: float = ULMFIT_DECAY, head_learning_rate: float | None = None
) -> tuple[Any, dict[str, Any]]:
    """Return the value of Trainer's `optimizer_cls_and_kwargs` for learning rates that fall with depth.

    The optimizer and its options are those of `args` (`optim`, `learning_rate`, `weight_decay`, `adam_beta1`, …).

    Args:
        args: The arguments that the Trainer has too.
        layer_decay: Rate of a layer over that of the layer above it, in (0, 1].
        head_learning_rate: Rate of the head; `args.learning_rate` if None.

    Raises:
        ValueError: When the optimizer is made, as `parameter_groups`; or `args.optim` makes its own groups (GaLore,
            APOLLO, LOMO, Muon, layer-wise variants).
    """
    options = {"args": args, "layer_decay": layer_decay, "head_learning_rate": head_learning_rate}
    return LayerWiseOptimizer, options


class LayerWiseOptimizer:
    """What the Trainer calls to make its optimizer: a factory in its sense, made without arguments and then called.

    A fixed list of groups would do only once: the Trainer takes it out of the keyword arguments, and a second
    `train()` would silently fall back to its own groups. It would also hold the parameters from before sharding.
    """

    def __call__(
        self, model: nn.Module, args: TrainingArguments, layer_decay: float, head_learning_rate: float | None
    ) -> Optimizer:
        """Return the optimizer of `args` over the groups of `model`."""
        optimizer_class, options = Trainer.get_optimizer_cls_and_kwargs(args, model)  # type: ignore[arg-type]  # any module will do
        _check_groupable(args, optimizer_class, options)
        groups = parameter_groups(model, args.learning_rate, layer_decay, args.weight_decay, head_learning_rate)
        optimizer: Optimizer = optimizer_class(groups, **options)
        return optimizer


def _check_groupable(args: TrainingArguments, optimizer_class: Any, options: Mapping[str, Any]) -> None:
    own_groups = {"params", "model", "optimizer_dict"} & options.keys()
    if own_groups or not (isinstance(optimizer_class, type) and issubclass(optimizer_class, Optimizer)):
        raise ValueError(
            f"optim={str(args.optim)!r} makes its own parameter groups, layer-wise learning rates cannot be added: "
            "choose one that takes any groups, such as 'adamw_torch', 'sgd' or 'adafactor'"
        )


def _depths(groups: tuple[LayerGroup, ...]) -> dict[str, int]:
    """Return how far below the head each group is: the head 0, the highest layer 1."""
    above: dict[str, int] = {}  # stack -> layers counted so far, from its top
    depths = {}
    for group in reversed(groups):
        if group.kind == "layer":
            stack = group.name.rpartition(".")[0]
            above[stack] = above.get(stack, 0) + 1
            depths[group.name] = above[stack]
        else:
            depths[group.name] = 0 if group.kind == "head" else max(above.values()) + 1
    return {group.name: depths[group.name] for group in groups}
