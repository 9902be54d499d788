"""ScalarMix against ELMo's formula in numpy, and what it keeps in memory."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from hf_nlpnotes.layers.scalar_mix import ScalarMix, add_scaled, plot_weights

SHAPE = (3, 5, 8)


def hidden_states(count: int = 4, dtype: torch.dtype = torch.float64, *, gradients: bool = True) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = [3 * torch.randn(SHAPE, generator=generator, dtype=torch.float64) + j for j in range(count)]
    return [tensor.to(dtype).requires_grad_(gradients) for tensor in made]


def mix_of(count: int = 4, dtype: torch.dtype = torch.float64, **options) -> ScalarMix:
    mix = ScalarMix(count, initial=[0.5 * (-1) ** j * j for j in range(count)], **options).to(dtype)
    with torch.no_grad():
        mix.gamma.fill_(1.7)
    return mix


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def oracle(mix: ScalarMix, states: list[torch.Tensor], mask: torch.Tensor | None = None) -> np.ndarray:
    """γ Σ softmax(w)_j h_j; with layer norm the moments are over all numbers of all tokens that the mask keeps."""
    arrays = [state.detach().double().numpy() for state in states]
    if mix.layer_norm:
        kept = np.ones(SHAPE[:2], bool) if mask is None else mask.bool().numpy()
        arrays = [(array - array[kept].mean()) / np.sqrt(array[kept].var() + 1e-12) for array in arrays]
    weights = softmax(mix.scalars.detach().double().numpy())
    return mix.gamma.item() * sum(weight * array for weight, array in zip(weights, arrays, strict=True))


def accumulated(mix: ScalarMix, states: list[torch.Tensor], mask: torch.Tensor | None = None) -> torch.Tensor:
    running = mix.start(mask)
    for state in states:
        running.add(state)
    return running.finish()


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("mask", [None, MASK])
def test_it_is_the_formula(layer_norm: bool, mask: torch.Tensor | None) -> None:
    mix, states = mix_of(layer_norm=layer_norm), hidden_states()
    np.testing.assert_allclose(mix(states, mask).detach().numpy(), oracle(mix, states, mask), rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_the_accumulating_form_has_the_same_bits(layer_norm: bool) -> None:
    mix, states = mix_of(layer_norm=layer_norm), hidden_states()
    one = mix(states, MASK)
    direction = torch.randn(SHAPE, dtype=torch.float64)
    inputs = [*states, mix.scalars, mix.gamma]
    expected = torch.autograd.grad(one, inputs, direction)
    other = accumulated(mix, states, MASK)
    assert torch.equal(one, other)
    for mine, theirs in zip(torch.autograd.grad(other, inputs, direction), expected, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_gradients_are_those_of_finite_differences(layer_norm: bool) -> None:
    mix = mix_of(3, layer_norm=layer_norm)
    states = [state.detach()[:, :, :3].clone().requires_grad_() for state in hidden_states(3)]

    def run(scalars: torch.Tensor, gamma: torch.Tensor, *hidden: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(mix, {"scalars": scalars, "gamma": gamma}, (hidden, MASK))

    inputs = (mix.scalars.detach().requires_grad_(), mix.gamma.detach().requires_grad_(), *states)
    assert torch.autograd.gradcheck(run, inputs)
    if not layer_norm:
        assert torch.autograd.gradgradcheck(run, inputs)


def test_a_frozen_mix_passes_gradients_on() -> None:
    mix, states = mix_of().requires_grad_(False), hidden_states()
    mix(states).sum().backward()
    for weight, state in zip(softmax(mix.scalars.numpy()), states, strict=True):
        assert state.grad is not None
        np.testing.assert_allclose(state.grad.numpy(), 1.7 * weight, atol=1e-12)


def test_gradients_of_the_weights_do_not_overflow_in_half_precision() -> None:
    """They are sums over the whole batch: float16 ends at 65504."""
    mix, shape = ScalarMix(2), (8, 128, 96)
    states = [torch.full(shape, float(j), dtype=torch.float16) for j in (1, 2)]
    accumulated(mix, states).backward(torch.ones(shape, dtype=torch.float16))
    assert mix.gamma.grad is not None
    assert mix.gamma.grad.item() == pytest.approx(1.5 * 8 * 128 * 96, rel=1e-6)  # γ = 1: Σ of the mix


def test_the_type_is_that_of_the_hidden_states() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        mix, states = ScalarMix(3), hidden_states(3, dtype)
        assert mix(states).dtype == dtype
        np.testing.assert_allclose(mix(states).detach().double().numpy(), oracle(mix, states), atol=0.1)
    narrow, wide = hidden_states(2, torch.bfloat16)[0], hidden_states(2, torch.float32)[1]
    for mixed in ([narrow, wide], [wide, narrow]):
        output = ScalarMix(2)(mixed)
        assert output.dtype == torch.float32
        output.sum().backward()
        assert narrow.grad is not None
        assert narrow.grad.dtype == torch.bfloat16


def test_weights_are_readable_and_in_float32() -> None:
    mix = ScalarMix(3, initial=[0.0, 10.0, 1.0]).to(torch.bfloat16)
    assert mix.weights().dtype == torch.float32
    np.testing.assert_allclose(mix.weights().numpy(), softmax(np.array([0.0, 10.0, 1.0])), rtol=1e-6)
    assert not mix.weights().requires_grad
    assert ScalarMix(4).weights().tolist() == [0.25] * 4


class TestDropout:
    def test_left_out_layers_have_no_weight_and_the_others_share_it(self) -> None:
        mix = mix_of(4, dropout=0.5)
        ones = [torch.eye(4, dtype=torch.float64)[j].expand(1, 1, 4) for j in range(4)]
        weights, seen = softmax(mix.scalars.detach().numpy()), set()
        torch.manual_seed(0)
        for _ in range(200):
            found = mix(ones)[0, 0].detach().numpy() / mix.gamma.item()
            kept = found > 0
            expected = np.where(kept, weights, 0)
            np.testing.assert_allclose(found, expected / expected.sum(), atol=1e-12)
            seen.add(tuple(kept.tolist()))
        assert len(seen) == 2**4 - 1  # every set of layers but the empty one
        assert (False,) * 4 not in seen

    def test_the_share_is_the_probability(self) -> None:
        mix = ScalarMix(2000, dropout=0.3)
        torch.manual_seed(0)
        kept = mix._coefficients() > 0
        assert kept.float().mean().item() == pytest.approx(0.7, abs=0.05)

    def test_not_in_eval(self) -> None:
        mix, states = mix_of(dropout=0.9).eval(), hidden_states()
        np.testing.assert_allclose(mix(states).detach().numpy(), oracle(mix, states), atol=1e-12)

    def test_without_it_no_random_number_is_drawn(self) -> None:
        before = torch.get_rng_state()
        mix_of()(hidden_states())
        assert torch.equal(torch.get_rng_state(), before)

    def test_gradients_stay_finite_when_all_would_go(self) -> None:
        mix = ScalarMix(1, dropout=0.99)
        torch.manual_seed(0)
        mix([torch.ones(1, 1, 2)]).sum().backward()
        assert mix.scalars.grad is not None
        assert mix.scalars.grad.isfinite().all()


class TestMemory:
    """A stack of linear layers, which save their inputs as the layers of an encoder do."""

    layers = torch.nn.ModuleList([torch.nn.Linear(64, 64) for _ in range(8)])
    start = torch.randn(4, 16, 64)

    def plain(self) -> torch.Tensor:
        hidden = self.start
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden

    def mixed(self) -> torch.Tensor:
        running = ScalarMix(9).start()
        hidden = self.start
        running.add(hidden)
        for layer in self.layers:
            hidden = layer(hidden)
            running.add(hidden)
        return running.finish()

    def saved(self, run) -> float:
        storages, kept = {}, []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor)
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            run()
        return sum(storages.values()) / self.start.nbytes

    def peak(self, run) -> float:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run()
        events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        events.sort(key=lambda event: event.start_ns())
        return float(np.cumsum([event.nbytes() for event in events]).max()) / self.start.nbytes

    def test_autograd_keeps_one_hidden_state_more(self) -> None:
        """The top one, which no layer reads; all others are saved by the layers in any case."""
        assert self.saved(self.mixed) - self.saved(self.plain) == pytest.approx(1, abs=0.05)

    def test_peak_in_training(self) -> None:
        for parameter in self.layers.parameters():
            parameter.grad = torch.zeros_like(parameter)
        direction = torch.randn_like(self.start)
        plain = self.peak(lambda: self.plain().backward(direction))
        assert self.peak(lambda: self.mixed().backward(direction)) - plain <= 1.5

    def test_peak_in_inference(self) -> None:
        with torch.no_grad():
            extra = self.peak(self.mixed) - self.peak(self.plain)
        assert extra <= 1.5

    def test_hidden_states_are_free_where_no_gradient_needs_them(self) -> None:
        """A frozen encoder under a frozen mix, whose sum still has a gradient through one trained layer below."""
        mix = ScalarMix(2).requires_grad_(False)
        running = mix.start()
        hidden = torch.ones(2, 2, 2, requires_grad=True) * 1
        reference = weakref.ref(hidden)
        running.add(hidden)
        del hidden
        gc.collect()
        assert reference() is None


def test_compiled_it_is_the_same() -> None:
    mix, states = mix_of(layer_norm=True), hidden_states()
    compiled = torch.compile(mix, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tuple(states), MASK), mix(states, MASK))
    parameters = list(mix.parameters())
    mine = torch.autograd.grad(compiled(tuple(states), MASK).sum(), parameters)
    torch.testing.assert_close(mine, torch.autograd.grad(mix(states, MASK).sum(), parameters))


def test_add_scaled_does_not_write_over_what_it_was_given() -> None:
    first = torch.ones(2, 2)
    total = add_scaled(None, first, torch.tensor(2.0))
    add_scaled(total, first, torch.tensor(3.0))
    assert torch.equal(first, torch.ones(2, 2))
    assert torch.equal(total, torch.full((2, 2), 5.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_layers": 0}, "at least 1"),
        ({"num_layers": 2, "dropout": 1.0}, r"\[0, 1\)"),
        ({"num_layers": 2, "initial": [0.0]}, "1 logits for 2"),
    ],
)
def test_bad_options(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScalarMix(**options)


def test_bad_input() -> None:
    mix = ScalarMix(2)
    with pytest.raises(ValueError, match="of 2 hidden states, got 1"):
        mix([torch.ones(1, 1, 1)])
    with pytest.raises(ValueError, match="only layers of one shape"):
        mix([torch.ones(1, 1, 1), torch.ones(1, 2, 1)])
    running = mix.start()
    running.add(torch.ones(1, 1, 1))
    with pytest.raises(ValueError, match="and 1 were added"):
        running.finish()
    running.add(torch.ones(1, 1, 1))
    with pytest.raises(ValueError, match="all have been added"):
        running.add(torch.ones(1, 1, 1))


class TestPlot:
    def test_it_writes_a_picture(self, tmp_path) -> None:
        pytest.importorskip("matplotlib")
        mix_of().plot(tmp_path / "weights.svg")
        assert (tmp_path / "weights.svg").read_text(encoding="utf-8").startswith("<?xml")
        plot_weights({"before": [0.5, 0.5], "after": [0.2, 0.8]}, tmp_path / "two.png", ["embeddings", "top"])
        assert {path.name for path in tmp_path.iterdir()} == {"weights.svg", "two.png"}

    def test_bars_stand_side_by_side_about_their_layer(self, tmp_path, monkeypatch) -> None:
        figure = pytest.importorskip("matplotlib.figure").Figure
        drawn = []
        monkeypatch.setattr(figure, "savefig", lambda self, path, **_: (drawn.append(self), path.touch()))
        plot_weights({"before": [0.5, 0.2, 0.3], "after": [0.1, 0.8, 0.1]}, tmp_path / "two.png")
        (axes,) = drawn[0].axes
        centres = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
        assert centres == pytest.approx([-0.2, 0.8, 1.8, 0.2, 1.2, 2.2])  # bars of 0.4, and 0.2 between the layers
        assert [bar.get_height() for bar in axes.patches] == [0.5, 0.2, 0.3, 0.1, 0.8, 0.1]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["embeddings", "1", "2"]

    @pytest.mark.parametrize(("count", "rotation"), [(8, 0), (9, 45)])
    def test_names_of_many_layers_are_turned(self, tmp_path, monkeypatch, count, rotation) -> None:
        figure = pytest.importorskip("matplotlib.figure").Figure
        drawn = []
        monkeypatch.setattr(figure, "savefig", lambda self, path, **_: (drawn.append(self), path.touch()))
        ScalarMix(count).plot(tmp_path / "one.png")
        assert {label.get_rotation() for label in drawn[0].axes[0].get_xticklabels()} == {rotation}

    def test_a_picture_that_fails_leaves_nothing(self, tmp_path, monkeypatch) -> None:
        figure = pytest.importorskip("matplotlib.figure").Figure

        def fail(self, path, **_) -> None:
            path.touch()
            raise OSError("no space")

        monkeypatch.setattr(figure, "savefig", fail)
        with pytest.raises(OSError, match="no space"):
            mix_of().plot(tmp_path / "weights.png")
        assert not list(tmp_path.iterdir())

    def test_bad_weights(self, tmp_path) -> None:
        with pytest.raises(ValueError, match="one number of layers"):
            plot_weights({"a": [1.0], "b": [0.5, 0.5]}, tmp_path / "x.png")
        with pytest.raises(ValueError, match="3 names for 2 weights"):
            plot_weights({"a": [0.5, 0.5]}, tmp_path / "x.png", ["1", "2", "3"])
        assert not list(tmp_path.iterdir())
