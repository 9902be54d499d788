"""Self-distillation: a model learns from the labels and from what it was a few steps ago.

Xu, Qiu, Zhou, Huang: Improving BERT Fine-Tuning via Self-Ensemble and Self-Distillation (2020, arXiv 2002.10345).
At step t the loss of parameters θₜ on a batch (x, y) is

    CE(f(x, θₜ), y) + λ · MSE(f(x, θₜ), teacher)

with logits f, and a teacher made from the parameters of the last T steps, without dropout and without gradients:

    f(x, (θₜ₋₁ + … + θₜ₋ₜ) / T)              average="parameters", the paper's SDA
    (f(x, θₜ₋₁) + … + f(x, θₜ₋ₜ)) / T        average="logits", the paper's SDV

The teacher is never trained and there is no second model: it is a copy of what is trained (T copies), put in its place
for one forward pass. At the first step, before there is a past, the teacher is the model itself without dropout.

When to use it: small data sets, where fine-tuning is unsteady. A step costs one forward pass more, for
`average="logits"` T of them. How it fails: with a λ so large that the model stays where it is; and a teacher that
reaches back to the first steps, in which the loss falls, holds the model back.

    trainer = Trainer(..., callbacks=[SelfDistillation(window=1, weight=1.0)])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from .averaging_callback import AveragingCallback
from .parameter_averages import WindowAverage, parameters_as, require_count

Logits: TypeAlias = "dict[str, torch.Tensor]"

IGNORED = -100
"""Label of positions that do not count, as in every loss of transformers."""


def squared_distance(
    student: torch.Tensor,
    teacher: torch.Tensor,
    labels: torch.Tensor | None = None,
    *,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Mean squared distance of logits over the items that the loss on labels counts, and scaled as that loss is.

    An item is an entry of `labels`: a text, a token, a number to predict. Where labels are classes, the distance of an
    item is the mean over the classes' logits; items whose label is −100 do not count.

    Args:
        student: Logits of shape `(*items, classes)`, or `(*items,)` as the labels have it.
        teacher: Of the same shape, without gradients.
        labels: Of shape `(*items,)`. Default: each row of logits is an item.
        num_items: Number of items in all parts of an accumulated batch and on all processes, as the Trainer gives it
            to models: the sum over the items here is divided by it. Default: the number of items here.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: Shapes that do not go together.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student and teacher gave logits of shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    dtype = torch.promote_types(student.dtype, torch.float32)
    difference = student.to(dtype) - teacher.to(dtype)
    entries = labels is not None and labels.shape == student.shape  # each logit is an item
    if not entries and labels is not None and labels.shape != student.shape[:-1]:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} do not fit logits of shape {tuple(student.shape)}: expected that"
            " shape, or it without its last dimension"
        )
    number: torch.Tensor | int = difference.numel() if entries else difference[..., 0].numel()
    if labels is not None and not labels.is_floating_point():
        counts = labels != IGNORED
        number = counts.sum().clamp(min=1)
        # Before squaring: an infinite logit where nothing counts must not reach the gradients.
        difference = difference.masked_fill(~(counts if entries else counts.unsqueeze(-1)), 0)
    squared = difference.square() if entries else difference.square().mean(-1)
    return squared.sum() / (number if num_items is None else num_items)


def span_distance(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Mean squared distance of the logits of a span's start or end, whose classes are the positions of a text.

    Args:
        student: `(batch, seq)`.
        teacher: `(batch, seq)`, without gradients.
        mask: `(batch, seq)`, 0 at padding: logits there count in no text.

    Returns:
        A scalar: the mean over the texts of the mean over their positions.
    """
    if student.shape != teacher.shape or (mask is not None and mask.shape != student.shape):
        shapes = [tuple(tensor.shape) for tensor in (student, teacher, mask) if tensor is not None]
        raise ValueError(f"student, teacher and mask must have the same shape (batch, seq), got {shapes}")
    dtype = torch.promote_types(student.dtype, torch.float32)
    counts = torch.ones_like(student, dtype=torch.bool) if mask is None else mask != 0
    squared = (student.to(dtype) - teacher.to(dtype)).masked_fill(~counts, 0).square()
    return (squared.sum(-1) / counts.sum(-1).clamp(min=1)).mean()


def distillation_loss(
    student: Mapping[str, torch.Tensor], teacher: Mapping[str, torch.Tensor], inputs: Mapping[str, Any]
) -> torch.Tensor:
    """The distance between two outputs of a model: of their `logits`, or of `start_logits` and `end_logits`.

    Args:
        student: Output with gradients.
        teacher: Logits by the same names.
        inputs: What the model was given: `labels`, `attention_mask` and `num_items_in_batch` are read.

    Returns:
        A scalar, scaled as the model's own loss is.
    """
    if "start_logits" in student:
        mask = inputs.get("attention_mask")
        sides = [span_distance(student[side], teacher[side], mask) for side in ("start_logits", "end_logits")]
        return (sides[0] + sides[1]) / 2
    labels, number = inputs.get("labels"), inputs.get("num_items_in_batch")
    return squared_distance(student["logits"], teacher["logits"], labels, num_items=number)


@contextmanager
def as_at_inference(model: nn.Module) -> Iterator[None]:
    """Let a model compute as in eval mode within a block: no dropout, no gradients.

    Flags are set directly, without `model.train()`, which some models and callbacks act upon. Modules that fold their
    weights into a table for inference (they have a method `unfold`) stay as they are: the table would be made anew at
    every step.
    """
    modules = [module for module in model.modules() if module.training and not hasattr(type(module), "unfold")]
    for module in modules:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in modules:
            module.training = True


