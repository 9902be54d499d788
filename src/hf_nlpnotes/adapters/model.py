"""PEFT's tuner of bottleneck adapters: it finds the places, and puts the layers there."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from .configuration import NAME, BottleneckAdapterConfig
from .layer import BottleneckAdapterLayer
from .new_layers import new_layers
from .placement import SubLayers, sub_layers
from .unfrozen import record_unfrozen_layers, unfrozen_state_dict


class BottleneckAdapterModel(BaseTuner):
    """A model with bottleneck adapters, inside a `PeftModel`.

    Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP" (https://arxiv.org/abs/1902.00751); Pfeiffer
    et al. 2021, "AdapterFusion" (https://arxiv.org/abs/2005.00247); He et al. 2022, "Towards a Unified View of
    Parameter-Efficient Transfer Learning" (https://arxiv.org/abs/2110.04366).

    Example:

        >>> from peft import get_peft_model
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from hf_nlpnotes.adapters import BottleneckAdapterConfig
        >>> sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=100, **sizes))
        >>> config = BottleneckAdapterConfig(bottleneck_size=4, placement="houlsby", task_type="SEQ_CLS")
        >>> get_peft_model(model, config).print_trainable_parameters()
        trainable params: 1,234 || all params: ... || trainable%: ...
    """

    prefix: str = f"{NAME}_"
    tuner_layer_cls = BottleneckAdapterLayer
    target_module_mapping: dict[str, list[str]] = {}  # places are found by structure

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        return peft_config

    def _prepare_model(self, peft_config: BottleneckAdapterConfig, model: nn.Module) -> None:  # type: ignore[override]
        # Every injection passes here, before any module is replaced.
        found: tuple[SubLayers, ...] = ()
        if peft_config.target_modules is None or peft_config.train_layer_norms or peft_config.parallel:
            found = _chosen(sub_layers(model), peft_config.layers_to_transform)
        if peft_config.target_modules is None:
            peft_config.target_modules = _targets(found, peft_config.placement)  # type: ignore[assignment]
        saved = list(peft_config.modules_to_save or [])
        if peft_config.train_layer_norms:
            saved += [name for layer in found for name in layer.norms if name not in saved]
        peft_config.modules_to_save = [*saved, *new_layers(model, but=saved)] or None
        self._feed_forward_inputs = {layer.feed_forward: layer.feed_forward_input for layer in found}

    def _create_and_replace(
        self,
        peft_config: BottleneckAdapterConfig,  # type: ignore[override]
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        first = None
        if peft_config.parallel:
            if current_key not in self._feed_forward_inputs:
                raise ValueError(
                    f"{current_key} is not the last layer of a feed-forward network, which a parallel adapter stands "
                    f"beside; these are: {', '.join(self._feed_forward_inputs)}"
                )
            first = self.model.get_submodule(self._feed_forward_inputs[current_key])
            if isinstance(first, BaseTunerLayer):
                first = first.get_base_layer()
            assert isinstance(first, nn.Linear)
        if isinstance(target, BottleneckAdapterLayer):
            target.update_layer(adapter_name, peft_config, first)
            return
        layer = BottleneckAdapterLayer(target)
        layer._active_adapter = adapter_name
        layer.update_layer(adapter_name, peft_config, first)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; if it was the active one, the first of those that remain becomes active."""
        was_active = adapter_name in self.active_adapters
        super().delete_adapter(adapter_name)
        # PEFT asks the first layer what remains, where the others need not have adapters.
        if was_active and not self.active_adapters and self.peft_config:
            self.set_adapter(next(iter(self.peft_config)))

    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Fold adapters without a non-linearity into the linear layers that they stand behind.

        Arguments as of [`~peft.tuners.lora.LoraModel.merge_adapter`].

        Raises:
            ValueError: when an adapter cannot be merged; nothing has changed then.
        """
        self._check_merge(adapter_names)
        super().merge_adapter(adapter_names, safe_merge)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> Any:
        if merge:
            self._check_merge(adapter_names)
        return super()._unload_and_optionally_merge(merge, progressbar, safe_merge, adapter_names)

    def _check_merge(self, adapter_names: list[str] | None) -> None:
        # All layers before the first is changed.
        for module in self.model.modules():
            if isinstance(module, BottleneckAdapterLayer):
                for name in adapter_names or self.active_adapters:
                    if name in module.configs:
                        module.check_merge(name)

    def _post_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        record_unfrozen_layers(model)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        selected = super()._get_adapter_state_dict(model, config, adapter_name, state_dict, unwanted_adapter_names)
        return {**selected, **unfrozen_state_dict(model, state_dict)}


def _chosen(found: tuple[SubLayers, ...], numbers: list[int] | int | None) -> tuple[SubLayers, ...]:
    if numbers is None:
        return found
    wanted = {numbers} if isinstance(numbers, int) else set(numbers)
    missing = wanted - {layer.index for layer in found}
    if missing:
        count = 1 + max(layer.index for layer in found)
        raise ValueError(f"layers_to_transform names {sorted(missing)}, but the model has layers 0 to {count - 1}")
    return tuple(layer for layer in found if layer.index in wanted)


def _targets(found: tuple[SubLayers, ...], placement: str) -> set[str]:
    targets = {layer.feed_forward for layer in found}
    if placement == "houlsby":
        without = [layer.layer for layer in found if not layer.attention]
        if without:
            raise ValueError(
                f"The attention of {without[0]} does not end in a linear layer, behind which placement='houlsby' puts "
                "adapters: take placement='pfeiffer', or name the layers to adapt with target_modules"
            )
        targets |= {path for layer in found for path in layer.attention}
    return targets
