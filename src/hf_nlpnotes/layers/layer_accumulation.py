"""Select and combine hidden states while an encoder runs, through hooks on its layers, for any architecture.

Stock `output_hidden_states=True` keeps L + 1 hidden states until the forward pass ends. Here each is combined as it
appears, and is gone with the next one unless autograd needs it.

The hidden state j is what layer j + 1 reads (a pre-forward hook), and the top is what the encoder returns. That is
the definition of `output_hidden_states`, it includes what models do between two layers (the convolution of DeBERTa-v2
XXL) and after the last (the final norm of pre-norm models), and it lies outside of activation checkpointing.

Where the selection ends below the top, the layers above are not run: the hook of the first one not needed leaves the
encoder's forward by an exception of ours, caught in `run_selected`. A compiler leaves them out by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from .layer_discovery import LayerStack, layer_stacks
from .layer_selection import LayerSelection
from .scalar_mix import ScalarMix

_CHECKPOINTED = "gradient_checkpointing"
_SEQUENCE_FIRST = "_hf_nlpnotes_sequence_first"


class Accumulation(Protocol):
    """Hidden states become one: `add` each in turn, the lowest first, then `finish`."""

    def add(self, hidden: torch.Tensor) -> None:
        """Take the next hidden state, `(batch, seq, hidden)`."""

    def finish(self) -> torch.Tensor:
        """Return the result, `(batch, seq, width · hidden)`."""


class Selected(NamedTuple):
    """What `run_selected` returns.

    Attributes:
        features: `(batch, seq, width · hidden)`.
        outputs: What the encoder returned; None if it was left below the top.
    """

    features: torch.Tensor
    outputs: Any


def start_accumulation(
    selection: LayerSelection, num_layers: int, mix: ScalarMix | None = None, mask: torch.Tensor | None = None
) -> Accumulation:
    """Begin to combine the hidden states of a selection, which are then added in ascending order.

    Args:
        selection: What is added, and how it is combined.
        num_layers: Layers of the encoder.
        mix: The weights of a selection that mixes, as many as it has layers.
        mask: `(batch, seq)`, for a mix with layer norm.

    Raises:
        ValueError: the selection and the mix do not fit.
    """
    count = len(selection.indices(num_layers))
    if selection.combine == "mix":
        if mix is None or mix.num_layers != count:
            got = "none" if mix is None else f"one of {mix.num_layers}"
            raise ValueError(f"'{selection}' needs a ScalarMix of {count} layers, got {got}")
        return mix.start(mask)
    if selection.combine is None:
        return _Single()
    if selection.combine == "mean":
        return _Mean(count)
    return _Max() if selection.combine == "max" else _Concat()


class _Single:
    def __init__(self) -> None:
        self.result: torch.Tensor | None = None

    def add(self, hidden: torch.Tensor) -> None:
        self.result = hidden

    def finish(self) -> torch.Tensor:
        assert self.result is not None
        return self.result


class _Mean:
    """The gradient of a mean needs no hidden state: one sum is all that is kept."""

    def __init__(self, count: int) -> None:
        self.share = 1 / count
        self.total: torch.Tensor | None = None

    def add(self, hidden: torch.Tensor) -> None:
        if self.total is None:
            self.total = hidden * self.share
        else:
            self.total = self.total.to(torch.promote_types(self.total.dtype, hidden.dtype))
            self.total.add_(hidden, alpha=self.share)

    def finish(self) -> torch.Tensor:
        assert self.total is not None
        return self.total


class _Max:
    """Of equal values the lowest layer's counts, as in `torch.max`. Autograd keeps a bool a number and layer."""

    def __init__(self) -> None:
        self.largest: torch.Tensor | None = None

    def add(self, hidden: torch.Tensor) -> None:
        if self.largest is None:
            self.largest = hidden
        else:
            larger = (hidden > self.largest) | hidden.isnan()  # nan is passed on, as by `torch.max`
            self.largest = torch.where(larger, hidden, self.largest)

    def finish(self) -> torch.Tensor:
        assert self.largest is not None
        return self.largest


class _Concat:
    def __init__(self) -> None:
        self.parts: list[torch.Tensor] = []

    def add(self, hidden: torch.Tensor) -> None:
        self.parts.append(hidden)

    def finish(self) -> torch.Tensor:
        return torch.cat(self.parts, dim=-1)


# ------------------------------------------------------------------------------------------------------------- hooks


