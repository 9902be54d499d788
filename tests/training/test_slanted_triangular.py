"""The schedule against equation 3 of the paper in fractions, and the callback in the stock Trainer."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, StepLR
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_nlpnotes.training.slanted_triangular import (
    SlantedTriangular,
    replace_factors,
    slanted_triangular_factor,
    slanted_triangular_schedule,
)


def equation_3(step: int, num_steps: int, cut_frac: Fraction, ratio: int) -> Fraction:
    """As printed: η_t over η_max."""
    cut = math.floor(num_steps * cut_frac)
    p = Fraction(step, cut) if step < cut else 1 - Fraction(step - cut) / (cut * (1 / cut_frac - 1))
    return (1 + p * (ratio - 1)) / ratio


@pytest.mark.parametrize("num_steps", [10, 100, 1000])
@pytest.mark.parametrize(("cut_frac", "ratio"), [(Fraction(1, 10), 32), (Fraction(1, 2), 4), (Fraction(3, 10), 1)])
def test_equation_3_where_the_cut_is_whole(num_steps: int, cut_frac: Fraction, ratio: int) -> None:
    for step in range(num_steps + 1):
        expected = float(equation_3(step, num_steps, cut_frac, ratio))
        assert slanted_triangular_factor(step, num_steps, float(cut_frac), ratio) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 15, 19, 99])
@pytest.mark.parametrize("cut_frac", [0.0, 0.1, 0.5, 1.0])
def test_never_below_the_lowest_rate(num_steps: int, cut_frac: float) -> None:
    """The printed equation is negative at the end of 19 steps: its fall is 9 steps long."""
    factors = [slanted_triangular_factor(step, num_steps, cut_frac) for step in range(num_steps + 3)]
    assert min(factors) >= 1 / 32
    assert factors[num_steps:] == [1 / 32] * 3
    cut = math.floor(num_steps * cut_frac)
    if cut < num_steps:
        assert max(factors) == factors[cut] == 1
    assert factors[cut:] == sorted(factors[cut:], reverse=True)
    assert factors[:cut] == sorted(factors[:cut])
    assert float(equation_3(19, 19, Fraction(1, 10), 32)) < 0


@pytest.mark.parametrize(
    "values",
    [(0, 0), (-1, 5), (0, 5, -0.1), (0, 5, 1.1), (0, 5, 0.1, 0.5), (0, 5, float("nan")), (0, 5, 0.1, math.nan)],
)
def test_bad_values_are_named(values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="got"):
        slanted_triangular_factor(*values)


def test_the_schedule_keeps_the_proportions_of_the_groups() -> None:
    first, second = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.26}, {"params": [second], "lr": 0.1}])
    schedule = slanted_triangular_schedule(optimizer, 20)
    for step in range(20):
        rates = schedule.get_last_lr()
        assert rates[0] == pytest.approx(0.26 * float(equation_3(step, 20, Fraction(1, 10), 32)))
        assert rates[0] / rates[1] == pytest.approx(2.6)
        optimizer.step()
        schedule.step()


def test_other_kinds_of_schedules_are_refused() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(ValueError, match="got StepLR"):
        replace_factors(StepLR(optimizer, 1), lambda step: 1.0 / (step + 1))


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (x @ self.weight - labels).pow(2).mean()}


class Rates(TrainerCallback):
    def __init__(self) -> None:
        self.rates: dict[int, float] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        self.rates[state.global_step] = optimizer.param_groups[0]["lr"]


def trained(folder: Path, resume: str | None = None, stop: int | None = None) -> tuple[torch.Tensor, Rates, Trainer]:
    generator = torch.Generator().manual_seed(1)
    rows = [{"x": torch.randn(3, generator=generator), "labels": torch.tensor(1.0)} for _ in range(24)]
    args = TrainingArguments(
        output_dir=str(folder),
        learning_rate=0.1,
        per_device_train_batch_size=2,
        num_train_epochs=2,
        save_strategy="steps",
        save_steps=7,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
    )
    rates = Rates()

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = control.should_training_stop or state.global_step == stop

    torch.manual_seed(0)
    model = Regression()
    trainer = Trainer(model=model, args=args, train_dataset=rows, callbacks=[SlantedTriangular, rates, Stop()])
    trainer.train(resume_from_checkpoint=resume)
    return model.weight.detach().clone(), rates, trainer


@pytest.mark.filterwarnings("ignore:.*pin_memory.*")
def test_in_the_trainer_and_resumed(tmp_path: Path) -> None:
    whole, rates, trainer = trained(tmp_path / "whole")
    assert isinstance(trainer.lr_scheduler, LambdaLR)
    assert rates.rates == {t: 0.1 * slanted_triangular_factor(t, 24) for t in range(24)}
    trained(tmp_path / "parts", stop=9)
    resumed, later, _ = trained(tmp_path / "parts", resume=str(tmp_path / "parts" / "checkpoint-7"))
    assert later.rates == {t: rate for t, rate in rates.rates.items() if t >= 7}
    assert torch.equal(resumed, whole)
