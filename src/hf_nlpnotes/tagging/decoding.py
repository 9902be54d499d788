"""From the logits of any token classifier to tags that are legal in their scheme, and to spans, whole batches at once.

The most probable tags of each token by itself may break the scheme: an I-PER after O, a B without its E. Constrained
decoding takes the legal sequence with the highest sum of logits (Viterbi with transitions of 0 and -inf), which needs
no training. Where the tags that are best one by one are legal already, they are that sequence: only the others are
searched for. With a CRF its own transitions take part, and every sequence is searched for.

Sentences are handled as one stream: their logits one below the other, and where each ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hf_nlpnotes.layers.crf import IGNORED, ConditionalRandomField
from hf_nlpnotes.layers.crf_partition import TransitionScores, expectations
from hf_nlpnotes.layers.crf_paths import best_paths, n_best_paths

from .schemes import (
    OUTSIDE,
    AllowedTransitions,
    Scheme,
    allowed_transitions,
    detect_scheme,
    get_scheme,
    parse_tag,
    tags_to_spans,
)

_ROWS_AT_ONCE = 64
"""Sentences of like length that are searched together."""


class Spans(NamedTuple):
    """Spans of a stream, in order.

    Attributes:
        types: (spans,), index into `TagDecoder.types`.
        starts: (spans,), first position in the stream.
        ends: (spans,), position after the last.
    """

    types: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


@dataclass(frozen=True)
class TagDecoder:
    """Decoding of one model's logits.

    Attributes:
        labels: every tag, in the order of its id.
        scheme: the scheme that they are written in.
        allowed: which may follow which; None for greedy decoding, tag by tag.
        neighbours: scores of a CRF, `-inf` where it forbids; None without one.
    """

    labels: tuple[str, ...]
    scheme: Scheme
    allowed: AllowedTransitions | None
    neighbours: TransitionScores | None = None

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        scheme: str | Scheme | None = None,
        *,
        constrained: bool = True,
        crf: ConditionalRandomField | None = None,
    ) -> TagDecoder:
        """Make the decoder of a label set.

        Args:
            labels: every tag, in the order of its id: `[config.id2label[i] for i in range(config.num_labels)]`.
            scheme: the scheme that they are written in; None: `detect_scheme` names it.
            constrained: whether only legal sequences are decoded.
            crf: the model's CRF.

        Raises:
            ValueError: labels that do not fit the scheme, or a CRF of another number of tags.
        """
        table = get_scheme(detect_scheme(labels) if scheme is None else scheme)
        # Also where nothing is constrained: labels that do not fit the scheme could not be read.
        allowed = allowed_transitions(labels, table, require_outside=False)
        neighbours = None
        if crf is not None:
            if crf.num_tags != len(labels):
                raise ValueError(f"the CRF has {crf.num_tags} tags, and there are {len(labels)} labels")
            neighbours = _of_crf(crf, allowed if constrained else None)
        return cls(tuple(labels), table, allowed if constrained else None, neighbours)

    @property
    def types(self) -> tuple[str, ...]:
        """Types of spans; the last stands for O."""
        return _reading(self.labels, self.scheme).types

    def decode(self, logits: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Best tags of a stream.

        Args:
            logits: (positions, labels), float32.
            lengths: positions of each sentence, in order; all at least 1.

        Returns:
            (positions,), long, on the CPU.

        Raises:
            ValueError: shapes that do not fit, an empty sentence, logits that are not finite, or a sentence of so many
                tokens that the scheme has no legal sequence for it.
        """
        self._check(logits, lengths)
        if self.neighbours is not None:
            return self._search(logits, lengths, range(len(lengths)), self.neighbours)
        tags = logits.argmax(-1).cpu()
        if self.allowed is None:
            return tags
        wrong = np.unique(self._illegal(tags.numpy(), lengths))
        if len(wrong):
            free = _of_constraints(self.allowed, logits)
            ends = np.cumsum(lengths)
            searched = self._search(logits, lengths, wrong.tolist(), free)
            for row in wrong:
                place = slice(ends[row] - lengths[row], ends[row])
                tags[place] = searched[place]
        return tags

    def probabilities(self, logits: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Probability of each tag at each position, (positions, labels): a softmax, or a CRF's marginals.

        Args:
            logits: as of `decode`.
            lengths: as of `decode`.
        """
        self._check(logits, lengths)
        if self.neighbours is None:
            return logits.softmax(-1).cpu()
        result = torch.empty(logits.shape)
        for rows, batch, sizes in _batches(logits, lengths, range(len(lengths))):
            unary = expectations(batch, _on(self.neighbours, batch), sizes, mixing_steps=None).unary.cpu()
            for (begin, end), row in zip(rows, unary, strict=True):
                result[begin:end] = row[: end - begin]
        return result

    def tag_probabilities(self, logits: torch.Tensor, tags: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Probability of one tag at each position, (positions,); arguments and errors as of `probabilities`.

        Args:
            logits: as of `decode`.
            tags: (positions,), such as `decode` gives.
            lengths: as of `decode`.
        """
        if self.neighbours is not None:
            return self.probabilities(logits, lengths).gather(1, tags[:, None])[:, 0]
        chosen = logits.gather(1, tags.to(logits.device)[:, None])[:, 0]
        return (chosen - logits.logsumexp(-1)).exp().cpu()

    def n_best(self, logits: torch.Tensor, k: int) -> list[tuple[list[int], float]]:
        """The k best sequences of one sentence with their probabilities, best first; legal ones only if constrained.

        Without a CRF the probabilities are those among the sequences that are allowed.

        Args:
            logits: (positions, labels).
            k: how many.

        Raises:
            ValueError: `k` is below 1.
        """
        if k < 1:
            raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
        self._check(logits, [len(logits)])
        neighbours = self.neighbours or _of_constraints(self.allowed, logits)
        sizes = torch.tensor([len(logits)], device=logits.device)
        neighbours = _on(neighbours, logits)
        found = n_best_paths(logits[None], neighbours, sizes, k)
        log_z = expectations(logits[None], neighbours, sizes, mixing_steps=None).log_partition
        shares = (found.scores[0] - log_z).exp().tolist()
        scored = zip(found.tags[0].tolist(), found.scores[0].tolist(), shares, strict=True)
        return [(tags, share) for tags, score, share in scored if score > -torch.inf]

    def spans(self, tags: NDArray[np.int64], lengths: Sequence[int]) -> Spans:
        """Read the spans of a stream of tag ids; pieces that break the scheme are spans too, as conlleval reads.

        Args:
            tags: (positions,), ids.
            lengths: positions of each sentence, in order; a sentence may have none.
        """
        reading = _reading(self.labels, self.scheme)
        if not len(tags):
            empty = np.zeros(0, np.int64)
            return Spans(empty, empty, empty)
        inside, goes_on = reading.inside[tags], np.zeros(len(tags), np.bool_)
        goes_on[1:] = reading.goes_on[tags[:-1], tags[1:]]
        firsts = np.cumsum(lengths)
        goes_on[firsts[firsts < len(tags)]] = False
        starts = np.flatnonzero(inside & ~goes_on)
        # A span ends where the next position does not go on.
        ends = np.flatnonzero(inside & ~np.append(goes_on[1:], False)) + 1
        return Spans(reading.type_of[tags[starts]], starts, ends)

    def goes_on(self, before: int, tag: int) -> bool:
        """Whether a tag continues the span of the tag before it.

        Args:
            before: id of the tag before.
            tag: id of the tag.
        """
        return bool(_reading(self.labels, self.scheme).goes_on[before, tag])

    def best_tags(self, logits: Any, labels: torch.Tensor) -> torch.Tensor:
        """Best tags in the shape of the labels, for `Trainer(…, preprocess_logits_for_metrics=decoder.best_tags)`.

        Args:
            logits: (batch, seq, labels), or a tuple that begins with them.
            labels: (batch, seq); -100 where a token does not count.

        Returns:
            (batch, seq), long; -100 where the labels are.
        """
        emissions = logits[0] if isinstance(logits, tuple | list) else logits
        counts = labels != IGNORED
        tags = torch.full_like(labels, IGNORED)
        lengths = [length for length in counts.sum(1).tolist() if length]
        if lengths:
            tags[counts] = self.decode(emissions[counts].float(), lengths).to(tags)
        return tags

    def _check(self, logits: torch.Tensor, lengths: Sequence[int]) -> None:
        if logits.dim() != 2 or logits.shape[1] != len(self.labels):
            raise ValueError(
                f"logits must have the shape (positions, {len(self.labels)}), one column a label, got "
                f"{tuple(logits.shape)}"
            )
        if sum(lengths) != len(logits):
            raise ValueError(f"the lengths sum to {sum(lengths)}, and there are logits of {len(logits)} positions")
        if not bool((logits < torch.inf).all()):  # not so for nan; -inf rules a tag out
            raise ValueError("the logits are not finite: they hold nan or inf")
        if 0 in lengths:
            raise ValueError(f"sentence {list(lengths).index(0)} is empty: leave it out")

    def _illegal(self, tags: NDArray[np.int64], lengths: Sequence[int]) -> NDArray[np.int64]:
        """Numbers of the sentences whose tags break the constraints; one may stand there twice."""
        assert self.allowed is not None
        ends = np.cumsum(lengths)
        firsts = ends - np.asarray(lengths)
        wrong = ~self.allowed.transitions[tags[:-1], tags[1:]]
        wrong[ends[:-1] - 1] = False  # from one sentence to the next
        places = [np.flatnonzero(wrong), firsts[~self.allowed.start[tags[firsts]]]]
        places.append(ends[~self.allowed.end[tags[ends - 1]]] - 1)
        return np.searchsorted(ends, np.concatenate(places), side="right")

    def _search(
        self, logits: torch.Tensor, lengths: Sequence[int], numbers: Sequence[int], neighbours: TransitionScores
    ) -> torch.Tensor:
        """Best tags of some sentences; those of the others are left undefined."""
        tags = torch.empty(len(logits), dtype=torch.long)
        for rows, batch, sizes in _batches(logits, lengths, numbers):
            found = best_paths(batch, _on(neighbours, batch), sizes)
            self._check_found(found.scores.tolist(), sizes.tolist())
            for (begin, end), row in zip(rows, found.tags.cpu(), strict=True):
                tags[begin:end] = row[: end - begin]
        return tags

    def _check_found(self, scores: Sequence[float], lengths: Sequence[int]) -> None:
        for score, length in zip(scores, lengths, strict=True):
            if score == -torch.inf:
                raise ValueError(f"{self.scheme.name} has no legal sequence of {length} of these labels")


def constrained_decode(
    logits: torch.Tensor,
    labels: Sequence[str],
    scheme: str | Scheme | None = None,
    mask: torch.Tensor | None = None,
) -> list[list[int]]:
    """Decode a batch of logits to tags that are legal in their scheme, with no CRF.

    Args:
        logits: (batch, seq, labels), of any token classifier.
        labels: every tag, in the order of its id.
        scheme: the scheme that they are written in; None: `detect_scheme` names it.
        mask: (batch, seq), 0 for special tokens, padding and later pieces of a word.

    Returns:
        A list a sentence, with the id of each position that counts.

    Raises:
        ValueError: shapes or labels that do not fit, or a sentence without a single position.
    """
    decoder = TagDecoder.of(labels, scheme)
    if logits.dim() != 3:
        raise ValueError(f"logits must have the shape (batch, seq, labels), got {tuple(logits.shape)}")
    if mask is None:
        mask = torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
    if mask.shape != logits.shape[:2]:
        raise ValueError(f"mask must have the shape {tuple(logits.shape[:2])}, got {tuple(mask.shape)}")
    counts = mask.to(logits.device) != 0
    lengths = counts.sum(1).tolist()
    return [row.tolist() for row in decoder.decode(logits[counts].float(), lengths).split(lengths)]


def crf_of(model: Any) -> ConditionalRandomField | None:
    """The CRF of a model that has one in `model.crf`."""
    found = getattr(model, "crf", None)
    return found if isinstance(found, ConditionalRandomField) else None


# --------------------------------------------------------------------------------------------------------------- parts


class _Reading(NamedTuple):
    """Tables over the labels."""

    types: tuple[str, ...]
    type_of: NDArray[np.int64]  # (labels,)
    inside: NDArray[np.bool_]  # (labels,), not O
    goes_on: NDArray[np.bool_]  # (labels, labels): the second continues the span of the first


@lru_cache(maxsize=32)
def _reading(labels: tuple[str, ...], scheme: Scheme) -> _Reading:
    parsed = [parse_tag(label, scheme) for label in labels]
    inside = [prefix != OUTSIDE for prefix, _ in parsed]
    types = list(dict.fromkeys(name for (_, name), counts in zip(parsed, inside, strict=True) if counts))
    goes_on = np.zeros((len(labels), len(labels)), np.bool_)
    if scheme.prefixed:
        for before, tag in _pairs_of_one_type(parsed, inside):
            goes_on[before, tag] = len(tags_to_spans([labels[before], labels[tag]], scheme, illegal="repair")) == 1
    type_of = [types.index(name) if counts else len(types) for (_, name), counts in zip(parsed, inside, strict=True)]
    return _Reading((*types, OUTSIDE), np.array(type_of), np.array(inside), goes_on)


def _pairs_of_one_type(parsed: Sequence[tuple[str, str]], inside: Sequence[bool]) -> Iterator[tuple[int, int]]:
    members: dict[str, list[int]] = {}
    for number, (_, name) in enumerate(parsed):
        if inside[number]:
            members.setdefault(name, []).append(number)
    for numbers in members.values():
        yield from ((before, tag) for before in numbers for tag in numbers)


def _allowed_of(allowed: AllowedTransitions, scores: TransitionScores) -> TransitionScores:
    return TransitionScores(
        _forbid(allowed.transitions, scores.transitions),
        _forbid(allowed.start, scores.start),
        _forbid(allowed.end, scores.end),
    )


def _forbid(allowed: NDArray[np.bool_], scores: torch.Tensor) -> torch.Tensor:
    return scores.where(torch.from_numpy(allowed).to(scores.device), -torch.inf)


def _of_constraints(allowed: AllowedTransitions | None, logits: torch.Tensor) -> TransitionScores:
    zeros = logits.new_zeros(logits.shape[1], logits.shape[1])
    scores = TransitionScores(zeros, zeros[0], zeros[0])
    return scores if allowed is None else _allowed_of(allowed, scores)


@torch.no_grad()
def _of_crf(crf: ConditionalRandomField, allowed: AllowedTransitions | None) -> TransitionScores:
    """The CRF's scores under its own constraints and those of the scheme."""
    scores = crf.transition_scores()
    return scores if allowed is None else _allowed_of(allowed, scores)


def _on(neighbours: TransitionScores, logits: torch.Tensor) -> TransitionScores:
    """The scores in the type and on the device of the logits."""
    transitions, start, end = (scores.to(logits) for scores in neighbours)
    return TransitionScores(transitions, start, end)


def _batches(
    logits: torch.Tensor, lengths: Sequence[int], numbers: Sequence[int]
) -> Iterator[tuple[list[tuple[int, int]], torch.Tensor, torch.Tensor]]:
    """Sentences of like length together: their places in the stream, (batch, seq, labels) and (batch,)."""
    ends = np.cumsum(lengths).tolist()
    ordered = sorted(numbers, key=lengths.__getitem__)
    for begin in range(0, len(ordered), _ROWS_AT_ONCE):
        rows = [(ends[number] - lengths[number], ends[number]) for number in ordered[begin : begin + _ROWS_AT_ONCE]]
        padded = torch.nn.utils.rnn.pad_sequence([logits[first:last] for first, last in rows], batch_first=True)
        yield rows, padded, torch.tensor([last - first for first, last in rows], device=logits.device)


__all__ = ["Spans", "TagDecoder", "constrained_decode", "crf_of"]
