"""Small trainings that the tests of the frozen trunk compare, in one process and in two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ConvBertConfig,
    ConvBertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertForSequenceClassification

VOCABULARY = 60
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}

MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZES)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES)),
    "electra": lambda: ElectraForSequenceClassification(ElectraConfig(**SIZES, embedding_size=16)),
    "deberta-v2": lambda: DebertaV2ForSequenceClassification(DebertaV2Config(**SIZES, **DEBERTA, conv_kernel_size=3)),
    "distilbert": lambda: DistilBertForSequenceClassification(
        DistilBertConfig(vocab_size=VOCABULARY, dim=32, n_layers=3, n_heads=2, hidden_dim=64, pad_token_id=0)
    ),
    "mpnet": lambda: MPNetForSequenceClassification(MPNetConfig(**SIZES)),
    "modernbert": lambda: ModernBertForSequenceClassification(ModernBertConfig(**SIZES, attention_dropout=0.1)),
    "convbert": lambda: ConvBertForSequenceClassification(ConvBertConfig(**SIZES, embedding_size=16)),
    "gpt2": lambda: GPT2ForSequenceClassification(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=2, n_positions=64, pad_token_id=0)
    ),
    "chinesebert": lambda: ChineseBertForSequenceClassification(ChineseBertConfig(**SIZES, pinyin_table_size=20)),
}


class Rows(Dataset):
    """Token ids of different lengths with a label, the same ones for a seed."""

    def __init__(self, count: int = 22, seed: int = 0, pinyin: bool = False) -> None:
        random = torch.Generator().manual_seed(seed)
        self.rows = []
        for _ in range(count):
            length = int(torch.randint(4, 17, (1,), generator=random))
            ids = torch.randint(5, VOCABULARY, (length,), generator=random).tolist()
            row: dict[str, Any] = {"input_ids": ids, "labels": ids[0] % 2}
            if pinyin:
                row["pinyin_ids"] = [token % 20 for token in ids]
            self.rows.append(row)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class Pad:
    """Collates rows, padded to a multiple; pads on the right, or on the left."""

    def __init__(self, multiple: int = 16, left: bool = False) -> None:
        self.multiple, self.left = multiple, left

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        length = -(-max(len(row["input_ids"]) for row in rows) // self.multiple) * self.multiple
        batch = {"labels": torch.tensor([row["labels"] for row in rows])}
        for name in [name for name in rows[0] if name != "labels"]:
            zeros = [[0] * (length - len(row[name])) for row in rows]
            pairs = zip((row[name] for row in rows), zeros, strict=True)
            batch[name] = torch.tensor([[*pad, *ids] if self.left else [*ids, *pad] for ids, pad in pairs])
        batch["attention_mask"] = (batch["input_ids"] != 0).long()
        return batch


class Losses(TrainerCallback):
    """Notes the logged losses and gradient norms, every digit of them."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, float]] = []
        self.evaluated: list[float] = []

    def on_log(self, args, state, control, logs=None, **kwargs):  # type: ignore[no-untyped-def]
        if "grad_norm" in logs:
            self.seen.append((logs["loss"], logs["grad_norm"]))
        if "eval_loss" in logs:
            self.evaluated.append(logs["eval_loss"])


def train(
    model: nn.Module,
    folder: Path,
    *callbacks: TrainerCallback,
    collator: Callable[..., Any] | None = None,
    rows: Dataset | None = None,
    resume: str | None = None,
    **options: Any,
) -> Losses:
    """Train with the stock Trainer: shuffled, with weight decay, dropout where the model has it."""
    losses = Losses()
    chosen: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 3,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 3,
        **options,
    }
    trainer = Trainer(
        model,
        TrainingArguments(**chosen),
        collator or Pad(),
        rows or Rows(pinyin=hasattr(model.config, "pinyin_table_size")),
        Rows(10, seed=1, pinyin=hasattr(model.config, "pinyin_table_size")),
        callbacks=[losses, *callbacks],
    )
    trainer.train(resume_from_checkpoint=resume)
    return losses


def build(name: str = "bert") -> nn.Module:
    """Build a model, with the same weights each time."""
    torch.manual_seed(0)
    if name == "bert-without-dropout":
        quiet = BertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        model = BertForSequenceClassification(quiet)
    else:
        model = MODELS[name]()
    # Stock heads ignore the number of items in a step, which would scale their loss under accumulation.
    model.accepts_loss_kwargs = False
    return model


def differences(first: nn.Module, second: nn.Module) -> dict[str, float]:
    """The largest difference of each tensor that is not the same to the bit."""
    pairs = zip(first.state_dict().items(), second.state_dict().values(), strict=True)
    return {name: float((a.double() - b.double()).abs().max()) for (name, a), b in pairs if not torch.equal(a, b)}
