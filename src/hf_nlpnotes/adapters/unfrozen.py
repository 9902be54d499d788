"""Save the layers of the base model that were unfrozen beside an adapter.

PEFT saves an adapter and nothing else: a layer of the base model that is set to `requires_grad` after
`get_peft_model`, by hand or by a schedule of unfreezing, is trained and then lost, without a word. Two ways to keep
it:

- `modules_to_save=["encoder.layer.11"]` in the configuration of any method of PEFT: the layer is copied, trained
  whole and saved; every adapter has its own copy, which is switched with it. Its copy holds no adapter.
- unfreeze it in place and call [`save_unfrozen_layers`] before training; bottleneck adapters need no call. What is
  saved are parameters under their own names, which the stock `PeftModel.from_pretrained` and the Trainer's resume put
  back. In place means for all adapters: the model may have only one.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file, save_file
from torch import nn

_RECORD = "_hf_nlpnotes_unfrozen"
_CARD = "README.md"


class UnfrozenRecord:
    """The parameters of a base model that have been trained: what a schedule has frozen again counts too.

    A parameter counts from the first forward pass in training mode that finds it trainable, or from being loaded with
    an adapter. An object and not a closure, so that a copy of the model has its own.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()

    def before_forward(self, module: nn.Module, _: Any) -> None:
        """Note what is trainable in a training step."""
        if module.training and torch.is_grad_enabled():
            self.names.update(name for name, parameter in _base_parameters(module) if parameter.requires_grad)

    def before_load(self, module: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> None:
        """Note what an adapter brings along; a state of the whole model says nothing."""
        names = [name for name, _ in _base_parameters(module)]
        loaded = {name for name in names if f"{prefix}{name}" in state_dict}
        if len(loaded) < len(names):
            self.names |= loaded


def record_unfrozen_layers(base: nn.Module) -> None:
    """Begin to note which parameters of a base model are trained. Safe to call again."""
    if not hasattr(base, _RECORD):
        record = UnfrozenRecord()
        setattr(base, _RECORD, record)
        base.register_forward_pre_hook(record.before_forward)
        base.register_load_state_dict_pre_hook(record.before_load)


def unfrozen_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of the base model that are trainable now, or have been trained since they are noted.

    Args:
        model: A `PeftModel`, or a model that PEFT has put adapters into.

    Returns:
        Names as in `model.named_parameters()`. Adapters, and copies that `modules_to_save` makes, are not among them.
    """
    base, prefix = _base_of(model)
    record: UnfrozenRecord | None = getattr(base, _RECORD, None)
    noted = record.names if record else set()
    return {
        f"{prefix}{name}": parameter
        for name, parameter in _base_parameters(base)
        if parameter.requires_grad or name in noted
    }


def unfrozen_state_dict(model: nn.Module, state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the entries of `state_dict` that belong to unfrozen layers.

    Raises:
        ValueError: when there are any and the model has several adapters, or merged ones.
    """
    names = unfrozen_parameters(model)
    if not names:
        return {}
    adapters = list(getattr(model, "peft_config", {}))
    if len(adapters) > 1:
        raise ValueError(
            f"{next(iter(names))} and {len(names) - 1} more parameters of the base model were unfrozen, and the model "
            f"has the adapters {adapters}, which all share them: they cannot be saved with one. Give every adapter "
            "its own copy of these layers, modules_to_save=[…], or train each in a model of its own"
        )
    if any(isinstance(module, BaseTunerLayer) and module.merged for module in model.modules()):
        raise ValueError("Unfrozen layers cannot be told from merged adapters: call unmerge_adapter() before saving")
    return {name: state_dict[name] for name in names}


def save_unfrozen_layers(model: PeftModel) -> None:
    """Make a model's own `save_pretrained` save the base model's unfrozen parameters with the adapter.

    Call it once, after `get_peft_model` or `PeftModel.from_pretrained(…, is_trainable=True)`. From then on
    `save_pretrained`, the Trainer's checkpoints and `push_to_hub` write them into `adapter_model.safetensors`, and any
    `PeftModel.from_pretrained` reads them. Works for every method of PEFT; bottleneck adapters do it without a call.
    To train an adapter on that was saved with unfrozen layers, load its weights after this call:
    `model.load_adapter(folder, "default", is_trainable=True)`, as the Trainer's resume does.

    Args:
        model: The `PeftModel`; its `save_pretrained` is replaced.

    Raises:
        TypeError: when `model` is not a `PeftModel`.
    """
    if not isinstance(model, PeftModel):
        raise TypeError(
            f"save_unfrozen_layers takes a PeftModel, got {type(model).__name__}: call get_peft_model first"
        )
    record_unfrozen_layers(_base_of(model)[0])
    model.save_pretrained = partial(_save_pretrained, model)  # type: ignore[method-assign]  # as a method no pickle


def _save_pretrained(self: PeftModel, save_directory: str, *args: Any, **kwargs: Any) -> None:
    """Save as PEFT does, with the unfrozen parameters in the file.

    PEFT writes into a folder beside, and its files take their place once the unfrozen parameters are in: at no moment
    does `save_directory` hold an adapter without them.
    """
    stock = type(self).save_pretrained
    given = inspect.signature(stock).bind(self, save_directory, *args, **kwargs)
    given.apply_defaults()
    unfrozen = unfrozen_state_dict(self, given.kwargs.get("state_dict") or self.state_dict())
    if not unfrozen or not given.arguments["is_main_process"]:
        stock(self, save_directory, *args, **kwargs)
        return
    if not given.arguments["safe_serialization"]:
        raise ValueError("Unfrozen layers are saved in safetensors alone: leave safe_serialization at True")
    target = Path(save_directory)
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target, prefix=".adapter-") as folder:
        if (target / _CARD).is_file():
            shutil.copyfile(target / _CARD, Path(folder, _CARD))  # what is written by hand in it stays
        stock(self, folder, *args, **kwargs)
        (path,) = Path(folder).rglob(SAFETENSORS_WEIGHTS_NAME)
        # Clones: tied parameters are one tensor under two names, which safetensors refuses.
        added = {name: value.detach().cpu().clone().contiguous() for name, value in unfrozen.items()}
        save_file({**load_file(path), **added}, path, metadata={"format": "pt"})
        # The weights first: without a configuration an adapter is not loaded.
        for file in [path, *(other for other in Path(folder).rglob("*") if other.is_file() and other != path)]:
            place = target / file.relative_to(folder)
            place.parent.mkdir(exist_ok=True)
            os.replace(file, place)


def _base_of(model: nn.Module) -> tuple[nn.Module, str]:
    """Return the base model, and what its parameters' names begin with in `model`."""
    if not isinstance(model, PeftModel):
        return model, ""
    base = model.get_base_model()
    return base, next(f"{name}." for name, module in model.named_modules() if module is base)


def _base_parameters(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that were there before PEFT, under the names that they have now."""
    if isinstance(module, AuxiliaryTrainingWrapper):
        return  # copies of it are trained, which PEFT saves
    if isinstance(module, BaseTunerLayer):
        yield from _base_parameters(module.base_layer, f"{prefix}base_layer.")  # type: ignore[arg-type]
        return
    for name, parameter in module.named_parameters(recurse=False):
        yield f"{prefix}{name}", parameter
    for name, child in module.named_children():
        yield from _base_parameters(child, f"{prefix}{name}.")
