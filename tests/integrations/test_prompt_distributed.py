"""Few-shot training with a prompt on two processes on the CPU, against one."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from hf_nlpnotes.prompting.model import PromptForSequenceClassification

WORKER = Path(__file__).with_name("prompt_worker.py")


def test_two_processes_train_as_one(torchrun, tiny_chinesebert_folder, tmp_path):
    """4 parts on 2 processes, prompts of unequal length, soft tokens, clipped gradients: losses and weights."""
    together, alone = tmp_path / "two", tmp_path / "one"
    together.mkdir()
    torchrun(WORKER, tiny_chinesebert_folder, together)
    spec = importlib.util.spec_from_file_location("prompt_worker", WORKER)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    weights, losses = worker.train(tiny_chinesebert_folder, alone, batch=8, accumulation=1)
    results = [json.loads((together / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [result["world_size"] for result in results] == [2, 2]
    # The first rank writes the log.
    assert results[0]["losses"] == pytest.approx(losses, abs=2e-4)
    assert losses[-1] < losses[0]
    ranks = [torch.load(together / f"rank{rank}.pt") for rank in range(2)]
    for name, expected in weights.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], expected, rtol=1e-4, atol=1e-5, msg=name)
    saved = PromptForSequenceClassification.from_pretrained(together / "saved")
    assert torch.equal(saved.soft_prompt.soft_tokens, ranks[0]["soft_prompt.soft_tokens"])
