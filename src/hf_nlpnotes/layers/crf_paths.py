"""The best tag sequences of a linear-chain CRF, and the k best (Viterbi 1967; Seshadri and Sundberg 1994 for k).

Forward, only scores are kept. Where a best sequence came from is found on the way back, for the one tag that it has at
each step, by the same additions again: a step costs `num_tags` comparisons there, and the forward steps need no
indices, which cost more than the maxima. All sequences of the batch go back together; numbers leave the device once,
at the end. Of equal sequences the one with the lower tag ids at the end wins.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from .crf_partition import TransitionScores


class BestPaths(NamedTuple):
    """The best sequences.

    Attributes:
        tags: (batch, seq), long; what stands behind a sequence's end means nothing.
        scores: (batch,), -inf where no sequence is allowed.
    """

    tags: torch.Tensor
    scores: torch.Tensor


@torch.no_grad()
def best_paths(
    emissions: torch.Tensor,
    neighbours: TransitionScores,
    lengths: torch.Tensor,
) -> BestPaths:
    """Return the best sequence of each row; arguments as of `hf_nlpnotes.layers.crf_partition.log_partition`."""
    transitions, start, end = neighbours
    # Tags before rows of the batch: the maxima below then run over the first dimension, along the memory.
    by_time = emissions.permute(1, 2, 0).contiguous()  # (seq, num_tags, batch)
    length, num_tags, batch = by_time.shape
    scores = torch.empty_like(by_time)  # of the best sequence that ends with each tag
    rows, as_from, steps = scores.unbind(), scores.unsqueeze(2).unbind(), by_time.unbind()
    torch.add(steps[0], start[:, None], out=rows[0])
    sums, from_to = emissions.new_empty(num_tags, num_tags, batch), transitions[:, :, None]  # (from, to, batch)
    for step in range(1, length):
        torch.add(as_from[step - 1], from_to, out=sums)
        torch.amax(sums, 0, out=rows[step])
        rows[step].add_(steps[step])
    last = lengths - 1
    best, at_end = (scores[last, :, torch.arange(batch, device=last.device)] + end).max(-1)
    tags = torch.empty(length, batch, dtype=torch.long, device=emissions.device)
    found, of_rows, to_from = tags.unbind(), scores.transpose(1, 2).unbind(), transitions.T.contiguous()
    sums = emissions.new_empty(batch, num_tags)
    # Rows of a shorter sequence begin their way back at their own last tag.
    is_behind = (torch.arange(length, device=last.device)[:, None] >= last).unbind()
    is_full = min(lengths.tolist()) == length
    found[-1].copy_(at_end)
    for step in range(length - 2, -1, -1):
        torch.index_select(to_from, 0, found[step + 1], out=sums)
        sums.add_(of_rows[step])
        torch.argmax(sums, -1, out=found[step])
        if not is_full:
            torch.where(is_behind[step], at_end, found[step], out=found[step])
    return BestPaths(tags.T, best)


@torch.no_grad()
def n_best_paths(
    emissions: torch.Tensor,
    neighbours: TransitionScores,
    lengths: torch.Tensor,
    k: int,
) -> BestPaths:
    """Return the k best sequences of each row, best first.

    Args:
        k: how many; the other arguments as of `best_paths`.

    Returns:
        tags (batch, k, seq) and scores (batch, k); -inf where a row has fewer allowed sequences than k.
    """
    transitions, start, end = neighbours
    by_time = emissions.transpose(0, 1)  # (seq, batch, num_tags)
    length, batch, num_tags = by_time.shape
    # A tag may lie on up to k of the sequences: (batch, k · num_tags), place r · num_tags + j.
    scores = [(by_time[0] + start)[:, None]]  # (batch, rank, num_tags)
    origins = []
    for step in range(1, length):
        ranks = scores[-1].shape[1]
        sums = (scores[-1][:, :, :, None] + transitions).flatten(1, 2)  # (batch, rank · from, to)
        best, origin = sums.topk(min(k, ranks * num_tags), dim=1)
        scores.append(best + by_time[step][:, None])
        origins.append(origin.flatten(1))
    last = lengths - 1
    # Rows end at different steps, where not all ranks are there yet.
    widest = scores[-1].shape[1]
    filled = torch.stack(
        [torch.nn.functional.pad(row, (0, 0, 0, widest - row.shape[1]), value=-torch.inf) for row in scores]
    )
    ends = (filled[last, torch.arange(batch, device=last.device)] + end).flatten(1)
    best, at_end = ends.topk(min(k, ends.shape[1]), dim=-1)  # (batch, k)
    places, place = [at_end], at_end
    for step in range(length - 2, -1, -1):
        origin = origins[step]
        # A row that has not begun its way back holds places of its own last step, perhaps out of range here.
        came_from = origin.gather(1, place.clamp(max=origin.shape[1] - 1))
        place = torch.where((step < last)[:, None], came_from, at_end)
        places.append(place)
    return BestPaths(torch.stack(places[::-1], -1) % num_tags, best)


__all__ = ["BestPaths", "best_paths", "n_best_paths"]