def encoder_stack(encoder: nn.Module, num_layers: int) -> LayerStack:
    """Return the stack whose layers make the hidden states of `encoder`.

    Raises:
        ValueError: there are several stacks and not one alone of `num_layers` layers, as in encoder-decoder models.
    """
    stacks = layer_stacks(encoder)
    fitting = stacks if len(stacks) == 1 else [stack for stack in stacks if len(stack.layers) == num_layers]
    if len(fitting) != 1:
        found = ", ".join(f"{stack.name} ({len(stack.layers)})" for stack in stacks)
        raise ValueError(
            f"{type(encoder).__name__} has several stacks of layers, {found}: layers are selected from one of them. "
            "Give the encoder alone (T5EncoderModel, model.get_encoder())"
        )
    return fitting[0]


def watch_layers(encoder: nn.Module, num_layers: int) -> None:
    """Put a hook before every layer of `encoder`, once; outside of `run_selected` it does nothing.

    The hooks are plain functions of this module: a model with them can be copied, pickled and replicated.

    Args:
        encoder: the encoder.
        num_layers: how many layers it has, `config.num_hidden_layers`.

    Raises:
        ValueError: as `encoder_stack`.
    """
    for path in encoder_stack(encoder, num_layers).layers:
        layer = encoder.get_submodule(path)
        if _before_layer not in layer._forward_pre_hooks.values():
            layer.register_forward_pre_hook(_before_layer, with_kwargs=True)


class _Leave(Exception):  # noqa: N818 -- no error, but the way out of a forward pass
    """The layers still to come are not needed."""


class _Run:
    """One forward pass under way."""

    def __init__(
        self, accumulation: Accumulation, wanted: tuple[int, ...], num_layers: int, leave: bool, shape: _Shape
    ) -> None:
        self.accumulation = accumulation
        self.wanted = wanted
        # Entering layer j + 1 we have hidden state j, and all of them if j is the last one that is wanted.
        self.leave_at = wanted[-1] if leave and wanted[-1] < num_layers else None
        self.shape = shape
        self.layers_entered = 0

    def enter_layer(self, hidden: torch.Tensor) -> None:
        index = self.layers_entered
        self.layers_entered += 1
        if index in self.wanted:
            self.accumulation.add(self.shape.arrange(hidden, index))
        if index == self.leave_at:
            raise _Leave


class _Current(threading.local):
    """The run of this thread: a served model may be called from several at once."""

    run: _Run | None = None


class _CurrentWhileCompiling:
    """Dynamo cannot read a `threading.local`."""

    run: _Run | None = None


_current = _Current()
_current_while_compiling = _CurrentWhileCompiling()


def _place() -> Any:
    return _current_while_compiling if torch.compiler.is_compiling() else _current


