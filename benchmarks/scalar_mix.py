"""Memory and time of a mix of all layers that is summed up while a 12-layer BERT of base size runs.

The base line is the plain encoder, of which only the top layer is used; the peer is transformers' own
`output_hidden_states=True` with the mix computed afterwards. A training step is forward and backward; the encoder's
weights and those of the mix have gradients. Result and gradients must be those of the peer, and the result that of the
formula in numpy in float64, before anything is measured.

Memory is the peak of what torch's allocator handed out during the step, minus that of the base line, in hidden
states (batch × seq × hidden numbers): from the profiler's record of every allocation and release. `saved` counts what
autograd keeps from the forward to the backward pass, each storage once. Time is the ratio of CPU times to the base
line.

    python benchmarks/scalar_mix.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import torch
from _harness import Ratio, interleave, median_ratio, parser, report
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertModel

from hf_nlpnotes.layers.layer_accumulation import run_selected, watch_layers
from hf_nlpnotes.layers.layer_selection import LayerSelection
from hf_nlpnotes.layers.scalar_mix import ScalarMix

MIX = LayerSelection.parse("mix")


class Work:
    """The encoder, a mix and a batch; three ways to run them."""

    def __init__(self, batch: int, length: int, hidden: int, layers: int) -> None:
        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 64,
            intermediate_size=4 * hidden,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            vocab_size=1000,
        )
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.layers = layers
        watch_layers(self.encoder, layers)
        self.mix = ScalarMix(layers + 1, initial=torch.randn(layers + 1).tolist())
        self.inputs = {"input_ids": torch.randint(1000, (batch, length))}
        self.direction = torch.randn(batch, length, hidden)  # gradient that comes from the head
        self.hidden_state_bytes = self.direction.nbytes

    def plain(self) -> torch.Tensor:
        """The top layer."""
        return self.encoder(**self.inputs).last_hidden_state

    def ours(self) -> torch.Tensor:
        """The mix, while the encoder runs."""
        selected = run_selected(self.encoder, MIX, self.inputs, num_layers=self.layers, mix=self.mix)
        return selected.features

    def stock(self) -> torch.Tensor:
        """The mix, after the encoder has run."""
        hidden_states = self.encoder(**self.inputs, output_hidden_states=True).hidden_states
        weights = self.mix.scalars.softmax(dim=0)
        return self.mix.gamma * sum(
            weight * hidden for weight, hidden in zip(weights.unbind(), hidden_states, strict=True)
        )

    def step(self, forward: Callable[[], torch.Tensor]) -> None:
        """Forward and backward; gradients are there before, as in every step but the first."""
        for parameter in (*self.encoder.parameters(), *self.mix.parameters()):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        forward().backward(self.direction)

    def gradients(self, forward: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        """Gradients of all weights after one step."""
        parameters = [*self.encoder.parameters(), *self.mix.parameters()]
        for parameter in parameters:
            parameter.grad = None
        forward().backward(self.direction)
        return [parameter.grad.clone() for parameter in parameters]


def check(work: Work) -> None:
    """Refuse to measure unlike work."""
    with torch.no_grad():
        hidden_states = work.encoder(**work.inputs, output_hidden_states=True).hidden_states
        stacked = torch.stack(hidden_states).double().numpy()
        logits = work.mix.scalars.double().numpy()
        exponentials = np.exp(logits - logits.max())
        expected = float(work.mix.gamma) * np.tensordot(exponentials / exponentials.sum(), stacked, axes=1)
        np.testing.assert_allclose(work.ours().numpy(), expected, rtol=0, atol=1e-5)
    for mine, theirs in zip(work.gradients(work.ours), work.gradients(work.stock), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def peak_bytes(run: Callable[[], object]) -> int:
    """Highest sum of the allocations that were alive at once, above those before the run."""
    run()  # what is made once and kept
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    alive = np.cumsum([event.nbytes() for event in events])
    return int(alive.max(initial=0))


def saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """What autograd keeps from the forward pass, each storage once."""
    storages: dict[int, int] = {}
    kept = []  # so that no address is given out twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storages.values())


def main() -> int:
    """Check, measure and report."""
    options = parser(__doc__)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--length", type=int, default=64)
    options.add_argument("--hidden", type=int, default=768)
    options.add_argument("--layers", type=int, default=12)
    arguments = options.parse_args()
    torch.set_num_threads(1)
    work = Work(arguments.batch, arguments.length, arguments.hidden, arguments.layers)
    check(work)
    ways = {"plain": work.plain, "ours": work.ours, "stock": work.stock}

    def infer(forward: Callable[[], torch.Tensor]) -> None:
        with torch.no_grad():
            forward()

    unit = work.hidden_state_bytes
    training = {name: peak_bytes(lambda way=way: work.step(way)) / unit for name, way in ways.items()}
    inference = {name: peak_bytes(lambda way=way: infer(way)) / unit for name, way in ways.items()}
    saved = {name: saved_bytes(way) / unit for name, way in ways.items()}
    if not arguments.json:
        for name, figures in {"training": training, "inference": inference, "saved": saved}.items():
            extra = ", ".join(f"{way} {figures[way] - figures['plain']:.2f}" for way in ("ours", "stock"))
            print(f"{name}: plain {figures['plain']:.1f} hidden states; more than that: {extra}")
    steps = interleave([lambda way=way: work.step(way) for way in ways.values()], max(arguments.rounds, 5))
    forwards = interleave([lambda way=way: infer(way) for way in ways.values()], max(arguments.rounds, 5) * 2)
    if not arguments.json:
        print(f"time of the stock way: training {median_ratio(steps[2], steps[0]):.3f}, ", end="")
        print(f"inference {median_ratio(forwards[2], forwards[0]):.3f}")
    return report(
        [
            Ratio("scalar_mix_time", median_ratio(steps[1], steps[0]), goal=1.06, at_most=True),
            Ratio("scalar_mix_time_inference", median_ratio(forwards[1], forwards[0]), goal=1.06, at_most=True),
            Ratio("scalar_mix_memory_training", training["ours"] - training["plain"], goal=1.5, at_most=True),
            Ratio("scalar_mix_memory_inference", inference["ours"] - inference["plain"], goal=1.5, at_most=True),
        ],
        as_json=arguments.json,
        packages=["torch", "transformers"],
    )


if __name__ == "__main__":
    sys.exit(main())
