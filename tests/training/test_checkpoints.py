"""Folders appear whole or not at all, and a Trainer goes on from its last checkpoint that is whole."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

from hf_nlpnotes.training import claim_folder, is_whole, last_whole_checkpoint, whole_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_whole_folder_replaces_what_was_there(tmp_path):
    for content in ("one", "two"):
        with whole_folder(tmp_path / "model") as made:
            (made / content).write_text(content)
            assert content not in names(tmp_path / "model") if content == "two" else not (tmp_path / "model").exists()
        assert names(tmp_path / "model") == [content]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_changes_where_writing_fails(tmp_path, error):
    with whole_folder(tmp_path / "model") as made:
        (made / "weights").write_text("old")

    def write():
        with whole_folder(tmp_path / "model") as made:
            (made / "weights").write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "old"


def test_the_old_folder_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    model, rename = tmp_path / "model", os.replace
    model.mkdir()
    (model / "weights").write_text("old")

    def failing(source, target):
        if Path(target) == model and Path(source).parent == tmp_path:  # not the way back
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(PermissionError), whole_folder(model) as made:
        (made / "weights").write_text("new")
    assert names(tmp_path) == ["model"]
    assert (model / "weights").read_text() == "old"


def test_a_killed_process_leaves_no_half_of_a_folder(tmp_path):
    program = f"""
import time
from pathlib import Path
from hf_nlpnotes.training.checkpoints import whole_folder
with whole_folder({str(tmp_path / "model")!r}) as made:
    (made / "weights").write_text("half")
    Path({str(tmp_path / "began")!r}).touch()
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    while not (tmp_path / "began").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a Trainer that has written two checkpoints."""
    folder = tmp_path_factory.mktemp("run")
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=8,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=4, save_steps=2, report_to="none", use_cpu=True, disable_tqdm=True
    )
    row = {"input_ids": torch.arange(6), "labels": torch.arange(6)}
    Trainer(BertForMaskedLM(config), arguments, train_dataset=[row] * 8).train()
    return folder


def test_the_newest_whole_checkpoint(trained):
    assert last_whole_checkpoint(trained) == str(trained / "checkpoint-4")
    assert last_whole_checkpoint(trained / "absent") is None
    assert last_whole_checkpoint(trained, world_size=2) is None  # written by one process


@pytest.mark.parametrize("name", ["trainer_state.json", "rng_state.pth"])
def test_half_a_checkpoint_is_passed_over(trained, name, tmp_path):
    part = trained / "checkpoint-4" / name
    whole = part.read_bytes()
    try:
        part.unlink()
        assert last_whole_checkpoint(trained) == str(trained / "checkpoint-2")
        if name.endswith("json"):
            part.write_bytes(whole[: len(whole) // 2])
            with pytest.raises(json.JSONDecodeError):
                json.loads(part.read_text())
            assert not is_whole(trained / "checkpoint-4")
    finally:
        part.write_bytes(whole)
    assert is_whole(trained / "checkpoint-4")
    assert last_whole_checkpoint(trained) == str(trained / "checkpoint-4")


def test_a_folder_belongs_to_one_run(tmp_path):
    claim_folder(tmp_path / "run", {"steps": 10, "data": ["文.txt"]})
    claim_folder(tmp_path / "run", {"steps": "10", "data": ["文.txt"]})
    with pytest.raises(ValueError, match=r"steps was '10' and is '12'.*Take another folder"):
        claim_folder(tmp_path / "run", {"steps": 12, "data": ["文.txt"]})
    with pytest.raises(ValueError, match="data was"):
        claim_folder(tmp_path / "run", {"steps": 10})
    assert names(tmp_path / "run") == ["options.json"]
