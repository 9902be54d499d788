"""Ask a model whether its loss is divided by `num_items_in_batch`: run it on one tiny example with two values of it.

Nothing of the model changes. The probe runs on a copy of its modules that shares the parameters, in evaluation mode
and without gradients: running the model itself would leave traces (BigBird switches its attention for short inputs for
good, sequence classifiers write their `problem_type` into the configuration). The states of the random number
generators are put back. Hooks that were registered on the modules run, as they do in every forward pass.
"""

import contextlib
import copy
import inspect
import random
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

# A sequence long enough for CANINE's blocks of characters.
_LENGTH = 8
_ITEMS = (2, 50)
# Two losses that differ by less are one, computed twice on an accelerator; a loss that is divided differs 25 times.
_SAME = 1e-3


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model that the Trainer asks for `accepts_loss_kwargs`: without DDP, torch.compile and PEFT."""
    model = _unwrapped_of_processes(model)
    get_base_model: Any = getattr(model, "get_base_model", None)
    base: nn.Module = model if get_base_model is None else get_base_model()
    return base


def honours_num_items(model: nn.Module, batch: Mapping[str, Any] | None = None) -> bool:
    """Return whether the model's loss changes with `num_items_in_batch`.

    Args:
        model: A model with a loss; also one that PEFT, DDP or torch.compile wrapped.
        batch: Inputs and labels for one call, on any device; made up from the configuration if None. It is needed
            where the inputs are neither tokens nor pictures, and where the labels decide about the loss
            (`problem_type` is not set and the labels are floats).

    Raises:
        ValueError: The model cannot be run on a made-up batch, or gives no loss: pass a batch.
    """
    model = _unwrapped_of_processes(model)
    name = type(unwrapped(model)).__name__
    parameters = list(model.parameters())
    if any(parameter.is_meta for parameter in parameters):
        raise ValueError(f"{name} is on the meta device and has no values to compute a loss with: load it first")
    if any(_is_sharded(parameter) for parameter in parameters):
        raise ValueError(f"{name} is sharded over processes: ask before it is wrapped")
    device = parameters[0].device if parameters else torch.device("cpu")
    try:
        with _no_traces(parameters):
            twin = _twin(model, parameters).eval()
            inputs = _on(device, batch) if batch is not None else _with_labels(twin, _inputs(twin, device))
            losses = [_loss(twin, {**inputs, "num_items_in_batch": torch.tensor(n, device=device)}) for n in _ITEMS]
    except Exception as error:  # whatever the code of any model raises on an example that is not its kind
        raise ValueError(
            f"{name} could not be asked whether it honours num_items_in_batch ({type(error).__name__}: {error}). "
            "Pass a batch of its own as batch={...}, with labels"
        ) from error
    first, second = losses
    if not (np.isfinite(losses).all() and first):
        raise ValueError(f"{name} has a loss of {first} on the probe, from which nothing can be told: pass a batch")
    return abs(first - second) > _SAME * abs(first)


def takes_labels(model: nn.Module) -> bool:
    """Whether `forward` has `labels`: without that column the Trainer counts nothing."""
    return "labels" in inspect.signature(unwrapped(model).forward).parameters


def _unwrapped_of_processes(model: nn.Module) -> nn.Module:
    while True:
        inner = getattr(model, "_orig_mod", None)  # torch.compile
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _twin(model: nn.Module, parameters: list[nn.Parameter]) -> nn.Module:
    """Return a copy of the modules and buffers with the same parameters and hooks."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in parameters}
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            shared |= {id(hook): hook for hook in hooks.values()}  # a method would bring a copy of its whole object
    return copy.deepcopy(model, shared)


def _is_sharded(parameter: torch.Tensor) -> bool:
    return hasattr(parameter, "device_mesh")


@contextlib.contextmanager
def _no_traces(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Run without gradients and warnings; put back the generators of torch, numpy and Python."""
    devices = sorted({parameter.get_device() for parameter in parameters if parameter.is_cuda})
    python_state = random.getstate()
    numpy_state = np.random.get_state()  # noqa: NPY002  (models draw from the old generator)
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002  (as above)


def _on(device: torch.device, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}


def _loss(model: nn.Module, inputs: Mapping[str, Any]) -> float:
    output = model(**inputs)
    loss = output["loss"] if isinstance(output, Mapping) else output[0]
    return float(loss.float().mean())


def _inputs(model: nn.Module, device: torch.device) -> dict[str, torch.Tensor]:
    """Return one example without labels."""
    base = unwrapped(model)
    config: Any = base.config
    known = inspect.signature(base.forward).parameters
    if "input_ids" not in known and "pixel_values" in known:
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.ones(1, config.num_channels, height, width, device=device)}
    special = {value for key, value in config.to_dict().items() if key.endswith(("_token_id", "_token_index"))}
    vocabulary = getattr(config, "vocab_size", None) or _LENGTH  # CANINE hashes whatever it gets
    plain = [token for token in range(min(vocabulary, 1000)) if token not in special][-_LENGTH:]
    ids = torch.tensor(plain, device=device).repeat(_LENGTH)[:_LENGTH].unsqueeze(0)  # (1, length)
    separator, end = (_token(config, name, vocabulary) for name in ("sep_token_id", "eos_token_id"))
    if separator is not None:
        ids[:, [2, 3, -1]] = separator  # Longformer looks for the three between question and text
    if end is not None:
        ids[:, -1] = end  # BART classifies what stands at the end of the sentence
    # Without readings a ChineseBERT would warn of inputs that are nobody's.
    inputs = {"input_ids": ids, "pinyin_ids": torch.zeros_like(ids), "attention_mask": torch.ones_like(ids)}
    if "MultipleChoice" in type(base).__name__:
        inputs = {key: value.expand(1, 2, -1) for key, value in inputs.items()}  # (1, choices, length)
    return {key: value for key, value in inputs.items() if key in known}


def _token(config: Any, name: str, vocabulary: int) -> int | None:
    token = getattr(config, name, None)
    return token if isinstance(token, int) and 0 <= token < vocabulary else None


def _with_labels(model: nn.Module, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add labels of the shape that the logits ask for."""
    known = inspect.signature(unwrapped(model).forward).parameters
    some = next(iter(inputs.values()))
    if {"start_positions", "end_positions"} <= known.keys():
        position = torch.ones(1, dtype=torch.long, device=some.device)
        return {**inputs, "start_positions": position, "end_positions": position + 1}
    output = model(**inputs)
    logits = output["logits"] if isinstance(output, Mapping) and "logits" in output else output[0]
    config: Any = unwrapped(model).config
    return {**inputs, "labels": _labels(logits, config, some.shape[-1])}


def _labels(logits: torch.Tensor, config: Any, length: int) -> torch.Tensor:
    classes = logits.shape[-1]
    if logits.dim() == 2 and classes == length != config.num_labels:  # (1, length): is the token genuine?
        return torch.ones_like(logits, dtype=torch.long)
    if logits.dim() == 3:  # (1, length, classes)
        return torch.full(logits.shape[:2], min(1, classes - 1), device=logits.device)
    problem = getattr(config, "problem_type", None)
    if problem == "multi_label_classification" or (problem == "regression" and classes > 1):
        return torch.ones_like(logits)
    if classes == 1:
        return torch.full((1,), float(logits.flatten()[0]) + 1, dtype=logits.dtype, device=logits.device)
    return torch.ones(1, dtype=torch.long, device=logits.device)
