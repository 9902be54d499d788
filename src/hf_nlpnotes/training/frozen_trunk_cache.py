"""The outputs of a frozen trunk, computed once for each example and put in afterwards.

The law of `exact=True`: a state is used again only for the same row, in a batch of the same shape, with padding in the
same sense (some or none), in the same gradient mode and precision. Then the same kernels run on the same numbers, and
what comes out has the same bits, provided that a row's result does not depend on where it stands in its batch and on
what stands beside it. That is not promised by every matrix product (in float64, the last rows of an odd number of them
are summed in another order), so each shape is tried first: the batch is computed once more with its rows shifted by
one, and where any bit differs nothing is kept for that shape.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from hf_nlpnotes.layers.layer_accumulation import unwatched

from .frozen_trunk_keys import EncoderCall, encoder_call, fingerprint, row_keys
from .frozen_trunk_parts import FrozenMode
from .frozen_trunk_store import StateStore

logger = logging.get_logger(__name__)


class _Reached(Exception):  # noqa: N818 -- no error: it ends a forward where the trunk ends
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class TrunkCache:
    """Stands in for the forward of a model's encoder, from `attach` to `detach`.

    The model is frozen and in evaluation mode below the boundary: `mode` is attached. It still computes everything
    beside the layers, masks above all; embeddings are skipped where one tensor leads from them to the first layer.

    Args:
        exact: see the module. False: each example is computed once, whatever stands beside it, kept without its
            padding and put in with zeros there: equal up to rounding, for models in which padding changes no more.
        extra: goes into the fingerprint.

    Attributes:
        rows: rows of all batches so far.
        computed: rows that were run through the trunk for them; trials aside.
    """

    def __init__(
        self, model: nn.Module, mode: FrozenMode, store: StateStore, *, exact: bool = True, extra: str = ""
    ) -> None:
        trunk = mode.trunk
        if not trunk.one_by_one:
            raise ValueError(f"{trunk.why_not}: there is no one tensor to cache. Take cache=None")
        if not trunk.layers:
            raise ValueError(
                "with layers=0 the embeddings alone are frozen: nothing to cache. Take cache=None or layers>=1"
            )
        self.model = model
        self.mode = mode
        self.trunk = trunk
        self.store = store
        self.exact = exact
        self.extra = extra
        self.rows = self.computed = 0
        self.encoder = model.get_submodule(trunk.encoder)
        self.layers = [model.get_submodule(path) for path in trunk.layers]
        named = [*self.encoder.named_parameters(), *self.encoder.named_buffers()]
        above = tuple(f"{path}.".removeprefix(f"{trunk.encoder}.") for path in trunk.upper_layers)
        frozen = {id(model.get_parameter(name)) for name in trunk.parameters}
        self._tensors = [
            (name, tensor)
            for name, tensor in named
            if id(tensor) in frozen or not (isinstance(tensor, nn.Parameter) or name.startswith(above))
        ]
        self._skipped: list[tuple[nn.Module, tuple[int, ...]]] | None = None  # with the shape of a row, length first
        self._forms: list[int | None] = []
        self._row_wise: dict[bytes, bool] = {}
        self._seen: tuple[object, ...] = ()
        self._passing = False
        self._checked = False
        self._padding_checked = exact

    # Attaching

    def attach(self) -> None:
        """Put this object in the place of the encoder's forward."""
        self._own_forward = self.encoder.__dict__.get("forward")
        self._plain = self.encoder.forward
        self.__signature__ = inspect.signature(self._plain)
        self.encoder.forward = self
        self._handle = self.model.register_forward_pre_hook(self._check_model, with_kwargs=True)

    def detach(self) -> None:
        """Give the encoder its own forward back."""
        self._handle.remove()
        _restore(self.encoder, self._own_forward)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the encoder, its trunk only if it must."""
        if self._passing:
            return self._plain(*args, **kwargs)
        if not self._checked:
            self._check(self.encoder, args, kwargs)
        self._see_weights()
        call = encoder_call(self._plain, args, kwargs)
        for name in ("output_hidden_states", "output_attentions"):
            if name not in call.values and getattr(getattr(self.encoder, "config", None), name, False):
                raise ValueError(
                    f"config.{name} asks for what the cache skips. Set it to False, or train without cache"
                )
        states = self._exact_states(call) if self.exact else self._states_without_padding(call)
        if self._skipped is None:  # all of the first batch was in the store: the modules to skip are not known yet
            self._run_trunk(call.values, call.batch)
        self.mode.enter()
        with self._put_in(states):
            return self._plain(*args, **kwargs)

    # Where the states come from

    def _exact_states(self, call: EncoderCall) -> Tensor:
        keys = row_keys(call, exact=True)
        found = [self.store.get(key) for key in keys]
        known = [state for state in found if state is not None]
        self.rows += call.batch
        if len(known) == call.batch:
            return self._batch(known, call)
        self.computed += call.batch
        states = self._run_trunk(call.values, call.batch)
        if self._is_row_wise(call, states):
            kept = states.cpu()
            for row, (key, state) in enumerate(zip(keys, found, strict=True)):
                if state is None:
                    self.store.put(key, kept[row])
        return states.clone()  # the store's own is nobody else's to change

    def _is_row_wise(self, call: EncoderCall, states: Tensor) -> bool:
        """Whether a row's bits depend on that row alone, in batches of this shape."""
        mask = call.values.get("attention_mask")
        shapes = sorted((name, tuple(call.values[name].shape)) for name in call.rows)
        padded = None if mask is None else bool((mask != 0).all())
        kind = repr((shapes, padded, states.dtype, torch.is_grad_enabled())).encode()
        if kind not in self._row_wise:
            order = [*range(1, call.batch), 0]
            shifted = self._run_trunk(call.select(order), call.batch)
            self._row_wise[kind] = torch.equal(shifted, states[order])
            if not self._row_wise[kind]:
                logger.info("Rows of batches %s depend on their places by some bits: they are not cached.", shapes)
        return self._row_wise[kind]

    def _states_without_padding(self, call: EncoderCall) -> Tensor:
        real = call.real_positions()
        self._check_padding(call, real)
        keys = row_keys(call, exact=False)
        found = [self.store.get(key) for key in keys]
        missing = [row for row, state in enumerate(found) if state is None]
        self.rows += call.batch
        self.computed += len(missing)
        if missing:
            states = self._run_trunk(call.select(missing), len(missing)).cpu()
            self._see_length(states, real)
            for state, row in zip(states, missing, strict=True):
                found[row] = state[real[row]]
                self.store.put(keys[row], found[row])  # type: ignore[arg-type]  # just set
        known = [state for state in found if state is not None]
        result = known[0].new_zeros(*real.shape, *known[0].shape[1:])
        result[real] = torch.cat(known)
        return self._batch(list(result), call)

    def _batch(self, states: Sequence[Tensor], call: EncoderCall) -> Tensor:
        """Stack states, (batch, length, hidden), where the model computes."""
        return torch.stack(list(states)).to(call.values[call.rows[0]].device)

    def _run_trunk(self, values: Mapping[str, Any], batch: int) -> Tensor:
        """Run the encoder up to the boundary and return what leaves it, (batch, length, hidden)."""
        last = self.layers[-1]
        handles = [last.register_forward_hook(_stop)]
        trace = _Trace(self) if self._skipped is None else None
        randomness = _random_state()
        self.mode.enter()
        self._passing = True
        try:
            with unwatched():  # a selection of layers must not take these layers for those of the forward under way
                self._plain(**values)
        except _Reached as reached:
            output = reached.output
        else:
            raise ValueError(f"{type(self.encoder).__name__} did not run {self.trunk.layers[-1]}: nothing to cache")
        finally:
            self._passing = False
            for handle in (*handles, *(trace.handles if trace else [])):
                handle.remove()
        if any(not torch.equal(before, after) for before, after in zip(randomness, _random_state(), strict=True)):
            raise ValueError(
                "the frozen layers draw random numbers (dropout or dropped layers) in evaluation mode: their outputs "
                "cannot be cached. Set those rates to 0 in the configuration, or take cache=None"
            )
        states = _hidden(output)
        if states is None or states.dim() < 2 or states.shape[0] != batch:
            raise ValueError(
                f"{type(last).__name__} gives {_describe(output)}, not one tensor with a row an example "
                f"({batch} rows): it cannot be cached. Take cache=None"
            )
        if states.requires_grad:
            raise ValueError(f"the frozen layers read {self._trainable_inputs(states)}, which train. Take cache=None")
        if trace:
            self._skipped, self._forms = trace.skipped(states), trace.forms
        return states.detach()

    def _trainable_inputs(self, states: Tensor) -> str:
        named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        gradients: tuple[Tensor | None, ...] = ()
        if named:
            gradients = torch.autograd.grad(states.sum(), list(named.values()), allow_unused=True)
        found = [name for name, gradient in zip(named, gradients, strict=True) if gradient is not None]
        return ", ".join(found) or "inputs that require gradients"

    def _see_weights(self) -> None:
        """Notice that frozen weights were changed, by their storage and version; then see whether they really were."""
        seen = tuple((tensor.data_ptr(), tensor._version) for _, tensor in self._tensors)
        if any(isinstance(tensor, nn.Parameter) and tensor.requires_grad for _, tensor in self._tensors):
            raise ValueError(
                "parameters of the frozen layers require gradients again: something else (unfreezing?) trains them. "
                "A cache needs them frozen to the end; take cache=None"
            )
        if seen != self._seen:
            self._seen = seen
            self.store.open(fingerprint(self.encoder, self._tensors, self.layers, f"{self.extra} {self.exact}"))

    # How they get into the model

    @contextmanager
    def _put_in(self, states: Tensor) -> Iterator[None]:
        """Let the frozen layers give `states` and compute nothing."""
        assert self._skipped is not None
        stand_ins: list[tuple[nn.Module, Any]] = [
            (module, _Constant(_shaped(states, shape))) for module, shape in self._skipped
        ]
        stand_ins += [
            (layer, _Constant(states if form is None else (states, *[None] * (form - 1))))
            for layer, form in zip(self.layers, self._forms, strict=True)
        ]
        before = [module.__dict__.get("forward") for module, _ in stand_ins]
        try:
            for module, stand_in in stand_ins:
                module.__dict__["forward"] = stand_in
            yield
        finally:
            for (module, _), forward in zip(stand_ins, before, strict=True):
                _restore(module, forward)

    # What is checked once

    def _check_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._checked and not self._passing:
            self._check(module, args, kwargs)

    def _check(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Compare the model's outputs on the first batch with and without the cache.

        A head that reads the frozen layers beside the boundary (a mix of all layers, a position bias that the first
        layer hands on) would get something else, silently.
        """
        self._checked = True
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        states = _random_state()
        runs = _count(self.layers[-1])
        try:
            self._passing = True
            plain = module(*args, **kwargs)
            self._passing = False
            if runs() > 1:
                raise ValueError(
                    f"{self.trunk.layers[-1]} runs {runs()} times in a forward: it cannot be cached. Take cache=None"
                )
            if runs() == 0:
                raise ValueError(
                    f"{self.trunk.layers[-1]} does not run in a forward: nothing to cache. Take cache=None"
                )
            cached = module(*args, **kwargs)
        finally:
            self._passing = False
            runs.handle.remove()
            _set_random_state(states)
            for part, mode in modes:
                part.training = mode
        self.rows = 0  # this batch comes again
        expected, got = list(_tensors_of(plain)), list(_tensors_of(cached))
        same = _same_bits if self.exact else _close
        if len(expected) != len(got) or not all(same(a, b) for a, b in zip(expected, got, strict=True)):
            raise ValueError(
                f"{type(module).__name__} gives other outputs when the states of {self.trunk.layers[-1]} are put in: "
                "it reads more of the frozen layers than that (a mix of layers, a bias that they hand on). "
                "Take cache=None"
            )

    def _check_padding(self, call: EncoderCall, real: Tensor) -> None:
        """See, on the first batch that has padding, that padding does not change the states of what is beside it."""
        lengths = real.sum(1)
        row = int(lengths.argmin())
        if self._padding_checked or not 0 < int(lengths[row]) < real.shape[1]:
            return
        self._padding_checked = True
        alone = dict(call.select([row]))
        padded = self._run_trunk(alone, 1)
        self._see_length(padded, real)
        where = real[row].to(padded.device)
        for name in call.rows:
            if alone[name].shape[1] == real.shape[1]:
                alone[name] = alone[name][:, where]
        if not _close(self._run_trunk(alone, 1), padded[:, where]):
            raise ValueError(
                f"in {type(self.encoder).__name__} padding changes the states of the text beside it: states without "
                "their padding cannot be used again. Take exact=True, and pad all batches to one length"
            )

    def _see_length(self, states: Tensor, real: Tensor) -> None:
        if states.dim() < 3 or states.shape[1] != real.shape[1]:
            raise ValueError(
                f"states of the shape {tuple(states.shape)} for {real.shape[1]} positions have no row a position: "
                "padding cannot be left out. Take exact=True"
            )


class _Constant:
    """A forward that returns what it was given; a class, so that copies of a model can be pickled."""

    def __init__(self, output: Any) -> None:
        self.output = output

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.output


class _Trace:
    """Watches one run of the trunk: which modules lead to the first layer, and in what form layers answer."""

    def __init__(self, cache: TrunkCache) -> None:
        self.outputs: list[tuple[nn.Module, tuple[int, ...], int]] = []
        self.inputs: dict[nn.Module, Any] = {}
        self.forms: list[int | None] = []
        self.kept: list[Any] = []  # so that no identity is given twice
        first = cache.layers[0]
        self.first = first
        self.handles = [first.register_forward_pre_hook(self._enter, with_kwargs=True)]
        for layer in cache.layers:
            # Before the hook that ends the run.
            self.handles.append(layer.register_forward_hook(self._leave_layer, prepend=True))
        trained = {id(p) for p in cache.encoder.parameters() if p.requires_grad}
        for module in cache.trunk.beside_layers(cache.model):
            if not any(id(p) in trained for p in module.parameters()):
                self.handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
                self.handles.append(module.register_forward_hook(self._leave))

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.inputs[module] = args[0] if args else kwargs.get("hidden_states")
        self.kept.append(self.inputs[module])

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() >= 2:
            self.outputs.append((module, tuple(output.shape), id(output)))
        self.kept.append(output)

    def _leave_layer(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if _hidden(output) is None:
            raise ValueError(
                f"{type(module).__name__} gives {_describe(output)}: more than the hidden states, so that putting in "
                "the last of them is not enough. Take cache=None"
            )
        self.forms.append(None if isinstance(output, Tensor) else len(output))

    def skipped(self, states: Tensor) -> list[tuple[nn.Module, tuple[int, ...]]]:
        """Return the modules between the inputs and the first layer, the last first, with the shape of a position."""
        chain: list[tuple[nn.Module, tuple[int, ...]]] = []
        wanted = self.inputs.get(self.first)
        while isinstance(wanted, Tensor):
            done = [module for module, _ in chain]  # dropout in evaluation mode gives what it got
            made = [(m, shape) for m, shape, identity in self.outputs if identity == id(wanted) and m not in done]
            if not made or made[-1][1][:2] != tuple(states.shape[:2]):
                break
            module, shape = made[-1]  # the outermost: it returned last
            chain.append((module, shape[2:]))
            wanted = self.inputs.get(module)
        return chain


class _count:  # noqa: N801 -- a function with a counter
    def __init__(self, module: nn.Module) -> None:
        self.times = 0
        self.handle = module.register_forward_hook(self._add)

    def _add(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.times += 1

    def __call__(self) -> int:
        return self.times


def _stop(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
    raise _Reached(output)


def _restore(module: nn.Module, forward: Any) -> None:
    """Give a module the forward that it had as its own, or its class's."""
    if forward is None:
        module.__dict__.pop("forward", None)
    else:
        module.__dict__["forward"] = forward


def _hidden(output: Any) -> Tensor | None:
    """Return the hidden states if a layer gave nothing else."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0] if all(other is None for other in output[1:]) else None
    return None


def _describe(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of the shape {tuple(output.shape)}"
    if isinstance(output, tuple | list):
        return f"a {type(output).__name__} of {', '.join(type(part).__name__ for part in output)}"
    return f"a {type(output).__name__}"


def _shaped(states: Tensor, rest: tuple[int, ...]) -> Tensor:
    """Return something of the shape that a skipped module gives; nobody reads its values."""
    return states if states.shape[2:] == rest else states.new_zeros(*states.shape[:2], *rest)


def _random_state() -> list[Tensor]:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states.append(torch.cuda.get_rng_state())
    return states


def _set_random_state(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])


def _tensors_of(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output.detach()
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors_of(value)
    elif isinstance(output, tuple | list):
        for value in output:
            yield from _tensors_of(value)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())  # noqa: PLR0124 -- NaN only


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    tolerance = 1e-3 if a.dtype in {torch.float32, torch.float64} else 3e-2
    return torch.allclose(a.float(), b.float(), rtol=tolerance, atol=tolerance, equal_nan=True)
