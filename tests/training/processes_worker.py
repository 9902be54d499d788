"""Train a step on every process, leave the process group, and tell which of Gloo's threads run before and after."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from hf_nlpnotes.training import leave_process_group

GLOO = ("pt_gloo_runloop", "gloo_tcp_loop")


def gloo_threads() -> list[str]:
    names = (path.read_text(encoding="utf-8").strip() for path in Path("/proc/self/task").glob("*/comm"))
    return sorted(name for name in names if name in GLOO)


def main() -> tuple[int, list[str]]:
    distributed.init_process_group("gloo")
    model: Any = DistributedDataParallel(torch.nn.Linear(3, 2))
    model.itself = [model]  # as a Trainer and its callbacks: only the collector of cycles frees it, and its group
    model(torch.ones(4, 3)).sum().backward()
    return distributed.get_rank(), gloo_threads()


if __name__ == "__main__":
    rank, during = main()
    leave_process_group()
    found = {"during": during, "after": gloo_threads(), "in a group": distributed.is_initialized()}
    (Path(sys.argv[1]) / f"rank{rank}.json").write_text(json.dumps(found), encoding="utf-8")
