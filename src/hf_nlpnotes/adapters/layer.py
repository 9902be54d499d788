"""A linear layer with bottleneck adapters behind it, or beside the feed-forward network that it ends.

Sequential (Houlsby et al. 2019, Pfeiffer et al. 2021): `y ← y + s · (U f(D y + d) + u)` for the layer's output `y`.
Parallel (He et al. 2022, equation 9): `y ← y + s · (U f(D x + d) + u)` for the input `x` of the feed-forward network.
Both stand before the residual sum; a dropout between the layer and that sum falls on the adapter's contribution too.
Several active adapters all read the same `y` (or `x`), and their contributions add up.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import nn

from .configuration import BottleneckAdapterConfig, activation


class FeedForwardInput:
    """Keep what goes into a module until it is taken: a forward pre-hook.

    Each thread has its own value: a served model may be called from several at once. An object and not a closure, so
    that a copy of the model has its own; what a step that broke off has left is no part of the copy.
    """

    def __init__(self) -> None:
        self.values: dict[int, torch.Tensor] = {}  # by thread

    def before_forward(self, module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        """Keep the first argument."""
        self.values[_thread()] = arguments[0]

    def take(self) -> torch.Tensor | None:
        """Return the value and let go of it."""
        return self.values.pop(_thread(), None)

    def __getstate__(self) -> dict[str, Any]:
        return {"values": {}}


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else threading.get_ident()  # a graph runs on any thread


class BottleneckAdapterLayer(nn.Module, BaseTunerLayer):
    """A linear layer with the adapters that change its output; PEFT's tuner layer of this method.

    Args:
        base_layer: The linear layer, `(…, in_features)` to `(…, d)`.

    Raises:
        TypeError: when `base_layer` is no `nn.Linear`.
    """

    adapter_layer_names: tuple[str, ...] = ("bottleneck_adapter_down", "bottleneck_adapter_up")
    other_param_names: tuple[str, ...] = ("configs",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        if not isinstance(base_layer, nn.Linear):
            raise TypeError(f"Bottleneck adapters stand behind nn.Linear, got {type(base_layer).__name__}")
        self.base_layer: nn.Linear = base_layer
        self.size = base_layer.out_features  # d
        self.bottleneck_adapter_down = nn.ModuleDict()
        self.bottleneck_adapter_up = nn.ModuleDict()
        self.configs: dict[str, BottleneckAdapterConfig] = {}
        self._activations: dict[str, nn.Module] = {}
        self._feed_forward_input: FeedForwardInput | None = None
        self._hook: Any = None
        # Weight and bias as they were before merging; memory for the sake of exactness.
        self._unmerged: tuple[torch.Tensor, torch.Tensor | None] | None = None
        self.merged_adapters: list[str] = []
        self._disable_adapters = False

    def update_layer(
        self, adapter_name: str, config: BottleneckAdapterConfig, feed_forward_input: nn.Linear | None = None
    ) -> None:
        """Add an adapter.

        Args:
            adapter_name: Its name.
            config: Its options.
            feed_forward_input: The first layer of the feed-forward network that this layer ends, when
                `config.parallel`.
        """
        size = self.size
        if config.parallel:
            assert feed_forward_input is not None
            size = feed_forward_input.in_features
            if self._feed_forward_input is None:
                self._feed_forward_input = FeedForwardInput()
                self._hook = feed_forward_input.register_forward_pre_hook(self._feed_forward_input.before_forward)
        self.bottleneck_adapter_down[adapter_name] = nn.Linear(size, config.bottleneck_size)
        self.bottleneck_adapter_up[adapter_name] = nn.Linear(config.bottleneck_size, self.size)
        self.configs[adapter_name] = config
        self._activations[adapter_name] = activation(config.non_linearity)
        self.reset_parameters(adapter_name)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @torch.no_grad()
    def reset_parameters(self, adapter_name: str) -> None:
        """Give an adapter its initial weights.

        Args:
            adapter_name: Its name.
        """
        down, up = self._maps(adapter_name)
        if not self.configs[adapter_name].init_weights:
            for parameter in (*down.parameters(), *up.parameters()):
                nn.init.normal_(parameter, std=1e-2)
            return
        nn.init.kaiming_uniform_(down.weight, a=math.sqrt(5))
        for zero in (down.bias, up.weight, up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Map `x (…, in_features)` to `(…, d)`: the linear layer, then its active adapters.

        Args:
            x: `(…, in_features)`.
            *args: For the linear layer.
            **kwargs: For the linear layer.
        """
        beside = None if self._feed_forward_input is None else self._feed_forward_input.take()
        if self.disable_adapters and self.merged:
            self.unmerge()
        base: torch.Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return base
        result = base
        for name in self.active_adapters:
            if name in self.configs:
                source = beside if self.configs[name].parallel else base
                assert source is not None
                result = result + self._contribution(name, source).to(base.dtype)
        return result

    def _maps(self, name: str) -> tuple[nn.Linear, nn.Linear]:
        down, up = self.bottleneck_adapter_down[name], self.bottleneck_adapter_up[name]
        assert isinstance(down, nn.Linear)
        assert isinstance(up, nn.Linear)
        return down, up

    def _contribution(self, name: str, source: torch.Tensor) -> torch.Tensor:
        down, up = self._maps(name)
        source = self._cast_input_dtype(source, down.weight.dtype)
        contribution: torch.Tensor = up(self._activations[name](down(source)))
        return contribution * self.configs[name].scaling

    # ---------------------------------------------------------------------------------------------------- merging

    def check_merge(self, adapter_name: str) -> None:
        """Raise unless the adapter can be folded into the linear layer.

        Args:
            adapter_name: Its name.

        Raises:
            ValueError: when it has a non-linearity, or reads the input of the feed-forward network.
        """
        config = self.configs[adapter_name]
        if config.parallel:
            raise ValueError(
                f"Adapter {adapter_name!r} stands beside the feed-forward network, whose non-linearity lies between "
                "its input and this layer: it cannot be merged into the layer's weights. Keep it as it is"
            )
        if not isinstance(self._activations[adapter_name], nn.Identity):
            raise ValueError(
                f"Adapter {adapter_name!r} has the non-linearity {config.non_linearity!r} between its two maps, so no "
                "weights of a linear layer compute the same: it cannot be merged. Keep it as it is, or train one with "
                "non_linearity='identity'"
            )
        if not self.base_layer.weight.is_floating_point():
            raise ValueError("The layer's weights are quantized: merge into the model in floating point")

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Fold adapters into the weights of the linear layer.

        With `M = Σ s U D`, over the merged adapters, `y + s(U(D y + d) + u)` for `y = W x + b` is a linear layer with
        the weights `W + M W` and the bias `b + M b + Σ s(U d + u)`.

        Args:
            safe_merge: Raise when a weight would not be finite, and change nothing.
            adapter_names: Adapters to merge; None for the active ones.

        Raises:
            ValueError: when an adapter cannot be merged, see [`check_merge`]; nothing has changed then.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if name in self.configs]
        if not names:
            return
        for name in names:
            self.check_merge(name)
        layer = self.base_layer
        weight, bias = self._unmerged or (layer.weight, _bias_of(layer))
        folded = self._folded(weight, bias, [*self.merged_adapters, *names])
        if safe_merge and not all(torch.isfinite(tensor).all() for tensor in folded):
            raise ValueError(f"Merging {names} gives weights that are not finite: the adapter seems to be broken")
        if self._unmerged is None:
            self._unmerged = (weight.detach().clone(), None if bias is None else bias.detach().clone())
        layer.weight.data = folded[0]
        if _bias_of(layer) is None:
            layer.bias = nn.Parameter(folded[1], requires_grad=False)
        else:
            layer.bias.data = folded[1]
        self.merged_adapters.extend(names)

    def _folded(
        self, weight: torch.Tensor, bias: torch.Tensor | None, names: list[str]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        exact = weight.double()  # (d, in)
        offset = exact.new_zeros(self.size) if bias is None else bias.double()  # (d,)
        matrix, constant = exact.new_zeros(self.size, self.size), exact.new_zeros(self.size)
        for name in names:
            (down, up), scaling = self._maps(name), self.configs[name].scaling
            rise = up.weight.double() * scaling
            matrix += rise @ down.weight.double()
            constant += rise @ down.bias.double() + scaling * up.bias.double()
        return (exact + matrix @ exact).to(weight.dtype), (offset + matrix @ offset + constant).to(weight.dtype)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Give the linear layer back the weights that it had before [`merge`], bit for bit."""
        if self._unmerged is None:
            return
        layer = self.base_layer
        layer.weight.data = self._unmerged[0]
        if self._unmerged[1] is None:
            layer.register_parameter("bias", None)
        else:
            layer.bias.data = self._unmerged[1]
        self._unmerged = None
        self.merged_adapters = []

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """Return the linear layer, with its adapters folded in when `merge`.

        Args:
            merge: Whether to fold the adapters in.
            safe_merge: As of `merge`.
            adapter_names: As of `merge`.
        """
        if merge:
            self.merge(safe_merge=safe_merge, adapter_names=adapter_names)
        if self._hook is not None:
            self._hook.remove()
        return self.base_layer

    def __repr__(self) -> str:
        return "bottleneck_adapter." + super().__repr__()


def _bias_of(layer: nn.Linear) -> nn.Parameter | None:
    return layer.bias  # None with bias=False, whatever torch's annotation says
