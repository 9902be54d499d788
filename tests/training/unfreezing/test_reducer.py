"""When DDP's reducer is built anew, and when not."""

import types

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hf_nlpnotes.training.unfreezing.reducer import ReducerKeeper, rebuild_reducer, why_no_new_reducer


def wrapper(**attributes) -> types.SimpleNamespace:
    defaults = {"mixed_precision": None, "module": nn.Linear(2, 2), "_comm_hooks": [], "_use_python_reducer": False}
    return types.SimpleNamespace(**{**defaults, **attributes})


def test_this_torch_is_known() -> None:
    assert why_no_new_reducer(wrapper()) is None


def test_another_torch_is_noticed(monkeypatch) -> None:
    monkeypatch.setattr(DistributedDataParallel, "_ddp_init_helper", DistributedDataParallel.no_sync)
    reason = f"torch {torch.__version__} has another DistributedDataParallel._ddp_init_helper"
    assert why_no_new_reducer(wrapper()).startswith(reason)
    monkeypatch.delattr(DistributedDataParallel, "_ddp_init_helper")
    with pytest.raises(RuntimeError, match="cannot be built anew: torch"):
        rebuild_reducer(wrapper())


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"mixed_precision": object()}, "mixed precision"),
        ({"_use_python_reducer": True}, "outside its reducer"),
        ({"_delay_all_reduce_params": [1]}, "outside its reducer"),
        ({"_comm_hooks": [(print, type("PowerSGDState", (), {})())]}, "PowerSGD"),
    ],
)
def test_what_a_new_reducer_would_break(attributes, reason) -> None:
    assert reason in why_no_new_reducer(wrapper(**attributes))


def test_optimizers_inside_the_backward_pass() -> None:
    module = nn.Linear(2, 2)
    module.weight._in_backward_optimizers = []
    assert "backward pass" in why_no_new_reducer(wrapper(module=module))


def test_one_process_has_nothing_to_watch() -> None:
    keeper = ReducerKeeper(nn.Linear(2, 2))
    keeper.changed()
    keeper.close()
    assert keeper.ddp is None
    assert not torch.nn.modules.module._global_forward_pre_hooks
