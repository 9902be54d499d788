"""The stock Trainer on adapters: interrupted and resumed, the best checkpoint, two processes against one."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

# peft 0.21 asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

WORKER = Path(__file__).with_name("training_worker.py")
spec = importlib.util.spec_from_file_location("training_worker", WORKER)
assert spec is not None
assert spec.loader is not None
worker: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("case", worker.CASES)
def test_resumed_in_the_middle_of_an_epoch(case: str, tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    """With dropout and momentum; bit for bit."""
    whole = worker.train(tiny_chinesebert_folder, tmp_path / "whole", case, batch=8, dropout=0.1)
    assert whole.state.global_step == 6
    start = {n: p for n, p in worker.adapted(tiny_chinesebert_folder, case, 0.1).named_parameters() if p.requires_grad}
    expected = worker.trained(whole)
    assert start.keys() == expected.keys()
    assert all((expected[name] - start[name]).abs().max() > 0 for name in start)
    for step in (2, 4):
        resumed = worker.train(
            tiny_chinesebert_folder,
            tmp_path / f"resumed-{step}",
            case,
            batch=8,
            dropout=0.1,
            resume=tmp_path / "whole" / f"checkpoint-{step}",
        )
        assert same(worker.trained(resumed), expected)
    # What the Trainer saved is the trained model.
    base = AutoModelForSequenceClassification.from_pretrained(tiny_chinesebert_folder, num_labels=2)
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "whole" / "checkpoint-6"))
    found = dict(loaded.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert not list(tmp_path.rglob("model.safetensors"))


@pytest.mark.parametrize("case", ["pfeiffer with a layer", "lora with a layer"])
def test_the_best_checkpoint_comes_back_whole(case: str, tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    age = itertools.count()
    trainer = worker.train(
        tiny_chinesebert_folder,
        tmp_path,
        case,
        batch=8,
        metrics=lambda _: {"age": next(age)},
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="age",
        greater_is_better=False,
    )
    assert trainer.state.best_global_step == 2
    best, last = (
        dict(
            PeftModel.from_pretrained(
                AutoModelForSequenceClassification.from_pretrained(tiny_chinesebert_folder, num_labels=2),
                str(tmp_path / f"checkpoint-{step}"),
            ).named_parameters()
        )
        for step in (2, 6)
    )
    for name, value in trainer.model.named_parameters():
        if any(word in name for word in ("default", "layer.1.output", "query")):
            assert torch.equal(value, best[name]), name
    assert any(not torch.equal(best[name], last[name]) for name in best if "layer.1.output" in name)


@pytest.fixture(scope="module")
def two_processes(
    torchrun: Callable[..., Any], tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    output = tmp_path_factory.mktemp("two")
    torchrun(WORKER, tiny_chinesebert_folder, output)
    return [torch.load(output / f"rank{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", worker.CASES)
def test_two_processes(
    case: str, two_processes: list[dict[str, Any]], tiny_chinesebert_folder: Path, tmp_path: Path
) -> None:
    first, second = two_processes
    assert first["world_size"] == second["world_size"] == 2
    assert same(first[case], second[case])
    if case in worker.RESUMED:
        assert same(first[f"{case} resumed"], first[case])
    alone = worker.trained(worker.train(tiny_chinesebert_folder, tmp_path, case, batch=8))
    assert alone.keys() == first[case].keys()
    for name, expected in alone.items():
        torch.testing.assert_close(first[case][name], expected, rtol=1e-5, atol=1e-5, msg=name)