class SelfDistillation(AveragingCallback):
    """Adds λ times the squared distance from the teacher's logits to the loss of a model in training.

    A hook on the model's forward pass does it, so the stock Trainer stays as it is, and whatever it does with the
    model's loss (division by accumulation steps, scaling by processes, float16 scaling) it does with both terms. The
    distance is divided by `num_items_in_batch` where the model gets it, and is a mean over the batch where not, as the
    loss on labels. The teacher stays the same through all parts of an accumulated batch. Evaluation is not touched:
    its loss is that on labels.

    For heads of sequence and token classification, regression, multiple choice, masked LM and question answering. In
    a checkpoint the teacher is `self_distillation.safetensors`, T times what is trained; where training resumes it
    goes on bit for bit. With DDP each process keeps its own teacher; they are the same.

    Args:
        weight: λ ≥ 0.
        window: T ≥ 1, the number of past steps that make up the teacher.
        average: Whether the teacher's answer comes from the average of the "parameters", or is that of their "logits".
        resume_from_checkpoint: The folder that training resumes from, where it is neither in the `output_dir` nor
            given as `TrainingArguments.resume_from_checkpoint`; False to begin with nothing where it resumes.

    Raises:
        ValueError: Options out of range; at the begin of training, a loss that the model does not compute itself
            (label smoothing), a causal LM, or weights that are spread over processes; while training, outputs without
            a loss or logits.
    """

    file = "self_distillation.safetensors"

    def __init__(
        self,
        weight: float = 1.0,
        window: int = 1,
        average: Literal["parameters", "logits"] = "parameters",
        resume_from_checkpoint: str | Literal[False] | None = None,
    ) -> None:
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight is a number from 0 on, got {weight!r}")
        require_count("window", window)
        if average not in {"parameters", "logits"}:
            raise ValueError(f'average is "parameters" or "logits", got {average!r}')
        self.weight = weight
        self.window = window
        self.average = average
        self._teachers: list[list[torch.Tensor]] = []  # parameters of each teacher
        self._staged: list[torch.Tensor] = []
        super().__init__(resume_from_checkpoint)

    def _new_average(self) -> WindowAverage:
        return WindowAverage(self.window, running_sum=self.average == "parameters")

    def _options(self) -> dict[str, Any]:
        return {"window": self.window, "average": self.average}

    def _attach(self, model: nn.Module) -> None:
        self._staged = []
        self._renew_teachers()
        self._handles.append(model.register_forward_hook(self._after_pass, with_kwargs=True))

    # ------------------------------------------------------------------------------------------------------ training

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin afresh, or with the teacher in the checkpoint.

        Raises:
            ValueError: the arguments smooth labels, or the model is a causal language model.
        """
        if args.label_smoothing_factor:
            raise ValueError(
                "label_smoothing_factor: the Trainer then computes the loss by itself and would leave the teacher out;"
                " train without it (the teacher's logits smooth the labels already)"
            )
        model = kwargs["model"]
        if getattr(model, "loss_type", None) == "ForCausalLM" and not model.config.is_encoder_decoder:
            raise ValueError(
                f"{type(model).__name__} is a causal LM, whose labels stand one position ahead of its logits"
            )
        super().on_train_begin(args, state, control, **kwargs)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take in the weights before the optimizer changes them: they are the past of the next step."""
        values = [parameter.data for parameter in self._parameters.values()]
        if getattr(kwargs["optimizer"], "scaler", None) is None:
            self._average.update(values)
        else:  # the step may yet be skipped, and then there is no new past
            self._staged = [value.clone() for value in values]

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Renew the teacher."""
        if self._was_skipped(kwargs["optimizer"]):
            return
        if self._staged:
            self._average.update(self._staged)
            self._staged = []
        self._renew_teachers()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the model as it is without the callback."""
        self.detach()

    def _renew_teachers(self) -> None:
        assert isinstance(self._average, WindowAverage)
        if not self._average.count:
            self._teachers = []
        elif self.average == "logits":
            self._teachers = self._average.values
        else:
            self._teachers = [self._average.average()]

    # ------------------------------------------------------------------------------------------------- forward pass

    def _after_pass(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not module.training or not torch.is_grad_enabled():
            return None
        names = (
            ("logits",)
            if not isinstance(output, MutableMapping) or "logits" in output
            else ("start_logits", "end_logits")
        )
        if (
            not isinstance(output, MutableMapping)
            or output.get("loss") is None
            or any(name not in output for name in names)
        ):
            raise ValueError(
                f"self-distillation needs outputs with a loss and logits, got {_described(output)} from"
                f" {type(module).__name__}: train with labels, without compute_loss_func, with return_dict"
            )
        teacher = self._teacher_logits(module, args, kwargs, names)
        output["loss"] = output["loss"] + self.weight * distillation_loss(output, teacher, kwargs)
        return output

    def _teacher_logits(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, ...]
    ) -> Logits:
        """The teacher's logits, or the mean of the teachers'."""
        inputs = dict(kwargs)
        if not getattr(getattr(module, "config", None), "is_encoder_decoder", False):
            for name in ("labels", "start_positions", "end_positions", "num_items_in_batch"):
                inputs.pop(name, None)  # a loss nobody wants; but some decoders read their input off the labels
        parameters = list(self._parameters.values())
        total: Logits = {}
        with as_at_inference(module):
            for values in self._teachers or [[parameter.data for parameter in parameters]]:
                with parameters_as(parameters, values):
                    # Not module(…): hooks on the whole model, this one among them, belong to the student's pass.
                    output = module.forward(*args, **inputs)
                for name in names:
                    total[name] = output[name] if name not in total else total[name] + output[name]
        return {name: logits / max(1, len(self._teachers)) for name, logits in total.items()}


def _described(output: Any) -> str:
    return (
        f"{type(output).__name__} with {list(output)}" if isinstance(output, MutableMapping) else type(output).__name__
    )
