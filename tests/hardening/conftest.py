"""How many inputs each property gets: a few, always the same ones, in the suite; as many as asked for by fuzz.py."""

import os
import sys
import tempfile
from pathlib import Path

# Read when Hypothesis first wants to write: nothing of it lands in the repository.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir(), "hypothesis-hf-nlpnotes")))

from hypothesis import HealthCheck, settings

sys.path.append(str(Path(__file__).parent))  # where tests find hardening_inputs

INPUTS = int(os.environ.get("HF_NLPNOTES_FUZZ_INPUTS", "0"))
UNHURRIED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("suite", max_examples=25, derandomize=True, **UNHURRIED)
settings.register_profile("fuzz", max_examples=INPUTS or 1, print_blob=True, **UNHURRIED)
settings.load_profile("fuzz" if INPUTS else "suite")
