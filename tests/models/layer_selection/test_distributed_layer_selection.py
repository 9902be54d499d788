"""Two processes on the CPU against one: the Trainer's DDP on selections of layers."""

import importlib.util
from pathlib import Path

import pytest
import torch

from hf_nlpnotes._compat import CHECKPOINTING

WORKER = Path(__file__).with_name("layer_selection_worker.py")
SPEC = importlib.util.spec_from_file_location("layer_selection_worker", WORKER)
worker = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(worker)


@pytest.fixture(scope="module")
def ranks(torchrun, tiny_chinesebert_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("two")
    torchrun(WORKER, tiny_chinesebert_folder, output)
    return [torch.load(output / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", worker.CASES)
def test_two_processes_train_as_one(ranks, name, tiny_chinesebert_folder, tmp_path):
    assert ranks[0]["world_size"] == 2
    selection, options = worker.CASES[name]
    checkpointing = {key: value for key, value in options.items() if key == CHECKPOINTING}
    alone = worker.train(tiny_chinesebert_folder, tmp_path, selection, batch=8, **checkpointing)
    before = worker.LayerSelectionForSequenceClassification.from_encoder(tiny_chinesebert_folder).state_dict()
    moved = 0
    for key, expected in alone.state_dict().items():
        assert torch.equal(ranks[0][name][key], ranks[1][name][key]), key
        torch.testing.assert_close(ranks[0][name][key], expected, rtol=0, atol=1e-12, msg=key)
        moved += key in before and "encoder" in key and not torch.equal(expected.float(), before[key].float())
    assert moved > 10
