"""What each of two processes does for test_training.py: `torchrun --nproc_per_node 2 … FOLDER OUTPUT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import hf_nlpnotes._compat  # noqa: F401 -- several processes of a CPU resume, with transformers 5.17 too
from hf_nlpnotes.adapters import BottleneckAdapterConfig, save_unfrozen_layers
from hf_nlpnotes.training import leave_process_group

TEXTS = [
    "我喜欢猫",
    "国足今晚出战",
    "股票涨跌",
    "北京大学老师开心",
    "手机芯片公司发布新电影",
    "难过",
    "酒店服务很好",
    "天气真好",
]
CASES = ["houlsby", "parallel", "pfeiffer with a layer", "lora with a layer"]
RESUMED = CASES[1:3]  # by two processes


def adapted(folder: Path, case: str, dropout: float) -> PeftModel:
    """A model with new adapters, in two cases with an unfrozen layer."""
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=2, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout
    )
    method = case.partition(" ")[0]
    config: Any = LoraConfig(r=2, task_type="SEQ_CLS")
    if method != "lora":
        config = BottleneckAdapterConfig(
            bottleneck_size=4, placement=method, non_linearity="gelu", init_weights=False, task_type="SEQ_CLS"
        )
    model = get_peft_model(base, config)
    if "layer" in case:
        save_unfrozen_layers(model)
        base.bert.encoder.layer[1].output.requires_grad_(True)
        base.bert.encoder.layer[1].attention.self.query.requires_grad_(True)
    return model


def train(
    folder: Path,
    output: Path,
    case: str,
    batch: int,
    dropout: float = 0.0,
    resume: Path | None = None,
    metrics: Any = None,
    **options: Any,
) -> Trainer:
    """Train six steps of two epochs on all processes; a checkpoint in the middle of the first."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [{**tokenizer(text), "labels": index % 2} for index, text in enumerate(TEXTS * 3)]
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=batch,
        num_train_epochs=2,
        learning_rate=0.5,
        lr_scheduler_type="linear",
        optim="sgd",
        optim_args="momentum=0.9",
        weight_decay=0.1,
        max_grad_norm=0.5,
        save_strategy="steps",
        save_steps=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **options,
    )
    model = adapted(folder, case, dropout)
    collator: Any = DataCollatorWithPadding(tokenizer)
    trainer = Trainer(model, arguments, collator, rows, rows[:8], compute_metrics=metrics)  # type: ignore[arg-type]
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer


def trained(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The parameters that were trained."""
    assert trainer.model is not None
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def main() -> None:
    torch.set_num_threads(1)
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    results: dict[str, Any] = {}
    for case in CASES:
        whole = train(folder, output / case, case, batch=4)
        results[case] = trained(whole)
        if case in RESUMED:
            resumed = train(folder, output / f"{case} resumed", case, batch=4, resume=output / case / "checkpoint-2")
            results[f"{case} resumed"] = trained(resumed)
    results["world_size"] = dist.get_world_size()
    torch.save(results, output / f"rank{dist.get_rank()}.pt")
    dist.barrier()


if __name__ == "__main__":
    main()
    leave_process_group()
