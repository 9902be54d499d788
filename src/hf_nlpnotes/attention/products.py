"""Attention of models that don't use transformers' `AttentionInterface`: the product that feeds each softmax.

While the model runs its eager attention, every call of a torch function is watched. A product of two computed tensors
is a candidate for query · key; it is followed through whatever is done to it (scaling, a bias, a mask, a change of
layout) to a softmax over its last dimension, and the weights from there to their product with the values. What was
done between product and softmax is not interpreted: it is the difference between the softmax's input and
query · key · scaling, so that the weights made anew from the record are right whatever the model does.

A softmax whose result multiplies no values (a router of experts, a head's probabilities) is not attention.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from .interface import attention_implementation
from .recording import Recorded

MASKED = -1e4
"""Scores below the product by more than this are masked, not biased: half precision has no larger range."""


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix product and what became of it.

    Attributes:
        query: `(..., queries, dim)`, the batch dimensions in the order of the product's.
        key: `(..., keys, dim)`.
        image: The product after changes of layout alone; None once it was cut, padded or mixed.
        scaling: What it was multiplied by on its way.
    """

    query: torch.Tensor
    key: torch.Tensor
    image: torch.Tensor | None
    scaling: float = 1.0


@dataclass(eq=False)
class Softmax:
    """A softmax of a product, and the values that its result multiplied."""

    module: str
    product: Product
    scores: torch.Tensor
    weights: torch.Tensor
    value: torch.Tensor | None = None
    attends: bool = field(default=False)


def record_products(model: nn.Module, forward: Callable[[], object], batch: int) -> list[Recorded]:
    """Run `forward` with eager attention and return the attention that was seen in it, in order.

    Args:
        model: The model that `forward` calls.
        forward: Runs the model once.
        batch: Number of inputs: it tells heads from inputs where a model folds them into one dimension.
    """
    with attention_implementation(model, "eager"), _running_module(model) as running, _Watch(running) as watch:
        forward()
    return [_to_record(found, batch) for found in watch.found if found.attends]


@contextmanager
def watched(model: nn.Module, gate: Callable[[torch.Tensor, int], torch.Tensor]) -> Iterator[None]:
    """Let `gate` change the weights of every attention before they multiply the values, while the block lasts.

    `gate` gets the weights, `(batch, heads, queries, keys)` or `(batch · heads, queries, keys)`, and the batch.
    """
    with attention_implementation(model, "eager"), _running_module(model) as running, _Watch(running, gate) as watch:
        sized = model.register_forward_pre_hook(watch.take_batch, with_kwargs=True)
        try:
            yield
        finally:
            sized.remove()


@contextmanager
def _running_module(model: nn.Module) -> Iterator[list[str]]:
    """Give a list whose last entry is the path of the module that is running."""
    running = [""]

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: running.append(path)

    def leave(*_: object) -> None:
        running.pop()

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path)))
        handles.append(module.register_forward_hook(leave))
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


_MATMULS = {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm, torch.Tensor.bmm}
_ADDING_MATMULS = {torch.baddbmm, torch.Tensor.baddbmm, torch.Tensor.baddbmm_}
_SOFTMAXES = {torch.softmax, torch.Tensor.softmax, F.softmax, torch.special.softmax}
_BOTH_WAYS = ("permute", "transpose", "reshape", "unsqueeze", "squeeze", "flatten", "unflatten")
_LAYOUTS = {getattr(holder, name) for holder in (torch, torch.Tensor) for name in _BOTH_WAYS}
_LAYOUTS |= {torch.Tensor.view, torch.Tensor.contiguous}
_TIMES = {
    torch.mul,
    torch.Tensor.mul,
    torch.Tensor.mul_,
    torch.Tensor.__mul__,
    torch.Tensor.__rmul__,
    torch.Tensor.__imul__,
}
_OVER = {torch.div, torch.Tensor.div, torch.Tensor.div_, torch.Tensor.__truediv__, torch.Tensor.__itruediv__}
_IN_PLACE = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__"}
_LOSES_PLACES = {torch.gather, torch.Tensor.gather, torch.index_select, torch.Tensor.index_select}
"""After these an entry no longer stands where its query and key say: relative position terms are made so."""


