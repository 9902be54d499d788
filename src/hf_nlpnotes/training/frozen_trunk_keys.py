"""What a state of a frozen trunk depends on: its row of the batch, and a fingerprint of all the rest."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from torch import Tensor, nn

_LAYOUT = "1"  # raise it when stored states would mean something else
# Arguments for the loss and the form of the output, which heads hand to the encoder with all others.
_NOT_FOR_LAYERS = {"labels", "num_items_in_batch", "return_dict"}
# Not read by the layers; they differ from task to task on one encoder.
_OF_THE_TASK = {"_name_or_path", "architectures", "id2label", "label2id", "problem_type", "transformers_version"}


@dataclass(frozen=True)
class EncoderCall:
    """The arguments of one forward of the encoder.

    Attributes:
        values: Every argument by its name.
        rows: Names of the tensors with a row an example, of at least two dimensions.
        batch: Number of rows.
    """

    values: Mapping[str, Any]
    rows: tuple[str, ...]
    batch: int

    def select(self, index: Tensor | Sequence[int]) -> dict[str, Any]:
        """Return the arguments with these rows of the batch, in this order."""
        index = torch.as_tensor(index)
        return {
            name: value[index.to(value.device)] if name in self.rows else value for name, value in self.values.items()
        }

    def real_positions(self) -> Tensor:
        """Return the mask of positions that are no padding, (batch, length), on the CPU.

        Raises:
            ValueError: The attention mask is not of shape (batch, length).
        """
        mask = self.values.get("attention_mask")
        if mask is None:
            first = self.values[self.rows[0]]
            return torch.ones(first.shape[:2], dtype=torch.bool)
        if mask.dim() != 2:
            raise ValueError(
                f"attention_mask has the shape {tuple(mask.shape)}: states without their padding (exact=False) need "
                "(batch, length). Pass such a mask, or take exact=True"
            )
        real: Tensor = mask.detach().to("cpu", torch.bool)
        return real


def encoder_call(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> EncoderCall:
    """Name the arguments of a forward and see that states can be kept for them.

    Raises:
        ValueError: The model is asked for states or attentions of all layers, or an argument is a cache or needs
            gradients.
    """
    signature = inspect.signature(forward)
    values: dict[str, Any] = {}
    for name, value in signature.bind_partial(*args, **kwargs).arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            values.update(value)
        else:
            values[name] = value
    for name in ("output_hidden_states", "output_attentions"):
        if values.get(name):
            raise ValueError(
                f"{name} asks for what the frozen layers give, but the cache skips them. Train without cache"
            )
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    for name, value in values.items():
        if isinstance(value, Tensor) and value.requires_grad:
            raise ValueError(
                f"{name} needs gradients through the frozen layers, but the cache skips them. Train without cache"
            )
        if not isinstance(value, Tensor | bool | int | float | str | None):
            raise ValueError(f"the cache cannot tell two {type(value).__name__} apart ({name}). Train without cache")
    main = next((tensors[name] for name in ("input_ids", "inputs_embeds") if name in tensors), None)
    if main is None:
        main = next((value for value in tensors.values() if value.dim() >= 2), None)
    if main is None or main.dim() < 2:
        raise ValueError(f"no input with a row an example among {sorted(values)}. Train without cache")
    batch = main.shape[0]
    rows = tuple(
        name
        for name, value in tensors.items()
        if value.dim() >= 2 and value.shape[0] == batch and name not in _NOT_FOR_LAYERS
    )
    rows = tuple(sorted(rows, key=lambda name: tensors[name] is not main))
    return EncoderCall(values, rows, batch)


def row_keys(call: EncoderCall, *, exact: bool) -> list[bytes]:
    """Return a key a row: equal keys, equal states.

    With `exact`, the key has all that decides which kernels run: the shape of the batch, whether any position of it
    is padding (models leave the mask out if none is), the gradient mode and autocast. Without, it has the row's own
    positions that are no padding.
    """
    common = hashlib.blake2b(repr((torch.is_grad_enabled(), torch.is_inference_mode_enabled())).encode())
    first = call.values[call.rows[0]]
    kind = first.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    common.update(repr((kind, autocast)).encode())
    mask = call.values.get("attention_mask")
    if exact:
        common.update(repr((call.batch, None if mask is None else bool((mask != 0).all()))).encode())
    for name, value in sorted(call.values.items()):
        if name not in call.rows and name not in _NOT_FOR_LAYERS:
            common.update(name.encode())
            _update(common, value) if isinstance(value, Tensor) else common.update(repr(value).encode())
    real = None if exact else call.real_positions().numpy()
    hashes = [common.copy() for _ in range(call.batch)]
    for name in sorted(call.rows):
        value = call.values[name]
        array = _as_bytes(value).reshape(call.batch, value.shape[1], -1)
        for row, digest in enumerate(hashes):
            kept = array[row] if real is None or real.shape[1] != value.shape[1] else array[row][real[row]]
            digest.update(f"{name} {value.dtype} {kept.shape}".encode())
            digest.update(np.ascontiguousarray(kept).data)
    return [digest.digest()[:16] for digest in hashes]


def fingerprint(
    encoder: nn.Module, frozen: Iterable[tuple[str, Tensor]], parts: Iterable[nn.Module], extra: str
) -> str:
    """Return a hexadecimal number of all that the states depend on besides the inputs.

    That is: the frozen tensors, the configuration, the frozen modules' options, and what decides the rounding: device,
    number of threads, precision settings, versions.

    Args:
        frozen: Names and values of the frozen parameters and buffers.
        parts: The frozen layers, for their options.
        extra: What else the caller knows to matter.
    """
    digest = hashlib.blake2b(digest_size=16)
    device = "cpu"
    for name, value in frozen:
        digest.update(name.encode())
        _update(digest, value)
        device = torch.cuda.get_device_name(value.device) if value.is_cuda else value.device.type
    config = getattr(encoder, "config", None)
    if config is not None:
        options = {name: value for name, value in config.to_dict().items() if name not in _OF_THE_TASK}
        digest.update(json.dumps(options, sort_keys=True, default=repr).encode())
        digest.update(repr(getattr(config, "_attn_implementation", None)).encode())
    for part in parts:
        digest.update(repr(part).encode())
    # These precisions show what the older `torch.set_float32_matmul_precision` and `allow_tf32` set, too. Those cannot
    # be read once a program has set one of these: torch raises.
    backends: Any = torch.backends  # mypy sees modules where torch puts objects with these attributes
    numerics = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        backends.mkldnn.enabled,
        backends.mkldnn.matmul.fp32_precision,
        backends.mkldnn.conv.fp32_precision,
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,
    )
    versions = (torch.__version__, transformers.__version__, type(encoder).__qualname__)
    digest.update(repr((_LAYOUT, device, numerics, versions, extra)).encode())
    return digest.hexdigest()


def _as_bytes(value: Tensor) -> npt.NDArray[np.uint8]:
    """Return a tensor's memory, whatever its type; numpy knows no bfloat16."""
    flat = value.detach().cpu().contiguous().reshape(-1)
    array: npt.NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return array


def _update(digest: hashlib.blake2b, value: Tensor) -> None:
    digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
    digest.update(_as_bytes(value).data)
