"""Ways to classify that train the network: a head on [CLS] or on the mean of the tokens, or the words of a prompt.

One loop for all of them, made for small models on a CPU: bf16 autocast, batches of texts of like length, no dropout of
attention weights (which keeps the fused kernels out), one step size for the network and one for the new head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _embedded_model_tasks import Example, Task
from _embedded_model_ways import Prediction, collate, encode, masked_mean
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

from hf_nlpnotes.model_inputs import accepted_inputs, longest_input
from hf_nlpnotes.prompting import (
    PromptEncoder,
    Template,
    Verbalizer,
    group_words,
    mask_logits,
    mask_positions,
    word_scores,
)


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        epochs: passes over the training texts.
        batch_size: texts a step.
        rate: largest step size of the pretrained weights, after the warm-up.
        head_rate: that of new weights.
        warm_up: share of the steps with a growing step size; afterwards it falls to 0.
        weight_decay: of matrices; vectors have none.
        dropout: of hidden states and of the head's input.
        freeze_embeddings: leave the embeddings as they are.
    """

    epochs: int = 4
    batch_size: int = 32
    rate: float = 6e-4
    head_rate: float = 3e-3
    warm_up: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.0
    freeze_embeddings: bool = False


class StockClassifier(nn.Module):
    """The stock classification model: its head on the pooled first token."""

    def __init__(self, folder: str, labels: int, recipe: Recipe) -> None:
        super().__init__()
        self.trunk = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=labels, **_trunk_options(recipe)
        )

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits, (batch, labels)."""
        return self.trunk(**accepted_inputs(self.trunk, batch)).logits


class MeanClassifier(nn.Module):
    """A linear head on the mean of the tokens."""

    def __init__(self, folder: str, labels: int, recipe: Recipe) -> None:
        super().__init__()
        self.trunk = AutoModel.from_pretrained(folder, add_pooling_layer=False, **_trunk_options(recipe))
        self.dropout = nn.Dropout(recipe.dropout)
        self.head = nn.Linear(self.trunk.config.hidden_size, labels)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits, (batch, labels)."""
        states = self.trunk(**accepted_inputs(self.trunk, batch)).last_hidden_state
        return self.head(self.dropout(masked_mean(states.float(), batch["attention_mask"])))


class PromptClassifier(nn.Module):
    """The masked language model itself: a label is as likely as its word at the masks of the prompt.

    Nothing is new but a bias a label (all 0 at first), so that training need not first undo what the model prefers
    before it has read anything.
    """

    def __init__(self, folder: str, tokenizer: Any, task: Task, recipe: Recipe) -> None:
        super().__init__()
        self.trunk = AutoModelForMaskedLM.from_pretrained(folder, **_trunk_options(recipe))
        self.encoder = PromptEncoder(Template(task.templates[0]), tokenizer, longest_input(self.trunk, tokenizer))
        verbalizer = Verbalizer.of(dict(zip(task.labels, task.words, strict=True)))
        self.groups = group_words(verbalizer, self.encoder.word_ids)
        self.weights = verbalizer.weight_matrix().float()
        self.bias = nn.Parameter(torch.zeros(len(task.labels)))

    def encode(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        """Prompts of the texts; all label words have one length."""
        lengths = [group.num_masks for group in self.groups]
        if len(lengths) > 1:
            raise ValueError(f"The label words have {lengths} tokens: a prompt that is trained needs one length.")
        return [self.encoder.encode({"text": text}, lengths)[0] for text in texts]

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits, (batch, labels)."""
        inputs = dict(batch)
        positions, counts = mask_positions(inputs.pop("label_mask"))
        logits = mask_logits(self.trunk, accepted_inputs(self.trunk, inputs), positions)
        return word_scores(logits, counts, self.groups, len(self.weights)).centred @ self.weights + self.bias


def tune(way: str, folder: str, task: Task, recipe: Recipe, seed: int) -> Prediction:
    """Train `way`, one of "cls", "mean" and "prompt", on the task's training texts and predict."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(seed)
    if way == "prompt":
        model: Any = PromptClassifier(folder, tokenizer, task, recipe)
        parts = [model.encode([text for text, _ in part]) for part in (task.train, task.dev, task.test)]
    else:
        model = {"cls": StockClassifier, "mean": MeanClassifier}[way](folder, len(task.labels), recipe)
        limit = longest_input(model.trunk, tokenizer)
        parts = [encode(tokenizer, [text for text, _ in part], limit) for part in (task.train, task.dev, task.test)]
    fit(model, parts[0], task.train, recipe, seed)
    return Prediction(predict(model, parts[1]), predict(model, parts[2]))


def fit(
    model: Any, rows: Sequence[dict[str, list[int]]], examples: Sequence[Example], recipe: Recipe, seed: int
) -> None:
    """Train a model that gives logits, by AdamW with a step size that rises and then falls linearly."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    if recipe.freeze_embeddings:
        model.trunk.base_model.embeddings.requires_grad_(False)
    labels = torch.tensor([label for _, label in examples])
    lengths = [len(row["input_ids"]) for row in rows]
    steps = recipe.epochs * math.ceil(len(rows) / recipe.batch_size)
    optimizer = torch.optim.AdamW(_parameter_groups(model, recipe), fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, max(1, round(recipe.warm_up * steps)), steps)
    model.train()
    for _ in range(recipe.epochs):
        for places in batches(lengths, recipe.batch_size, generator):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(collate([rows[place] for place in places]))
            loss = nn.functional.cross_entropy(logits.float(), labels[places])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()


@torch.no_grad()
def predict(model: Any, rows: Sequence[dict[str, list[int]]], batch_size: int = 64) -> np.ndarray:
    """Log-probabilities, (rows, labels)."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]["input_ids"]))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(collate([rows[place] for place in part]))
        found.update(zip(part, logits.float().log_softmax(dim=1).numpy(), strict=True))
    return np.stack([found[place] for place in range(len(rows))])


def batches(lengths: Sequence[int], size: int, generator: np.random.Generator) -> list[list[int]]:
    """Every place once, in batches of texts of like length: sorted within groups of 16 batches, then shuffled."""
    order = generator.permutation(len(lengths)).tolist()
    result = []
    for start in range(0, len(order), 16 * size):
        group = sorted(order[start : start + 16 * size], key=lambda place: lengths[place])
        result += [group[first : first + size] for first in range(0, len(group), size)]
    return [result[place] for place in generator.permutation(len(result))]


def _trunk_options(recipe: Recipe) -> dict[str, Any]:
    return {
        "dtype": torch.float32,
        "attn_implementation": "eager",
        "hidden_dropout_prob": recipe.dropout,
        "attention_probs_dropout_prob": 0.0,
    }


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Pretrained and new weights, matrices and vectors: four groups."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            new = not name.startswith("trunk.") or name.startswith("trunk.classifier")
            groups.setdefault((new, parameter.dim() > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.head_rate if new else recipe.rate,
            "weight_decay": recipe.weight_decay if matrix else 0.0,
        }
        for (new, matrix), parameters in groups.items()
    ]
