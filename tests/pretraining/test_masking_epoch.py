"""The stock Trainer: other masks in each epoch, and a resumed run sees what an uninterrupted one sees."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import nn
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments

from hf_nlpnotes.models.chinesebert import ChineseBertTokenizer, DataCollatorForChineseBertMaskedLM
from hf_nlpnotes.pretraining.masking_epoch import MaskingEpoch

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
NAMES = ("input_ids", "pinyin_ids", "attention_mask", "labels")


class Recorder(nn.Module):
    """Keeps the batches that it is given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, input_ids, pinyin_ids=None, attention_mask=None, token_type_ids=None, labels=None):
        self.seen.append([tensor.clone() for tensor in (input_ids, pinyin_ids, attention_mask, labels)])
        return {"loss": self.weight**2}


class StopAt(TrainerCallback):
    """Ends the run after some steps, as a killed process would, or an epoch."""

    def __init__(self, step, epoch_only=False):
        self.step, self.epoch_only = step, epoch_only

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_epoch_stop = self.epoch_only
            control.should_training_stop = not self.epoch_only


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return ChineseBertTokenizer.from_pretrained(tiny_chinesebert_folder)


@pytest.fixture(scope="module")
def rows(tokenizer):
    """20 rows of 8 to 24 tokens in words of two."""
    rng = np.random.default_rng(0)
    result = []
    for number in range(20):
        body = rng.integers(100, 200, rng.integers(6, 23))
        ids = [tokenizer.cls_token_id, *body.tolist(), tokenizer.sep_token_id]
        words = [-1, *(np.arange(len(body)) // 2).tolist(), -1]
        result.append({"input_ids": ids, "pinyin_ids": ids, "word_ids": words, "mask_seed": number})
    return Dataset.from_list(result)


def run(tokenizer, rows, folder, *callbacks, resume=None, workers=0, persistent=False, epochs=3, callback=True):
    """The batches of a run: 7 steps an epoch, the last with a part of one, a checkpoint at every step."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=3,
        num_train_epochs=epochs,
        remove_unused_columns=False,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=persistent,
        dataloader_pin_memory=False,
        save_strategy="steps" if callbacks else "no",
        save_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
    )
    model = Recorder()
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, mlm_probability=0.4)
    callbacks = [*callbacks, MaskingEpoch(collator)] if callback else list(callbacks)
    trainer = Trainer(model, arguments, collator, rows, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return model.seen


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        for tensor, same, name in zip(batch, other, NAMES, strict=True):
            assert torch.equal(tensor, same), name


def masks_by_row(batches, tokenizer):
    """What was hidden in each row, by the row's own tokens."""
    result = {}
    for ids, _, _, labels in batches:
        for row, label in zip(ids, labels, strict=True):
            result[tuple(torch.where(label == -100, row, label).tolist())] = (label != -100).tolist()
    return result


@pytest.fixture(scope="module")
def uninterrupted(tokenizer, rows, tmp_path_factory):
    return run(tokenizer, rows, tmp_path_factory.mktemp("run"))


def test_masks_differ_between_epochs(tokenizer, uninterrupted):
    first, second, third = (masks_by_row(uninterrupted[at : at + 20], tokenizer) for at in (0, 20, 40))
    assert first.keys() == second.keys() == third.keys()
    assert len(first) == 20
    for one, other in ((first, second), (second, third), (first, third)):
        assert sum(one[key] != other[key] for key in one) > 15  # short rows may draw the same masks again


def test_without_the_callback_masks_stay(tokenizer, rows, tmp_path):
    seen = run(tokenizer, rows, tmp_path, epochs=2, callback=False)
    assert masks_by_row(seen[:20], tokenizer) == masks_by_row(seen[20:], tokenizer)


@pytest.mark.parametrize(("workers", "persistent"), [(2, False), (2, True)])
def test_workers_change_nothing(tokenizer, rows, tmp_path, uninterrupted, workers, persistent):
    assert_same(run(tokenizer, rows, tmp_path, workers=workers, persistent=persistent), uninterrupted)


@pytest.mark.parametrize(("stop", "workers"), [(3, 0), (10, 0), (10, 2), (7, 0), (14, 0)])
def test_resumed_run_sees_the_same_batches(tokenizer, rows, tmp_path, uninterrupted, stop, workers):
    """Stopped in the middle of the first and of the second epoch, and at the end of both; 20 rows are 7 steps."""
    before = run(tokenizer, rows, tmp_path, StopAt(stop), workers=workers)
    resume = str(tmp_path / f"checkpoint-{stop}")
    after = run(tokenizer, rows, tmp_path, StopAt(-1), resume=resume, workers=workers)
    assert_same(before + after, uninterrupted)


def test_epoch_that_another_callback_ends_early(tokenizer, rows, tmp_path, uninterrupted):
    seen = run(tokenizer, rows, tmp_path, StopAt(2, epoch_only=True), epochs=2)
    assert_same(seen, [*uninterrupted[:6], *uninterrupted[20:40]])


def test_columns_that_the_trainer_would_drop(tokenizer, rows, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True)
    collator = DataCollatorForChineseBertMaskedLM(tokenizer)
    trainer = Trainer(Recorder(), arguments, collator, rows, callbacks=[MaskingEpoch(collator)])
    with pytest.raises(ValueError, match="remove_unused_columns=False"):
        trainer.train()
    collator.segmenter = list  # words come from the text: nothing is lost
    MaskingEpoch(collator).on_train_begin(arguments, trainer.state, trainer.control)


def test_other_collators_are_refused(tokenizer):
    with pytest.raises(TypeError, match="DataCollatorWithPadding"):
        MaskingEpoch(DataCollatorWithPadding(tokenizer))
