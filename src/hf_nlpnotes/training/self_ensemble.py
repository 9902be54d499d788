"""Self-ensemble: the model is the average of its own parameters over the steps of one training.

Xu, Qiu, Zhou, Huang: Improving BERT Fine-Tuning via Self-Ensemble and Self-Distillation (2020, arXiv 2002.10345).
One run gives what an ensemble of several runs gives in part: parameters at neighbouring steps lie in one valley, and
their mean lies nearer to its floor than any of them. It costs a copy of what is trained (a window: K copies), and
nothing at inference.

When to use it: the score on held-out texts jumps from one evaluation to the next, the data set is small, or the
learning rate does not fall to zero. How it fails: with a rate that falls to zero the last steps hardly differ, and
there is little to gain; an average that reaches back to steps before the loss fell is worse than the last weights.
Running statistics of batch norms are not averaged.

    trainer = Trainer(..., callbacks=[SelfEnsemble(window=10, every=20)])
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from .averaging_callback import AveragingCallback
from .checkpoint_tensors import read_about
from .checkpoints import whole_folder
from .parameter_averages import RunningAverage, WindowAverage, parameters_as, require_count

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Averaging:
    """Which steps are averaged, and how.

    With `window`, the last K; with `decay`, an exponential average; with neither, the mean of all from `start` on.

    Attributes:
        window: K, at least 1. Takes K copies of what is trained.
        decay: Of an exponential average, such as 0.99: between 0 and 1. It reaches back about 1 / (1 − decay) steps.
        start: The first step whose weights count: a number of steps from 1, or a share of the training below 1.
            Default: the first; with neither `window` nor `decay`, 0.5.
        every: Count every n-th step from `start` on. With `window=5, every=100` the window reaches back 400 steps.
        warm_up: A decay of at most (1 + n) / (10 + n) at the n-th update.
        bias_correction: Whether the first weights in an exponential average count like the others, and not as if the
            training had stood there for long.
        dtype: Of an average without window, `torch.float32` or `torch.float64`; by default the parameters' own, but
            float32 for half precision.
        device: Where averages and copies are kept, such as "cpu"; by default beside the parameters.

    Raises:
        ValueError: A value that none of this covers; it is named.
    """

    window: int | None = None
    decay: float | None = None
    start: int | float | None = None
    every: int = 1
    warm_up: bool = False
    bias_correction: bool = True
    dtype: torch.dtype | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.decay is not None:
            raise ValueError(f"give a window or a decay, not both: got window={self.window}, decay={self.decay}")
        for name in ("window", "every"):
            if getattr(self, name) is not None:
                require_count(name, getattr(self, name))
        if self.decay is not None and not 0 < self.decay < 1:
            raise ValueError(f"decay lies between 0 and 1, such as 0.99, got {self.decay!r}")
        if isinstance(self.start, float):
            if not 0 <= self.start < 1:
                raise ValueError(f"start is a step from 1 on, or a share of the training below 1, got {self.start!r}")
        elif self.start is not None:
            require_count("start", self.start)
        if self.decay is None and (self.warm_up or not self.bias_correction):
            raise ValueError("warm_up and bias_correction belong to an exponential average: give a decay")
        if self.dtype not in {None, torch.float32, torch.float64}:
            raise ValueError(f"dtype is torch.float32 or torch.float64, got {self.dtype}")
        if self.dtype is not None and self.window is not None:
            raise ValueError("a window keeps the parameters as they are and adds them up in float64: give no dtype")

    def first_step(self, max_steps: int) -> int:
        """The first step whose weights count, of a training of `max_steps`.

        Args:
            max_steps: Steps of the whole training.
        """
        start = self.start
        if start is None:
            start = 0.5 if self.window is None and self.decay is None else 1
        return max(1, math.ceil(start * max_steps)) if isinstance(start, float) else start

    def counts(self, step: int, max_steps: int) -> bool:
        """Whether the weights after the step with this number, from 1, count.

        Args:
            step: Number of the step, from 1.
            max_steps: Steps of the whole training.
        """
        first = self.first_step(max_steps)
        return step >= first and (step - first) % self.every == 0

    def new_average(self) -> WindowAverage | RunningAverage:
        """An average without values."""
        if self.window is not None:
            return WindowAverage(self.window, device=self.device)
        return RunningAverage(
            self.decay,
            warm_up=self.warm_up,
            bias_correction=self.bias_correction,
            dtype=self.dtype,
            device=self.device,
        )


class SelfEnsemble(AveragingCallback):
    """Averages what is trained, evaluates the average while training, and leaves it in the model at the end.

    While training the model keeps its own weights, so the training is that without the callback, bit for bit. Only a
    forward pass in eval mode without gradients, as of `Trainer.evaluate`, is done with the averaged ones; they are put
    in place for that one pass and taken out after it, even where it raises. So a checkpoint always holds the weights
    that are trained, and `load_best_model_at_end` chooses by the average and loads the average of the best checkpoint.

    With several processes (DDP) each keeps its own average; they are the same, bit for bit. In a checkpoint the state
    is `self_ensemble.safetensors`, as large as the averages and copies are. Where training resumes it goes on bit for
    bit, also in the middle of an epoch.

    Args:
        averaging: Which steps, and how; or give its fields by name: `SelfEnsemble(window=10)`.
        evaluate: Whether to evaluate the average while training.
        final_model: Whether the model has the average in the end, for `trainer.evaluate`, `predict`, `save_model`.
        folder: Folder of the averaged model under the `output_dir`, with the Trainer's tokenizer, written when
            training ends, whole or not at all. Default: none.
        resume_from_checkpoint: The folder that training resumes from, where it is neither in the `output_dir` nor
            given as `TrainingArguments.resume_from_checkpoint`; False to begin with nothing where it resumes.
        options: Fields of `Averaging`.

    Raises:
        ValueError: Options that do not go together; at the begin of training, weights that are spread over processes,
            or a checkpoint without the state that goes with it.
        TypeError: An option that there is not.
    """

    file = "self_ensemble.safetensors"

    def __init__(
        self,
        averaging: Averaging | None = None,
        *,
        evaluate: bool = True,
        final_model: bool = True,
        folder: str | None = None,
        resume_from_checkpoint: str | Literal[False] | None = None,
        **options: Any,
    ) -> None:
        if averaging is not None and options:
            raise ValueError(f"give an Averaging or its fields, not both: got {averaging} and {options}")
        self.averaging = averaging or Averaging(**options)
        self.evaluate = evaluate
        self.final_model = final_model
        self.folder = folder
        self._materialised: list[torch.Tensor] = []  # the average as the parameters have it, until the next update
        self._passes: list[ExitStack] = []  # forward passes under way
        super().__init__(resume_from_checkpoint)

    def _new_average(self) -> WindowAverage | RunningAverage:
        return self.averaging.new_average()

    def _options(self) -> dict[str, Any]:
        # Not the device: an average may move.
        options = {name: value for name, value in asdict(self.averaging).items() if name != "device"}
        return {**options, "dtype": None if self.averaging.dtype is None else str(self.averaging.dtype)}

    def _attach(self, model: nn.Module) -> None:
        self._materialised, self._passes = [], []
        if self.evaluate:
            self._handles.append(model.register_forward_pre_hook(self._before_pass))
            self._handles.append(model.register_forward_hook(self._after_pass, always_call=True))

    def _keeps_state(self, args: TrainingArguments) -> bool:
        return super()._keeps_state(args) or bool(args.load_best_model_at_end)

    # ------------------------------------------------------------------------------------------------------ training

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin afresh, or with the state in the checkpoint.

        Raises:
            ValueError: a folder is given, and the model has no `save_pretrained`.
        """
        if self.folder is not None and not hasattr(kwargs["model"], "save_pretrained"):
            raise ValueError(f"a {type(kwargs['model']).__name__} has no save_pretrained: give no folder")
        super().on_train_begin(args, state, control, **kwargs)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take in the weights, where the optimizer has changed them."""
        if self._was_skipped(kwargs["optimizer"]):
            return
        self._steps += 1
        if self.averaging.counts(self._steps, state.max_steps):
            self._materialised = []
            self._average.update(self._values())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the average, and leave it in the model."""
        self.detach()
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            # The Trainer has loaded the weights of its best checkpoint: the average of that one belongs to them.
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.barrier()  # the first process may still be writing it
            self._load_best(Path(state.best_model_checkpoint))
        elif not self._average.count:
            logger.warning(
                "SelfEnsemble: training ended after %d steps, before the first that counts (%d); the model keeps its"
                " last weights",
                self._steps,
                self.averaging.first_step(state.max_steps),
            )
        if self.folder is not None and args.should_save:
            with whole_folder(Path(str(args.output_dir)) / self.folder) as made:
                self.save_pretrained(made, kwargs["model"], kwargs.get("processing_class"))
        if self.final_model and self._average.count:
            for parameter, value in zip(self._values(), self._as_parameters(), strict=True):
                parameter.copy_(value)
        self._materialised = []

    def _load_best(self, checkpoint: Path) -> None:
        path = checkpoint / self.file
        if not path.is_file():
            raise ValueError(
                f"load_best_model_at_end: {checkpoint} has no {self.file}: it was written without SelfEnsemble, so"
                " what it would average is not known"
            )
        self._materialised = []
        self._read(path, read_about(path))

    # ---------------------------------------------------------------------------------------------------- evaluation

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model have the averaged weights within a block; its own where nothing was averaged yet."""
        if self._average.count:
            with parameters_as(list(self._parameters.values()), self._as_parameters()):
                yield
        else:
            yield

    def save_pretrained(self, folder: str | Path, model: Any, processing_class: Any = None) -> None:
        """Save the model with the averaged weights, and its tokenizer, as a folder for `from_pretrained`.

        Args:
            folder: The folder.
            model: The Trainer's.
            processing_class: The Trainer's tokenizer.
        """
        with self.averaged():
            model.save_pretrained(folder)
        if processing_class is not None:
            processing_class.save_pretrained(folder)

    def _before_pass(self, module: nn.Module, args: Any) -> None:
        stack = ExitStack()
        if not module.training and not torch.is_grad_enabled():
            stack.enter_context(self.averaged())
        self._passes.append(stack)

    def _after_pass(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._passes:
            self._passes.pop().close()

    def _values(self) -> list[torch.Tensor]:
        return [parameter.data for parameter in self._parameters.values()]

    @torch.inference_mode(mode=False)  # tensors made in that mode have no count of changes, which some models read
    @torch.no_grad()
    def _as_parameters(self) -> list[torch.Tensor]:
        """The average in dtype and place of the parameters, computed once after an update."""
        if not self._materialised:
            self._materialised = [
                average.to(parameter.device, parameter.dtype)
                for average, parameter in zip(self._average.average(), self._parameters.values(), strict=True)
            ]
        return self._materialised
