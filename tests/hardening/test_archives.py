"""Files of arrays and tensors: read whole, or refused by name, and nothing in them is run."""

import pickle
import struct

import numpy as np
import pytest
import torch
from hardening_inputs import damaged, put, refused
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save as safetensors

from hf_nlpnotes.attention import AttentionMaps
from hf_nlpnotes.attention.maps import LayerAttention
from hf_nlpnotes.attention.tokens import TokenSequence
from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import GlyphFont, load_glyphs, save_glyphs
from hf_nlpnotes.models.chinesebert.official_chinesebert import read_weights
from hf_nlpnotes.prompting.soft_prompts import load_tensors, save_tensors
from hf_nlpnotes.training.checkpoint_tensors import read_about, read_tensors, write_tensors


def glyphs(path):
    save_glyphs(path, np.zeros((3, 1, 24, 24), bool), ["a", "b", "c"], [GlyphFont("f", "F", "0" * 64)])


def maps(path):
    weights = np.full((2, 3, 3), 1 / 3, np.float32)
    layers = [LayerAttention(f"layer.{i}", "encoder", weights, weights, weights, scaling=0.5) for i in range(2)]
    AttentionMaps("Model", "bert", tuple(layers), TokenSequence.of_positions(3)).save(path)


def tensors(path):
    write_tensors(path, {"a": torch.ones(2, 3)}, {"weights": "0" * 16, "steps": 3})


def soft(path):
    save_tensors({"soft_tokens": torch.ones(2, 3)}, path.parent)


def torch_bin(path):
    torch.save({"a": torch.ones(2, 3), "b": torch.arange(3)}, path)


def legacy_bin(path):
    torch.save({"a": torch.ones(2, 3)}, path, _use_new_zipfile_serialization=False)


def paddle(path):
    arrays = {"embeddings.word_embeddings.weight": np.ones((2, 3)), "names": {"a": "b"}}
    path.write_bytes(pickle.dumps(arrays, protocol=2))


def read_soft(path):
    load_tensors(path, {"soft_tokens": torch.zeros(2, 3)})


KINDS = {
    "glyphs.npz": (glyphs, load_glyphs),
    "maps.npz": (maps, AttentionMaps.load),
    "state.safetensors": (tensors, lambda path: (read_about(path), read_tensors(path))),
    "soft_prompt.safetensors": (soft, read_soft),
    "pytorch_model.bin": (torch_bin, lambda path: read_weights([path])),
    "legacy.bin": (legacy_bin, lambda path: read_weights([path])),
    "model.safetensors": (tensors, lambda path: read_weights([path])),
    "model_state.pdparams": (paddle, lambda path: read_weights([path])),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file of each kind, as bytes."""
    folder = tmp_path_factory.mktemp("whole")
    found = {}
    for name, (write, read) in KINDS.items():
        write(folder / name)
        read(folder / name)
        found[name] = (folder / name).read_bytes()
    return folder, found


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")  # torch, of a damaged version number
@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_by_name(whole, name, data):
    folder, contents = whole
    path = put(folder / "damaged", name, data.draw(damaged(contents[name])))
    refused(KINDS[name][1], path, naming=path)


class Command:
    """What runs as soon as a pickle with it is loaded."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (self.mark, "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "legacy.bin", "model_state.pdparams"])
def test_a_pickle_that_runs_something_is_refused_and_does_not_run(tmp_path, name):
    mark, path = tmp_path / "ran", tmp_path / name
    if name == "pytorch_model.bin":
        torch.save({"a": Command(str(mark))}, path)
    elif name == "legacy.bin":
        torch.save({"a": Command(str(mark))}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"a": Command(str(mark))}))
    with pytest.raises(ValueError, match=r"cannot be read"):
        read_weights([path])
    assert not mark.exists()


@pytest.mark.parametrize("read", [load_glyphs, AttentionMaps.load])
def test_arrays_of_objects_are_refused(tmp_path, read):
    mark, path = tmp_path / "ran", tmp_path / "objects.npz"
    np.savez(path, **{"header.json": np.array([Command(str(mark))]), "header": np.array([Command(str(mark))])})
    with pytest.raises(ValueError, match=r"not a (whole glyph file|file of attention maps)"):
        read(path)
    assert not mark.exists()


def test_a_header_that_promises_terabytes_is_refused(tmp_path):
    path = tmp_path / "huge.safetensors"
    text = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
    path.write_bytes(struct.pack("<Q", len(text)) + text + safetensors({"a": torch.ones(1)}))
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_weights([path])
