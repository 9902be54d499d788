"""Every attention call of a stock model, handed to a function of ours while the model runs.

transformers models look their attention function up by the name in their config (`AttentionInterface`), and the mask
that belongs to it (`AttentionMaskInterface`). Here that name is changed while a `with` block lasts: to a function that
calls the model file's own eager attention, so that nothing is computed differently, and then shows the call and its
result to an observer, which may change the output.

Blocks may be nested, each with its observer, and several threads may have theirs on one model: the name is changed
until the last block ends, and a call is shown to the observers of its own thread alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.masking_utils import eager_mask

IMPLEMENTATION = "hf_nlpnotes_observed"
"""Name of our function in the two registries. It is registered when it is first used, and stays there."""


@dataclass(frozen=True, eq=False)
class AttentionCall:
    """One call of a model's attention function, with its result.

    Attributes:
        module: The attention module that called.
        query: `(batch, heads, queries, dim)`.
        key: `(batch, key heads, keys, dim)`; key heads divide heads.
        value: `(batch, key heads, keys, value_dim)`.
        mask: What the function was given, mostly `(batch, 1, queries, keys)` to be added, or None.
        scaling: Factor on query · key.
        options: What else the function was given and uses: "softcap", "position_bias", "sinks".
        output: `(batch, queries, heads, value_dim)`.
        weights: `(batch, heads, queries, keys)`.
    """

    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    scaling: float
    options: dict[str, Any]
    output: torch.Tensor
    weights: torch.Tensor


class NoEagerAttentionError(LookupError):
    """A module calls the interface, but names no eager attention that could be called in its place."""


Observer = Callable[[AttentionCall], torch.Tensor]
"""Sees a call and returns the output to go on with: `call.output`, or another tensor of its shape."""

_Observing = tuple[frozenset[int], Observer]
"""The modules of a model by `id`, and who sees their calls: another model may share the config that is changed."""

_observing: ContextVar[tuple[_Observing, ...]] = ContextVar("hf_nlpnotes_attention_observing", default=())
"""Of the blocks around, the outermost first."""


EagerAttention = tuple[Callable[..., Any], frozenset[str]]
"""A model file's eager attention function, and the names of its parameters."""

_eager_of: WeakKeyDictionary[type[nn.Module], EagerAttention | None] = WeakKeyDictionary()


@contextmanager
def observed(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Show every attention call of `model` that goes through the interface to `observer`, while the block lasts.

    In nested blocks every observer sees the call, with the output that the one around it goes on with. The attention
    setting of the model is as before afterwards, also after an exception.
    """
    AttentionInterface.register(IMPLEMENTATION, _observed_attention)
    AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
    token = _observing.set((*_observing.get(), (frozenset(map(id, model.modules())), observer)))
    try:
        with attention_implementation(model, IMPLEMENTATION):
            yield
    finally:
        _observing.reset(token)


@dataclass(eq=False)
class _Changed:
    """A config whose attention is another for a while."""

    config: PreTrainedConfig
    own: str | None
    names: dict[object, str] = field(default_factory=dict)  # of each block that lasts


_changed: dict[int, _Changed] = {}
_lock = Lock()


@contextmanager
def attention_implementation(model: nn.Module, name: str) -> Iterator[None]:
    """Give every config in `model` the attention `name` while the block lasts; then each has its own again.

    Blocks of several threads end in any order: a config gets its own back with the last.

    `set_attn_implementation` would refuse models that are not known to follow the interface, and changes parts of a
    model that were set apart on purpose: it can't be undone with a second call.
    """
    configs, block = _configs(model), object()
    with _lock:
        for config in configs:
            change = _changed.setdefault(id(config), _Changed(config, config._attn_implementation_internal))
            change.names[block] = config._attn_implementation_internal = name
    try:
        yield
    finally:
        with _lock:
            for config in configs:
                change = _changed[id(config)]
                del change.names[block]
                if not change.names:
                    del _changed[id(config)]
                config._attn_implementation_internal = next(reversed(change.names.values()), change.own)


def _configs(model: nn.Module) -> list[PreTrainedConfig]:
    """Return every config that a module of `model` holds, and the configs inside them, each once."""
    found: dict[int, PreTrainedConfig] = {}
    held = [getattr(module, "config", None) for module in model.modules()]
    waiting = [config for config in held if isinstance(config, PreTrainedConfig)]
    while waiting:
        config = waiting.pop()
        if id(config) not in found:
            found[id(config)] = config
            inner = [getattr(config, name, None) for name in config.sub_configs]
            waiting += [sub for sub in inner if isinstance(sub, PreTrainedConfig)]
    return list(found.values())


def _observed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    found = own_eager_attention(type(module))
    if found is None:
        raise NoEagerAttentionError(f"{type(module).__name__} names no eager attention function in its forward")
    eager, parameters = found
    if scaling is not None:
        kwargs["scaling"] = scaling
    output, weights = eager(module, query, key, value, attention_mask, **kwargs)
    observers = [observer for modules, observer in _observing.get() if id(module) in modules]
    if not observers or weights is None:
        return output, weights
    used = parameters & {"softcap", "position_bias", "sinks"}
    options = {name: kwargs[name] for name in used & set(kwargs)}
    # Only some of the files with sinks take them as an argument: the others read them from the module.
    options = {"sinks": getattr(module, "sinks", None)} | options
    call = AttentionCall(
        module,
        query,
        key,
        value,
        attention_mask,
        float(query.shape[-1] ** -0.5 if scaling is None else scaling),
        {name: option for name, option in options.items() if option is not None},
        output,
        weights,
    )
    for observer in observers:
        call = replace(call, output=observer(call))
    return call.output, weights


def uses_interface(model: nn.Module) -> bool:
    """Return whether any module of `model` calls its attention through the interface, read from the code."""
    return any(own_eager_attention(kind) is not None for kind in {type(module) for module in model.modules()})


def own_eager_attention(kind: type[nn.Module]) -> EagerAttention | None:
    """Return the eager attention that the forward of a module's class names; None if it names none."""
    if kind not in _eager_of:
        _eager_of[kind] = _find_eager_attention(kind)
    return _eager_of[kind]


def _find_eager_attention(kind: type[nn.Module]) -> EagerAttention | None:
    for base in kind.__mro__:
        forward = inspect.unwrap(base.__dict__.get("forward", object()))
        code = getattr(forward, "__code__", None)
        for name in () if code is None else code.co_names:
            function = forward.__globals__.get(name)
            if "eager" in name and callable(function):
                return function, frozenset(inspect.signature(function).parameters)
    return None
