"""The best weights of a phase on disk: kept, linked into checkpoints, taken out again, sharded or not."""

import os

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hf_nlpnotes.training.unfreezing.best_weights import FOLDER, BestWeights
from hf_nlpnotes.training.unfreezing.trainable import set_trainable, whole


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def changed(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_what_a_phase_trained_and_every_floating_buffer_come_back(tmp_path) -> None:
    model, best = small_model(), BestWeights(tmp_path, writes=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    best.save(model, {"0.weight", "0.bias"}, 3)
    changed(model)
    after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    best.restore(model, {"0.weight", "0.bias"}, 3)
    kept = {"0.weight", "0.bias", "1.running_mean", "1.running_var"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name] if name in kept else after[name]), name


def test_one_step_is_kept_at_a_time(tmp_path) -> None:
    model, best = small_model(), BestWeights(tmp_path, writes=True)
    for step in (1, 2):
        best.save(model, {"0.bias"}, step)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["step-2.safetensors"]
    best.remove()
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("links", [True, False])
def test_a_checkpoint_holds_them_when_the_run_has_gone_on(tmp_path, monkeypatch, links) -> None:
    """By a link, or by a copy where the file system has none."""
    if not links:

        def without(*_: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", without)
    model, best, checkpoint = small_model(), BestWeights(tmp_path, writes=True), tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    before = model[0].bias.detach().clone()
    best.save(model, {"0.bias"}, 3)
    best.link_into(checkpoint, 3)
    assert [path.name for path in (checkpoint / FOLDER).iterdir()] == ["step-3.safetensors"]
    changed(model)
    best.save(model, {"0.bias"}, 6)
    best.remove()  # as for a run that goes on elsewhere: the checkpoint alone is there
    best.take_from(checkpoint, 3)
    best.restore(model, {"0.bias"}, 3)
    assert torch.equal(model[0].bias, before)


def test_weights_that_are_nowhere_are_named(tmp_path) -> None:
    best = BestWeights(tmp_path, writes=True)
    with pytest.raises(FileNotFoundError, match=r"those of step 3, but neither .*checkpoint-5.* nor .*step-3"):
        best.take_from(tmp_path / "checkpoint-5", 3)


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        BestWeights(tmp_path, writes=True).save(small_model(), {"0.bias"}, 3)
    assert not list((tmp_path / FOLDER).iterdir())


def test_other_processes_write_nothing(tmp_path) -> None:
    model, best = small_model(), BestWeights(tmp_path / "run", writes=False)
    best.save(model, {"0.bias"}, 3)
    assert not list(tmp_path.iterdir())
    BestWeights(tmp_path / "run", writes=True).save(model, {"0.bias"}, 3)
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    best.link_into(checkpoint, 3)
    best.take_from(checkpoint, 4)
    best.remove()
    assert not list(checkpoint.iterdir())
    assert [path.name for path in (tmp_path / "run" / FOLDER).iterdir()] == ["step-3.safetensors"]


def test_sharded_weights_come_back(tmp_path, one_process) -> None:
    model, best = small_model(), BestWeights(tmp_path, writes=True)
    plain = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    best.save(model, plain.keys(), 3)
    changed(model)
    best.restore(model, plain.keys(), 3)
    for name, parameter in model.named_parameters():
        assert torch.equal(whole(parameter), plain[name]), name


def test_a_name_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no parameters \['0.wait'\]$"):
        set_trainable(small_model(), {"0.wait", "0.bias"})
    with pytest.raises(ValueError, match=r"no parameters \['a', 'b', 'c'\]…$"):
        set_trainable(small_model(), set("abcd"))
