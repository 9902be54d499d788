"""The CRF beside pytorch-crf 0.7.2: time of a training step and of decoding, operations, and error of the gradient.

A training step is the loss of a batch of 32, forward and backward, with gradients of the emissions and of all scores;
decoding gives the lists of best tags. Batches have sentences of one length, and of lengths from a quarter to all of
it. Loss, gradients and decoded tags must be those of pytorch-crf before anything is timed. For each of the two the
ratio of the worst of the sizes is the result; of a training step, of the longest sentences.

`operations` counts the aten operations of one loss in the parallel form, those that others call inside included, as
torch's profiler records them. `gradient_error` is the largest difference of an emission's gradient in float32 from
the same formula in float64 at 4096 steps, all forms.

    pip install pytorch-crf
    python benchmarks/crf.py
"""

from __future__ import annotations

import copy
import sys
import warnings
from typing import Any

import torch
from _harness import Ratio, interleave, median_ratio, no_ratio, parser, report
from torch.profiler import ProfilerActivity, profile

from hf_nlpnotes.layers import ConditionalRandomField
from hf_nlpnotes.layers.crf_partition import ALGORITHMS

try:
    from torchcrf import CRF
except ImportError:
    CRF = None

LENGTHS = (128, 256, 512)
TAGS = (9, 20, 40)
BATCH = 32


class Work:
    """The same scores in both CRFs, and a batch."""

    def __init__(self, length: int, num_tags: int, ragged: bool) -> None:
        torch.manual_seed(0)
        self.ours = ConditionalRandomField(num_tags)
        self.theirs: Any = CRF(num_tags, batch_first=True)
        self.ours.load_state_dict(self.theirs.state_dict())
        self.emissions = (3 * torch.randn(BATCH, length, num_tags)).requires_grad_()
        self.tags = torch.randint(num_tags, (BATCH, length))
        self.mask = torch.ones(BATCH, length, dtype=torch.bool)
        if ragged:
            lengths = torch.randint(length // 4, length + 1, (BATCH, 1))
            lengths[0] = length
            self.mask = torch.arange(length) < lengths

    def step(self, crf: Any, sign: int, emissions: torch.Tensor | None = None) -> list[torch.Tensor]:
        """Loss and gradients: of the emissions, then of the scores by name."""
        emissions = self.emissions if emissions is None else emissions
        emissions.grad = None
        crf.zero_grad()
        loss = sign * crf(emissions, self.tags, self.mask, reduction="sum")
        loss.backward()
        return [loss.detach(), emissions.grad, *(parameter.grad for _, parameter in sorted(crf.named_parameters()))]

    def check(self) -> None:
        """Refuse to measure unlike work. In float64: in float32 pytorch-crf's own gradients are off by 2e-4."""
        exact = self.emissions.detach().double().requires_grad_()
        mine = [tensor.clone() for tensor in self.step(copy.deepcopy(self.ours).double(), 1, exact)]
        theirs = self.step(copy.deepcopy(self.theirs).double(), -1, exact)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
        for one, other in zip(self.step(self.ours, 1), theirs, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-3)
        assert self.ours.decode(self.emissions, self.mask) == self.theirs.decode(self.emissions, self.mask)


def gradient_error(length: int = 4096, num_tags: int = 9) -> float:
    """Largest difference of a gradient of an emission from float64, over all forms."""
    torch.manual_seed(0)
    exact = ConditionalRandomField(num_tags, algorithm="log").double()
    for parameter in exact.parameters():
        torch.nn.init.normal_(parameter)
    emissions, tags = 3 * torch.randn(4, length, num_tags), torch.randint(num_tags, (4, length))

    def gradient(crf: ConditionalRandomField, scores: torch.Tensor) -> torch.Tensor:
        scores.requires_grad_()
        return torch.autograd.grad(crf(scores, tags, reduction="sum"), scores)[0].double()

    expected = gradient(exact, emissions.double())
    errors = []
    for algorithm in ALGORITHMS:
        crf = ConditionalRandomField(num_tags, algorithm=algorithm)
        crf.load_state_dict(exact.state_dict())
        errors.append((gradient(crf, emissions.clone()) - expected).abs().max().item())
    return max(errors)


def operations(length: int, num_tags: int) -> int:
    """Operations of one loss in the parallel form."""
    crf = ConditionalRandomField(num_tags, algorithm="parallel")
    emissions = torch.randn(2, length, num_tags, requires_grad=True)
    tags = torch.randint(num_tags, (2, length))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        crf(emissions, tags)
    return sum(event.count for event in profiler.key_averages() if event.key.startswith("aten::"))


def main() -> int:
    """Check, measure and report."""
    options = parser(__doc__)
    arguments = options.parse_args()
    if CRF is None:
        no_ratio("pytorch-crf is not installed: pip install pytorch-crf")
    warnings.filterwarnings("ignore", "where received a uint8 condition")  # of pytorch-crf, where a mask is None
    torch.set_num_threads(1)
    rounds = max(arguments.rounds, 5)
    steps: dict[int, list[float]] = {length: [] for length in LENGTHS}
    decoding = []
    for length in LENGTHS:
        for num_tags in TAGS:
            for ragged in (False, True):
                work = Work(length, num_tags, ragged)
                work.check()
                ours, theirs = interleave(
                    [lambda: work.step(work.ours, 1), lambda: work.step(work.theirs, -1)],  # noqa: B023 -- called now
                    rounds,
                )
                steps[length].append(median_ratio(theirs, ours))
                mine, other = interleave(
                    [
                        lambda: work.ours.decode(work.emissions, work.mask),  # noqa: B023 -- called now
                        lambda: work.theirs.decode(work.emissions, work.mask),  # noqa: B023 -- called now
                    ],
                    rounds,
                )
                decoding.append(median_ratio(other, mine))
                if not arguments.json:
                    kind = "ragged" if ragged else "full"
                    print(
                        f"{length} steps, {num_tags} tags, {kind}: training step {1e3 * min(ours):.1f} ms, ratio "
                        f"{steps[length][-1]:.1f}; decoding {1e3 * min(mine):.1f} ms, ratio {decoding[-1]:.1f}"
                    )
    return report(
        [
            Ratio("crf_training_step", min(steps[max(LENGTHS)]), goal=4, at_most=False),
            Ratio("crf_training_step_all_lengths", min(map(min, steps.values())), goal=1, at_most=False),
            Ratio("crf_decoding", min(decoding), goal=2, at_most=False),
            Ratio("crf_operations", operations(512, 9), goal=500, at_most=True),
            Ratio("crf_gradient_error", gradient_error(), goal=1e-4, at_most=True),
        ],
        as_json=arguments.json,
        packages=["torch", "pytorch-crf"],
    )


if __name__ == "__main__":
    sys.exit(main())
