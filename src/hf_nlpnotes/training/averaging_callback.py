"""What self-ensemble and self-distillation share: an average of what is trained, kept in the checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .checkpoint_tensors import (
    checkpoint_folder,
    find_in_checkpoint,
    fingerprint,
    read_about,
    read_tensors,
    write_tensors,
)
from .loss_scaling import warn_of_wrong_loss_scaling
from .parameter_averages import RunningAverage, WindowAverage


def trained_parameters(model: nn.Module, optimizer: Any) -> dict[str, nn.Parameter]:
    """The parameters of `model` that the optimizer holds, by name.

    Not those that require gradients now: callbacks that freeze and unfreeze change that, the optimizer stays.

    Raises:
        ValueError: There are none, or they are parts of weights that are spread over processes.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    found = {name: parameter for name, parameter in model.named_parameters() if id(parameter) in held}
    if not found:
        raise ValueError("the optimizer holds no parameter of the model: there is nothing to average")
    for name, parameter in found.items():
        if type(parameter.data) is not torch.Tensor:
            raise ValueError(
                f"{name} is a {type(parameter.data).__name__}: weights spread over processes (FSDP, DeepSpeed ZeRO-3,"
                " tensor parallelism) cannot be averaged here; train with DDP or in one process"
            )
    return found


class AveragingCallback(TrainerCallback, ABC):
    """Keeps an average of the trained parameters, and its state in the checkpoints.

    Args:
        resume_from_checkpoint: The folder that training resumes from, where it is neither in the `output_dir` nor
            given as `TrainingArguments.resume_from_checkpoint`; False to begin with nothing where it resumes.
    """

    file: ClassVar[str]
    """Name of the file in a checkpoint."""

    def __init__(self, resume_from_checkpoint: str | Literal[False] | None = None) -> None:
        self.resume_from_checkpoint = resume_from_checkpoint
        self._parameters: dict[str, nn.Parameter] = {}
        self._average: WindowAverage | RunningAverage = self._new_average()
        self._steps = 0  # of the optimizer that were taken
        self._handles: list[Any] = []

    @abstractmethod
    def _new_average(self) -> WindowAverage | RunningAverage:
        """An average without values."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What must be the same where training goes on, as JSON can say it."""

    @abstractmethod
    def _attach(self, model: nn.Module) -> None:
        """Register hooks on the model, in `self._handles`."""

    def detach(self) -> None:
        """Take the hooks off the model; needed only where training was broken off and is not taken up again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin afresh, or with the state in the checkpoint."""
        name, model = type(self).__name__, kwargs["model"]
        for wrong, what in [
            (args.deepspeed, "DeepSpeed"),
            (args.fsdp, "FSDP"),
            (args.n_gpu > 1, "nn.DataParallel (start one process a GPU with torchrun)"),
        ]:
            if wrong:
                raise ValueError(f"{name} works in one process and with DDP, not with {what}")
        warn_of_wrong_loss_scaling(model, args)
        self._parameters = trained_parameters(model, kwargs["optimizer"])
        self._average, self._steps = self._new_average(), state.global_step
        if state.global_step and self.resume_from_checkpoint is not False:
            self._load(args, state, self.resume_from_checkpoint)
        self.detach()
        self._attach(model)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the state into the checkpoint that the Trainer has just written."""
        if not args.should_save or not self._keeps_state(args):
            return
        groups, numbers = self._average.state()
        tensors = {
            f"{group}/{name}": tensor
            for group, values in groups.items()
            for name, tensor in zip(self._parameters, values, strict=True)
        }
        about = {
            "options": self._options(),
            "weights": self._fingerprint(),
            "groups": list(groups),
            "numbers": numbers,
            "steps": self._steps,
        }
        write_tensors(checkpoint_folder(args, state) / self.file, tensors, about)

    def _keeps_state(self, args: TrainingArguments) -> bool:
        """Whether checkpoints need the state."""
        return not args.save_only_model

    def _fingerprint(self) -> str:
        return fingerprint(list(self._parameters.values()))

    def _load(self, args: TrainingArguments, state: TrainerState, given: str | None) -> None:
        path = find_in_checkpoint(self.file, self._fingerprint(), args, state, given)
        about = read_about(path)
        if about["options"] != self._options():
            raise ValueError(f"{path} was written with the options {about['options']}, not with {self._options()}")
        self._read(path, about)

    def _read(self, path: Path, about: dict[str, Any]) -> None:
        """Take over the state in a file."""
        tensors = read_tensors(path)
        groups = {
            group: [
                tensors[f"{group}/{name}"].to(self._average.device or parameter.device)
                for name, parameter in self._parameters.items()
            ]
            for group in about["groups"]
        }
        self._average.load(groups, about["numbers"])
        self._steps = about["steps"]

    @staticmethod
    def _was_skipped(optimizer: Any) -> bool:
        """Whether the last step of the optimizer did not happen: float16 gradients ran over."""
        return bool(getattr(optimizer, "step_was_skipped", False))
