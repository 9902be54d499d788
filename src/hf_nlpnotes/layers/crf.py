"""A linear-chain conditional random field (Lafferty, McCallum and Pereira 2001) on the scores of a tagger.

    P(y | x) = exp(start[y₁] + Σ_t emissions[t, y_t] + Σ_t transitions[y_{t-1}, y_t] + end[y_n]) / Z

Use it where neighbouring tags depend on each other and training data are few enough that the encoder does not learn
that by itself; a strong encoder with plenty of data gains little beyond legal sequences, which constrained decoding
without a CRF gives too. It fails where its 2K + K² numbers learn at the encoder's rate: give them 1e-2 or so.

    crf = ConditionalRandomField(num_tags, allowed_transitions(labels, "BIOES"))
    loss = crf(emissions, tags, mask)
    tags = crf.decode(emissions, mask)

Parameters have the names of `pytorch-crf`, whose checkpoints load as they are. Positions that the mask leaves out, or
whose tag is -100, are no part of the chain, wherever they stand: the tags on both sides become neighbours. That is how
special tokens and the later pieces of a word are passed over. Everything is computed in float32 at least, under
autocast and with half-precision weights too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from .crf_partition import ALGORITHMS, Algorithm, TransitionScores, expectations, log_partition
from .crf_paths import best_paths, n_best_paths
from .offloading import weights_in_place

IGNORED = -100
"""The tag of a position that is no part of the chain, as in every loss of transformers."""

Reduction = Literal["none", "sum", "mean", "token_mean"]

_LARGEST_TREE = 2**31
"""Bytes from which on the parallel form is not chosen by itself."""

# Schemes of tags mix in three steps: B-X, E-X, B-Y, E-Y. Constraints that need more are told apart no further.
_MOST_MIXING_STEPS = 16


class ScoredTags(NamedTuple):
    """One of the best sequences.

    Attributes:
        tags: Ids, one a position of the chain.
        score: What the exponential above is of.
        log_probability: The score minus log Z, at most 0.
    """

    tags: list[int]
    score: float
    log_probability: float


class _Chains(NamedTuple):
    """A batch without the positions that do not count: those that do stand first, in their order."""

    emissions: torch.Tensor  # (batch, seq, num_tags), at least float32
    lengths: torch.Tensor  # (batch,)
    order: torch.Tensor | None  # (batch, seq), where each position comes from; None: as they were


class ConditionalRandomField(nn.Module):
    """Scores of neighbouring tags, the loss that trains them, and the sequences that are best under them.

    Args:
        num_tags: How many tags there are.
        allowed_transitions: What may follow what: a boolean `(num_tags, num_tags)`, row to column, or three of them,
            `(transitions, start, end)`, as `hf_nlpnotes.tagging.allowed_transitions` gives for a tagging scheme.
            Other sequences have the probability 0, in training as in decoding. None allows all.
        algorithm: How log Z is computed: `"sequential"`, `"parallel"` (in O(log T) operations, for GPUs) or `"log"`,
            see `hf_nlpnotes.layers.crf_partition`. `"auto"` is the parallel form on accelerators, as long as its tree
            stays below 2 GiB, else the sequential one. All give the same numbers.

    Attributes:
        transitions: `(num_tags, num_tags)`, the score of a tag (column) after another (row). All scores begin at 0.
        start_transitions: `(num_tags,)`, of a first tag.
        end_transitions: `(num_tags,)`, of a last tag.

    Raises:
        ValueError: `num_tags` below 1, constraints of another size, or ones that allow no first or no last tag.

    >>> crf = ConditionalRandomField(2)
    >>> crf(torch.zeros(1, 3, 2), torch.tensor([[0, 1, 0]]))  # log 8: one of 8 sequences
    tensor(2.0794, grad_fn=<MeanBackward0>)
    >>> crf.decode(torch.tensor([[[0.0, 1.0], [2.0, 0.0], [0.0, 1.0]]]))
    [[1, 0, 1]]
    """

    def __init__(
        self, num_tags: int, allowed_transitions: Any = None, *, algorithm: Algorithm | Literal["auto"] = "auto"
    ) -> None:
        super().__init__()
        if not _is_count(num_tags):
            raise ValueError(f"num_tags must be a whole number of at least 1, got {num_tags!r}")
        if algorithm != "auto" and algorithm not in ALGORITHMS:
            raise ValueError(f"algorithm must be 'auto' or one of {', '.join(ALGORITHMS)}, got {algorithm!r}")
        self.num_tags = num_tags
        self.algorithm = algorithm
        self.transitions = nn.Parameter(torch.empty(num_tags, num_tags))
        self.start_transitions = nn.Parameter(torch.empty(num_tags))
        self.end_transitions = nn.Parameter(torch.empty(num_tags))
        # Not saved: they follow from the labels. In plain lists as well, for models that are built on the meta device.
        self._constraints = _constraints(allowed_transitions, num_tags)
        self._mixing_steps = _mixing_steps(self._constraints[0])
        self.allowed: torch.Tensor
        self.allowed_start: torch.Tensor
        self.allowed_end: torch.Tensor
        for name, table in self.constraints().items():
            self.register_buffer(name, table, persistent=False)
        self.reset_parameters()

    def constraints(self) -> dict[str, torch.Tensor]:
        """The boolean buffers `allowed`, `allowed_start` and `allowed_end` as they were given, made anew."""
        # On the CPU, which holds the lists, and then wherever new tensors go.
        names = ("allowed", "allowed_start", "allowed_end")
        return {name: torch.tensor(rows) for name, rows in zip(names, self._constraints, strict=True)}

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Set all scores to 0: at first every sequence that is allowed is as good as its emissions."""
        for parameter in self.parameters():
            parameter.zero_()

    def forward(
        self,
        emissions: torch.Tensor,
        tags: torch.Tensor,
        mask: torch.Tensor | None = None,
        reduction: Reduction = "mean",
    ) -> torch.Tensor:
        """Negative log-likelihood of tags: a loss.

        Args:
            emissions: `(batch, seq, num_tags)`, the scores of the tags at each position.
            tags: `(batch, seq)`, ids; -100 where a position does not count.
            mask: `(batch, seq)`, 0 where a position does not count. Holes are fine.
            reduction: `"none"` gives `(batch,)`, `"sum"` and `"mean"` that over the sequences, `"token_mean"` the sum
                divided by the number of positions that count.

        Returns:
            A scalar or `(batch,)`, float32 (float64 for emissions in float64).

        Raises:
            ValueError: shapes that do not fit, a tag that is none, a sequence without a single position, tags whose
                order the constraints forbid, or scores that are not finite.
        """
        if reduction not in ("none", "sum", "mean", "token_mean"):
            raise ValueError(f"reduction must be 'none', 'sum', 'mean' or 'token_mean', got {reduction!r}")
        self._check_shapes(emissions, mask)
        self._check_tags(emissions, tags)
        tags = tags.long()  # of narrower numbers torch makes no index
        counts = tags != IGNORED
        chains = self._chains(emissions, counts if mask is None else counts & (mask != 0))
        if chains.order is not None:
            tags = tags.gather(1, chains.order)
        inside = _inside(chains)
        tags = tags.where(inside, 0)  # what the mask leaves out may be anything
        checked = not torch.compiler.is_compiling()
        if checked:
            self._check_tag_values(tags, chains)
        neighbours = self.transition_scores(chains.emissions.dtype)
        losses = self._log_partition(chains, neighbours) - _score(chains, neighbours, tags, inside)
        if checked and bool((losses == torch.inf).any()):
            raise ValueError(self._forbidden(tags, chains, inside))
        if reduction == "none":
            return losses
        if reduction == "mean":
            return losses.mean()
        return losses.sum() / chains.lengths.sum() if reduction == "token_mean" else losses.sum()

    def log_partition(self, emissions: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Log Z of each sequence, `(batch,)`; arguments and errors as of `forward`.

        Args:
            emissions: As of `forward`.
            mask: As of `forward`.
        """
        self._check_shapes(emissions, mask)
        chains = self._chains(emissions, mask)
        self._check_lengths(chains)
        return self._log_partition(chains, self.transition_scores(chains.emissions.dtype))

    @torch.no_grad()
    def marginals(self, emissions: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Probability of each tag at each position, given the whole sequence.

        Args:
            emissions: As of `forward`, and so the errors.
            mask: As of `forward`.

        Returns:
            `(batch, seq, num_tags)`; 0 where a position does not count.
        """
        self._check_shapes(emissions, mask)
        chains = self._chains(emissions, mask)
        self._check_lengths(chains)
        neighbours = self.transition_scores(chains.emissions.dtype)
        found = expectations(chains.emissions, neighbours, chains.lengths, self._algorithm(chains), self._mixing_steps)
        unary = found.unary
        if chains.order is None:
            return unary
        return torch.zeros_like(unary).scatter_(1, chains.order[:, :, None].expand_as(unary), unary)

    @torch.no_grad()
    def decode(self, emissions: torch.Tensor, mask: torch.Tensor | None = None) -> list[list[int]]:
        """The most probable sequence of tags, by Viterbi's algorithm.

        Args:
            emissions: As of `forward`.
            mask: As of `forward`.

        Returns:
            A list a sequence, with the id of each position that counts.

        Raises:
            ValueError: shapes that do not fit, a sequence without a single position, no sequence of its length that
                the constraints allow, or scores that are nan.
        """
        self._check_shapes(emissions, mask)
        chains = self._chains(emissions, mask)
        found = best_paths(chains.emissions, self.transition_scores(chains.emissions.dtype), chains.lengths)
        lengths = chains.lengths.tolist()
        _check_found(lengths, found.scores.tolist())
        return [row[:length] for row, length in zip(found.tags.tolist(), lengths, strict=True)]

    @torch.no_grad()
    def n_best(self, emissions: torch.Tensor, mask: torch.Tensor | None = None, k: int = 5) -> list[list[ScoredTags]]:
        """The k most probable sequences of tags.

        Args:
            emissions: As of `forward`.
            mask: As of `forward`.
            k: How many.

        Returns:
            A list a sequence, best first; shorter than k where fewer are allowed.

        Raises:
            ValueError: as of `decode`, and a k below 1.
        """
        if not _is_count(k):
            raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
        self._check_shapes(emissions, mask)
        chains = self._chains(emissions, mask)
        self._check_lengths(chains)
        neighbours = self.transition_scores(chains.emissions.dtype)
        found = n_best_paths(chains.emissions, neighbours, chains.lengths, k)
        lengths, scores = chains.lengths.tolist(), found.scores.tolist()
        _check_found(lengths, [row[0] for row in scores])
        shares = (found.scores - self._log_partition(chains, neighbours)[:, None]).tolist()
        return [
            [
                ScoredTags(tags[:length], score, share)
                for tags, score, share in zip(*row, strict=True)
                if score > -torch.inf
            ]
            for length, *row in zip(lengths, found.tags.tolist(), scores, shares, strict=True)
        ]

    def transition_scores(self, dtype: torch.dtype = torch.float32) -> TransitionScores:
        """The learned scores of neighbours, first and last tags, -inf where the constraints forbid them.

        Args:
            dtype: of the scores.

        Returns:
            `transitions` `(num_tags, num_tags)`, row to column; `start` and `end`, `(num_tags,)`.
        """
        with weights_in_place(self):  # decoding is no forward
            return TransitionScores(
                self.transitions.to(dtype).where(self.allowed, -torch.inf),
                self.start_transitions.to(dtype).where(self.allowed_start, -torch.inf),
                self.end_transitions.to(dtype).where(self.allowed_end, -torch.inf),
            )

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        allowed = sum(map(sum, self._constraints[0]))
        constrained = "" if allowed == self.num_tags**2 else f", {allowed} transitions allowed"
        return f"{self.num_tags}{constrained}, algorithm={self.algorithm!r}"

    # --------------------------------------------------------------------------------------------------------- parts

    def _chains(self, emissions: torch.Tensor, mask: torch.Tensor | None) -> _Chains:
        emissions = emissions.to(torch.promote_types(emissions.dtype, torch.float32))
        batch, length, _ = emissions.shape
        if mask is None:
            return _Chains(emissions, torch.full((batch,), length, device=emissions.device), None)
        counts = mask.to(emissions.device) != 0
        order = counts.logical_not().long().argsort(dim=1, stable=True)
        moved = emissions.gather(1, order[:, :, None].expand_as(emissions))
        return _Chains(moved, counts.sum(1), order)

    def _algorithm(self, chains: _Chains) -> Algorithm:
        if self.algorithm != "auto":
            return self.algorithm
        if chains.emissions.device.type in ("cpu", "mps"):
            return "sequential"
        batch, length, num_tags = chains.emissions.shape
        return "parallel" if 4 * 8 * batch * length * num_tags**2 <= _LARGEST_TREE else "sequential"

    def _log_partition(self, chains: _Chains, neighbours: TransitionScores) -> torch.Tensor:
        return log_partition(chains.emissions, neighbours, chains.lengths, self._algorithm(chains), self._mixing_steps)

    # -------------------------------------------------------------------------------------------------------- checks

    def _check_shapes(self, emissions: torch.Tensor, mask: torch.Tensor | None) -> None:
        shape = tuple(emissions.shape)
        if len(shape) != 3 or shape[2] != self.num_tags:
            raise ValueError(f"emissions must have the shape (batch, seq, {self.num_tags}), got {shape}")
        if not emissions.is_floating_point():
            raise ValueError(f"emissions must be floating-point scores, got {emissions.dtype}")
        if 0 in shape:
            raise ValueError(f"emissions of shape {shape} hold no position: leave out empty sentences and batches")
        if mask is not None and mask.shape != shape[:2]:
            raise ValueError(f"mask must have the shape (batch, seq) = {shape[:2]}, got {tuple(mask.shape)}")

    def _check_tags(self, emissions: torch.Tensor, tags: torch.Tensor) -> None:
        shape = tuple(emissions.shape[:2])
        if tuple(tags.shape) != shape:
            raise ValueError(f"tags must have the shape (batch, seq) = {shape}, got {tuple(tags.shape)}")
        if tags.is_floating_point() or tags.dtype in (torch.bool, torch.complex64, torch.complex128):
            raise ValueError(f"tags must be whole numbers, got {tags.dtype}")

    def _check_lengths(self, chains: _Chains) -> None:
        if chains.order is not None and not torch.compiler.is_compiling():
            _refuse_empty(chains.lengths.tolist())

    def _check_tag_values(self, tags: torch.Tensor, chains: _Chains) -> None:
        """Refuse tags that are none, and rows without any; one transfer from the device when all is well."""
        unknown = (tags < 0) | (tags >= self.num_tags)
        if not bool(unknown.any() | (chains.lengths.min() == 0)):
            return
        _refuse_empty(chains.lengths.tolist())
        row, place = unknown.nonzero()[0].tolist()
        raise ValueError(
            f"tags hold {int(tags[row, place])} in row {row}: expected 0 to {self.num_tags - 1}, or {IGNORED} for"
            " a position that does not count"
        )

    def _forbidden(self, tags: torch.Tensor, chains: _Chains, inside: torch.Tensor) -> str:
        """Say which of the given tags, whose probability is 0, break the constraints."""
        pairs = inside[:, 1:] & ~self.allowed[tags[:, :-1], tags[:, 1:]]
        last = tags.gather(1, chains.lengths[:, None] - 1)[:, 0]
        ends = ~(self.allowed_start[tags[:, 0]] & self.allowed_end[last])
        if bool(pairs.any()):
            row, place = pairs.nonzero()[0].tolist()
            wrong = f"tag {int(tags[row, place + 1])} follows tag {int(tags[row, place])}"
        elif bool(ends.any()):
            row = int(ends.nonzero()[0])
            wrong = f"the sequence begins with tag {int(tags[row, 0])} and ends with tag {int(last[row])}"
        else:
            return "the emission of one of the tags is -inf: only tags that do not occur may be ruled out"
        return (
            f"row {row}: {wrong}, which the constraints forbid. Repair the tags"
            " (hf_nlpnotes.tagging.repair_tags), or give the scheme that they are written in"
        )


def _score(chains: _Chains, neighbours: TransitionScores, tags: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Score of the given tags, `(batch,)`."""
    transitions, start, end = neighbours
    of_tags = chains.emissions.gather(2, tags[:, :, None])[:, :, 0].where(inside, 0)
    of_pairs = transitions[tags[:, :-1], tags[:, 1:]].where(inside[:, 1:], 0)
    last = tags.gather(1, chains.lengths[:, None] - 1)[:, 0]
    return of_tags.sum(1) + of_pairs.sum(1) + start[tags[:, 0]] + end[last]


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _inside(chains: _Chains) -> torch.Tensor:
    return torch.arange(chains.emissions.shape[1], device=chains.lengths.device) < chains.lengths[:, None]


def _refuse_empty(lengths: Sequence[int]) -> None:
    if 0 in lengths:
        raise ValueError(
            f"row {list(lengths).index(0)} has no position that counts: leave out empty sentences, whose mask is 0"
            f" (or whose tags are {IGNORED}) everywhere"
        )


def _check_found(lengths: Sequence[int], scores: Sequence[float]) -> None:
    _refuse_empty(lengths)
    for row, (length, score) in enumerate(zip(lengths, scores, strict=True)):
        if score == -torch.inf:
            raise ValueError(
                f"no sequence of {length} tags is allowed (row {row} of the batch): the constraints have no way from a"
                " first tag to a last one in so many steps"
            )
        if not math.isfinite(score):
            raise ValueError(f"the scores of row {row} of the batch are not finite: emissions hold nan or inf")


_Table = list[list[bool]]


def _constraints(allowed: Any, num_tags: int) -> tuple[_Table, list[bool], list[bool]]:
    if allowed is None:
        allowed = torch.ones(num_tags, num_tags, dtype=torch.bool, device="cpu")
    is_triple = isinstance(allowed, tuple | list) and len(allowed) == 3 and _as_bool(allowed[0]).dim() == 2
    tables = [_as_bool(part) for part in allowed] if is_triple else [_as_bool(allowed)]
    tables += [torch.ones(num_tags, dtype=torch.bool, device="cpu")] * (3 - len(tables))
    names = ("transitions", "starts", "ends")
    for name, table, shape in zip(names, tables, ((num_tags, num_tags), (num_tags,), (num_tags,)), strict=True):
        if tuple(table.shape) != shape:
            raise ValueError(f"allowed {name} must have the shape {shape}, got {tuple(table.shape)}")
        if name != "transitions" and not table.any():
            raise ValueError(f"allowed {name} are all False: no sequence at all is allowed")
    transitions, start, end = (table.tolist() for table in tables)
    return transitions, start, end


def _as_bool(table: Any) -> torch.Tensor:
    # On the CPU, also while a model is built on the meta device.
    return torch.as_tensor(table, device="cpu").to(torch.bool)


def _mixing_steps(allowed: _Table) -> int | None:
    """After how many steps every tag can follow every tag; None where that takes long, or never happens."""
    step = torch.tensor(allowed, dtype=torch.float32, device="cpu")
    reached = step
    for count in range(1, _MOST_MIXING_STEPS + 1):
        if bool(reached.all()):
            return count
        reached = (reached @ step).clamp(max=1)
    return None


__all__ = ["IGNORED", "ConditionalRandomField", "Reduction", "ScoredTags"]
