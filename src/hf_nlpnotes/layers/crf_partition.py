r"""Sums over all tag sequences of a linear-chain CRF: the partition function and the expectations under it.

    Z = Σ_y exp(start[y₁] + Σ_t emissions[t, y_t] + Σ_t transitions[y_{t-1}, y_t] + end[y_n])

The derivatives of log Z are expectations: that by emissions[t, j] is P(y_t = j), that by transitions[i, j] how often
j follows i on average (Lafferty, McCallum and Pereira 2001; Rabiner 1989, equations 18 to 37). So they come from one
forward and one backward recursion, without a graph of operations for autograd. Three ways to run them:

- `sequential`: one small matrix product a step, on probabilities that are scaled to sum 1 at each step (Rabiner's
  section V.A). The fastest on a CPU.
- `parallel`: products of the steps' K × K matrices in a balanced tree, O(log T) operations in all (Särkkä and
  García-Fernández 2021, "Temporal Parallelization of Bayesian Smoothers", for linear Gaussian chains). K times the
  arithmetic, meant for GPUs, where a step's launch costs more than its work.
- `log`: log-sum-exp at each step. It takes scores of any size.

The first two multiply numbers as far apart as exp of the widest range of the scores. They run in float64, and a range
that could leave it is told from the scores beforehand: then, and on devices without float64, `log` takes their place.

Every recursion here runs inside of one operator, `hf_nlpnotes::crf_log_partition`, which `torch.compile` takes as it
is: it neither unrolls the steps nor breaks its graph.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch

Algorithm = Literal["sequential", "parallel", "log"]
ALGORITHMS: tuple[Algorithm, ...] = ("sequential", "parallel", "log")

_LARGEST_EXPONENT = 300.0
"""Of float64's 708: forward and backward probabilities, each down to exp(-300), are multiplied."""

_STEPS_AT_ONCE = 32
"""Steps whose K × K pairs are in memory at once in the `log` way."""


class TransitionScores(NamedTuple):
    """Scores of neighbours; -inf forbids.

    Attributes:
        transitions: (num_tags, num_tags), row to column.
        start: (num_tags,), of a first tag.
        end: (num_tags,), of a last tag.
    """

    transitions: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor


class Expectations(NamedTuple):
    """The partition function and its derivatives.

    Attributes:
        log_partition: (batch,).
        unary: (batch, seq, num_tags), P(y_t = j); 0 from a sequence's length on.
        pairs: (batch, num_tags, num_tags), expected number of times that j follows i.
    """

    log_partition: torch.Tensor
    unary: torch.Tensor
    pairs: torch.Tensor


class _Chain(NamedTuple):
    """What a recursion reads, the time first, in the type that it computes in."""

    emissions: torch.Tensor  # (seq, batch, num_tags)
    transitions: torch.Tensor  # (num_tags, num_tags)
    start: torch.Tensor  # (num_tags,)
    end: torch.Tensor  # (num_tags,)
    inside: torch.Tensor  # (seq, batch), whether the position is one of the sequence
    last: torch.Tensor  # (batch,), its last position
    is_full: bool  # every sequence has the whole length


def log_partition(
    emissions: torch.Tensor,
    neighbours: TransitionScores,
    lengths: torch.Tensor,
    algorithm: Algorithm = "sequential",
    mixing_steps: int | None = 1,
) -> torch.Tensor:
    """Log Z of each sequence; differentiable by the emissions and by the scores of neighbours, once.

    Args:
        emissions: (batch, seq, num_tags), float32 or float64.
        neighbours: in the type of the emissions.
        lengths: (batch,), 1 to seq; later positions count for nothing.
        algorithm: see above.
        mixing_steps: after how many steps every tag can follow every tag; None where that never happens.

    Returns:
        (batch,), in the type of the emissions.

    Raises:
        ValueError: a sequence has no tags at all that are allowed, or scores are not finite.
    """
    inputs = (emissions, *neighbours)
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    # The tree is large: it is made again for the backward pass. The other ways keep what the backward pass needs.
    wanted = wanted and algorithm != "parallel"
    outputs: tuple[torch.Tensor, ...] = _operator(*inputs, lengths, algorithm, mixing_steps or 0, wanted)
    return outputs[0]


