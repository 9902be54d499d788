"""`leave_process_group`: a process ends without threads that could abort it."""

import json
from pathlib import Path

import pytest
from torch import distributed

from hf_nlpnotes.training import leave_process_group


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc, which Linux has")
def test_no_thread_of_the_group_is_left(torchrun, tmp_path) -> None:
    torchrun(Path(__file__).with_name("processes_worker.py"), tmp_path)
    for rank in range(2):
        found = json.loads((tmp_path / f"rank{rank}.json").read_text(encoding="utf-8"))
        assert found["came"] > 0, "else this shows nothing"
        assert found["stayed"] == 0
        assert not found["in a group"]


def test_one_process_has_nothing_to_leave() -> None:
    assert not distributed.is_initialized()
    leave_process_group()
    assert not distributed.is_initialized()