def _before_layer(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    run: _Run | None = _place().run
    if run is None:
        return
    # Before 5.23 or so transformers checkpointed a layer's `__call__`, hooks and all.
    if type(module).__call__ is not nn.Module.__call__ and module.training and getattr(module, _CHECKPOINTED, False):
        raise RuntimeError(
            f"Activation checkpointing of {type(module).__name__} takes in its hooks, and layers cannot be combined "
            "inside of a checkpoint: upgrade transformers, or train without activation checkpointing"
        )
    run.enter_layer(_first_tensor(args, kwargs))


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    if isinstance(kwargs.get("hidden_states"), torch.Tensor):
        return kwargs["hidden_states"]
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            return value
    raise RuntimeError("A layer was called without a tensor, so that its hidden state cannot be told")


# --------------------------------------------------------------------------------------------------------- the shape


class _Shape:
    """Brings hidden states to the input's `(batch, seq)`: XLNet has the sequence first, Longformer lengthens it."""

    def __init__(self, encoder: nn.Module, inputs: Mapping[str, Any]) -> None:
        self.encoder = encoder
        self.inputs = inputs
        # Input ids are (batch, seq), input embeddings (batch, seq, hidden); other models have to do without.
        main = inputs.get("input_ids")
        main = inputs.get("inputs_embeds") if main is None else main
        self.expected = (main.shape[0], main.shape[1]) if isinstance(main, torch.Tensor) and main.dim() > 1 else None

    def arrange(self, hidden: torch.Tensor, index: int, inside: bool = True) -> torch.Tensor:
        """Arrange hidden state `index`, which comes from the `inside` of the encoder or is what it returns."""
        if self.expected is None:
            return hidden
        batch, length = self.expected
        if inside and hidden.dim() == 3 and self._sequence_first(hidden):
            hidden = hidden.transpose(0, 1)
        if hidden.dim() != 3 or hidden.shape[0] != batch or hidden.shape[1] < length:
            raise ValueError(
                f"Hidden state {index} of {type(self.encoder).__name__} has the shape {tuple(hidden.shape)} for input "
                f"of {batch} × {length} tokens: expected one vector a token. Select layers that have that, or 'top'"
            )
        return hidden if hidden.shape[1] == length else hidden[:, :length]

    def _sequence_first(self, hidden: torch.Tensor) -> bool:
        assert self.expected is not None
        first, second = hidden.shape[:2]
        if torch.compiler.is_compiling():
            return bool(getattr(self.encoder, _SEQUENCE_FIRST, False))
        if first != second:
            known = (first, second) == (self.expected[1], self.expected[0])
            setattr(self.encoder, _SEQUENCE_FIRST, known)
            return known
        if first == 1:
            return False
        if not hasattr(self.encoder, _SEQUENCE_FIRST):  # a square of tokens does not tell; its first row does
            setattr(self.encoder, _SEQUENCE_FIRST, _first_layer_input(self.encoder, self.inputs, first).shape[0] != 1)
        return bool(getattr(self.encoder, _SEQUENCE_FIRST))


@torch.no_grad()
def _first_layer_input(encoder: nn.Module, inputs: Mapping[str, Any], batch: int) -> torch.Tensor:
    """What the first layer reads when the encoder gets the first text of the batch alone."""
    row = {
        name: value[:1] if isinstance(value, torch.Tensor) and value.dim() > 1 and value.shape[0] == batch else value
        for name, value in inputs.items()
    }
    found = _Single()
    run = _Run(found, (0,), 1, leave=True, shape=_Shape(encoder, {}))
    devices = {
        value.device for value in row.values() if isinstance(value, torch.Tensor) and value.device.type == "cuda"
    }
    with torch.random.fork_rng(devices=list(devices)):  # dropout of the embeddings must not move the generator
        _run(encoder, row, run)
    return found.finish()


# --------------------------------------------------------------------------------------------------------------- run


def run_selected(
    encoder: nn.Module,
    selection: LayerSelection,
    inputs: Mapping[str, Any],
    *,
    num_layers: int,
    mix: ScalarMix | None = None,
    mask: torch.Tensor | None = None,
    all_layers: bool = False,
) -> Selected:
    """Run `encoder`, and no layer more than `selection` needs.

    Args:
        encoder: A model whose output has the last hidden state first, after `watch_layers`.
        selection: What to return.
        inputs: Arguments of its forward by name.
        num_layers: How many layers it has, `config.num_hidden_layers`.
        mix: As of `start_accumulation`.
        mask: As of `start_accumulation`.
        all_layers: Run all layers in any case, for the encoder's own outputs (attentions).

    Raises:
        ValueError: the selection does not fit the encoder, or a hidden state is not of one vector a token.
        RuntimeError: not as many layers ran as expected, or they ran inside of a checkpoint.
    """
    indices = selection.indices(num_layers)
    shape = _Shape(encoder, inputs)
    accumulation = start_accumulation(selection, num_layers, mix, mask)
    # A compiler drops the layers whose output nobody reads, and is not fond of exceptions.
    leave = not all_layers and not torch.compiler.is_compiling()
    run = _Run(accumulation, indices, num_layers, leave, shape)
    outputs = _run(encoder, inputs, run)
    if outputs is not None:
        if run.layers_entered != num_layers:
            raise RuntimeError(
                f"{run.layers_entered} layers of {type(encoder).__name__} were called, expected {num_layers}. If "
                "layers were replaced, call watch_layers() again. Layers cannot be selected where some are skipped at "
                "random (layerdrop: set it to 0) or where the model calls their `forward` itself, past their hooks "
                "(SqueezeBERT)"
            )
        if indices[-1] == num_layers:
            accumulation.add(shape.arrange(outputs[0], num_layers, inside=False))
    return Selected(accumulation.finish(), outputs)


def _run(encoder: nn.Module, inputs: Mapping[str, Any], run: _Run) -> Any:
    """Call `encoder` with `run` as the run that its hooks report to; None if it was left before its end."""
    place = _place()
    before = place.run
    place.run = run
    try:
        return encoder(**inputs)
    except _Leave:
        return None
    finally:
        place.run = before


@contextmanager
def unwatched() -> Iterator[None]:
    """Forward passes in here report to no run: such as something makes for itself inside of the one under way."""
    place = _place()
    before, place.run = place.run, None
    try:
        yield
    finally:
        place.run = before


__all__ = [
    "Accumulation",
    "Selected",
    "encoder_stack",
    "run_selected",
    "start_accumulation",
    "unwatched",
    "watch_layers",
]
