"""The fused attention function taken apart: torch's own is the oracle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from hf_nlpnotes.attention.products import _Watch

GENERATOR = torch.Generator().manual_seed(0)
HIDDEN = torch.tensor([[True, True, False, False]] * 2 + [[True, False, True, True]] + [[False] * 4])


def tensors(*shape: int) -> list[torch.Tensor]:
    return [torch.randn(shape, generator=GENERATOR, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": HIDDEN},
        {"attn_mask": torch.randn(4, 4, generator=GENERATOR, dtype=torch.float64)},
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 4, 8), (3, 4, 8), (4, 8)])
def test_it_gives_what_the_fused_function_gives(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    query, key, value = tensors(*shape)
    expected = F.scaled_dot_product_attention(query, key, value, **options)
    with _Watch(["attention"]) as watch:
        found = F.scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(found, expected)
    (softmax,) = watch.found
    torch.testing.assert_close(softmax.weights @ value, expected)
    assert softmax.module == "attention"


def test_keys_that_several_queries_share() -> None:
    query, _, _ = tensors(2, 6, 4, 8)
    _, key, value = tensors(2, 3, 4, 8)
    expected = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    with _Watch(["attention"]):
        found = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(found, expected)


def test_a_gate_stands_between_weights_and_values() -> None:
    query, key, value = tensors(1, 2, 4, 8)
    with _Watch(["attention"], gate=lambda weights, batch: weights * (1 + batch)):
        found = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(found, 2 * F.scaled_dot_product_attention(query, key, value))
