"""Vectors of texts from a pretrained encoder, as a numpy array: for scikit-learn, clustering, search.

features = extract_features(model, tokenizer, texts, layers=[-2, -1])
LogisticRegression().fit(features, labels)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

_POOLING = ("mean", "max", "first")


def extract_features(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str] | Sequence[tuple[str, str]],
    *,
    layers: int | Sequence[int] = -1,
    pooling: str = "mean",
    batch_size: int = 32,
    max_length: int | None = None,
) -> npt.NDArray[np.float32]:
    """Return a vector for each text.

    The model runs in evaluation mode, without gradients, where it is; its modes are as before afterwards. Texts are
    batched by length, the longest first, so that little is padding.

    Args:
        model: any encoder of transformers, with or without a head.
        tokenizer: its tokenizer.
        texts: texts, or pairs of texts.
        layers: of which layers the states are taken: 0 the embeddings, n the output of the n-th layer, -1 the last;
            several: their vectors stand one after another.
        pooling: "mean" or "max" over the positions that are no padding, "first": the first of them ([CLS]).
        batch_size: texts in a batch.
        max_length: longer texts are cut; None: what the tokenizer says.

    Returns:
        `(texts, hidden size × number of layers)`, float32, in the order of the texts.

    Raises:
        TypeError: `texts` is a single string.
        ValueError: no texts; an unknown pooling; a layer that the model does not have; a model without hidden states.

    Example:
        ```python
        model = AutoModel.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL)
        tokenizer = AutoTokenizer.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL)
        extract_features(model, tokenizer, ["很好", "很差"]).shape  # (2, hidden size)
        ```
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string: expected a sequence of texts. Pass [text]")
    if not len(texts):
        raise ValueError("texts is empty: expected at least one text")
    if pooling not in _POOLING:
        raise ValueError(f"pooling must be one of {_POOLING}, got {pooling!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    chosen = [layers] if isinstance(layers, int) else list(layers)
    if not chosen:
        raise ValueError("layers is empty: expected at least one number")
    columns = list(zip(*texts, strict=True)) if isinstance(texts[0], tuple | list) else [texts]
    encoded = tokenizer(*map(list, columns), truncation=True, max_length=max_length)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    order = sorted(range(len(texts)), key=lambda index: -lengths[index])
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            features = {name: [values[row] for row in rows] for name, values in encoded.items()}
            batch = tokenizer.pad(features, return_tensors="pt").to(device)
            pooled = _pooled_states(model, batch, chosen, pooling).cpu().numpy()
            vectors.update(zip(rows, pooled, strict=True))
    finally:
        for module, mode in modes:
            module.training = mode
    return np.stack([vectors[row] for row in range(len(texts))])


def _pooled_states(model: nn.Module, batch: Mapping[str, Tensor], layers: Sequence[int], pooling: str) -> Tensor:
    """Return the pooled states of layers side by side, (batch, layers × hidden)."""
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True, return_dict=True).get("hidden_states")
    if states is None:
        raise ValueError(f"{type(model).__name__} gives no hidden states: expected an encoder of transformers")
    for layer in layers:
        if not -len(states) <= layer < len(states):
            raise ValueError(f"layer {layer} is not one of {-len(states)} … {len(states) - 1}")
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    return torch.cat([_pooled(states[layer].float(), mask, pooling) for layer in layers], -1)


def _pooled(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool (batch, seq, hidden) over the positions of (batch, seq) that are True, to (batch, hidden)."""
    if pooling == "first":
        return states[torch.arange(len(states), device=states.device), mask.int().argmax(1)]
    if pooling == "max":
        return states.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(1)
    return (states * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
