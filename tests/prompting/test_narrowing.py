"""The end of the last layer runs at the masks only; that the scores stay is tested with every architecture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.prompting.narrowing import candidates
from hf_nlpnotes.prompting.predictions import mask_logits, predict_masks

SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


def bert(**options: Any) -> Any:
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(**{**SIZES, **options})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
    return model


def batch(length: int = 12) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Three rows, of which the last is padded, and two masks of each."""
    ids = torch.randint(5, 60, (3, length), generator=torch.Generator().manual_seed(0))
    seen = torch.ones_like(ids)
    seen[2, 7:] = 0
    return {"input_ids": ids, "attention_mask": seen}, torch.tensor([[1, 2], [9, 3], [4, 5]])


@contextmanager
def lengths(*modules: nn.Module) -> Iterator[list[int]]:
    """How many positions each module is given, call by call."""
    seen: list[int] = []
    hooks = [one.register_forward_pre_hook(lambda _m, args: seen.append(args[0].shape[1])) for one in modules]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def stock(model: Any) -> torch.Tensor:
    inputs, positions = batch()
    return model(**inputs).logits[torch.arange(3)[:, None], positions]


@torch.no_grad()
def narrowed(model: Any) -> torch.Tensor:
    inputs, positions = batch()
    return predict_masks(model, inputs, positions).logits_of(torch.arange(60))


def test_the_feed_forward_part_of_the_last_layer_sees_the_masks_only() -> None:
    model = bert()
    assert torch.allclose(narrowed(model), stock(model), atol=1e-5)
    layers = model.bert.encoder.layer
    with lengths(layers[-2].intermediate, layers[-1].attention.self, layers[-1].intermediate) as seen:
        narrowed(model)
    assert seen == [12, 12, 2]
    with torch.no_grad(), lengths(layers[-1].intermediate) as seen:
        mask_logits(model, *batch())
    assert seen == [2]
    with torch.no_grad(), lengths(layers[-1].intermediate) as seen:
        model(**batch()[0])  # the model by itself is as it was
    assert seen == [12]


def test_training_runs_in_full() -> None:
    """A layer may be run again for its gradients, when nothing is narrowed any more."""
    model = bert()
    narrowed(model)
    model.train()
    getattr(model, f"{CHECKPOINTING}_enable")()
    inputs, positions = batch()
    with lengths(model.bert.encoder.layer[-1].intermediate) as seen:
        predict_masks(model, inputs, positions).logits_of(torch.arange(60)).sum().backward()
    assert set(seen) == {12}


def test_layers_that_come_or_go() -> None:
    model = bert()
    narrowed(model)
    layers = model.bert.encoder.layer
    layers.append(bert().bert.encoder.layer[0])
    assert torch.allclose(narrowed(model), stock(model), atol=1e-5)
    model.bert.encoder.layer = layers[:2]
    assert torch.allclose(narrowed(model), stock(model), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "expected"), [(bert(chunk_size_feed_forward=2), [2] * 6), (bert().to(torch.bfloat16), [12])]
)
def test_models_that_are_left_alone(model: Any, expected: list[int]) -> None:
    found = narrowed(model)
    assert torch.allclose(found, stock(model).float(), atol=0.1 if model.dtype == torch.bfloat16 else 1e-5)
    with lengths(model.bert.encoder.layer[-1].intermediate) as seen:
        narrowed(model)
    assert seen == expected


def test_a_residual_connection_around_the_place() -> None:
    config = ModernBertConfig(**SIZES, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
    model = ModernBertForMaskedLM(config).eval()
    assert torch.allclose(narrowed(model), stock(model), atol=1e-5)
    with lengths(model.model.layers[-1].mlp) as seen:
        narrowed(model)
    assert seen == [12]


def test_shared_layers_have_no_place() -> None:
    layer = nn.Linear(3, 3)
    stack = nn.ModuleList([layer, layer])
    assert candidates(stack, lambda: [one(torch.zeros(1, 3)) for one in stack]) == []
