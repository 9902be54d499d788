"""What each of two processes does for test_distributed_layer_selection.py: `torchrun --nproc_per_node 2 … FOLDER OUT`.

`train` is also called in one process, as the reference.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.models.layer_selection import LayerSelectionForSequenceClassification
from hf_nlpnotes.training import leave_process_group

TEXTS = ["我喜欢猫", "国足今晚出战", "股票涨跌", "北京大学老师开心", "手机芯片", "难过", "酒店服务很好", "天气真好"]


def train(
    folder: Path, output: Path, selection: str, batch: int, **options
) -> LayerSelectionForSequenceClassification:
    """Three steps of all texts each, whatever the number of processes and of parts."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [{**tokenizer(text), "labels": index % 3} for index, text in enumerate(TEXTS)]
    torch.manual_seed(0)
    model = LayerSelectionForSequenceClassification.from_encoder(
        folder,
        selection=selection,
        num_labels=3,
        classifier_dropout=0.0,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        dtype=torch.float64,
    )
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=batch,
        num_train_epochs=3,
        learning_rate=0.1,
        optim="sgd",
        max_grad_norm=0.5,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer))
    trainer.train()
    return model


# Name -> selection and options. No layer above a selection is waited for, so that DDP need not look for unused ones.
CASES = {
    "mix": ("mix", {"ddp_find_unused_parameters": False}),
    "below": ("layer:1", {"ddp_find_unused_parameters": False}),
    "accumulated": ("last:2:mix", {"gradient_accumulation_steps": 2}),
}
if "__call__" not in vars(GradientCheckpointingLayer):  # older checkpoints take in hooks, which is refused
    CASES["checkpointed"] = ("mix", {CHECKPOINTING: True})


def main() -> None:
    """Train every case and save each rank's weights."""
    folder, output = map(Path, sys.argv[1:])
    results = {}
    for name, (selection, options) in CASES.items():
        parts = options.get("gradient_accumulation_steps", 1)
        results[name] = train(folder, output, selection, batch=4 // parts, **options).state_dict()
    results["world_size"] = dist.get_world_size()
    torch.save(results, output / f"rank{dist.get_rank()}.pt")
    dist.barrier()


if __name__ == "__main__":
    main()
    leave_process_group()
