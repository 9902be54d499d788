"""A learned mix of an encoder's layers (ELMo, Peters et al. 2018, equation 1), summed up while the encoder runs.

    mix = γ · Σ_j s_j · h_j,    s = softmax(w),    j = 0 (embeddings) … L (top)

Use it where the encoder is frozen or little data is at hand: what a task needs often stands below the top layer, and
the mix finds it with L + 2 parameters. Fine-tuning the whole encoder gains little from it. It fails where the weights
learn at the encoder's rate: give them one of 1e-2 or so, since a softmax over scalars needs large steps to move.

A `ScalarMix` takes all hidden states at once, or one at a time through `start()`, which is what keeps memory low:

    running = mix.start()
    for layer in layers:
        hidden = layer(hidden)
        running.add(hidden)
    output = running.finish()

Both forms do the same operations in the same order and so agree to the last bit. Memory beyond that of the encoder,
in hidden states, (batch, seq, hidden):

- inference: one, the sum. No layer's output is kept.
- training: two names for one thing most of the time. The gradient of s_j is ⟨gradient of the mix, h_j⟩ and needs h_j;
  but the layer above has already saved that very tensor, to compute the gradient of its own weights, or its
  checkpoint has. A second reference costs nothing. What is new is the sum in the forward pass (it takes the place of
  the top layer's output in what the head keeps) and its gradient in the backward pass.
- where the layers are frozen nothing else keeps their outputs, so that training w costs a hidden state a layer. With
  `mix.requires_grad_(False)` it does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .offloading import weights_in_place

# Of the official code (allenai/bilm-tf), below the root.
_VARIANCE_EPSILON = 1e-12


class ScalarMix(nn.Module):
    """Weighted sum of hidden states with learned weights that are positive and sum to 1, times a learned scale.

    Args:
        num_layers: How many hidden states there are; L + 1 with the embeddings.
        layer_norm: Normalise each hidden state before it is weighted, as ELMo's option: one mean and one variance over
            all tokens of the batch that the mask keeps. The result for a text then depends on the batch around it.
        dropout: Probability with which a layer is left out of the softmax, in training only; the others share its
            weight. Drawn once a forward pass. If all would be left out, none is.
        initial: `(num_layers,)`, logits to start from; equal weights by default.

    Attributes:
        scalars: `(num_layers,)`, the logits w.
        gamma: `(1,)`, the scale γ. (No scalar: `fully_shard` takes none.)

    Raises:
        ValueError: `num_layers` below 1, `dropout` outside [0, 1), or `initial` of another length.

    >>> mix = ScalarMix(3)
    >>> mix(tuple(torch.full((1, 2, 4), float(j)) for j in range(3))).mean()
    tensor(1., grad_fn=<MeanBackward0>)
    >>> mix.weights()
    tensor([0.3333, 0.3333, 0.3333])
    """

    def __init__(
        self,
        num_layers: int,
        *,
        layer_norm: bool = False,
        dropout: float = 0.0,
        initial: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"num_layers must be a whole number of at least 1, got {num_layers!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout!r}")
        if initial is not None and len(initial) != num_layers:
            raise ValueError(f"initial has {len(initial)} logits for {num_layers} layers: give one a layer")
        self.num_layers = num_layers
        self.layer_norm = layer_norm
        self.dropout = dropout
        self.initial = None if initial is None else tuple(float(logit) for logit in initial)
        self.scalars = nn.Parameter(torch.empty(num_layers))
        self.gamma = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Go back to the initial logits and to γ = 1."""
        if self.initial is None:
            self.scalars.zero_()
        else:
            self.scalars.copy_(torch.tensor(self.initial))
        self.gamma.fill_(1.0)

    def forward(self, hidden_states: Sequence[torch.Tensor], mask: torch.Tensor | None = None) -> torch.Tensor:
        """Mix hidden states that are all at hand.

        Args:
            hidden_states: `num_layers` tensors `(batch, seq, hidden)`.
            mask: `(batch, seq)`, 0 where there is padding; only `layer_norm` looks at it.

        Returns:
            `(batch, seq, hidden)`, in the type of the hidden states.

        Raises:
            ValueError: not `num_layers` tensors, or their shapes differ.
        """
        if len(hidden_states) != self.num_layers:
            raise ValueError(f"This mix is of {self.num_layers} hidden states, got {len(hidden_states)}")
        running = self.start(mask)
        for hidden in hidden_states:
            running.add(hidden)
        return running.finish()

    def start(self, mask: torch.Tensor | None = None) -> RunningMix:
        """Begin a mix to which hidden states are added one at a time; `mask` as of `forward`."""
        return RunningMix(self._coefficients(), self.layer_norm, mask)

    def _coefficients(self) -> torch.Tensor:
        """γ · s, `(num_layers,)` in float32 (or float64)."""
        with weights_in_place(self):  # `start` is no forward
            logits = self.scalars.to(_at_least_float32(self.scalars.dtype))
            if self.training and self.dropout > 0:
                dropped = torch.rand_like(logits) < self.dropout
                dropped = dropped & ~dropped.all()
                logits = logits.masked_fill(dropped, -torch.inf)
            return self.gamma.to(logits.dtype) * logits.softmax(dim=0)

    @torch.no_grad()
    def weights(self) -> torch.Tensor:
        """The weights s of the layers, `(num_layers,)`, float32 on the CPU: they sum to 1, lowest layer first."""
        with weights_in_place(self):
            return self.scalars.detach().float().softmax(dim=0).cpu()

    def plot(self, path: str | os.PathLike[str], names: Iterable[str] | None = None) -> None:
        """Draw the weights as bars; see `plot_weights`.

        Args:
            path: as of `plot_weights`.
            names: as of `plot_weights`.
        """
        plot_weights({"": self.weights().tolist()}, path, names)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f"{self.num_layers}, layer_norm={self.layer_norm}, dropout={self.dropout}"


