"""The hub of these tests, and what two processes did with it: one that has the package, and one that cannot import it.

The address of the hub is read when huggingface_hub is imported, and this process is offline: hence processes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # where tests find fake_hub

from fake_hub import TOKEN, FakeHub, running_hub

collect_ignore = ["elsewhere_worker.py", "pushing_worker.py"]  # programs: importing them has effects
TEXTS = ["国足今晚出战", "我喜欢猫，银行行长"]


@pytest.fixture(scope="session")
def hub() -> Iterator[FakeHub]:
    """Return the hub, with what the processes have pushed to it."""
    with running_hub() as hub:
        yield hub


def run(worker: str, hub: FakeHub, home: Path, *arguments: str) -> dict[str, Any]:
    """Run a worker as a user of `hub`; return what it reports."""
    report = home / f"{worker}.json"
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_HUB_CACHE")}
    environment |= {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home / f"{worker}-home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # its uploads speak another protocol
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "error::UserWarning", str(Path(__file__).with_name(f"{worker}.py"))]
    done = subprocess.run(
        [*command, str(report), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def pushed(hub: FakeHub, tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the results of `pushing_worker`, by the names of its cases: None, or what went wrong."""
    return run(
        "pushing_worker", hub, tmp_path_factory.mktemp("pushing"), str(tiny_chinesebert_folder), json.dumps(TEXTS)
    )


@pytest.fixture(scope="session")
def elsewhere(hub: FakeHub, pushed: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the results of `elsewhere_worker`, which loads what was pushed and has no hf_nlpnotes."""
    return run("elsewhere_worker", hub, tmp_path_factory.mktemp("elsewhere"), json.dumps(TEXTS))
