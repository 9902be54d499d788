"""The best weights of a phase, kept on disk beside the checkpoints, so that a resumed training finds them too."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from .trainable import whole

FOLDER = "best_of_phase"


class BestWeights:
    """Weights of one model at the best step of the phase that runs.

    A file is `output_dir/best_of_phase/step-N.safetensors`; every checkpoint has a link to the one that was the best
    when it was written, since a later one may have taken its place by the time the training resumes.

    Args:
        output_dir: the Trainer's.
        writes: whether this process writes files; the others must have called along, but need not see the folder.
    """

    def __init__(self, output_dir: str | os.PathLike[str], *, writes: bool) -> None:
        self._folder = Path(output_dir) / FOLDER
        self._writes = writes

    def save(self, model: nn.Module, names: Collection[str], step: int) -> None:
        """Keep the parameters with these names and the floating-point buffers, in place of what was kept before."""
        tensors = {name: whole(tensor) for name, tensor in _kept(model, names)}  # all processes gather
        if not self._writes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        place, temporary = self._place(step), self._folder / f".step-{step}.{os.getpid()}.tmp"
        try:
            save_file({name: tensor.contiguous().cpu().clone() for name, tensor in tensors.items()}, temporary)
            os.replace(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)
        for old in self._folder.glob("step-*.safetensors"):
            if old != place:
                old.unlink()

    def link_into(self, checkpoint: Path, step: int) -> None:
        """Put the weights of `step` into a checkpoint that was just written."""
        if not self._writes or not self._place(step).is_file():
            return
        target = checkpoint / FOLDER / self._place(step).name
        target.parent.mkdir(exist_ok=True)
        temporary = target.with_suffix(".tmp")
        try:
            os.link(self._place(step), temporary)
        except OSError:  # a file system without links
            shutil.copyfile(self._place(step), temporary)
        os.replace(temporary, target)

    def take_from(self, checkpoint: Path, step: int) -> None:
        """Get the weights of `step` back out of the checkpoint that the training resumes from.

        Raises:
            FileNotFoundError: neither the checkpoint nor the folder of the run has them.
        """
        if not self._writes:
            return
        source = checkpoint / FOLDER / self._place(step).name
        if source.is_file():
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = self._folder / f".step-{step}.{os.getpid()}.tmp"
            shutil.copyfile(source, temporary)
            os.replace(temporary, self._place(step))
        elif not self._place(step).is_file():
            raise FileNotFoundError(
                f"the best weights of this phase are those of step {step}, but neither {source} nor "
                f"{self._place(step)} is there: copy the folder {FOLDER} of the first run, or resume from an earlier "
                "checkpoint"
            )

    def restore(self, model: nn.Module, names: Collection[str], step: int) -> None:
        """Set the parameters with these names and the floating-point buffers to what they were at `step`."""
        kept = load_file(self._place(step)) if self._writes else {}
        for name, tensor in _kept(model, names):
            _set_everywhere(tensor, kept.get(name))

    def remove(self) -> None:
        """Delete the folder; checkpoints keep what they hold."""
        if self._writes:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _place(self, step: int) -> Path:
        return self._folder / f"step-{step}.safetensors"


def _kept(model: nn.Module, names: Collection[str]) -> Iterator[tuple[str, torch.Tensor]]:
    yield from ((name, parameter) for name, parameter in model.named_parameters() if name in names)
    yield from ((name, buffer) for name, buffer in model.named_buffers() if buffer.is_floating_point())


@torch.no_grad()
def _set_everywhere(tensor: torch.Tensor, value: torch.Tensor | None) -> None:
    """Set a tensor, whole or sharded, to the value that the first process read."""
    distributed = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    sharded = hasattr(tensor, "full_tensor")
    local = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) if value is None or sharded else tensor
    if value is not None:
        local.copy_(value)
    if distributed:
        dist.broadcast(local, src=0)
    if sharded:
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(tensor, DTensor)
        tensor.copy_(distribute_tensor(local, tensor.device_mesh, tensor.placements))
    elif local is not tensor:
        tensor.copy_(local)
