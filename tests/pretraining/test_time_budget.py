"""Training by the clock: it ends, it learns, and a killed run goes on from its checkpoint."""

import itertools

import pytest
import torch

from hf_nlpnotes.pretraining import time_budget
from hf_nlpnotes.pretraining.time_budget import TimeBudget, save_whole, train_for


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances one second a look."""
    ticks = itertools.count()
    monkeypatch.setattr(time_budget.time, "monotonic", lambda: float(next(ticks)))


def setting():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    return model, torch.optim.Adam(model.parameters(), lr=0.1)


def loss_of(model, rates=None, optimizer=None):
    inputs = torch.randn(64, 3, generator=torch.Generator().manual_seed(5))

    def loss(step, share):
        if rates is not None:
            rates.append((share, optimizer.param_groups[0]["lr"]))
        return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()

    return loss


def test_learns_until_the_time_is_over(clock, tmp_path):
    model, optimizer = setting()
    rates = []
    budget = TimeBudget(minutes=2, checkpoint=tmp_path / "c.pt", warmup=4, save_every=1000)
    steps = train_for(budget, model, [optimizer], loss_of(model, rates, optimizer))
    assert steps == len(rates) == 120
    assert loss_of(model)(0, 0.0) < 1e-3
    for step, (share, rate) in enumerate(rates):
        assert rate == pytest.approx(0.1 * min(1, (step + 1) / 4) * (1 - share))


def test_resumed_is_uninterrupted(clock, tmp_path):
    whole, optimizer = setting()
    budget = TimeBudget(minutes=2, checkpoint=tmp_path / "whole.pt", save_every=1000)
    train_for(budget, whole, [optimizer], loss_of(whole))

    model, optimizer = setting()
    budget = TimeBudget(minutes=2, checkpoint=tmp_path / "c.pt", save_every=29)
    plain = loss_of(model)

    def killed(step, share):
        if step == 31:
            raise KeyboardInterrupt
        return plain(step, share)

    with pytest.raises(KeyboardInterrupt):
        train_for(budget, model, [optimizer], killed, evaluate=lambda: {"accuracy": 1.0})
    model, optimizer = setting()
    again = TimeBudget(minutes=2, checkpoint=tmp_path / "c.pt", save_every=1000)
    steps = train_for(again, model, [optimizer], loss_of(model))
    assert steps == 120
    assert again.history[0]["accuracy"] == 1.0
    for expected, got in zip(whole.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_checkpoints_are_written_whole(tmp_path):
    path = tmp_path / "c.pt"
    save_whole(path, {"a": 1})

    class Unpicklable:
        def __reduce__(self):
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        save_whole(path, {"a": Unpicklable()})
    assert torch.load(path) == {"a": 1}
