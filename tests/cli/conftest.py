"""What the tests of all commands share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging

import hf_nlpnotes


@pytest.fixture(autouse=True)
def quiet_libraries() -> Iterator[None]:
    """The commands turn the libraries' reports off, which is right for a process and not for the other tests."""
    verbosity, of_hub = logging.get_verbosity(), hub_logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()
    hub_logging.set_verbosity(of_hub)


@pytest.fixture
def tiny(tiny_chinesebert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny random model stands in for the embedded one."""
    monkeypatch.setattr(hf_nlpnotes, "EMBEDDED_MODEL", str(tiny_chinesebert_folder))
