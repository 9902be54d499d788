"""What each of two processes does for test_distributed.py: `torchrun --nproc_per_node 2 … FOLDER OUTPUT`."""

import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from transformers import AutoTokenizer, DataCollatorForTokenClassification, Trainer, TrainingArguments

from hf_nlpnotes.models.chinesebert import ChineseBertForMaskedLM, ChineseBertForTokenClassification
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


def train(folder: Path, output: Path, batch: int, accumulation: int) -> ChineseBertForTokenClassification:
    """Train a tagger on all texts at each step, whatever the number of processes and of parts."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    random = np.random.default_rng(0)
    rows = [dict(tokenizer(text)) for text in TEXTS]
    for row in rows:
        row["labels"] = random.integers(0, 3, len(row["input_ids"])).tolist()
    torch.manual_seed(0)
    model = ChineseBertForTokenClassification.from_pretrained(
        folder, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    torch.nn.init.normal_(model.classifier.weight)
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=3,
        learning_rate=0.1,
        optim="sgd",
        max_grad_norm=0.5,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, DataCollatorForTokenClassification(tokenizer), rows)
    trainer.train()
    return model


def sharded(folder: Path, head: type, embeddings: bool) -> dict[str, float]:
    """Train and infer with weights sharded by FSDP2, beside the whole model; return the largest differences.

    The masked LM's embeddings stay with the root, since its head shares their weight.
    """
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(0)
    whole = head.from_pretrained(folder, **options)
    model = head.from_pretrained(folder, **options)
    model.load_state_dict(whole.state_dict())
    mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
    for module in (*model.bert.encoder.layer, *([model.bert.embeddings] if embeddings else []), model):
        fully_shard(module, mesh=mesh)
    inputs = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    labels = inputs["input_ids"] % whole.config.num_labels
    differences = {}
    for step in range(3):
        with torch.no_grad():
            gap = (model(**inputs).logits - whole(**inputs).logits).abs().max()
        differences[f"{head.__name__}, logits {step}"] = gap.item()
        for network in (whole, model):
            network.train()
            network(**inputs, labels=labels).loss.backward()
            torch.optim.SGD(network.parameters(), lr=0.1).step()
            network.zero_grad()  # before the next forward, which puts whole weights in place of the sharded ones
            network.eval()
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    if dist.get_rank() == 0:
        for name, tensor in whole.state_dict().items():
            differences[f"{head.__name__}, {name}"] = (state[name].float() - tensor.float()).abs().max().item()
    return differences


def main() -> None:
    """Run both and write what the test compares."""
    folder, output = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    model = train(folder, output, batch=2, accumulation=2)
    torch.save(model.state_dict(), output / f"rank{dist.get_rank()}.pt")
    differences = sharded(folder, ChineseBertForMaskedLM, embeddings=False)
    differences |= sharded(folder, ChineseBertForTokenClassification, embeddings=True)
    result = {"world_size": dist.get_world_size(), "sharded": differences}
    if dist.get_rank() == 0:
        torch.save(result, output / "result.pt")
    dist.barrier()


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
    leave_process_group()
