"""What the tests of all commands share."""

from collections.abc import Iterator

import pytest
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging


@pytest.fixture(autouse=True)
def quiet_libraries() -> Iterator[None]:
    """The commands turn the libraries' reports off, which is right for a process and not for the other tests."""
    verbosity, of_hub = logging.get_verbosity(), hub_logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()
    hub_logging.set_verbosity(of_hub)
