"""A `forward` whose signature names what the encoder at hand reads.

The Trainer drops every column of a data set that `model.forward` does not name. Which these are depends on the
encoder: `pinyin_ids`, `bbox`, `langs`, … So the signature of a model's `forward` has the names of its encoder's, while
the function itself takes them as keyword arguments.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import torch

# What an encoder's forward takes and no data set brings.
_NO_COLUMNS = {"self", "past_key_values", "use_cache", "return_dict", "output_attentions", "output_hidden_states"}


class names_encoder_inputs:  # noqa: N801 -- a decorator
    """Decorate a `forward`: looked up on a model, its signature also names the inputs of the model's encoder.

    Args:
        function: The `forward` of a model with an `encoder_model`; it takes the encoder's inputs as keywords.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self.function
        if torch.compiler.is_compiling():  # nobody looks at a signature there
            # The compiler cannot follow a call of the class of methods, nor, in torch 2.8, of `__get__`.
            return functools.partial(self.function, instance)
        try:
            encoder = instance.encoder_model
        except AttributeError:  # under construction
            return MethodType(self.function, instance)
        # What a model around an encoder takes is named by the encoder inside of it.
        key = (self.function, type(encoder), type(getattr(encoder, "encoder", None)))
        if key not in _FUNCTIONS:
            _FUNCTIONS[key] = _with_inputs_of(self.function, encoder)
        return MethodType(_FUNCTIONS[key], instance)


_FUNCTIONS: dict[Any, Any] = {}
"""Function and classes of the encoder → the function with the signature."""


def _with_inputs_of(function: Any, encoder: Any) -> Any:
    signature = inspect.signature(function)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind != parameter.VAR_KEYWORD]
    rest = [parameter for parameter in signature.parameters.values() if parameter.kind == parameter.VAR_KEYWORD]
    theirs = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name, parameter in inspect.signature(encoder.forward).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in _NO_COLUMNS
        and name not in signature.parameters
    ]
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(copy, function)
    copy.__signature__ = signature.replace(parameters=[*own, *theirs, *rest])  # type: ignore[attr-defined]
    return copy
