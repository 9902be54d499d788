"""Two processes on the CPU: the Trainer's DDP and FSDP2, against one process."""

import importlib.util
from pathlib import Path

import pytest
import torch

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.fixture(scope="module")
def two_processes(torchrun, tiny_chinesebert_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("two")
    torchrun(WORKER, tiny_chinesebert_folder, output)
    return output


def test_number_of_processes_does_not_change_the_gradient(two_processes, tiny_chinesebert_folder, tmp_path):
    """4 parts on 2 processes, texts of unequal length, clipped gradients; after 3 steps."""
    spec = importlib.util.spec_from_file_location("distributed_worker", WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    alone = worker.train(tiny_chinesebert_folder, tmp_path, batch=8, accumulation=1).state_dict()
    assert torch.load(two_processes / "result.pt")["world_size"] == 2
    ranks = [torch.load(two_processes / f"rank{rank}.pt") for rank in range(2)]
    for name, expected in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_sharded_weights_train_and_infer_as_whole_ones(two_processes):
    differences = torch.load(two_processes / "result.pt")["sharded"]
    assert sum("logits" in name for name in differences) == 6
    assert max(differences.values()) < 1e-4, differences
