"""How many inputs each property gets: a few, always the same ones, in the suite; as many as asked for by fuzz.py."""

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

# Read when Hypothesis first wants to write: nothing of it lands in the repository.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(Path(tempfile.gettempdir(), "hypothesis-hf-nlpnotes")))

from hypothesis import HealthCheck, settings

sys.path.append(str(Path(__file__).parent))  # where tests find hardening_inputs

INPUTS = int(os.environ.get("HF_NLPNOTES_FUZZ_INPUTS", "0"))
UNHURRIED = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("suite", max_examples=12, derandomize=True, **UNHURRIED)
settings.register_profile("fuzz", max_examples=INPUTS or 1, print_blob=True, **UNHURRIED)
settings.load_profile("fuzz" if INPUTS else "suite")


def _neighbour(path: Path) -> ModuleType:
    """A test module whose builders are used here as well; test folders are no packages."""
    spec = importlib.util.spec_from_file_location(f"hardening_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def official_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random checkpoint in the official layout; the bitmaps lie beside the weights."""
    official = _neighbour(Path(__file__).parents[1] / "models" / "chinesebert" / "test_convert_chinesebert.py")
    folder = tmp_path_factory.mktemp("official")
    state = official.random_state(official.masked_lm_weights())
    bitmaps = state.pop(official.GLYPHS).reshape(len(official.TOKENS), official.FONTS, 24, 24).numpy()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    config = {
        "architectures": ["GlyceBertForMaskedLM"],
        "hidden_act": "gelu",
        "hidden_size": official.HIDDEN,
        "intermediate_size": official.FEED_FORWARD,
        "max_position_embeddings": official.POSITIONS,
        "model_type": "bert",
        "num_attention_heads": official.HEADS,
        "num_hidden_layers": official.LAYERS,
        "vocab_size": len(official.TOKENS),
    }
    (folder / "config").mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(official.TOKENS) + "\n", encoding="utf-8")
    for name, table in official.pinyin_tables().items():
        (folder / "config" / f"{name}.json").write_text(json.dumps(table), encoding="utf-8")
    for font, name in enumerate(official.FONT_FILES):
        np.save(folder / "config" / name, bitmaps[:, font].astype(np.uint8))
    return folder
