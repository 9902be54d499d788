"""ULMFiT's three techniques together, in a training of the stock Trainer."""

import pytest
import torch
from transformers import TrainerCallback

from hf_nlpnotes.training.unfreezing import ulmfit


def test_rates_and_layers_of_every_step(worker, tmp_path) -> None:
    """Equation 3 with cut_frac 0.2 in 10 steps; η of a layer is that of the one above over 2.6; 2 steps a phase."""
    used = []

    class Listen(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, model=None, **kwargs):
            names = {id(parameter): name for name, parameter in model.named_parameters()}
            used.append(
                {
                    names[id(p)]: group["lr"]
                    for group in optimizer.param_groups
                    for p in group["params"]
                    if p.grad is not None
                }
            )

    args = worker.arguments(tmp_path)
    options = ulmfit(args, 2, cut_frac=0.2)
    callbacks = [*options.pop("callbacks"), Listen()]
    worker.trainer(worker.build(), args, callbacks, **options).train()
    depths = ["classifier", "layer.1.", "layer.0.", "embeddings"]
    for step, rates in enumerate(used):
        part = step / 2 if step < 2 else 1 - (step - 2) / 8
        peak = 1e-2 * (1 + part * 31) / 32
        assert {depth for depth in depths if any(depth in name for name in rates)} == set(depths[: 1 + step // 2])
        for name, rate in rates.items():
            depth = next((i for i, mark in enumerate(depths) if mark in name), 0)
            assert rate == pytest.approx(peak / 2.6**depth), (step, name)


def test_broken_off_and_resumed(worker, tmp_path) -> None:
    def run(folder, extra, checkpoint=None):
        args, model = worker.arguments(folder), worker.build(dropout=0.1)
        options = ulmfit(args, 2)
        callbacks = [*options.pop("callbacks"), *extra]
        worker.trainer(model, args, callbacks, **options).train(resume_from_checkpoint=checkpoint)
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    whole = run(tmp_path / "whole", [])
    run(tmp_path / "parts", [worker.Interrupt(5)])
    assert torch.equal(run(tmp_path / "parts", [], str(tmp_path / "parts" / "checkpoint-5")), whole)
