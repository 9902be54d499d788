"""Several tasks on two processes: equal to one, the same task everywhere, resumed exactly."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

WORKER = Path(__file__).with_name("multi_task_worker.py")


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("multi_task_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ranks(
    torchrun: Callable[..., Any], tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    output = tmp_path_factory.mktemp("two")
    torchrun(WORKER, tiny_chinesebert_folder, output)
    found = [torch.load(output / f"rank{rank}.pt") for rank in range(2)]
    assert [one["world_size"] for one in found] == [2, 2]
    return found


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert list(first) == list(second)
    return max((first[name].double() - second[name].double()).abs().max().item() for name in first)


@pytest.mark.parametrize("name", ["float64", "float64, two parts", "float32", "checkpointing", "split batches"])
def test_two_processes_are_one(
    ranks: list[dict[str, Any]], worker: ModuleType, tiny_chinesebert_folder: Path, tmp_path: Path, name: str
) -> None:
    """Texts of unequal length, labels of unequal number, clipped gradients; 4 examples a step, in one batch alone."""
    options = {**worker.CASES[name], "gradient_accumulation_steps": 1, "per_device_train_batch_size": 4}
    if options.pop("accelerator_config", None):
        options["per_device_train_batch_size"] = 2
    alone = worker.train(tiny_chinesebert_folder, tmp_path, **options)
    first, second = (one[name] for one in ranks)
    assert difference(first["weights"], second["weights"]) == 0.0
    bound = 1e-12 if "64" in name else 1e-5
    assert difference(first["weights"], alone["weights"]) <= bound
    assert first["norms"] == pytest.approx(alone["norms"], rel=1e-6 if "64" in name else 1e-5, abs=1e-6)
    assert max(alone["norms"]) > 0.5  # clipped
    assert first["metrics"].keys() == alone["metrics"].keys()


@pytest.mark.parametrize("name", ["float64", "float64, two parts", "split batches"])
def test_a_step_has_one_task_on_all_processes_and_in_all_parts(ranks: list[dict[str, Any]], name: str) -> None:
    first, second = (one[name]["tasks"] for one in ranks)
    assert first == second
    assert set(first) == {"sentiment", "ner", "answer", "stars"}
    if "parts" in name:
        assert first[::2] == first[1::2]


def test_a_resumed_training_is_the_uninterrupted_one(ranks: list[dict[str, Any]]) -> None:
    """With dropout, on two processes, from the middle of the second epoch."""
    for one in ranks:
        assert difference(one["whole"], one["resumed"]) == 0.0


def test_arguments_that_fail_in_the_middle_are_refused_at_the_start(ranks: list[dict[str, Any]]) -> None:
    for one in ranks:
        assert "ddp_find_unused_parameters=True" in one["refused"]["unused"]
        assert "ddp_find_unused_parameters=True" in one["refused"]["checkpointing"]
        assert "ddp_static_graph" in one["refused"]["static"]


def test_without_the_search_for_unused_heads_torch_fails(ranks: list[dict[str, Any]]) -> None:
    """The negative control of the refusal."""
    for one in ranks:
        assert "Expected to have finished reduction" in one["unchecked"]
