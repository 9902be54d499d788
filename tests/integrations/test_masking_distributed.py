"""Two processes with two parts a step see the rows and masks that one process sees in one batch.

Run as a script, this file is one of the processes: `torchrun --nproc_per_node 2 … FOLDER OUTPUT`.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import distributed, nn
from transformers import Trainer, TrainingArguments

from hf_nlpnotes.models.chinesebert import ChineseBertTokenizer, DataCollatorForChineseBertMaskedLM
from hf_nlpnotes.pretraining.masking_epoch import MaskingEpoch
from hf_nlpnotes.training import leave_process_group

STEPS, ROWS = 5, 8  # steps an epoch, rows a step


class Recorder(nn.Module):
    """Keeps the rows that it is given, as tuples without padding."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, input_ids, pinyin_ids, attention_mask, labels, token_type_ids=None):
        for row, used in enumerate(attention_mask.sum(1).tolist()):
            self.seen.append(tuple(tensor[row, :used].tolist() for tensor in (input_ids, pinyin_ids, labels)))
        return {"loss": self.weight**2}


def train(folder: Path, output: Path, batch: int, accumulation: int) -> list[tuple]:
    """The rows that this process sees in two epochs, in their order."""
    tokenizer = ChineseBertTokenizer.from_pretrained(folder)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(STEPS * ROWS):
        body = rng.integers(100, 200, rng.integers(6, 23))
        ids = [tokenizer.cls_token_id, *body.tolist(), tokenizer.sep_token_id]
        words = [-1, *(np.arange(len(body)) // 2).tolist(), -1]
        rows.append({"input_ids": ids, "pinyin_ids": ids, "word_ids": words, "mask_seed": number})
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=2,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
    )
    model = Recorder()
    collator = DataCollatorForChineseBertMaskedLM(tokenizer, mlm_probability=0.4)
    Trainer(model, arguments, collator, Dataset.from_list(rows), callbacks=[MaskingEpoch(collator)]).train()
    return model.seen


@pytest.fixture(scope="module")
def two_processes(torchrun, tiny_chinesebert_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("two")
    torchrun(__file__, tiny_chinesebert_folder, output)
    return [torch.load(output / f"rank{rank}.pt") for rank in range(2)]


def test_two_processes_of_two_parts_see_the_steps_of_one(two_processes, tiny_chinesebert_folder, tmp_path):
    assert [rank["world_size"] for rank in two_processes] == [2, 2]
    alone = train(tiny_chinesebert_folder, tmp_path, batch=ROWS, accumulation=1)
    assert len(alone) == 2 * STEPS * ROWS
    shares = [rank["seen"] for rank in two_processes]
    assert [len(share) for share in shares] == [STEPS * ROWS] * 2
    for step in range(2 * STEPS):
        half = slice(step * ROWS // 2, (step + 1) * ROWS // 2)
        assert sorted(shares[0][half] + shares[1][half]) == sorted(alone[step * ROWS : (step + 1) * ROWS]), step
    whole = [sorted(alone[: STEPS * ROWS]), sorted(alone[STEPS * ROWS :])]
    assert whole[0] != whole[1]  # the second epoch has other masks


def main() -> None:
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    seen = train(folder, output, batch=ROWS // 4, accumulation=2)
    result = {"world_size": distributed.get_world_size(), "seen": seen}
    torch.save(result, output / f"rank{distributed.get_rank()}.pt")
    distributed.barrier()


if __name__ == "__main__":
    main()
    leave_process_group()
