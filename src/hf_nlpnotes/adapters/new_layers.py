"""Layers that a checkpoint lacks: they begin at random, so an adapter has to bring them along.

A masked language model has no classifier and often no pooler. `from_pretrained` makes them anew, at random, in every
process. PEFT trains and saves the classifier when the task is known, but leaves the pooler as it was drawn: the saved
adapter then meets another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn


def new_layers(model: nn.Module, but: list[str] | None = None) -> list[str]:
    """Return the modules of a model whose parameters `from_pretrained` found in no checkpoint.

    For `modules_to_save` of any configuration of PEFT; bottleneck adapters do it by themselves. Call it right after
    `from_pretrained`: copies of a model no longer know where their parameters came from.

    Args:
        model: A model of transformers. One that was not loaded from a checkpoint has no new layers.
        but: Endings of names of modules that are saved already.

    Returns:
        Names of the innermost modules, `["bert.pooler.dense", "classifier"]`.
    """
    # transformers marks what it has loaded.
    if not any(_is_loaded(parameter) for parameter in model.parameters()):
        return []
    saved = [re.compile(rf"(.*\.)?{re.escape(ending)}($|\..*)") for ending in but or ()]
    return [name for name in _new(model, "") if not any(pattern.fullmatch(name) for pattern in saved)]


def _new(module: nn.Module, path: str) -> Iterator[str]:
    if isinstance(module, AuxiliaryTrainingWrapper):  # copied for another adapter already
        if not all(_is_loaded(parameter) for parameter in module.original_module.parameters()):
            yield path
    elif not isinstance(module, BaseTunerLayer):
        if not all(_is_loaded(parameter) for parameter in module.parameters(recurse=False)):
            yield path
        for name, child in module.named_children():
            yield from _new(child, f"{path}.{name}" if path else name)


def _is_loaded(parameter: nn.Parameter) -> bool:
    return getattr(parameter, "_is_hf_initialized", False)
