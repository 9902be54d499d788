"""One training set out of several, in an order that gives every step of the stock Trainer a single task.

The Trainer asks a sampler for numbers of examples, makes batches of them, and Accelerate deals the batches out to the
processes in turn: with a sequential sampler, batch j of process r is number j · processes + r. So the examples of one
optimizer step, over all processes and all accumulated parts, are a run of

    batch size x accumulation x processes

consecutive numbers, and a data set that looks up the task by that run needs no sampler, batch sampler or Trainer of
its own. The task of a step and the examples in it are functions of the seed and the step: the same on every process,
and after a resume, with any number of data-loading workers.

A task a step, not a task a batch: the parts of a step then share one count of labels, by which the Trainer scales the
loss, and all processes leave the same heads unused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments

from hf_nlpnotes._compat import CHECKPOINTING

from .multi_task_sampling import TaskSampling, task_schedule


class TaskExample(NamedTuple):
    """An example and the task that it is for. Not a dictionary, so that the Trainer drops no column of it."""

    task: str
    features: Mapping[str, Any]


class TaskDataset(Dataset):  # torch.utils.data.Dataset is generic in name only
    """The examples of one task, for evaluation: `eval_dataset={"ner": TaskDataset("ner", data)}`.

    Args:
        task: name of the model's task.
        data: a `datasets.Dataset` or any sequence of examples with a length.
    """

    def __init__(self, task: str, data: Any) -> None:
        _check_data(task, data)
        self.task, self.data = task, data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> TaskExample:
        return TaskExample(self.task, self.data[index])


def task_datasets(datasets: Mapping[str, Any]) -> dict[str, TaskDataset]:
    """Each task's examples under its name: the Trainer's `eval_dataset`, which reports `eval_<task>_…`.

    Args:
        datasets: examples of each task, by its name.
    """
    return {task: TaskDataset(task, data) for task, data in datasets.items()}


class MultiTaskDataset(Dataset):
    """The training examples of several tasks, as many steps of one task each.

    Example n of an epoch belongs to step n // step_examples. Within a task the examples come in a random order, each
    once before any comes again, over the epochs.

    Args:
        datasets: examples of each task, by its name: a `datasets.Dataset` or any sequence with a length.
        step_examples: examples of an optimizer step: batch size x accumulation x processes.
        sampling: how often each task is trained.
        epochs: of the whole training, for annealed sampling.
        steps_per_epoch: default: as many as it takes to see as many examples as there are.
        seed: of tasks and examples.

    Raises:
        ValueError: no data, or numbers below 1.
        TypeError: data without a length.
    """

    def __init__(
        self,
        datasets: Mapping[str, Any],
        *,
        step_examples: int,
        sampling: TaskSampling | None = None,
        epochs: int = 1,
        steps_per_epoch: int | None = None,
        seed: int = 42,
    ) -> None:
        if not datasets:
            raise ValueError("datasets is empty: expected examples by the names of their tasks.")
        for task, data in datasets.items():
            _check_data(task, data)
        self.datasets, self.tasks = dict(datasets), tuple(datasets)
        self.sizes = tuple(len(data) for data in datasets.values())
        self.sampling = TaskSampling() if sampling is None else sampling
        self.step_examples, self.epochs, self.seed = step_examples, epochs, seed
        whole = math.ceil(sum(self.sizes) / max(step_examples, 1))
        self.steps_per_epoch = whole if steps_per_epoch is None else steps_per_epoch
        if min(step_examples, epochs, self.steps_per_epoch) < 1:
            raise ValueError(
                "step_examples, epochs and steps_per_epoch are at least 1, got"
                f" {step_examples}, {epochs} and {steps_per_epoch}."
            )
        # In shared memory: workers that outlive an epoch (dataloader_persistent_workers) see the new one.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._runs: tuple[int, np.ndarray, np.ndarray] | None = None
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    @classmethod
    def for_trainer(
        cls,
        datasets: Mapping[str, Any],
        args: TrainingArguments,
        sampling: TaskSampling | None = None,
        steps_per_epoch: int | None = None,
    ) -> MultiTaskDataset:
        """The data set for a Trainer with these arguments, which are checked.

        Args:
            datasets: as of the class.
            args: the Trainer's arguments; batch size, accumulation, processes, epochs and seed are taken from them.
            sampling: as of the class.
            steps_per_epoch: as of the class.

        Raises:
            ValueError: an argument with which steps would mix tasks, or the loss be another; says what to set.
        """
        _check_arguments(args)
        accelerator: Any = args.accelerator_config  # made from what the user gave, a dictionary or a file
        processes = 1 if accelerator.split_batches else args.world_size
        step_examples = args.train_batch_size * args.gradient_accumulation_steps * processes
        made = cls(
            datasets,
            step_examples=step_examples,
            sampling=sampling,
            steps_per_epoch=steps_per_epoch,
            seed=args.seed if args.data_seed is None else args.data_seed,
        )
        total = args.num_train_epochs if args.max_steps <= 0 else args.max_steps / made.steps_per_epoch
        made.epochs = max(math.ceil(total), 1)
        return made

    def set_epoch(self, epoch: int) -> None:
        """Called by Accelerate at the start of each epoch, also of a resumed one.

        Args:
            epoch: number of the epoch, from 0.
        """
        self._epoch[0] = epoch

    @property
    def epoch(self) -> int:
        """The epoch that examples are from."""
        return int(self._epoch[0])

    def probabilities(self, epoch: int) -> dict[str, float]:
        """How often each task is trained in an epoch (counted from 0).

        Args:
            epoch: number of the epoch, from 0.
        """
        rates = self.sampling.probabilities(self.sizes, epoch, self.epochs)
        return dict(zip(self.tasks, rates.tolist(), strict=True))

    def schedule(self, epoch: int) -> np.ndarray:
        """`(steps_per_epoch,)` int64: the number of each step's task in `tasks`.

        Args:
            epoch: number of the epoch, from 0.
        """
        rates = self.sampling.probabilities(self.sizes, epoch, self.epochs)
        return task_schedule(
            rates, self.steps_per_epoch, seed=self.seed, epoch=epoch, stratified=self.sampling.stratified
        )

    def __len__(self) -> int:
        return self.steps_per_epoch * self.step_examples

    def __getitem__(self, position: int) -> TaskExample:
        (example,) = self.__getitems__([position])
        return example

    def __getitems__(self, positions: Sequence[int]) -> list[TaskExample]:
        """A batch at a time: `datasets` reads rows that are asked for together much faster."""
        places = [self.locate(position) for position in positions]
        tasks = {task for task, _ in places}
        if len(tasks) == 1 and hasattr(data := self.datasets[self.tasks[places[0][0]]], "__getitems__"):
            rows = data.__getitems__([index for _, index in places])
        else:
            rows = [self.datasets[self.tasks[task]][index] for task, index in places]
        return [TaskExample(self.tasks[task], row) for (task, _), row in zip(places, rows, strict=True)]

    def locate(self, position: int) -> tuple[int, int]:
        """The task (its number) and the example in its data that stand at a position of the present epoch.

        Args:
            position: number of an example in the epoch, from 0.

        Raises:
            IndexError: there is no such position.
        """
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} of {len(self)}")
        tasks, runs = self._steps()
        step, offset = divmod(position, self.step_examples)
        task = int(tasks[step])
        rank = int(runs[step]) * self.step_examples + offset  # how many of the task's examples came before
        turn, place = divmod(rank, self.sizes[task])
        return task, int(self._order(task, turn)[place])

    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Tasks of the epoch's steps, and how many steps of the whole training had the same task before."""
        epoch = self.epoch
        if self._runs is None or self._runs[0] != epoch:
            before = np.zeros(len(self.tasks), dtype=np.int64)
            for earlier in range(epoch):
                before += np.bincount(self.schedule(earlier), minlength=len(self.tasks))
            tasks = self.schedule(epoch)
            runs = np.empty_like(tasks)
            for task, count in enumerate(before):
                own = tasks == task
                runs[own] = count + np.arange(own.sum())
            self._runs = (epoch, tasks, runs)
        return self._runs[1], self._runs[2]

    def _order(self, task: int, turn: int) -> np.ndarray:
        if task not in self._orders or self._orders[task][0] != turn:
            # Another stream of numbers than the schedule's, which is seeded by two.
            order = np.random.default_rng((self.seed, task, turn)).permutation(self.sizes[task])
            self._orders[task] = (turn, order)
        return self._orders[task][1]


