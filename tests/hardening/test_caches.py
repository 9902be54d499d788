"""Caches: what is damaged is made again with a warning, what cannot be written is said, and processes share them."""

import errno
import multiprocessing
import os

import pytest
import torch
from datasets import Dataset

from hf_nlpnotes.pretraining.rows import cached_rows
from hf_nlpnotes.training import frozen_trunk_store
from hf_nlpnotes.training.frozen_trunk_store import FolderStore

FORKS = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are started by fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),  # from Python 3.12 on
]
KEYS = [bytes([number]) * 16 for number in range(4)]


def state(number):
    return torch.full((number + 1, 3), float(number))


def filled(folder):
    store = FolderStore(folder)
    store.open("trunk")
    for number, key in enumerate(KEYS):
        store.put(key, state(number))
    store.sync()
    (path,) = (folder / "trunk").glob("*.safetensors")
    return path


def opened(folder):
    store = FolderStore(folder)
    store.open("trunk")
    return store


def cut(content):
    return content[: len(content) // 2]


def empty(content):
    return b""


def noise(content):
    return os.urandom(len(content))


def another_header(content):
    return content.replace(b'"ends"', b'"odds"')


@pytest.mark.parametrize("damage", [cut, empty, noise, another_header])
def test_a_damaged_file_is_set_aside_and_made_again(tmp_path, caplog, damage):
    path = filled(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    store = opened(tmp_path)
    assert "is damaged" in caplog.text
    assert str(path) in caplog.text
    assert all(store.get(key) is None for key in KEYS)
    for number, key in enumerate(KEYS):
        store.put(key, state(number))
    store.sync()
    assert path.with_name(f"{path.name}.damaged").is_file()
    caplog.clear()
    again = opened(tmp_path)
    assert all(torch.equal(again.get(key), state(number)) for number, key in enumerate(KEYS))
    assert not caplog.records


def test_a_state_with_a_wrong_bit_is_not_given(tmp_path, caplog):
    path = filled(tmp_path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.tensor(3.0).numpy().tobytes())] ^= 1  # nothing but the checksum can tell
    path.write_bytes(content)
    store = opened(tmp_path)
    assert not caplog.records
    assert torch.equal(store.get(KEYS[0]), state(0))
    assert store.get(KEYS[3]) is None
    assert "another checksum" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        {"keys": torch.zeros(2, 16, dtype=torch.uint8), "ends": torch.tensor([3, 1])},
        {"keys": torch.zeros(2, 16, dtype=torch.uint8), "ends": torch.tensor([1, 9])},
        {"keys": torch.zeros(2, 16), "ends": torch.tensor([1, 3])},
        {"keys": torch.zeros(3, 16, dtype=torch.uint8), "ends": torch.tensor([1, 3])},
    ],
)
def test_a_file_whose_parts_do_not_fit_is_set_aside(tmp_path, caplog, content):
    (tmp_path / "trunk").mkdir()
    sums = torch.zeros(2, dtype=torch.int64)
    frozen_trunk_store.save_file(
        {**content, "checksums": sums, "states": torch.zeros(3, 2)}, tmp_path / "trunk" / "a.safetensors"
    )
    assert opened(tmp_path).get(KEYS[0]) is None
    assert "do not fit" in caplog.text


def refuse(*_, **__):
    raise OSError(errno.EROFS, "Read-only file system")


def test_a_folder_that_can_only_be_read_is_read(tmp_path, monkeypatch, caplog):
    filled(tmp_path)
    monkeypatch.setattr(frozen_trunk_store, "save_file", refuse)
    monkeypatch.setattr(os, "replace", refuse)
    store = opened(tmp_path)
    assert torch.equal(store.get(KEYS[1]), state(1))
    new = bytes([9]) * 16
    store.put(new, state(5))
    store.sync()
    assert caplog.text.count("cannot be written to") == 1
    assert store.get(new) is None
    store.put(new, state(5))  # not kept: it could only fill the memory
    store.sync()
    assert store.get(new) is None
    assert caplog.text.count("cannot be written to") == 1


def test_a_folder_that_cannot_be_made_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(frozen_trunk_store.Path, "mkdir", refuse)
    store = opened(tmp_path / "absent")
    assert "cannot be written to" in caplog.text
    assert store.get(KEYS[0]) is None


def _use(folder, first, barrier, found):
    barrier.wait()
    store = opened(folder)
    for round_ in range(5):
        for number in range(first, first + 3):
            store.put(KEYS[number], state(number))
        store.sync()
        del round_
    barrier.wait()
    store.sync()
    found.put([store.get(key).tolist() for key in KEYS])


class TestTwoProcesses:
    """On one folder at the same time."""

    pytestmark = FORKS

    def test_they_see_the_same_states(self, tmp_path):
        context = multiprocessing.get_context("fork")
        barrier, found = context.Barrier(2), context.Queue()
        workers = [context.Process(target=_use, args=(tmp_path, first, barrier, found)) for first in (0, 1)]
        for worker in workers:
            worker.start()
        answers = [found.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join()
        assert answers[0] == answers[1] == [state(number).tolist() for number in range(4)]
        store = opened(tmp_path)
        assert all(torch.equal(store.get(key), state(number)) for number, key in enumerate(KEYS))

    def test_rows_are_built_once(self, tmp_path):
        context = multiprocessing.get_context("fork")
        barrier, built, found = context.Barrier(2), context.Value("i", 0), context.Queue()
        workers = [context.Process(target=_rows, args=(tmp_path, barrier, built, found)) for _ in range(2)]
        for worker in workers:
            worker.start()
        answers = [found.get(timeout=60) for _ in workers]
        for worker in workers:
            worker.join()
        assert answers == [[[1, 2, 3]]] * 2
        assert built.value == 1


def small():
    return Dataset.from_dict({"input_ids": [[1, 2, 3]]})


def _rows(folder, barrier, built, found):
    def build():
        with built.get_lock():
            built.value += 1
        return small()

    barrier.wait()
    found.put(cached_rows(folder, {"a": 1}, build)["input_ids"][:])


@pytest.mark.parametrize("name", ["dataset_info.json", "state.json", "data-00000-of-00001.arrow"])
@pytest.mark.parametrize("damage", [cut, empty, noise, None])
def test_damaged_rows_are_made_again(tmp_path, caplog, name, damage):
    cached_rows(tmp_path, {"a": 1}, small)
    (place,) = tmp_path.glob("rows-*")
    path = place / name
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    assert cached_rows(tmp_path, {"a": 1}, small)["input_ids"][:] == [[1, 2, 3]]
    assert "is damaged" in caplog.text
    caplog.clear()
    assert cached_rows(tmp_path, {"a": 1}, small)["input_ids"][:] == [[1, 2, 3]]
    assert not caplog.records
