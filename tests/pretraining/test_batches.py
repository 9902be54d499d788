"""Batches: processes share out each window once an epoch, and a step's batch does not depend on the steps before."""

import numpy as np
import torch

from hf_nlpnotes.pretraining.batches import WindowBatches, load_stream, save_stream
from hf_nlpnotes.pretraining.packing import TokenStream

STREAM = TokenStream(np.arange(100, 1100), np.arange(1000) % 3 == 1, np.arange(1000) % 7)


def batches(**options):
    options = {"length": 12, "rows": 3, "processes": 2, "cls_token_id": 2, "sep_token_id": 3, **options}
    return WindowBatches(STREAM, **options)


def tokens(batch):
    return batch["input_ids"][:, 1:-1].flatten().tolist()


def test_an_epoch_reads_no_token_twice():
    source = batches()
    seen = [
        t for step in range(0, source.steps_per_epoch, 2) for rank in (0, 1) for t in tokens(source.batch(step, rank))
    ]
    assert len(seen) == len(set(seen))
    everything = []
    for step in range(source.steps_per_epoch):
        everything += tokens(source.batch(step, 0)) + tokens(source.batch(step, 1))
    assert len(set(everything)) == len(everything) > 0.8 * 1000


def test_rows_are_windows_with_their_words_and_readings():
    for step, shape in ((0, (3, 12)), (1, (6, 6))):
        batch = batches().batch(step, 1)
        assert {values.shape for values in batch.values()} == {shape}
        inside = batch["input_ids"][:, 1:-1]
        assert torch.equal(inside, inside[:, :1] + torch.arange(inside.shape[1]))
        assert torch.equal(batch["pinyin_ids"][:, 1:-1], (inside - 100) % 7)
        assert torch.equal(batch["continues_word"][:, 2:-1], ((inside - 100) % 3 == 1)[:, 1:])
        assert not batch["continues_word"][:, :2].any()
        assert set(batch["input_ids"][:, 0].tolist()) == {2}
        assert set(batch["input_ids"][:, -1].tolist()) == {3}


def test_epochs_and_seeds_have_other_orders():
    source = batches()
    steps = source.steps_per_epoch
    assert tokens(source.batch(0, 0)) == tokens(batches().batch(0, 0))
    assert tokens(source.batch(0, 0)) != tokens(source.batch(steps, 0))
    assert tokens(source.batch(0, 0)) != tokens(batches(seed=1).batch(0, 0))


def test_save_and_load(tmp_path):
    save_stream(STREAM, tmp_path)
    loaded = load_stream(tmp_path)
    for name in ("input_ids", "continues_word", "pinyin_ids"):
        assert np.array_equal(getattr(loaded, name), getattr(STREAM, name))
    (tmp_path / "pinyin_ids.npy").unlink()
    assert load_stream(tmp_path).pinyin_ids is None
