"""Train a step on every process, leave the process group, and tell how many threads came with it, and stayed."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from hf_nlpnotes.training import leave_process_group


def threads() -> set[str]:
    return {path.name for path in Path("/proc/self/task").iterdir()}


def main() -> tuple[int, set[str]]:
    before = threads()
    distributed.init_process_group("gloo")
    model: Any = DistributedDataParallel(torch.nn.Linear(3, 2))
    model.itself = [model]  # as a Trainer and its callbacks: only the collector of cycles frees it, and its group
    model(torch.ones(4, 3)).sum().backward()
    return distributed.get_rank(), threads() - before


if __name__ == "__main__":
    rank, came = main()
    leave_process_group()
    found = {"came": len(came), "stayed": len(came & threads()), "in a group": distributed.is_initialized()}
    (Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(found), encoding="utf-8")
