"""What each of two processes does for test_frozen_trunk.py: `torchrun --nproc_per_node 2 … OUTPUT`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.append(str(Path(__file__).parent))  # pytest reads this file for doctests, and adds no folder

import torch
import torch.distributed as dist
from frozen_trunk_runs import Losses, Rows, build, train
from torch import nn

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.frozen_trunk import FeatureExtraction


def result(model: nn.Module, losses: Losses, extraction: FeatureExtraction) -> dict[str, object]:
    """What the test compares."""
    cache = extraction.trunk_cache
    rows = (cache.rows, cache.computed) if cache else (0, 0)
    return {"weights": dict(model.state_dict()), "losses": losses.seen, "rows": rows}


def main() -> None:
    """Train in every way."""
    output = Path(sys.argv[1])
    torch.set_num_threads(1)
    results: dict[str, object] = {}
    for case, cache, options in [
        ("plain", None, {"ddp_find_unused_parameters": False}),
        ("unused", None, {"ddp_find_unused_parameters": True}),
        ("memory", "memory", {}),
        ("folder", output / "states", {}),
        ("checkpointing", "memory", {CHECKPOINTING: True}),
    ]:
        model, extraction = build(), FeatureExtraction(2, cache=cache)
        losses = train(
            model, output, extraction, gradient_accumulation_steps=2, per_device_train_batch_size=2, **options
        )
        results[case] = result(model, losses, extraction)
    model, extraction = build("bert-without-dropout").double(), FeatureExtraction(2, cache="memory")
    # 24 rows: all batches are full, so that no process gets a row twice to fill one up.
    losses = train(model, output, extraction, rows=Rows(24), per_device_train_batch_size=4, optim="sgd")
    results["double"] = result(model, losses, extraction)
    torch.save({**results, "world_size": dist.get_world_size()}, output / f"rank{dist.get_rank()}.pt")
    dist.barrier()


if __name__ == "__main__":
    main()
    leave_process_group()
