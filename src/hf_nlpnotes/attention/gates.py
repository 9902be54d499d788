"""Gates on attention heads: each head's output times a number, while the model runs.

With gate ξ_h of head h a layer's attention is Σ_h ξ_h · Att_h (Michel et al. 2019, "Are Sixteen Heads Really Better
than One?", equation 1): ξ = 0 takes the head out, and the gradient at ξ = 1 says how much it matters.

Layers are numbered as in the maps of `capture_attention`: in the order in which they run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from .interface import AttentionCall, observed, uses_interface
from .products import watched

Gate = Callable[[int, int, int], torch.Tensor | None]
"""Gives the gates of a layer: (layer, batch, heads) -> `(heads,)` or `(batch, heads)`, or None for all ones.

They may be on any device: the layers of one model need not be on one."""


@contextmanager
def gated(model: nn.Module, gate: Gate) -> Iterator[None]:
    """Multiply the output of every head of `model` by its gate while the block lasts."""
    counter = _LayerCounter(model)

    def through_interface(call: AttentionCall) -> torch.Tensor:
        batch, heads = call.weights.shape[:2]
        gates = gate(counter.next(), batch, heads)
        if gates is None:
            return call.output
        return call.output * gates.to(call.output).reshape(-1, 1, heads, 1)  # (batch, queries, heads, dim)

    def on_weights(weights: torch.Tensor, batch: int) -> torch.Tensor:
        """Gate weights instead of outputs: it is the same, as the output is linear in them."""
        heads = weights.shape[1] if weights.dim() == 4 else weights.shape[0] // batch
        gates = gate(counter.next(), batch, heads)
        if gates is None:
            return weights
        shaped = gates.to(weights).reshape(-1, heads).expand(batch, heads)
        return weights * shaped.reshape(*weights.shape[:-2], 1, 1)

    with ExitStack() as stack:
        stack.enter_context(counter.counting())
        if uses_interface(model):
            stack.enter_context(observed(model, through_interface))
        else:
            stack.enter_context(watched(model, on_weights))
        yield


@contextmanager
def ablated(model: nn.Module, heads: Mapping[int, Iterable[int]]) -> Iterator[None]:
    """Take heads out of `model` while the block lasts: their output is zero.

        with ablated(model, {4: [3], 5: [0, 1]}):
            model(**inputs)

    Blocks may be nested, and attention captured inside is that of the model without these heads. In other threads the
    model keeps them.

    Args:
        model: A model of transformers.
        heads: Layer -> its heads to take out, numbered as in the maps of `capture_attention`.

    Raises:
        ValueError: A head does not exist, which is told when its layer runs; or a layer does not, which is told when
            the block ends, if the model ran in it.
    """
    wanted = {layer: sorted(set(numbers)) for layer, numbers in heads.items()}
    seen: set[int] = set()

    def gate(layer: int, _batch: int, count: int) -> torch.Tensor | None:
        seen.add(layer)
        if layer not in wanted:
            return None
        unknown = [head for head in wanted[layer] if not 0 <= head < count]
        if unknown:
            raise ValueError(f"layer {layer} has no head {unknown[0]}: it has {count} heads, 0 to {count - 1}")
        gates = torch.ones(count)
        gates[wanted[layer]] = 0
        return gates

    with gated(model, gate):
        yield
    if seen and wanted.keys() - seen:
        raise ValueError(f"layer {min(wanted.keys() - seen)} never ran: there are layers 0 to {max(seen)}")


class _LayerCounter:
    """Numbers the attention calls of one forward; those of other threads are not counted.

    In an encoder-decoder's generation the encoder runs once, on its own; every later forward begins with the decoder,
    whose layers go on counting from the encoder's last.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.thread = threading.get_ident()
        self.place = 0
        self.encoder_layers = 0

    def next(self) -> int:
        self.place += 1
        return self.place - 1

    @contextmanager
    def counting(self) -> Iterator[None]:
        handles = [self.model.register_forward_pre_hook(self._begin, with_kwargs=True)]
        get_encoder: Any = getattr(self.model, "get_encoder", None)
        if callable(get_encoder) and bool(getattr(self.model.config, "is_encoder_decoder", False)):
            encoder = get_encoder()
            handles.append(encoder.register_forward_pre_hook(self._begin_encoder))
            handles.append(encoder.register_forward_hook(self._end_encoder))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _begin(self, _module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == self.thread:
            self.place = self.encoder_layers if kwargs.get("encoder_outputs") is not None else 0

    def _begin_encoder(self, *_: Any) -> None:
        if threading.get_ident() == self.thread:
            self.place = 0

    def _end_encoder(self, *_: Any) -> None:
        if threading.get_ident() == self.thread:
            self.encoder_layers = self.place