@torch.no_grad()
def expectations(
    emissions: torch.Tensor,
    neighbours: TransitionScores,
    lengths: torch.Tensor,
    algorithm: Algorithm = "sequential",
    mixing_steps: int | None = 1,
) -> Expectations:
    """Log Z with its derivatives; arguments and errors as of `log_partition`."""
    outputs = _operator(emissions, *neighbours, lengths, algorithm, mixing_steps or 0, True)
    return Expectations(*outputs)


# ---------------------------------------------------------------------------------------------------------- operator


@torch.library.custom_op("hf_nlpnotes::crf_log_partition", mutates_args=())
def _operator(
    emissions: torch.Tensor,
    transitions: torch.Tensor,
    start: torch.Tensor,
    end: torch.Tensor,
    lengths: torch.Tensor,
    algorithm: str,
    mixing_steps: int,  # 0: never
    wanted: bool,  # compute the expectations too
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    length = emissions.shape[1]
    has_float64 = emissions.device.type != "mps"
    dtype = torch.float64 if has_float64 else torch.float32
    inside = torch.arange(length, device=lengths.device)[:, None] < lengths
    # What lies behind the end may be anything, inf and nan too, and is made 0.
    by_time = emissions.transpose(0, 1).to(dtype, memory_format=torch.contiguous_format)
    chain = _Chain(
        by_time.where(inside[:, :, None], 0),
        transitions.to(dtype),
        start.to(dtype),
        end.to(dtype),
        inside,
        lengths - 1,
        False,
    )
    steps = min(mixing_steps or length, length)
    # One transfer from the device for all that is decided here.
    reach, shortest = torch.stack([steps * _range(chain), lengths.min().to(dtype)]).tolist()
    chain = chain._replace(is_full=shortest == length)
    fits = has_float64 and reach < _LARGEST_EXPONENT  # not so for nan and inf
    run = {"sequential": _sequential, "parallel": _parallel, "log": _log}[algorithm if fits else "log"]
    # Where there is no float64, autocast would take the products to half precision.
    with torch.autocast(emissions.device.type, enabled=False):
        log_z, unary, pairs = run(chain, wanted)
    if not bool(log_z.isfinite().all()):
        raise ValueError(_no_sum(chain, log_z))
    size = emissions.shape
    if unary is None or pairs is None:
        return log_z.to(emissions.dtype), emissions.new_empty(0), emissions.new_empty(0)
    assert unary.shape == (size[1], size[0], size[2])
    # Contiguous: what the compiler was told to expect.
    return (
        log_z.to(emissions.dtype),
        unary.transpose(0, 1).to(emissions.dtype, memory_format=torch.contiguous_format),
        pairs.to(emissions.dtype, memory_format=torch.contiguous_format),
    )


@_operator.register_fake
def _(emissions: torch.Tensor, *others: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    batch, length, num_tags = emissions.shape
    log_z = emissions.new_empty(batch)
    if not others[-1]:
        return log_z, emissions.new_empty(0), emissions.new_empty(0)
    return log_z, emissions.new_empty(batch, length, num_tags), emissions.new_empty(batch, num_tags, num_tags)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    *tensors, algorithm, mixing_steps, wanted = inputs
    _, unary, pairs = output
    ctx.mark_non_differentiable(unary, pairs)
    ctx.set_materialize_grads(False)
    ctx.of_emissions = tensors[0].requires_grad
    ctx.options = None if wanted else (algorithm, mixing_steps)
    ctx.save_for_backward(*tensors, *((unary, pairs) if wanted else ()))


def _backward(ctx: Any, gradient: torch.Tensor | None, *_: Any) -> tuple[torch.Tensor | None, ...]:
    if gradient is None:
        return (None,) * 8
    *scores, lengths = ctx.saved_tensors[:5]
    kept = ctx.saved_tensors[5:]
    unary, pairs = kept if ctx.options is None else _operator(*scores, lengths, *ctx.options, True)[1:]
    last = (lengths - 1)[:, None, None].expand(-1, 1, unary.shape[-1])
    of_emissions = gradient[:, None, None] * unary if ctx.of_emissions else None
    of_start, of_end = gradient @ unary[:, 0], gradient @ unary.gather(1, last)[:, 0]
    of_transitions = torch.tensordot(gradient, pairs, 1)
    found: tuple[torch.Tensor | None, ...] = (of_emissions, of_transitions, of_start, of_end)
    if torch.is_grad_enabled():  # create_graph=True
        found = tuple(one if one is None else _FirstDerivative.apply(one, *scores) for one in found)
    return (*found, None, None, None, None)


class _FirstDerivative(torch.autograd.Function):
    """A derivative, and the scores that it depends on: autograd has no record of how, and may not take it for none."""

    @staticmethod
    def forward(_: Any, derivative: torch.Tensor, *_scores: torch.Tensor) -> torch.Tensor:
        return derivative.view_as(derivative)

    @staticmethod
    def backward(_: Any, *_gradients: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(
            "The partition function of a CRF has no second derivatives here: leave its loss out of what is "
            "differentiated twice (gradient penalties, Hessians), or take differences of its first derivatives"
        )


_operator.register_autograd(_backward, setup_context=_keep)


def _range(chain: _Chain) -> torch.Tensor:
    """How far apart the scores of one step can be, of those that are allowed; 0-dimensional."""
    of_emissions = chain.emissions.amax(-1) - chain.emissions.amin(-1)
    scores = _neighbour_scores(chain)
    largest = scores.max()
    smallest = scores.where(scores > -torch.inf, largest).min()
    return of_emissions.max() + largest - smallest


def _neighbour_scores(chain: _Chain) -> torch.Tensor:
    return torch.cat([chain.transitions.flatten(), chain.start, chain.end])


def _no_sum(chain: _Chain, log_z: torch.Tensor) -> str:
    row = int(log_z.isfinite().logical_not().nonzero()[0, 0])
    scores = torch.cat([chain.emissions[:, row].flatten(), *(table.flatten() for table in chain[1:4])])
    if bool((scores < torch.inf).all()):  # -inf forbids, nan compares as false
        return (
            f"no sequence of {int(chain.last[row]) + 1} tags is allowed (row {row} of the batch): the constraints have"
            " no way from a first tag to a last one in so many steps"
        )
    return (
        f"the scores of row {row} of the batch are not finite: emissions or transitions hold nan or inf. A loss that"
        " diverged, or half precision that overflowed, leaves such numbers"
    )


# -------------------------------------------------------------------------------------------------------- sequential


class _Scaled(NamedTuple):
    """Potentials as factors of at most 1; `log_scale` is what that left out, (batch,)."""

    emissions: torch.Tensor  # (seq, batch, num_tags), 1 outside
    transitions: torch.Tensor
    start: torch.Tensor
    end: torch.Tensor
    log_scale: torch.Tensor


def _scaled(chain: _Chain) -> _Scaled:
    largest, top = chain.emissions.amax(-1), _neighbour_scores(chain).max()
    # Outside the emissions are 0, and so is their largest. Between n positions there are n - 1 pairs, and two ends.
    log_scale = largest.sum(0) + (chain.last + 2) * top
    transitions, start, end = ((scores - top).exp() for scores in (chain.transitions, chain.start, chain.end))
    return _Scaled((chain.emissions - largest[:, :, None]).exp(), transitions, start, end, log_scale)


def _sequential(chain: _Chain, wanted: bool) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    scaled = _scaled(chain)
    length, batch, num_tags = chain.emissions.shape
    # α_t(j) = P(y_t = j | positions up to t): (seq, batch, num_tags); its sums before scaling: (seq, batch, 1).
    forward, sums = torch.empty_like(scaled.emissions), scaled.emissions.new_empty(length, batch, 1)
    alphas, totals, factors = forward.unbind(), sums.unbind(), scaled.emissions.unbind()
    torch.mul(factors[0], scaled.start, out=alphas[0])
    for step in range(length):
        if step:
            torch.mm(alphas[step - 1], scaled.transitions, out=alphas[step])
            alphas[step].mul_(factors[step])
        torch.sum(alphas[step], -1, keepdim=True, out=totals[step])
        alphas[step].div_(totals[step])
    # Behind the end of a sequence α goes on and is not looked at.
    at_end = forward.gather(0, chain.last[None, :, None].expand(1, -1, num_tags))[0]
    log_z = scaled.log_scale + sums[:, :, 0].log().where(chain.inside, 0).sum(0) + (at_end @ scaled.end).log()
    if not wanted:
        return log_z, None, None
    # β_t(i) ∝ P(positions after t | y_t = i), and the products ω_t = ψ_t β_t that come in its recursion.
    backward, products = torch.empty_like(forward), torch.empty_like(forward)
    betas, omegas = backward.unbind(), products.unbind()
    is_last = (torch.arange(length, device=chain.last.device)[:, None] >= chain.last)[:, :, None].unbind()
    transposed = scaled.transitions.T.contiguous()
    betas[-1].copy_(scaled.end.expand(batch, -1))
    for step in range(length - 1, 0, -1):
        torch.mul(betas[step], factors[step], out=omegas[step])
        torch.mm(omegas[step], transposed, out=betas[step - 1])
        torch.sum(betas[step - 1], -1, keepdim=True, out=totals[step])  # of α no more needed
        betas[step - 1].div_(totals[step])
        if not chain.is_full:
            torch.where(is_last[step - 1], scaled.end, betas[step - 1], out=betas[step - 1])
    unary = _normalised(forward * backward, chain.inside)
    # ξ_t(i, j) = α_{t-1}(i) A(i, j) ω_t(j) / its sum
    before = forward[:-1].where(chain.inside[1:, :, None], 0)
    after = products[1:] / (sums[1:] * (forward[:-1] * backward[:-1]).sum(-1, keepdim=True))
    after = after.where(chain.inside[1:, :, None], 0)
    pairs = torch.bmm(before.permute(1, 2, 0), after.transpose(0, 1)) * scaled.transitions
    return log_z, unary, pairs


def _normalised(weights: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Weights over the last dimension made to sum to 1, and 0 outside (where they may be nan)."""
    return (weights / weights.sum(-1, keepdim=True)).where(inside[:, :, None], 0)


# ---------------------------------------------------------------------------------------------------------- parallel


def _parallel(chain: _Chain, wanted: bool) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    scaled = _scaled(chain)
    length, batch, _ = chain.emissions.shape
    first = scaled.emissions[0] * scaled.start  # (batch, num_tags)
    # A node is a product of matrices of neighbouring steps. All nodes of a level stand in one dimension, those of a
    # row of the batch together and as many as a power of 2: so the even ones are left children, the odd ones right.
    nodes = _leaves(chain, scaled)
    tree, log_scales = [nodes], []
    while len(nodes) > batch:
        nodes = torch.bmm(nodes[::2], nodes[1::2])
        largest = nodes.amax((-2, -1), keepdim=True)
        nodes /= largest
        log_scales.append(largest)
        tree.append(nodes)
    root = tree.pop()  # (batch, num_tags, num_tags)
    of_first = (root @ scaled.end[:, None])[:, :, 0]  # what follows each first tag
    log_z = scaled.log_scale + (first * of_first).sum(-1).log()
    if log_scales:
        # Level by level from the root: (batch, nodes of all levels).
        log_z = log_z + torch.cat([scales.view(batch, -1) for scales in log_scales], 1).log().sum(1)
    if not wanted:
        return log_z, None, None
    # Down the tree: what comes before each node, and what comes after it, both (nodes, num_tags).
    before, after = first, scaled.end.expand(batch, -1)
    while tree:
        nodes = tree.pop()
        of_right = _scaled_rows(torch.bmm(before[:, None], nodes[::2])[:, 0])
        of_left = _scaled_rows(torch.bmm(nodes[1::2], after[:, :, None])[:, :, 0])
        before = torch.stack([before, of_right], 1).flatten(0, 1)
        after = torch.stack([of_left, after], 1).flatten(0, 1)
    inside = chain.inside[1:, :, None]
    before, after = (of_nodes.unflatten(0, (batch, -1)).transpose(0, 1) for of_nodes in (before, after))
    before, after = before[: length - 1].where(inside, 0), after[: length - 1] * scaled.emissions[1:]
    arriving = before @ scaled.transitions
    after = (after / (arriving * after).sum(-1, keepdim=True)).where(inside, 0)
    unary = torch.cat([_scaled_rows(first * of_first)[None], arriving * after])
    pairs = torch.bmm(before.permute(1, 2, 0), after.transpose(0, 1)) * scaled.transitions
    return log_z, unary, pairs


def _leaves(chain: _Chain, scaled: _Scaled) -> torch.Tensor:
    """A(i, j) ψ_t(j) for t = 1 …, and the identity outside and to fill up: (batch · leaves, num_tags, num_tags)."""
    length, batch, num_tags = chain.emissions.shape
    width = 1 << max(length - 2, 0).bit_length()
    identity = torch.eye(num_tags, dtype=scaled.emissions.dtype, device=scaled.emissions.device)
    steps = scaled.emissions[1:].transpose(0, 1)[:, :, None] * scaled.transitions
    if not chain.is_full:
        steps = steps.where(chain.inside[1:].T[:, :, None, None], identity)
    leaves = identity.repeat(batch, width, 1, 1)
    leaves[:, : length - 1] = steps
    return leaves.flatten(0, 1)


def _scaled_rows(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.sum(-1, keepdim=True)


# --------------------------------------------------------------------------------------------------------------- log


def _log(chain: _Chain, wanted: bool) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    length = len(chain.emissions)
    alphas, totals = [chain.emissions[0] + chain.start], []
    for step in range(length):
        if step:
            arriving = (alphas[-1][:, :, None] + chain.transitions).logsumexp(1)
            alphas.append(arriving + chain.emissions[step])
        totals.append(alphas[-1].logsumexp(-1, keepdim=True))
        alphas[-1] = alphas[-1] - totals[-1]
    forward, sums = torch.stack(alphas), torch.stack(totals)[:, :, 0]
    at_end = forward.gather(0, chain.last[None, :, None].expand(1, -1, forward.shape[-1]))[0]
    log_z = sums.where(chain.inside, 0).sum(0) + (at_end + chain.end).logsumexp(-1)
    if not wanted:
        return log_z, None, None
    end = chain.end.expand_as(at_end)
    betas = [end]
    for step in range(length - 1, 0, -1):
        leaving = (chain.transitions + (chain.emissions[step] + betas[-1])[:, None]).logsumexp(-1)
        leaving = leaving - leaving.logsumexp(-1, keepdim=True)
        betas.append(torch.where((step - 1 < chain.last)[:, None], leaving, end))
    backward = torch.stack(betas[::-1])
    unary = (forward + backward).softmax(-1).where(chain.inside[:, :, None], 0)
    products = chain.emissions + backward
    pairs = torch.zeros_like(chain.transitions).repeat(len(end), 1, 1)
    for begin in range(1, length, _STEPS_AT_ONCE):
        steps = slice(begin, begin + _STEPS_AT_ONCE)
        before = forward[begin - 1 : begin - 1 + len(products[steps])]
        scores = before[:, :, :, None] + chain.transitions + products[steps][:, :, None]
        shares = scores.flatten(2).softmax(-1).view_as(scores)
        pairs += shares.where(chain.inside[steps][:, :, None, None], 0).sum(0)
    return log_z, unary, pairs


__all__ = ["ALGORITHMS", "Algorithm", "Expectations", "TransitionScores", "expectations", "log_partition"]
