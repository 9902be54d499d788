"""Batches of one task each, by the stock collator of the task's kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import (
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)

from .multi_task_data import TaskExample

_LABELS = frozenset({"label", "label_ids", "labels"})
_POSITIONS = ("start_positions", "end_positions")
_BY_KIND = {
    "AutoModelForMultipleChoice": DataCollatorForMultipleChoice,
    "AutoModelForTokenClassification": DataCollatorForTokenClassification,
}


def default_collator(auto_class: str, tokenizer: Any) -> Callable[[list[Any]], Any]:
    """The stock collator of a kind of task.

    Raises:
        ValueError: a kind whose labels the collator has to make.
    """
    if auto_class == "AutoModelForMaskedLM":
        raise ValueError("A masked language model needs a collator that masks: give it in `collators`.")
    return _BY_KIND.get(auto_class, DataCollatorWithPadding)(tokenizer)


class MultiTaskCollator:
    """Makes a batch of the examples of one task: the task's own collator, and the task's name as `task`.

    All tasks' labels are `labels`, as the Trainer looks for them; the two positions of an answer become
    `(batch, 2)`.

    Args:
        collators: by the names of their tasks.
        columns: what each task's head takes; other columns of the data are left out.
        tokenizer: which the Trainer saves with a checkpoint.
    """

    def __init__(
        self,
        collators: Mapping[str, Callable[[list[Any]], Any]],
        columns: Mapping[str, frozenset[str]],
        tokenizer: Any = None,
    ) -> None:
        self.collators, self.columns, self.tokenizer = dict(collators), dict(columns), tokenizer

    def __call__(self, examples: list[TaskExample]) -> dict[str, Any]:
        """Collate.

        Raises:
            TypeError: examples without a task.
            ValueError: examples of several tasks, or of one that is not known; a position outside of the input.
        """
        if not all(isinstance(example, TaskExample) for example in examples):
            raise TypeError(
                "The examples do not say their task: train on a MultiTaskDataset, evaluate on"
                " task_datasets({task: data, …}) or TaskDataset(task, data)."
            )
        tasks = {example.task for example in examples}
        if len(tasks) > 1:
            raise ValueError(
                f"A batch has examples of several tasks ({', '.join(sorted(tasks))}): set"
                ' TrainingArguments(train_sampling_strategy="sequential"), and make the data with'
                " MultiTaskDataset.for_trainer(datasets, arguments) from the same arguments."
            )
        (task,) = tasks
        if task not in self.collators:
            raise ValueError(f"No task is named {task!r}: expected one of {list(self.collators)}.")
        kept = self.columns[task] | _LABELS
        features = [{name: value for name, value in example.features.items() if name in kept} for example in examples]
        positions = None
        if all(name in features[0] for name in _POSITIONS):
            positions = torch.tensor([[int(feature.pop(name)) for name in _POSITIONS] for feature in features])
        batch = dict(self.collators[task](features))
        if positions is not None:
            length = batch["input_ids"].shape[1]
            if int(positions.min()) < 0 or int(positions.max()) >= length:
                raise ValueError(
                    f"Answers of {task!r} begin or end outside of the {length} tokens of their batch: use token"
                    " positions, and 0 where there is no answer."
                )
            batch["labels"] = positions
        return {**batch, "task": task}
