"""Weights that accelerate keeps elsewhere (`device_map`, `cpu_offload`), read outside of a forward."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn


def weights_in_place(module: nn.Module) -> AbstractContextManager[None]:
    """A context in which the module's own weights can be read; accelerate itself loads them for `forward` alone.

    Args:
        module: whose weights are read; where nothing was offloaded, nothing is done.
    """
    if not hasattr(module, "_hf_hook"):
        return nullcontext()
    from accelerate.utils import align_module_device  # type: ignore[import-untyped]  # it is not typed; the hook is its

    context: AbstractContextManager[None] = align_module_device(module)
    return context