class _Watch(TorchFunctionMode):
    """Follows products to softmaxes, and softmaxes to products with values."""

    def __init__(self, running: list[str], gate: Callable[[torch.Tensor, int], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.running = running
        self.gate = gate
        self.thread = threading.get_ident()  # a mode sees the calls of its own thread, a hook those of all
        self.batch = 1
        self.found: list[Softmax] = []
        self.products: Any = WeakTensorKeyDictionary()  # tensor -> the Product that it comes from
        self.softmaxes: Any = WeakTensorKeyDictionary()  # tensor -> the Softmax that it comes from

    def take_batch(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note how many inputs a forward has, and forget the one before."""
        if threading.get_ident() != self.thread:
            return
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor) and value.dim()]
        self.batch = tensors[0].shape[0] if tensors else 1
        self.found.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        multiplies = func in _MATMULS or func in _ADDING_MATMULS or func is torch.einsum
        if multiplies and self.gate is not None:
            args = tuple(self._gated(arg) for arg in args)
        if args and isinstance(args[0], torch.Tensor) and _changes_in_place(func):
            self._keep_image(args[0])
        result = func(*args, **kwargs)
        if not isinstance(result, torch.Tensor) or not result.is_floating_point():
            return result
        if multiplies:
            self._multiplied(func, args, kwargs, result)
        elif func in _SOFTMAXES:
            self._softmax(args, kwargs, result)
        else:
            self._followed(func, args, kwargs, result)
        return result

    def _keep_image(self, changed: torch.Tensor) -> None:
        """Copy a product's image before the memory that it may share is written to."""
        product = self.products.get(changed)
        if product is not None and product.image is not None:
            self.products[changed] = replace(product, image=product.image.clone())

    def _gated(self, operand: Any) -> Any:
        """Return an operand of a product, gated where it is attention's weights."""
        if isinstance(operand, list | tuple):
            return type(operand)(self._gated(item) for item in operand)
        if self.gate is None or not isinstance(operand, torch.Tensor) or operand not in self.softmaxes:
            return operand
        softmax = self.softmaxes[operand]
        if softmax.attends:
            return operand
        softmax.attends = True
        return self.gate(operand, self.batch)

    def _fused(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        """Do what the fused function does, one step after the other: then there are scores and weights to see."""
        if enable_gqa:
            repeats = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
        # Our own calls are not watched, as a mode is off inside its own handler.
        product = query @ key.transpose(-1, -2)
        scaling = query.shape[-1] ** -0.5 if scale is None else scale
        scores = product * scaling
        if is_causal:
            scores = scores.masked_fill(scores.new_ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
        if attn_mask is not None:
            scores = (
                scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
            )
        weights = torch.nan_to_num(scores.softmax(-1))  # a row with nothing to look at gives zeros
        record = Product(query, key, product, scaling)
        self.found.append(Softmax(self.running[-1], record, scores, weights, value, attends=True))
        weights = weights if self.gate is None else self.gate(weights, self.batch)
        return F.dropout(weights, dropout_p) @ value

    def _multiplied(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor
    ) -> None:
        scaling = 1.0
        if func is torch.einsum:
            equation, operands = args[0], args[1:]
            operands = tuple(operands[0]) if isinstance(operands[0], list | tuple) else operands
            pair = _einsum_operands(equation, operands) if isinstance(equation, str) and len(operands) == 2 else None
        elif func in _ADDING_MATMULS:
            operands = args[1:3] or (kwargs["batch1"], kwargs["batch2"])
            pair = (operands[0], operands[1].transpose(-1, -2))
            scaling = float(kwargs.get("alpha", 1))
        else:
            operands = (*args, *kwargs.values())[:2]
            pair = (operands[0], operands[1].transpose(-1, -2)) if min(o.dim() for o in operands) >= 2 else None
        for place, operand in enumerate(operands):
            softmax = self.softmaxes.get(operand)
            if softmax is not None:
                softmax.attends = True
                softmax.value = operands[1 - place].detach()
                return
        if pair is None or any(isinstance(operand, nn.Parameter) for operand in operands):
            return
        query, key = (operand.detach() for operand in pair)
        if query.dim() == key.dim() >= 3:
            image = query @ key.transpose(-1, -2) if func in _ADDING_MATMULS else result.detach()
            self.products[result] = Product(query, key, image, scaling)

    def _softmax(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> None:
        scores = kwargs.get("input", args[0] if args else None)
        product = self.products.get(scores) if isinstance(scores, torch.Tensor) else None
        if product is None or not isinstance(scores, torch.Tensor):
            return
        softmax = Softmax(self.running[-1], product, scores.detach(), result.detach())
        self.found.append(softmax)
        self.softmaxes[result] = softmax

    def _followed(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor
    ) -> None:
        """Pass on what the first tensor with a history comes from to the result."""
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        for tensor in tensors:
            if tensor in self.softmaxes and result.numel() == tensor.numel():
                self.softmaxes[result] = self.softmaxes[tensor]
                return
        if func in _LOSES_PLACES:
            return
        for tensor in tensors:
            product = self.products.get(tensor)
            if product is not None and result.dim() >= 3:
                self.products[result] = _changed(product, tensor, func, args, kwargs, result)
                return


def _changes_in_place(func: Callable[..., Any]) -> bool:
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE


def _changed(
    product: Product,
    before: torch.Tensor,
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    after: torch.Tensor,
) -> Product:
    """Return a product after `func`: its layout and its factor follow, everything else is found at the softmax."""
    image, scaling = product.image, product.scaling
    if image is not None and func in _LAYOUTS and image.shape == before.shape:
        image = func(image, *args[1:], **kwargs)
    elif image is not None and image.shape != after.shape:
        image = None
    if func in _TIMES or func in _OVER:
        others = [value for value in args if not (isinstance(value, torch.Tensor) and value.numel() > 1)]
        if len(others) == 1:
            scaling = scaling * float(others[0]) if func in _TIMES else scaling / float(others[0])
    return Product(product.query, product.key, image, scaling)


def _einsum_operands(equation: str, operands: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return an einsum's two operands laid out as of a matrix product, or None if it is not one.

    "ibnd,jbnd->bnij": what both operands and the result have (b, n) comes first, in the result's order; then what only
    one operand and the result have (i, j); then what both have and is summed over (d).
    """
    left, arrow, output = equation.replace(" ", "").partition("->")
    names = left.split(",")
    if not arrow or "." in equation or len(names) != 2 or any(len(set(n)) < len(n) for n in (*names, output)):
        return None
    shared = [letter for letter in output if letter in names[0] and letter in names[1]]
    summed = [letter for letter in names[0] if letter in names[1] and letter not in output]
    own = [[letter for letter in name if letter in output and letter not in shared] for name in names]
    if len(summed) != 1 or any(len(letters) != 1 for letters in own):
        return None
    order = [[*shared, *letters, *summed] for letters in own]
    laid = [op.permute([name.index(c) for c in o]) for op, name, o in zip(operands, names, order, strict=True)]
    rows_first = output.index(own[0][0]) < output.index(own[1][0])
    return (laid[0], laid[1]) if rows_first else (laid[1], laid[0])


def _to_record(found: Softmax, batch: int) -> Recorded:
    """Return a softmax as a record, `(batch, heads, queries, keys)`."""
    weights, scores = (_with_heads(tensor, batch) for tensor in (found.weights, found.scores))
    value = None if found.value is None else _aligned(found.value, weights, found.value.shape[-1])
    product = found.product
    query, key = (_batched(tensor, weights) for tensor in (product.query, product.key))
    if (
        product.image is None
        or query is None
        or key is None
        or scores.shape[-1] != key.shape[-2]
        or scores.shape[-2] != query.shape[-2]
    ):
        return Recorded(found.module, weights, value=value)
    products = query @ key.transpose(-1, -2)
    image = _with_heads(product.image, batch)
    if image.shape != products.shape or _far_apart(image, products):
        return Recorded(found.module, weights, value=value)
    rest = scores.float() - products.float() * product.scaling
    masked = rest < MASKED
    mask = rest.masked_fill(~masked, 0) if bool(masked.any()) else None
    bias = rest.masked_fill(masked, 0)
    small = 1e-5 * (1 + float(products.abs().max()) * abs(product.scaling))
    return Recorded(
        found.module,
        weights,
        query,
        key,
        value,
        product.scaling,
        mask,
        None if float(bias.abs().max()) < small else bias,
    )


def _far_apart(first: torch.Tensor, second: torch.Tensor) -> bool:
    return bool((first - second).abs_().max() > 1e-4 * (1 + second.abs().max()))


def _with_heads(tensor: torch.Tensor, batch: int) -> torch.Tensor:
    """Return `(batch · heads, queries, keys)` as `(batch, heads, queries, keys)`."""
    return tensor.unflatten(0, (batch, -1)) if tensor.dim() == 3 else tensor


def _batched(operand: torch.Tensor, weights: torch.Tensor) -> torch.Tensor | None:
    """Return an operand of a product with the batch dimensions of the weights, None where they don't fit."""
    leading = weights.shape[:-2]
    if operand.shape[:-2] == leading:
        return operand
    if operand.shape[:-2].numel() == leading.numel():
        return operand.reshape(*leading, *operand.shape[-2:])
    try:
        return operand.expand(*leading, *operand.shape[-2:])
    except RuntimeError:
        return None


def _aligned(value: torch.Tensor, weights: torch.Tensor, width: int) -> torch.Tensor | None:
    """Return the values as `(batch, heads, keys, value_dim)`, None where their layout does not tell."""
    shape = torch.Size((*weights.shape[:-2], weights.shape[-1], width))
    return value.reshape(shape) if value.numel() == shape.numel() and value.shape[-2] == shape[-2] else None
