"""Small trainings with self-ensemble and self-distillation, for the tests beside it in one process, and for two:
`torchrun --nproc_per_node 2 averaging_worker.py OUTPUT`."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from torch import nn
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.modeling_outputs import TokenClassifierOutput

from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.self_distillation import SelfDistillation
from hf_nlpnotes.training.self_ensemble import SelfEnsemble

LENGTH = 6


class SummingTokenClassifier(BertForTokenClassification):
    """A head whose loss heeds `num_items_in_batch`."""

    def forward(self, input_ids=None, attention_mask=None, labels=None, num_items_in_batch=None, **kwargs):
        logits = super().forward(input_ids, attention_mask=attention_mask).logits
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            loss = loss / ((labels != -100).sum() if num_items_in_batch is None else num_items_in_batch)
        return TokenClassifierOutput(loss=loss, logits=logits)


TASKS = {
    "sequence": BertForSequenceClassification,
    "regression": BertForSequenceClassification,
    "token": BertForTokenClassification,
    "summing token": SummingTokenClassifier,
    "question": BertForQuestionAnswering,
}


def build(task="sequence", dropout=0.0, dtype=torch.float32, seed=0):
    """A model of two layers whose loss is scaled right."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
        num_labels={"regression": 1, "question": 2}.get(task, 3),
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    model = TASKS[task](config).to(dtype)
    if task != "summing token":
        model.accepts_loss_kwargs = False
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(5)  # so that a step shows
    return model


def data(task="sequence", number=8, dtype=torch.float32, seed=0):
    """Texts of random tokens, of unequal length, with labels."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for row in range(number):
        length = 3 + row % (LENGTH - 2)
        ids = torch.randint(1, 40, (LENGTH,), generator=generator)
        mask = (torch.arange(LENGTH) < length).long()
        rows.append({"input_ids": ids * mask, "attention_mask": mask})
        if task == "sequence":
            rows[-1]["labels"] = torch.tensor(row % 3)
        elif task == "regression":
            rows[-1]["labels"] = torch.tensor(row / number, dtype=dtype)
        elif task == "question":
            rows[-1] |= {"start_positions": torch.tensor(row % 3), "end_positions": torch.tensor(2)}
        else:
            labels = torch.randint(0, 3, (LENGTH,), generator=generator)
            rows[-1]["labels"] = labels.masked_fill(mask == 0, -100)
    return rows


class History(TrainerCallback):
    """Notes the weights before training and after each step."""

    def __init__(self):
        self.weights = []
        self.checkpoints = 0

    @staticmethod
    def now(model):
        return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(self.now(model))

    on_step_end = on_train_begin


def trainer(output, model, rows, callbacks=(), eval_rows=None, **options):
    """A Trainer with large steps of SGD with momentum and decay."""
    options = {
        "per_device_train_batch_size": 4,
        "max_steps": 7,
        "learning_rate": 0.1,
        "optim": "sgd",
        "optim_args": "momentum=0.5",
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        **options,
    }
    arguments = TrainingArguments(output_dir=str(output), **options)
    return Trainer(model, arguments, train_dataset=rows, eval_dataset=eval_rows, callbacks=list(callbacks))


def arguments():
    """What a callback reads of the Trainer's arguments, open to change."""
    return SimpleNamespace(
        deepspeed=None, fsdp=None, n_gpu=1, world_size=1, process_index=0, gradient_accumulation_steps=1,
        average_tokens_across_devices=True, label_smoothing_factor=0.0,
    )  # fmt: skip


# Name -> task, dtype, options of the teacher.
CASES = {
    "sequence": ("sequence", torch.float64, {}),
    "sequence, float32": ("sequence", torch.float32, {}),
    "regression, parameters of 3": ("regression", torch.float64, {"window": 3}),
    "items summed, logits of 2": ("summing token", torch.float64, {"window": 2, "average": "logits"}),
    "items summed, float32": ("summing token", torch.float32, {"window": 2}),
}


def train(output, case, batch, accumulation):
    """Train on all texts at each step, whatever the number of processes and of parts."""
    task, dtype, options = CASES[case]
    model = build(task, dtype=dtype)
    ensemble = SelfEnsemble(window=3, final_model=False)
    callbacks = [SelfDistillation(2.0, **options), ensemble]
    one = trainer(
        output / case.replace(" ", "-"),
        model,
        data(task, dtype=dtype),
        callbacks,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=5,
    )
    one.train()
    result = {f"model/{name}": value for name, value in History.now(model).items()}
    with ensemble.averaged():
        result |= {f"average/{name}": value for name, value in History.now(model).items()}
    return result


def main():
    """Train, also with a break, and write what the test compares."""
    output = Path(sys.argv[1])
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    for number, case in enumerate(CASES):
        torch.save(train(output, case, batch=2, accumulation=2), output / f"{number}-rank{rank}.pt")
    saved = {"save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 1}
    for name, checkpoint in (("whole", None), ("resumed", str(output / "whole" / "checkpoint-3"))):
        model = build(dropout=0.1)
        callbacks = [
            SelfDistillation(window=2, resume_from_checkpoint=checkpoint),
            SelfEnsemble(decay=0.7, resume_from_checkpoint=checkpoint),
        ]
        trainer(output / name, model, data(), callbacks, **saved).train(resume_from_checkpoint=checkpoint)
        torch.save(History.now(model), output / f"{name}-rank{rank}.pt")
    model = build()
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    options |= {"load_best_model_at_end": True, "max_steps": 3}
    trainer(output / "best", model, data(), [SelfEnsemble(window=2)], data(seed=1), **options).train()
    torch.save(History.now(model), output / f"best-rank{rank}.pt")
    if rank == 0:
        (output / "result.json").write_text(json.dumps({"world_size": dist.get_world_size()}), encoding="utf-8")
    dist.barrier()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
    leave_process_group()