class RunningMix:
    """A mix under way: `add` one hidden state after the other, then `finish`. Made by `ScalarMix.start`."""

    def __init__(self, coefficients: torch.Tensor, layer_norm: bool, mask: torch.Tensor | None) -> None:
        self._coefficients = coefficients.unbind()
        self._layer_norm = layer_norm
        self._mask = mask
        self._added = 0
        self._total: torch.Tensor | None = None
        self._offset: torch.Tensor | None = None  # Σ of what layer_norm subtracts, a scalar

    def add(self, hidden: torch.Tensor) -> None:
        """Add the next hidden state, `(batch, seq, hidden)`, the embeddings first.

        Raises:
            ValueError: all have been added, or the shape is not that of the others.
        """
        if self._added == len(self._coefficients):
            raise ValueError(f"This mix is of {self._added} hidden states, and all have been added")
        total = self._total
        if total is not None and total.shape != hidden.shape:
            raise ValueError(
                f"Hidden state {self._added} has the shape {tuple(hidden.shape)}, those before {tuple(total.shape)}: "
                "only layers of one shape can be mixed"
            )
        coefficient = self._coefficients[self._added]
        if self._layer_norm:
            mean, scale = _mean_and_scale(hidden, self._mask)
            coefficient = coefficient * scale
            offset = coefficient * mean
            self._offset = offset if self._offset is None else self._offset + offset
        self._total = add_scaled(total, hidden, coefficient)
        self._added += 1

    def finish(self) -> torch.Tensor:
        """Return the mix, `(batch, seq, hidden)`.

        Raises:
            ValueError: hidden states are missing.
        """
        if self._total is None or self._added < len(self._coefficients):
            raise ValueError(f"This mix is of {len(self._coefficients)} hidden states, and {self._added} were added")
        total, self._total = self._total, None
        return total if self._offset is None else total.sub_(self._offset.to(total.dtype))


def add_scaled(total: torch.Tensor | None, hidden: torch.Tensor, coefficient: torch.Tensor) -> torch.Tensor:
    """Return `total + coefficient · hidden`, written over `total` where that is possible; None counts as zero.

    For autograd it keeps a reference to `hidden`, and no copy; the gradient of the coefficient is summed in float32.

    Args:
        total: A sum that this function made and that nobody else holds, or None.
        hidden: Any shape.
        coefficient: A scalar tensor.
    """
    if total is not None and total.dtype != (widest := torch.promote_types(total.dtype, hidden.dtype)):
        total = total.to(widest)  # under autocast the embeddings may be narrower than the layers
    if torch.compiler.is_compiling():  # it plans memory by itself, and is better at it without writes in place
        term = hidden * coefficient.to(hidden.dtype)
        return term if total is None else total + term
    result: torch.Tensor = _AddScaled.apply(total, hidden, coefficient)
    return result


