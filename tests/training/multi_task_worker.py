"""Four tasks trained by the stock Trainer; run by torchrun, the cases that test_multi_task_distributed.py compares."""

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.training import leave_process_group
from hf_nlpnotes.training.multi_task import MultiTaskModel
from hf_nlpnotes.training.multi_task_data import MultiTaskDataset, TaskDataset, task_datasets
from hf_nlpnotes.training.multi_task_sampling import TaskSampling

TEXTS = [
    "我喜欢猫",
    "国足今晚出战",
    "股票涨跌",
    "北京大学老师开心",
    "手机芯片公司发布新电影",
    "难过",
    "酒店服务很好",
    "天气真好",
    "学生高考",
    "银行业绩",
    "价格",
    "房间干净，推荐",
]
TASKS = {
    "sentiment": (AutoModelForSequenceClassification, {"num_labels": 2}),
    "ner": (AutoModelForTokenClassification, {"id2label": {0: "O", 1: "B-PER", 2: "I-PER"}}),
    "answer": (AutoModelForQuestionAnswering, {}),
    "stars": (AutoModelForSequenceClassification, {"num_labels": 1, "problem_type": "regression"}),
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make_data(tokenizer: Any) -> dict[str, list[dict[str, Any]]]:
    random = np.random.default_rng(0)

    def rows(count: int, label: Any, **options: Any) -> list[dict[str, Any]]:
        encoded = [dict(tokenizer(text, **options)) for text in TEXTS[:count]]
        return [
            {**row, **label(sum(row["attention_mask"])), "text": text}
            for row, text in zip(encoded, TEXTS, strict=False)
        ]

    def answer(length: int) -> dict[str, int]:
        first, last = sorted(random.integers(0, length, 2).tolist())
        return {"start_positions": first, "end_positions": last}

    return {
        "sentiment": rows(12, lambda _: {"label": int(random.integers(2))}),
        # Some texts have no label at all, as where a tag belongs to what was cut off.
        "ner": rows(9, lambda n: {"labels": random.choice([-100, 0, 1, 2], n).tolist() if n > 6 else [-100] * n}),
        # Of one length: stock heads let padding have a share of the probability, so that it changes their loss.
        "answer": rows(7, answer, padding="max_length", max_length=16),
        "stars": rows(5, lambda _: {"label": float(random.normal())}),
    }


def make_model(folder: Any, dtype: torch.dtype = torch.float32, **changes: Any) -> MultiTaskModel:
    torch.manual_seed(0)
    model = MultiTaskModel.from_encoder(folder, TASKS, {"answer": 0.5, "ner": 2.0}, **{**NO_DROPOUT, **changes})
    for head in model.heads.values():
        for parameter in head.parameters():  # heads of 0.02 learn next to nothing in a few steps
            torch.nn.init.normal_(parameter, std=0.2)
    return model.to(dtype)


def make_trainer(
    folder: Any, output: Path, model: MultiTaskModel, sampling: TaskSampling | None = None, **options: Any
) -> tuple[Trainer, list[str]]:
    """A Trainer, and the list of tasks that it fills as it runs."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings: dict[str, Any] = {
        "output_dir": str(output),
        "train_sampling_strategy": "sequential",
        "num_train_epochs": 2,
        # Adam would divide gradients that are zero but for rounding by themselves.
        "optim": "sgd",
        "learning_rate": 0.05,
        "weight_decay": 0.1,
        "max_grad_norm": 0.5,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "data_seed": 7,
        "average_tokens_across_devices": True,
    }
    arguments = TrainingArguments(**{**settings, **options})
    data = make_data(tokenizer)
    trainer = Trainer(
        model,
        arguments,
        model.data_collator(tokenizer),
        MultiTaskDataset.for_trainer(data, arguments, sampling),
        eval_dataset=task_datasets(data),
        compute_metrics=model.task_metrics(
            {
                "sentiment": lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
                "answer": lambda p: {"starts": float((p.predictions[0].argmax(-1) == p.label_ids[:, 0]).mean())},
            }
        ),
    )
    trainer.remove_callback(PrinterCallback)
    seen: list[str] = []
    model.register_forward_pre_hook(
        lambda module, _, inputs: seen.append(inputs["task"]) if module.training else None, with_kwargs=True
    )
    return trainer, seen


def train(folder: Any, output: Path, dtype: torch.dtype = torch.float32, **options: Any) -> dict[str, Any]:
    """Weights, tasks, norms of gradients and figures of a training."""
    trainer, seen = make_trainer(folder, output, make_model(folder, dtype), **options)
    trainer.train()
    timed = ("_runtime", "_per_second", "_preparation_time")
    metrics = {name: value for name, value in trainer.evaluate().items() if not name.endswith(timed)}
    norms = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
    assert isinstance(trainer.model, MultiTaskModel)
    return {"weights": trainer.model.state_dict(), "tasks": seen, "norms": norms, "metrics": metrics}


CASES: dict[str, dict[str, Any]] = {
    # Four examples a step, in whatever parts and on whatever processes.
    "float64": {"dtype": torch.float64, "per_device_train_batch_size": 2},
    "float64, two parts": {
        "dtype": torch.float64,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2,
    },
    "float32": {"per_device_train_batch_size": 2},
    "checkpointing": {
        "per_device_train_batch_size": 2,
        CHECKPOINTING: True,
        "ddp_find_unused_parameters": True,
    },
    "split batches": {
        "per_device_train_batch_size": 2,
        "accelerator_config": {"split_batches": True, "use_configured_state": False},
    },
}


def refused(folder: Any, output: Path, **options: Any) -> str:
    """What is said of arguments that would fail in the middle of a training."""
    try:
        make_trainer(folder, output, make_model(folder), per_device_train_batch_size=2, **options)
    except ValueError as error:
        return str(error)
    return ""


def unchecked(folder: Any, output: Path) -> str:
    """What DistributedDataParallel says without the search for unused parameters: the negative control."""
    trainer, _ = make_trainer(folder, output, make_model(folder), per_device_train_batch_size=2)
    trainer.accelerator.ddp_handler.find_unused_parameters = False
    try:
        trainer.train()
    except RuntimeError as error:
        return str(error)
    return ""


def main() -> None:
    warnings.simplefilter("ignore")
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    results: dict[str, Any] = {name: train(folder, output / name, **options) for name, options in CASES.items()}

    # Dropout on, interrupted in the middle of the second epoch.
    plan = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "save_strategy": "steps"}
    plan |= {"save_steps": 11, "max_steps": 14, "optim": "adamw_torch", "learning_rate": 3e-3}
    trainer, _ = make_trainer(folder, output / "resume", make_model(folder, hidden_dropout_prob=0.3), **plan)
    trainer.train()
    results["whole"] = trainer.model.state_dict()
    torch.manual_seed(99)
    trainer, _ = make_trainer(folder, output / "resume", make_model(folder, hidden_dropout_prob=0.3), **plan)
    trainer.train(resume_from_checkpoint=str(output / "resume" / "checkpoint-11"))
    results["resumed"] = trainer.model.state_dict()

    results["world_size"] = dist.get_world_size()
    results["refused"] = {
        "unused": refused(folder, output / "refused", ddp_find_unused_parameters=False),
        "checkpointing": refused(folder, output / "refused", **{CHECKPOINTING: True}),
        "static": refused(folder, output / "refused", ddp_static_graph=True),
    }
    rank = dist.get_rank()
    results["unchecked"] = unchecked(folder, output / "unchecked")
    torch.save(results, output / f"rank{rank}.pt")


__all__ = ["CASES", "TASKS", "TaskDataset", "make_data", "make_model", "make_trainer", "train"]

if __name__ == "__main__":
    main()
    leave_process_group()
