"""DistributedDataParallel and parameters that are frozen and unfrozen after the model was wrapped.

DDP's reducer waits in every backward pass for the gradients of the parameters that required one when it was built.
Three cures when that set changes:

- **A new reducer** for the parameters that train now (`rebuild_reducer`). Only their gradients are sent, and nothing
  searches the graph. It calls the methods by which DDP builds its own; they are looked at first.
- **`find_unused_parameters=True`**: DDP searches the graph in every step for parameters without gradient, and sends
  zeros for them. Right everywhere, slower.
- Without either, DDP raises in the second step.

What is wrong in silence: to freeze before DDP wraps the model. The reducer never learns of those parameters, and each
process trains its own copy of them later.
"""

from __future__ import annotations

import inspect
import weakref
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel
from torch.utils.hooks import RemovableHandle

# What `rebuild_reducer` calls, with the parameters that it expects; as in torch 2.6 to 2.13.
_METHODS = {
    "_build_params_for_reducer": ["self"],
    "_build_debug_param_to_name_mapping": ["self", "parameters"],
    "_ddp_init_helper": [
        "self",
        "parameters",
        "expect_sparse_gradient",
        "param_to_name_mapping",
        "static_graph",
    ],
}


def why_no_new_reducer(ddp: DistributedDataParallel) -> str | None:
    """Say why the reducer of `ddp` cannot be built anew; None: it can."""
    for name, expected in _METHODS.items():
        method = getattr(DistributedDataParallel, name, None)
        if method is None or list(inspect.signature(method).parameters) != expected:
            return f"torch {torch.__version__} has another DistributedDataParallel.{name} than the one known here"
    if not hasattr(dist.Reducer, "_remove_autograd_hooks"):
        return f"torch {torch.__version__} has no Reducer._remove_autograd_hooks"
    obstacles = {
        "DDP's own mixed precision numbers the parameters": ddp.mixed_precision is not None,
        "DDP reduces some gradients outside its reducer": bool(getattr(ddp, "_delay_all_reduce_params", None))
        or getattr(ddp, "_use_python_reducer", False),
        "optimizers run inside the backward pass": any(
            hasattr(parameter, "_in_backward_optimizers") for parameter in ddp.module.parameters()
        ),
        "PowerSGD keeps an error for every bucket": any(
            type(state).__name__ == "PowerSGDState" for _, state in ddp._comm_hooks
        ),
    }
    return next((reason for reason, there in obstacles.items() if there), None)


def rebuild_reducer(ddp: DistributedDataParallel) -> None:
    """Give `ddp` a reducer for exactly the parameters that require a gradient now.

    To be called between two steps, when no gradients are held, by all processes alike. Communication hooks that were
    registered stay.

    Raises:
        RuntimeError: see `why_no_new_reducer`.
    """
    reason = why_no_new_reducer(ddp)
    if reason is not None:
        raise RuntimeError(f"DDP's reducer cannot be built anew: {reason}")
    ddp.reducer._remove_autograd_hooks()  # or both reducers would count the same gradients
    parameters, sparse = ddp._build_params_for_reducer()
    names = ddp._build_debug_param_to_name_mapping(parameters)
    ddp._ddp_init_helper(parameters, sparse, names, False)
    for hook, state in ddp._comm_hooks:
        dist._register_comm_hook(ddp.reducer, state, hook)
    ddp._has_rebuilt_buckets = False


class ReducerKeeper:
    """Keeps DDP's reducer in step with the parameters of a model that train.

    The Trainer's callbacks do not get the wrapped model: it is found when it is called for the first time.

    Args:
        model: the model inside of DDP.
        rebuild: build a new reducer when the parameters change; else, and where that cannot be,
            `find_unused_parameters` must be on.
    """

    def __init__(self, model: nn.Module, *, rebuild: bool = True) -> None:
        self._model = weakref.ref(model)
        self._rebuild = rebuild
        self._stale = False
        self._ddp: weakref.ref[DistributedDataParallel] | None = None
        self._watch: RemovableHandle | None = None
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._watch = register_module_forward_pre_hook(self._before_any_forward)

    @property
    def ddp(self) -> DistributedDataParallel | None:
        """The wrapper, once it was found."""
        return None if self._ddp is None else self._ddp()

    def changed(self) -> None:
        """Take notice that other parameters train from the next forward pass on."""
        self._stale = True
        self._renew()

    def close(self) -> None:
        """Stop looking for the wrapper."""
        if self._watch is not None:
            self._watch.remove()
            self._watch = None

    def _before_any_forward(self, module: nn.Module, _: Any) -> None:
        module = getattr(module, "_orig_mod", module)  # torch.compile
        inner = getattr(module, "module", None)
        if isinstance(module, DistributedDataParallel) and getattr(inner, "_orig_mod", inner) is self._model():
            self._ddp = weakref.ref(module)
            self.close()
            self._renew()
        elif module is self._model() and module.training and torch.is_grad_enabled():
            self.close()  # the model trains without DDP

    def _renew(self) -> None:
        ddp = self.ddp
        if ddp is None or not self._stale:
            return
        self._stale = False
        if ddp.static_graph:
            raise ValueError(STATIC_GRAPH)
        reason = why_no_new_reducer(ddp) if self._rebuild else "rebuild_reducer=False"
        if reason is None:
            rebuild_reducer(ddp)
        elif not ddp.find_unused_parameters:
            raise ValueError(
                f"DDP waits for the gradients of frozen parameters, and its reducer is not built anew ({reason}): set "
                "TrainingArguments(ddp_find_unused_parameters=True)"
            )


STATIC_GRAPH = (
    "ddp_static_graph=True promises that the same parameters get gradients in every step, which unfreezing breaks: "
    "leave ddp_static_graph out of TrainingArguments"
)
