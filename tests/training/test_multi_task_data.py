"""One training set out of several, dealt out by Accelerate's own shards."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader, skip_first_batches
from datasets import Dataset
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from transformers import TrainingArguments

from hf_nlpnotes.training.multi_task_data import MultiTaskDataset, TaskDataset, TaskExample, task_datasets
from hf_nlpnotes.training.multi_task_sampling import TaskSampling

DATA = {"a": [f"a{number}" for number in range(50)], "b": [f"b{number}" for number in range(7)]}


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    settings = {"train_sampling_strategy": "sequential", "report_to": "none", "use_cpu": True}
    return TrainingArguments(output_dir=str(folder), **{**settings, **options})


class TestOrder:
    @pytest.mark.parametrize("processes", [1, 2, 4])
    @pytest.mark.parametrize("parts", [1, 3])
    @pytest.mark.parametrize("split", [False, True])
    def test_all_parts_of_a_step_on_all_processes_have_its_task(self, processes: int, parts: int, split: bool) -> None:
        """By the shards that Accelerate makes of the Trainer's batches."""
        batch = 4
        step = batch * parts * (1 if split else processes)
        data = MultiTaskDataset(DATA, step_examples=step, seed=3)
        shards = [
            list(
                BatchSamplerShard(
                    BatchSampler(SequentialSampler(data), batch, drop_last=False), processes, rank, split_batches=split
                )
            )
            for rank in range(processes)
        ]
        assert {len(shard) for shard in shards} == {data.steps_per_epoch * parts}
        for number, task in enumerate(data.schedule(0)):
            own = [one for shard in shards for one in shard[number * parts : (number + 1) * parts]]
            examples = [data[position] for positions in own for position in positions]
            assert len(examples) == step
            assert {example.task for example in examples} == {data.tasks[task]}

    def test_each_example_of_a_task_once_before_any_comes_again(self) -> None:
        """Over the bounds of epochs, for every task."""
        data = MultiTaskDataset(DATA, step_examples=4, epochs=6)
        seen: dict[str, list[str]] = {"a": [], "b": []}
        for epoch in range(6):
            data.set_epoch(epoch)
            for position in range(len(data)):
                example = data[position]
                seen[example.task].append(example.features)  # type: ignore[arg-type]
        for task, examples in seen.items():
            size = len(DATA[task])
            turns = [examples[start : start + size] for start in range(0, len(examples) - size + 1, size)]
            assert len(turns) > 3
            assert all(sorted(turn) == sorted(DATA[task]) for turn in turns)
            assert turns[0] != turns[1]
            assert max(Counter(examples).values()) - min(Counter(examples).values()) <= 1

    def test_an_epoch_is_as_many_examples_as_there_are(self) -> None:
        assert len(MultiTaskDataset(DATA, step_examples=4)) == 60  # 57, in whole steps
        assert len(MultiTaskDataset(DATA, step_examples=4, steps_per_epoch=3)) == 12

    def test_annealed_rates_follow_the_epoch(self) -> None:
        data = MultiTaskDataset(DATA, step_examples=1, epochs=3, sampling=TaskSampling("annealed"))
        shares = [(data.schedule(epoch) == 1).mean() for epoch in range(3)]
        for epoch, share in enumerate(shares):
            assert share == pytest.approx(data.probabilities(epoch)["b"], abs=1 / data.steps_per_epoch)
        assert shares[0] < shares[1] < shares[2]

    def test_batches_of_a_data_set_are_read_at_once(self) -> None:
        plain = MultiTaskDataset({"a": [{"x": n} for n in range(9)]}, step_examples=3)
        table = MultiTaskDataset({"a": Dataset.from_dict({"x": list(range(9))})}, step_examples=3)
        assert table.__getitems__([0, 1, 2]) == plain.__getitems__([0, 1, 2]) == [plain[n] for n in range(3)]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_workers_that_live_on_see_the_epoch(self, workers: int) -> None:
        """As Accelerate tells it, also after a part of an epoch was skipped."""
        data = MultiTaskDataset(DATA, step_examples=3, seed=5)
        loader = prepare_data_loader(
            DataLoader(
                data,
                batch_size=3,
                sampler=SequentialSampler(data),
                collate_fn=list,
                num_workers=workers,
                persistent_workers=workers > 0,
                multiprocessing_context="fork" if workers else None,
            )
        )
        epochs = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            epochs.append(list(loader))
        expected = MultiTaskDataset(DATA, step_examples=3, seed=5)
        for epoch, batches in enumerate(epochs):
            expected.set_epoch(epoch)
            assert [one for batch in batches for one in batch] == [expected[n] for n in range(len(expected))]
        assert epochs[0] != epochs[1]
        late = skip_first_batches(loader, 4)
        late.set_epoch(1)
        assert list(late) == epochs[1][4:]


class TestArguments:
    def test_a_step_is_what_the_trainer_makes_one(self, tmp_path: Path) -> None:
        options = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 5, "num_train_epochs": 1.5}
        data = MultiTaskDataset.for_trainer(DATA, arguments(tmp_path, **options, data_seed=9))
        assert (data.step_examples, data.epochs, data.seed) == (15, 2, 9)
        data = MultiTaskDataset.for_trainer(DATA, arguments(tmp_path, **options, max_steps=9, seed=4))
        assert (data.steps_per_epoch, data.epochs, data.seed) == (4, 3, 4)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"train_sampling_strategy": "random"}, 'train_sampling_strategy="sequential"'),
            ({"auto_find_batch_size": True}, "auto_find_batch_size"),
            ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
            (
                {"accelerator_config": {"dispatch_batches": True, "use_configured_state": False}},
                "dispatch_batches",
            ),
        ],
    )
    def test_arguments_that_would_mix_tasks(self, tmp_path: Path, options: dict[str, Any], said: str) -> None:
        with pytest.raises(ValueError, match=said):
            MultiTaskDataset.for_trainer(DATA, arguments(tmp_path, **options))

    def test_bad_data(self) -> None:
        with pytest.raises(ValueError, match="datasets is empty"):
            MultiTaskDataset({}, step_examples=1)
        with pytest.raises(ValueError, match="The data of 'b' is empty"):
            MultiTaskDataset({"a": [1], "b": []}, step_examples=1)
        with pytest.raises(TypeError, match="The data of 'a' is a generator: expected a data set with a length"):
            MultiTaskDataset({"a": (n for n in range(3))}, step_examples=1)
        with pytest.raises(ValueError, match="at least 1, got 0"):
            MultiTaskDataset(DATA, step_examples=0)
        with pytest.raises(ValueError, match="at least 1, got 2, 1 and 0"):
            MultiTaskDataset(DATA, step_examples=2, steps_per_epoch=0)


def test_data_for_evaluation() -> None:
    data = task_datasets({"a": [1, 2], "b": [3]})
    assert data["a"][1] == TaskExample("a", 2)  # type: ignore[arg-type]
    assert {task: len(own) for task, own in data.items()} == {"a": 2, "b": 1}
    assert isinstance(data["b"], TaskDataset)