def _check_data(task: str, data: Any) -> None:
    if not isinstance(data, Sized) or not hasattr(data, "__getitem__"):
        raise TypeError(
            f"The data of {task!r} is a {type(data).__name__}: expected a data set with a length and examples by"
            " number, not one that is only read through."
        )
    if not len(data):
        raise ValueError(f"The data of {task!r} is empty.")


def _check_arguments(args: TrainingArguments) -> None:
    if args.train_sampling_strategy != "sequential":
        raise ValueError(
            f"train_sampling_strategy is {args.train_sampling_strategy!r}, which would mix tasks in a batch: set"
            ' TrainingArguments(train_sampling_strategy="sequential"). Examples are shuffled within each task.'
        )
    accelerator: Any = args.accelerator_config
    if accelerator.dispatch_batches:
        raise ValueError("dispatch_batches joins batches of several processes: leave it out.")
    if args.auto_find_batch_size:
        raise ValueError("auto_find_batch_size changes which examples are a step: set per_device_train_batch_size.")
    if args.label_smoothing_factor:
        raise ValueError("label_smoothing_factor takes the labels from the model, whose heads differ: set it to 0.")
    if args.parallelism_config is not None:
        raise ValueError("parallelism_config gives several processes the same batch: only data parallelism here.")
    if args.n_gpu > 1:
        raise ValueError(
            "Several GPUs in one process copy the model for each batch: start one process each, with torchrun or"
            " accelerate launch."
        )
    unused = args.ddp_find_unused_parameters
    checkpointing = getattr(args, CHECKPOINTING)
    if args.world_size > 1 and (unused is False or (unused is None and checkpointing)):
        raise ValueError(
            "A step leaves the other tasks' heads without gradient, which DistributedDataParallel must look for: set"
            " ddp_find_unused_parameters=True (it is not the default with activation checkpointing)."
        )
    if args.ddp_static_graph:
        raise ValueError("ddp_static_graph expects every step to use the same heads: leave it out.")


__all__ = ["MultiTaskDataset", "TaskDataset", "TaskExample", "task_datasets"]
