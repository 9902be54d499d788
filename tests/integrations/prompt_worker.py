"""What each of two processes does for test_prompt_distributed.py: `torchrun --nproc_per_node 2 … FOLDER OUTPUT`."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import Trainer, TrainingArguments

from hf_nlpnotes.prompting.config import PromptConfig
from hf_nlpnotes.prompting.model import PromptForSequenceClassification
from hf_nlpnotes.training import leave_process_group

PROMPT = PromptConfig(
    template={"{soft:2}{text}这是{label}评。": 2, "{label}：{text}": 1},
    verbalizer={"差评": ["差", "难过"], "好评": ["好", "满意"]},
)
TEXTS = ["酒店很好", "难过", "喜欢，开心，推荐，服务满意", "差", "干净", "房间不干净，服务差", "好", "天气真差"]


def train(folder: Path, output: Path, batch: int, accumulation: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Train on all texts at each step, whatever the number of processes and of parts; the weights and the losses."""
    torch.manual_seed(0)
    model = PromptForSequenceClassification.from_pretrained(
        folder, config=PROMPT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    data: list[Any] = [{"text": text, "label": i % 2} for i, text in enumerate(TEXTS)]
    model.calibrate(data)
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=3,
        learning_rate=0.1,
        optim="sgd",
        max_grad_norm=0.5,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, model.data_collator(), data, eval_dataset=data)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    losses.append(trainer.evaluate()["eval_loss"])
    trainer.save_model(str(output / "saved"))
    return model.state_dict(), losses


def main() -> None:
    """Train and write what the test compares."""
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    weights, losses = train(folder, output, batch=2, accumulation=2)
    rank = dist.get_rank()
    torch.save(weights, output / f"rank{rank}.pt")
    result = json.dumps({"losses": losses, "world_size": dist.get_world_size()})
    (output / f"rank{rank}.json").write_text(result, encoding="utf-8")
    dist.barrier()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
    leave_process_group()
