"""The callback that freezes and unfreezes by a schedule, under the stock Trainer.

What the order of events in the Trainer asks for:

- The optimizer gets the parameters that require a gradient when it is made, and so does DDP's reducer: nothing may be
  frozen before. The first phase is set in `on_train_begin`, after both.
- A phase begins in `on_step_begin`, before the forward pass of its first step and never between the parts of an
  accumulated gradient. All gradients are `None` then.
- Learning rates are scaled between `on_pre_optimizer_step` and `on_optimizer_step` only: whatever scheduler there is
  goes on from its own rates, and checkpoints hold those.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_nlpnotes.layers.layer_discovery import LayerGroup, layer_groups
from hf_nlpnotes.training.checkpoint_tensors import checkpoint_folder
from hf_nlpnotes.training.loss_scaling import warn_of_wrong_loss_scaling

from .best_weights import BestWeights
from .checks import check_arguments, check_optimizer, check_whole, process_count, steps_per_epoch
from .reducer import ReducerKeeper
from .schedule import Phase, Progress, UnfreezingSchedule, best_measurement, better_is, measurements
from .schedule_file import read_schedule
from .trainable import set_trainable, trainable_count

logger = logging.getLogger(__name__)

MakeSchedule = Callable[[Sequence[LayerGroup]], UnfreezingSchedule]
PHASE, TRAINABLE = "unfreezing_phase", "trainable_parameters"  # keys in the Trainer's log


class Unfreezing(TrainerCallback):
    """Freeze and unfreeze by a schedule.

    The Trainer's log gets an entry at the start of each phase: `{"unfreezing_phase": …, "trainable_parameters": …}`.
    The model leaves the training with the parameters requiring gradients that required them before.

    Args:
        schedule: what trains when; or the path of a YAML file with it; or a function that makes it from the groups
            of the model.
        restore_best: when a phase ends, go back to its weights with the best metric (those that train in it; the
            optimizer's moments stay). A text names the metric in the log; True takes `metric_for_best_model`, or
            "eval_loss". Evaluate often enough: only weights that were evaluated count.
        rebuild_reducer: under DDP, build a new reducer for the parameters of each phase, so that only their gradients
            are sent. False, or a torch where that is not possible: needs
            `TrainingArguments(ddp_find_unused_parameters=True)`.
        groups: the model's layer groups, where discovery is to be overruled.

    Raises:
        ValueError: when the Trainer is made, or when training begins: parameters of the schedule were frozen before;
            a name in the schedule is no group; DeepSpeed, static graphs or FSDP 1.
        TypeError: `schedule` is no schedule, path or function.

    Example:
        ```python
        schedule = UnfreezingSchedule((Phase("head", ("head",)), Phase("all", ("*",), Fraction(0.3))))
        Trainer(model, args, train_dataset=data, callbacks=[Unfreezing(schedule)])
        Trainer(model, args, train_dataset=data, callbacks=[Unfreezing("schedule.yaml")])
        ```
    """

    def __init__(
        self,
        schedule: UnfreezingSchedule | str | os.PathLike[str] | MakeSchedule,
        *,
        restore_best: bool | str = False,
        rebuild_reducer: bool = True,
        groups: Sequence[LayerGroup] | None = None,
    ) -> None:
        if isinstance(schedule, str | os.PathLike):
            schedule = read_schedule(schedule)
        if not isinstance(schedule, UnfreezingSchedule) and not callable(schedule):
            raise TypeError(f"schedule is an UnfreezingSchedule, a path or a function, got {schedule!r}")
        self._given = schedule
        self._restore_best = restore_best
        self._rebuild_reducer = rebuild_reducer
        self._given_groups = None if groups is None else tuple(groups)
        self._groups: tuple[LayerGroup, ...] = ()
        self._schedule: UnfreezingSchedule | None = None
        self._steps_per_epoch: int | None = None
        self._model: weakref.ref[nn.Module] | None = None  # that trains; None outside of a training
        self._trains: frozenset[str] = frozenset()  # what trains now
        self._drawn: tuple[int, int] | None = None  # number of the phase and of the draw in it, for which that holds
        self._before: dict[str, bool] = {}  # requires_grad of each parameter before the training
        self._history: list[dict[str, Any]] = []
        self._seen = 0
        self._first = 0
        self._rates: list[Any] = []
        self._keeper: ReducerKeeper | None = None
        self._best: BestWeights | None = None
        self._kept_step: int | None = None
        self._metric = ""
        self._progress: Progress | None = None

    def schedule_for(self, model: nn.Module) -> UnfreezingSchedule:
        """Return the schedule for a model, for a look at it or for `write_schedule`.

        Args:
            model: the model that will be trained.
        """
        groups = self._given_groups or layer_groups(model)
        schedule = self._given if isinstance(self._given, UnfreezingSchedule) else self._given(groups)
        schedule.check(groups)
        return schedule

    @property
    def progress(self) -> Progress | None:
        """Where the training is, or ended, as the schedule sees it: what `plot_schedule` takes."""
        return self._progress

    @property
    def groups(self) -> tuple[LayerGroup, ...]:
        """The layer groups of the model that was or is trained; empty before."""
        return self._groups

    def on_init_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at the model and the arguments while nothing is wrapped or sharded yet."""
        self._close()  # of a training that was broken off
        check_arguments(args)
        if model is not None:
            self._prepare(model)
            assert self._schedule is not None
            check_whole(model, self._schedule.parameters_ever(self._groups))

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Freeze what the phase at this step does not train."""
        assert model is not None
        self._close()
        check_arguments(args, model)
        self._prepare(model)
        schedule = self._schedule
        assert schedule is not None
        ever = schedule.parameters_ever(self._groups)
        check_whole(model, ever)
        check_optimizer(model, ever, optimizer)
        warn_of_wrong_loss_scaling(model, args)
        self._steps_per_epoch = steps_per_epoch(train_dataloader, args.gradient_accumulation_steps)
        self._metric = self._best_metric(args)
        self._history, self._seen, self._kept_step = [], -1, None
        self._first = state.global_step
        self._trains, self._drawn, self._model = frozenset(), None, weakref.ref(model)
        self._before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        self._keeper = ReducerKeeper(model, rebuild=self._rebuild_reducer)
        progress = self._measure(state)
        self._check_run(schedule, progress, args, speaks=state.is_world_process_zero)
        if self._metric:
            self._best = BestWeights(_folder(args), writes=state.is_world_process_zero)
            self._resume_best(progress, checkpoint_folder(args, state))
        self._enter(model, progress)

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin a phase, where one begins at this step."""
        assert model is not None
        assert self._schedule is not None
        progress = self._measure(state)
        self._check_metrics(state)
        index = self._schedule.index_at(progress)
        if self._best is not None and index > 0 and self._schedule.starts(progress)[index] == progress.step:
            self._restore(model, progress, index)
        self._enter(model, progress)
        if state.global_step in (self._first, self._schedule.starts(progress)[index]):
            self._report(model, state, self._schedule.phases[index], index)

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Scale the learning rates for this step."""
        assert self._schedule is not None
        factor = self._schedule.rate_factor(self._measure(state))
        self._rates = []
        if factor != 1.0:
            for group in optimizer.param_groups:
                rate = group["lr"]
                self._rates.append(rate.clone() if isinstance(rate, torch.Tensor) else rate)
                group["lr"] = rate.mul_(factor) if isinstance(rate, torch.Tensor) else rate * factor

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        lr_scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Give the scheduler its own rates back; the Trainer logs those that were used."""
        if not self._rates:
            return
        used = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                used = [float(value) for value in used]
                group["lr"].copy_(rate)
            else:
                group["lr"] = rate
        self._rates = []
        if hasattr(lr_scheduler, "_last_lr"):
            lr_scheduler._last_lr = used  # what get_last_lr() returns until the scheduler's next step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """End the training where the phase says so."""
        return self._maybe_stop(state, control)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """End the training where the phase says so."""
        return self._maybe_stop(state, control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> TrainerControl:
        """Keep the weights, if they are the best of the phase; end the training where the phase says so."""
        if self._model is not None and model is not None and state.global_step > 0:
            self._keep_best(model, self._measure(state))
        return self._maybe_stop(state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the best weights of the phase into the checkpoint."""
        if self._best is not None and self._kept_step is not None:
            self._best.link_into(checkpoint_folder(args, state), self._kept_step)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Leave the model as it was found, with the best weights of the last phase where that was asked for."""
        assert model is not None
        progress = self._measure(state)
        if self._best is not None:
            assert self._schedule is not None
            if not args.load_best_model_at_end and progress.step > 0:
                index = self._schedule.index_at(progress.at(progress.step - 1))
                self._restore(model, progress, index + 1)
            self._best.remove()
        self._close()

    def _prepare(self, model: nn.Module) -> None:
        self._groups = self._given_groups or layer_groups(model)
        self._schedule = self.schedule_for(model)

    def _measure(self, state: TrainerState) -> Progress:
        """Where the training is; the measurements are those of the first process, for all to decide alike."""
        assert self._schedule is not None
        metrics = self._schedule.metrics | ({self._metric} if self._metric else set())
        if metrics and len(state.log_history) != self._seen:
            self._seen = len(state.log_history)
            history = [
                {"step": entry["step"], **{metric: float(entry[metric]) for metric in metrics if metric in entry}}
                for entry in state.log_history
                if "step" in entry and metrics & entry.keys()
            ]
            if process_count() > 1:
                from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]  # it is not typed

                (history,) = broadcast_object_list([history])
            self._history = history
        self._progress = Progress(state.global_step, state.max_steps, self._steps_per_epoch, self._history)
        return self._progress

    def _enter(self, model: nn.Module, progress: Progress) -> None:
        assert self._schedule is not None
        assert self._keeper is not None
        index = self._schedule.index_at(progress)
        sample = self._schedule.phases[index].sample
        drawn = (index, progress.step // sample.every if sample else 0)
        if drawn == self._drawn:
            return
        self._drawn = drawn
        trains = self._schedule.parameters_at(progress, self._groups) & self._learnable()
        if not trains:
            raise ValueError(f"no parameters train in phase {self._schedule.phase_at(progress).name!r}")
        if trains != self._trains:
            set_trainable(model, trains)
            self._trains = trains
            self._keeper.changed()

    def _learnable(self) -> frozenset[str]:
        """What required gradients before: a table that is fixed by its model stays fixed."""
        return frozenset(name for name, required in self._before.items() if required)

    def _report(self, model: nn.Module, state: TrainerState, phase: Phase, index: int) -> None:
        assert self._schedule is not None
        log: list[dict[str, Any]] = state.log_history  # annotated as numbers, but read as what JSON holds
        if next((entry[PHASE] for entry in reversed(log) if PHASE in entry), None) == phase.name:
            return
        trains, total = trainable_count(model)
        log.append({PHASE: phase.name, TRAINABLE: trains, "epoch": state.epoch, "step": state.global_step})
        if state.is_world_process_zero:
            logger.info(
                "step %d: phase %d of %d, %r: %s of %s parameters train (%.1f %%)",
                *(state.global_step, index + 1, len(self._schedule.phases), phase.name),
                *(f"{trains:,}", f"{total:,}", 100 * trains / total),
            )

    def _check_run(
        self, schedule: UnfreezingSchedule, progress: Progress, args: TrainingArguments, *, speaks: bool
    ) -> None:
        """Complain now about what would be found out hours later."""
        starts = schedule.starts(progress)
        evaluated = {metric for metric in schedule.metrics | {self._metric} if metric.startswith("eval_")}
        if evaluated and args.eval_strategy == "no":
            raise ValueError(f"the schedule needs {sorted(evaluated)}, but nothing is evaluated: set eval_strategy")
        late = [i for i, start in enumerate(starts) if start >= progress.max_steps]
        if late and speaks:
            names = ", ".join(repr(phase.name) for phase in schedule.phases[late[0] :])
            logger.warning(
                "the training ends after %d steps, before these phases begin: %s. What trains only there stays as it "
                "is. Train for longer, or make the phases shorter (phase_steps=…, a part of the training below 1)",
                progress.max_steps,
                names,
            )

    def _check_metrics(self, state: TrainerState) -> None:
        """See that an evaluation has brought what the schedule waits for.

        Before the next step, since several evaluation sets come one by one.
        """
        assert self._schedule is not None
        here = {key for entry in state.log_history if entry.get("step") == state.global_step for key in entry}
        given = sorted(key for key in here if key.startswith("eval_"))
        needed = {name for name in (*self._schedule.metrics, self._metric) if name.startswith("eval_")}
        missing = needed - {key for entry in self._history for key in entry}  # those of the first process
        if given and missing:
            raise ValueError(f"the schedule needs {sorted(missing)}, but evaluation gives {given}")

    def _best_metric(self, args: TrainingArguments) -> str:
        if self._restore_best is False:
            return ""
        name = args.metric_for_best_model or "eval_loss" if self._restore_best is True else self._restore_best
        return name if name.startswith("eval_") or name == "loss" else f"eval_{name}"

    def _best_step(self, progress: Progress, index: int) -> int | None:
        """The step of the best measurement of phase number `index`."""
        assert self._schedule is not None
        starts = self._schedule.starts(progress)
        until = starts[index + 1] if index + 1 < len(starts) else progress.step
        values = measurements(self._metric, starts[index], min(until, progress.step), progress.log_history)
        best = best_measurement(values, better_is(self._metric))
        return None if best is None else best[0]

    def _keep_best(self, model: nn.Module, progress: Progress) -> None:
        if self._best is None:
            return
        assert self._schedule is not None
        index = self._schedule.index_at(progress.at(progress.step - 1))
        best = self._best_step(progress, index)
        if best == progress.step != self._kept_step:
            self._best.save(model, self._schedule.parameters_ever(self._groups, index), best)
            self._kept_step = best

    def _restore(self, model: nn.Module, progress: Progress, index: int) -> None:
        """Go back to the best weights of the phase before number `index`."""
        assert self._schedule is not None
        assert self._best is not None
        starts = self._schedule.starts(progress)
        ended = max((i for i in range(index) if i + 1 >= len(starts) or starts[i] < starts[i + 1]), default=0)
        best = self._best_step(progress, ended)
        if best is None:
            name = self._schedule.phases[ended].name
            logger.warning("phase %r ended without an evaluation: its last weights stay", name)
        else:
            self._best.restore(model, self._schedule.parameters_ever(self._groups, ended), best)
        self._kept_step = None

    def _resume_best(self, progress: Progress, checkpoint: Path) -> None:
        assert self._schedule is not None
        assert self._best is not None
        if progress.step == 0:
            self._best.remove()
            return
        best = self._best_step(progress, self._schedule.index_at(progress.at(progress.step - 1)))
        if best is not None:
            self._best.take_from(checkpoint, best)
            self._kept_step = best

    def _maybe_stop(self, state: TrainerState, control: TrainerControl) -> TrainerControl:
        if self._model is not None and self._schedule is not None and self._schedule.stops(self._measure(state)):
            control.should_training_stop = True
        return control

    def _close(self) -> None:
        """Leave the model of the last training as it was found."""
        model = None if self._model is None else self._model()
        self._model, self._best = None, None
        if model is None:
            return
        set_trainable(model, self._learnable())
        if self._keeper is not None:
            self._keeper.changed()  # a later training without this callback must not meet a reducer of one phase
            self._keeper.close()


def _folder(args: TrainingArguments) -> Path:
    assert args.output_dir is not None  # TrainingArguments fills it in
    return Path(args.output_dir)
