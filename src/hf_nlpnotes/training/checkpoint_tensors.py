"""Tensors that a callback keeps in the checkpoints of the stock Trainer, one file a callback.

The Trainer keeps a callback's state in `trainer_state.json`, where tensors cannot go, and does not tell a callback
from which folder it resumes. So the file goes into the checkpoint's folder at `on_save`, under its own name only when
it is whole, and at `on_train_begin` it is looked for where checkpoints are and recognised by the weights that it was
written with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def fingerprint(tensors: Sequence[torch.Tensor]) -> str:
    """A short text that is the same for the same tensors, bit for bit, and hardly ever for others.

    A sum over each tensor's bits read as whole numbers: a hundredth of a second for 100 million parameters.
    """
    sums = [
        tensor.detach().contiguous().view(_BITS[tensor.element_size()]).sum(dtype=torch.int64).cpu()
        for tensor in tensors
    ]
    return hashlib.sha256(repr([int(total) for total in sums]).encode()).hexdigest()[:16]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what JSON can say about them into a safetensors file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(whole, temporary, metadata={"about": json.dumps(about)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_about(path: Path) -> dict[str, Any]:
    """What was said about the tensors of a file.

    Raises:
        ValueError: It is damaged, or not of this kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is damaged or no state of a callback ({error}): resume from another checkpoint"
        ) from error
    if not isinstance(about, dict):
        raise ValueError(f"{path} says {about!r} about its tensors, expected a JSON object")
    return about


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        ValueError: It is damaged.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): resume from another checkpoint") from error
    return tensors


def checkpoint_folder(args: TrainingArguments, state: TrainerState) -> Path:
    """The folder of the checkpoint that the Trainer writes at this step."""
    output, name = Path(str(args.output_dir)), f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    if state.is_hyper_param_search:
        # Each trial has a folder of its own, whose name the Trainer does not tell: it is the one just written to.
        return max(output.glob(f"*/{name}"), key=lambda folder: folder.stat().st_mtime_ns, default=output / name)
    return output / name


def find_in_checkpoint(
    name: str, weights: str, args: TrainingArguments, state: TrainerState, given: str | None = None
) -> Path:
    """The file of that name in the checkpoint that training resumes from.

    Looked for in `given`, else in `args.resume_from_checkpoint`, else in the checkpoint of this step under
    `args.output_dir`.

    Args:
        name: Of the file.
        weights: `fingerprint` of the weights as the Trainer has loaded them; the file must state the same.
        args: The Trainer's.
        state: The Trainer's, with the step that it resumes from.
        given: A checkpoint's folder.

    Raises:
        ValueError: There is no such file, or only of other weights.
    """
    folders = [given] if given else [args.resume_from_checkpoint, checkpoint_folder(args, state)]
    paths = [Path(folder) / name for folder in folders if isinstance(folder, str | Path)]
    found = [path for path in paths if path.is_file()]
    for path in found:
        if read_about(path).get("weights") == weights:
            return path
    looked = ", ".join(map(str, found or paths))
    reason = "belongs to other weights than the model has" if found else "is not there"
    raise ValueError(
        f"training resumes at step {state.global_step}, but the state that goes with it {reason}: {looked}. Give the"
        " callback the checkpoint's folder, resume_from_checkpoint=…, or False to begin with nothing; or resume from"
        f" one that has a {name} (those written while the callback was in use, with save_only_model=False, and not cut"
        " off by a kill)"
    )