class _AddScaled(torch.autograd.Function):
    """As `torch.addcmul_`, whose gradient of a scalar factor would need a hidden state more, in the narrow type."""

    @staticmethod
    def forward(ctx: Any, total: torch.Tensor | None, hidden: torch.Tensor, coefficient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(hidden if ctx.needs_input_grad[2] else None, coefficient)
        factor = coefficient.to(hidden.dtype)
        if total is None:
            return hidden * factor
        ctx.mark_dirty(total)
        return total.addcmul_(hidden.to(total.dtype), factor.to(total.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        hidden, coefficient = ctx.saved_tensors
        of_total, of_hidden, of_coefficient = ctx.needs_input_grad
        return (
            gradient if of_total else None,
            gradient * coefficient.to(gradient.dtype) if of_hidden else None,
            _inner_product(gradient, hidden) if of_coefficient else None,
        )


def _inner_product(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Sum of all products, in float32 at least: a sum over a batch of half-precision numbers would overflow."""
    if first.dtype == second.dtype and first.dtype in (torch.float32, torch.float64):
        return torch.dot(first.reshape(-1), second.reshape(-1))  # no product of the size of a hidden state
    return (first * second).sum(dtype=_at_least_float32(first.dtype))


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _mean_and_scale(hidden: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1 / standard deviation over all numbers of the tokens that the mask keeps; two scalars in float32.

    From the moments of each token, `(batch, seq)`, so that nothing of the size of the hidden states is made:
    the variance of a union is the mean of the variances plus the variance of the means.
    """
    variances, means = torch.var_mean(hidden, dim=-1, correction=0)
    variances, means = (moment.to(_at_least_float32(moment.dtype)) for moment in (variances, means))
    kept = torch.ones_like(means) if mask is None else mask.to(means.dtype)
    count = kept.sum()
    mean = (kept * means).sum() / count
    variance = (kept * (variances + (means - mean).square())).sum() / count
    return mean, (variance + _VARIANCE_EPSILON).rsqrt()


def plot_weights(
    weights: dict[str, Sequence[float]], path: str | os.PathLike[str], names: Iterable[str] | None = None
) -> None:
    """Draw the weights of one mix or of several side by side, a group of bars a layer.

    Args:
        weights: Title of each mix (one may be empty) and its weights, as `ScalarMix.weights()` gives them.
        path: The picture; its ending (.png, .svg, .pdf) says what it becomes.
        names: Names of the layers; by default "embeddings", "1", "2", …

    Raises:
        ImportError: matplotlib is missing.
        ValueError: there are no weights, or the numbers of weights and names differ.
    """
    lengths = {len(row) for row in weights.values()}
    if len(lengths) != 1:
        raise ValueError(f"Expected mixes of one number of layers, got {sorted(lengths)}")
    (count,) = lengths
    labels = ["embeddings", *map(str, range(1, count))] if names is None else list(names)
    if len(labels) != count:
        raise ValueError(f"{len(labels)} names for {count} weights")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('a picture of the weights needs matplotlib: pip install "hf-nlpnotes[plots]"') from error
    figure = Figure(figsize=(2 + 0.5 * count, 3), layout="constrained")
    FigureCanvasAgg(figure)  # without pyplot: no window, no state of the program is touched
    axes = figure.subplots()
    width = 0.8 / len(weights)
    for index, (title, row) in enumerate(weights.items()):
        offset = (index - (len(weights) - 1) / 2) * width
        axes.bar([place + offset for place in range(count)], list(row), width=width, label=title)
    axes.axhline(1 / count, color="gray", linewidth=1, linestyle=":")  # where all weights begin
    axes.set(xlabel="layer", ylabel="weight")
    axes.set_xticks(range(count), labels, rotation=45 if count > 8 else 0)
    axes.spines[["top", "right"]].set_visible(False)
    if any(weights):
        axes.legend(frameon=False)
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


__all__ = ["RunningMix", "ScalarMix", "add_scaled", "plot_weights"]
