"""Rates against closed forms, schedules against the chi-square distribution."""

import numpy as np
import pytest

from hf_nlpnotes.training.multi_task_sampling import (
    TaskSampling,
    annealed_exponent,
    task_probabilities,
    task_schedule,
)

SIZES = (400, 3_000, 12_000)


class TestRates:
    def test_proportional(self) -> None:
        np.testing.assert_allclose(TaskSampling().probabilities(SIZES), np.array(SIZES) / 15_400, rtol=1e-15)

    def test_uniform(self) -> None:
        np.testing.assert_allclose(TaskSampling("uniform").probabilities(SIZES), np.full(3, 1 / 3), rtol=1e-15)

    def test_limit(self) -> None:
        expected = np.array([400, 1_000, 1_000]) / 2_400
        np.testing.assert_allclose(TaskSampling(limit=1_000).probabilities(SIZES), expected, rtol=1e-15)

    def test_temperature(self) -> None:
        """Mixing rates to the power 1/T, then normalised (Raffel et al. 2020, 3.5.2)."""
        rates = np.minimum(SIZES, 5_000) / np.minimum(SIZES, 5_000).sum()
        expected = rates ** (1 / 3) / (rates ** (1 / 3)).sum()
        sampling = TaskSampling("temperature", temperature=3, limit=5_000)
        np.testing.assert_allclose(sampling.probabilities(SIZES), expected, rtol=1e-14)

    @pytest.mark.parametrize(("epoch", "exponent"), [(0, 1.0), (1, 0.6), (2, 0.2)])
    def test_annealed(self, epoch: int, exponent: float) -> None:
        """N ** (1 - 0.8 (e - 1) / (E - 1)) for E = 3 (Stickland & Murray 2019)."""
        expected = np.array(SIZES, dtype=float) ** exponent
        found = TaskSampling("annealed").probabilities(SIZES, epoch, 3)
        np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-14)

    def test_annealed_over_one_epoch_is_proportional(self) -> None:
        assert annealed_exponent(0, 1) == 1

    def test_sizes_whose_powers_overflow(self) -> None:
        assert task_probabilities([10, 10**9], 100).tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"strategy": "often"}, "strategy is one of"),
            ({"temperature": 0}, "temperature is above 0, got 0"),
            ({"decay": 2}, "decay is between 0 and 1, got 2"),
        ],
    )
    def test_bad_options(self, options: dict, said: str) -> None:
        with pytest.raises(ValueError, match=said):
            TaskSampling(**options)

    def test_bad_sizes(self) -> None:
        with pytest.raises(ValueError, match=r"at least 1, got \[3, 0\]"):
            task_probabilities([3, 0])
        with pytest.raises(ValueError, match="limit is at least 1"):
            task_probabilities([3], limit=0)


class TestSchedule:
    PROBABILITIES = np.array([0.05, 0.35, 0.6])

    @pytest.mark.parametrize("seed", range(3))
    def test_independent_steps_are_distributed_as_told(self, seed: int) -> None:
        """Chi-square with 2 degrees of freedom: 13.8 is exceeded once in 1,000; with 8 degrees, 26.1."""
        tasks = task_schedule(self.PROBABILITIES, 20_000, seed=seed, stratified=False)
        expected = 20_000 * self.PROBABILITIES
        assert (((np.bincount(tasks) - expected) ** 2) / expected).sum() < 13.8
        # Neighbours are independent.
        pairs = np.bincount(tasks[::2] * 3 + tasks[1::2], minlength=9)
        expected = 10_000 * np.outer(self.PROBABILITIES, self.PROBABILITIES).ravel()
        assert (((pairs - expected) ** 2) / expected).sum() < 26.1

    @pytest.mark.parametrize("steps", [1, 7, 100, 1_001])
    def test_stratified_steps_are_shared_out(self, steps: int) -> None:
        counts = np.bincount(task_schedule(self.PROBABILITIES, steps, seed=1), minlength=3)
        assert (np.abs(counts - steps * self.PROBABILITIES) < 1).all()

    def test_stratified_steps_are_shuffled(self) -> None:
        """As many changes of task as independent draws have: 1 - Σ p² of the neighbours."""
        tasks = task_schedule(self.PROBABILITIES, 20_000, seed=1)
        changes = (tasks[1:] != tasks[:-1]).mean()
        assert changes == pytest.approx(1 - (self.PROBABILITIES**2).sum(), abs=0.015)

    @pytest.mark.parametrize("stratified", [True, False])
    def test_a_function_of_seed_and_epoch(self, stratified: bool) -> None:
        def draw(seed: int, epoch: int) -> list[int]:
            return task_schedule(self.PROBABILITIES, 50, seed=seed, epoch=epoch, stratified=stratified).tolist()

        assert draw(3, 4) == draw(3, 4)
        assert draw(3, 4) != draw(3, 5)
        assert draw(3, 4) != draw(4, 4)

    def test_a_task_of_no_probability_is_never_drawn(self) -> None:
        tasks = task_schedule(np.array([0.1] * 10 + [0.0]), 5_000, seed=0, stratified=False)
        assert set(tasks.tolist()) == set(range(10))
