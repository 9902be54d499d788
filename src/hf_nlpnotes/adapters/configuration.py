"""Options of bottleneck adapters."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig
from peft.utils import PeftType
from torch import nn
from transformers.activations import ACT2FN

PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
NAME = "bottleneck_adapter"


@dataclass
class BottleneckAdapterConfig(PeftConfig):
    """Options of bottleneck adapters, for `get_peft_model` and `PeftModel.add_adapter`.

    An adapter maps a vector `h` of size d to `h + scaling · (W_up f(W_down h + b_down) + b_up)`, with `W_down` of
    shape (m, d) and `W_up` of shape (d, m): 2md + d + m parameters (Houlsby et al. 2019, section 2.1).

    Args:
        bottleneck_size: m. The paper of 2019 tried 8, 64 and 256 beside d = 1024.
        placement: Where adapters stand in every layer.
            "houlsby": after the attention and after the feed-forward network, before each residual sum (Houlsby et al.
            2019, figure 2). "pfeiffer": after the feed-forward network alone (Pfeiffer et al. 2021), half as many
            parameters. "parallel": beside the feed-forward network, from its input to its output (He et al. 2022,
            table 1); their scaling was 4.
        non_linearity: f, a name of transformers ("relu", "gelu", "silu", "tanh", …) without parameters of its own.
            With "identity" adapters after a linear layer can be merged into it.
        scaling: Factor of the adapter's contribution.
        init_weights: Begin with `W_up = 0`, so that the model computes at first exactly what it computes without
            adapters; `W_down` as `nn.Linear` begins. False: all weights from N(0, 0.01²), as in 2019.
        train_layer_norms: Train the layers' norms as well, a copy for each adapter, as in 2019.
        layers_to_transform: Numbers of the layers that get adapters, counted from 0 in every stack; None for all.
        target_modules: Names or endings of names of the linear layers whose output is adapted, or a regular
            expression for whole names, in place of `placement`'s; "parallel" accepts only the last layers of
            feed-forward networks. None: found from the structure of the model, see
            [`sub_layers`][hf_nlpnotes.adapters.sub_layers]; the names that were found are saved.
        exclude_modules: Names, endings or a regular expression of modules that get no adapter.
        modules_to_save: Endings of names of modules that are trained whole and saved, a copy for each adapter. Heads
            are added where `task_type` is given, and what the model's checkpoint lacked, see
            [`new_layers`][hf_nlpnotes.adapters.new_layers]. A layer ("encoder.layer.11") gets no adapter then.

    Raises:
        ValueError: when a size is not positive, or a name is unknown.
        TypeError: when a number is not one.
    """

    bottleneck_size: int = field(default=64, metadata={"help": "Size of the bottleneck, m."})
    placement: str = field(default="pfeiffer", metadata={"help": "houlsby, pfeiffer or parallel."})
    non_linearity: str = field(default="relu", metadata={"help": "Name of the activation, or identity."})
    scaling: float = field(default=1.0, metadata={"help": "Factor of the adapter's contribution."})
    init_weights: bool = field(default=True, metadata={"help": "Begin as the model without adapters."})
    train_layer_norms: bool = field(default=False, metadata={"help": "Train the layers' norms as well."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Layers that get adapters."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Linear layers to adapt."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules to leave alone."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules to train and save whole."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType(NAME.upper())
        if isinstance(self.bottleneck_size, bool) or not isinstance(self.bottleneck_size, int):
            raise TypeError(f"bottleneck_size must be a whole number, got {self.bottleneck_size!r}")
        if self.bottleneck_size < 1:
            raise ValueError(f"bottleneck_size must be at least 1, got {self.bottleneck_size}")
        if isinstance(self.scaling, bool) or not isinstance(self.scaling, int | float):
            raise TypeError(f"scaling must be a number, got {self.scaling!r}")
        if self.placement not in PLACEMENTS:
            raise ValueError(f"placement must be one of {', '.join(PLACEMENTS)}; got {self.placement!r}")
        activation(self.non_linearity)
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, list):
                setattr(self, name, set(value))  # as PEFT's own configurations hold them

    @property
    def parallel(self) -> bool:
        """Whether adapters read the input of the feed-forward network."""
        return self.placement == "parallel"


def activation(name: str) -> nn.Module:
    """Return the activation that transformers knows by `name`; "identity" and "linear" are none.

    Raises:
        ValueError: when it is unknown, or has parameters, which would not be saved.
    """
    if name in {"identity", "linear"}:
        return nn.Identity()
    if name not in ACT2FN:
        raise ValueError(f"non_linearity must be 'identity' or one of {', '.join(sorted(ACT2FN))}; got {name!r}")
    module = ACT2FN[name]
    if any(True for _ in module.parameters()):
        raise ValueError(f"non_linearity {name!r} has parameters of its own, which would not be saved: take another")
    return module
