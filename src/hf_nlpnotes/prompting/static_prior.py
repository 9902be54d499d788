"""A static prior: what a model's token vectors alone say about a text and the words of a label.

The vectors that a model reads its tokens by already place 球员 near 体育. Small models use little of that through
their layers, so their answers and this similarity make different mistakes, and the sum of both (`combine`) may be
better than either. No forward pass is needed.

Three known means make plain vectors good at this:

- rare tokens count more: token w has the weight a / (a + p(w)) of smooth inverse frequency (Arora, Liang & Ma, ICLR
  2017, https://openreview.net/forum?id=SyK00v5xx);
- the common component is taken out, here the mean vector of running text (Mu & Viswanath, ICLR 2018,
  https://arxiv.org/abs/1702.01417, first step). It is a property of the model, so that the similarity of a text does
  not depend on the other texts of the call. The texts' first principal component stays, unlike in Arora et al.: among
  texts of a few topics it is a topic;
- a label word is compared with each stretch of the text that is as long as the word, and the best of them count most:
  in the mean of a long text one word that gives the topic away is lost.

p(w) comes from the bias of the model's output layer, which is about the logarithm of the tokens' frequencies in a
model trained from that start, and about constant, so that all tokens count the same, in some others.

It fails where words are told apart by their order or by negation (不好 is near 好), and where the words of different
labels are near each other. Give labels several words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .verbalizer import Verbalizer, Words

SHARPNESS = 5.0
"""How much more the stretches most similar to a word count: 0 is the mean of all, large values are the best alone."""


@dataclass(frozen=True, eq=False)
class StaticVectors:
    """A model's token vectors, centred, with each token's weight.

    Args:
        table (`torch.Tensor` of shape `(vocabulary, size)`):
            The input embeddings, as the model has them.
        mean (`torch.Tensor` of shape `(size,)`):
            Mean vector of running text, float64.
        weights (`torch.Tensor` of shape `(vocabulary,)`):
            Weight of each token, float64; 0 for special tokens.
        tokenizer:
            The tokenizer.

    Made by `StaticVectors.of`.
    """

    table: torch.Tensor
    mean: torch.Tensor
    weights: torch.Tensor
    tokenizer: Any

    @classmethod
    def of(
        cls, model: Any, tokenizer: Any, frequencies: torch.Tensor | None = None, smoothing: float = 1e-3
    ) -> StaticVectors:
        """The vectors of a model.

        Args:
            model (`nn.Module`):
                Any model of transformers with one vector a token.
            tokenizer:
                Its tokenizer.
            frequencies (`torch.Tensor` of shape `(vocabulary,)`, *optional*):
                Counts or shares of the tokens in running text, none negative. Default: the softmax of the bias of the
                model's output layer; all equal where it has none.
            smoothing (`float`, defaults to 1e-3):
                a, positive: tokens more frequent than this share lose weight. Infinity weighs all tokens the same.

        Raises:
            `ValueError`: the model has no table of token vectors, or the frequencies do not fit it.
        """
        if not smoothing > 0:
            raise ValueError(f"smoothing must be positive, got {smoothing}: 1e-3 is usual.")
        embedding = model.get_input_embeddings()
        if not isinstance(embedding, nn.Embedding) or embedding.weight.is_meta or not embedding.weight.numel():
            raise ValueError(
                f"{type(model).__name__} has no table of token vectors (its input embeddings are"
                f" {type(embedding).__name__}): the static prior needs one vector a token."
            )
        table = embedding.weight.detach().cpu()
        shares = _shares(model, len(table)) if frequencies is None else _checked_shares(frequencies, len(table))
        mean = _mean(shares, table)
        weights = torch.ones_like(shares) if math.isinf(smoothing) else smoothing / (smoothing + shares)
        special = [i for i in tokenizer.all_special_ids if i < len(weights)]
        weights[special] = 0.0  # an unknown character has no meaning, a separator none of the text's
        return cls(table, mean, weights, tokenizer)

    def token_ids(self, text: str) -> list[int]:
        """Ids of the tokens of running text that have a weight.

        Args:
            text (`str`):
                The text.
        """
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return [i for i in encoded["input_ids"] if i < len(self.weights) and self.weights[i] > 0]

    def word_ids(self, word: str) -> list[int]:
        """Ids of a word's tokens as it stands inside a text: after a space, in scripts that have letter case.

        Args:
            word (`str`):
                The word.

        Raises:
            `ValueError`: the word is empty, or the vocabulary cannot spell it.
        """
        if not word.strip():
            raise ValueError(f"The label word {word!r} is empty: a label needs a word.")
        word = word.strip()
        written = f" {word}" if word[0].lower() != word[0].upper() else word
        encoded = self.tokenizer(written, add_special_tokens=False, split_special_tokens=True, verbose=False)
        ids: list[int] = encoded["input_ids"]
        if not ids or self.tokenizer.unk_token_id in ids or any(self.weights[i] == 0 for i in ids):
            raise ValueError(
                f"The vocabulary cannot spell the label word {word!r} (it reads"
                f" {self.tokenizer.convert_ids_to_tokens(ids)}): choose another word for this label."
            )
        return ids

    def weighted(self, ids: Sequence[int]) -> torch.Tensor:
        """Centred vectors times weights, float64 of shape `(tokens, size)`.

        Args:
            ids (`Sequence[int]`):
                Ids of tokens.
        """
        index = torch.tensor(ids, dtype=torch.long)
        return (self.table[index].double() - self.mean) * self.weights[index][:, None]

    def words(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Unit vectors of words given by their token ids, float64 of shape `(words, size)`.

        Args:
            ids (`Sequence[Sequence[int]]`):
                The ids of each word, from `word_ids`.
        """
        vectors = [self.weighted(own).sum(dim=0) for own in ids]
        return (
            nn.functional.normalize(torch.stack(vectors), dim=1) if vectors else self.mean.new_zeros(0, len(self.mean))
        )

    def stretches(self, ids: Sequence[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit vectors of all stretches of `length` tokens of a text, and the share of each in the text's weight.

        A text shorter than that is one stretch. Shapes `(stretches, size)` and `(stretches,)`.

        Args:
            ids (`Sequence[int]`):
                The text's ids, from `token_ids`; at least one.
            length (`int`):
                Tokens a stretch.
        """
        length = min(length, len(ids))
        vectors = self.weighted(ids).unfold(0, length, 1).sum(dim=2)
        weights = self.weights[torch.tensor(ids, dtype=torch.long)].unfold(0, length, 1).sum(dim=1)
        return nn.functional.normalize(vectors, dim=1), weights / weights.sum()


def static_similarity(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    verbalizer: Verbalizer | Mapping[str, Words] | Sequence[str],
    *,
    vectors: StaticVectors | None = None,
    word_ids: Callable[[str], Sequence[int]] | None = None,
    sharpness: float = SHARPNESS,
) -> torch.Tensor:
    """Similarity of texts to labels by the model's token vectors alone.

    For a word v of K tokens and the stretches u of K tokens of the text, of weight share q(u),

        s(v) = 1/τ log Σᵤ q(u) exp(τ cos(u, v)),

    a soft maximum between the mean and the best stretch; a label's similarity is the weighted mean of its words'.
    Each row depends on its own text only.

    Args:
        model, tokenizer:
            As for `StaticVectors.of`.
        texts (`Sequence[str]`):
            The texts. One without a known token is equally similar, 0, to all labels.
        verbalizer (`Verbalizer`, mapping from labels to words, or labels):
            The words of each label.
        vectors (`StaticVectors`, *optional*):
            Vectors made before, so that calls in a loop do not make them again.
        word_ids (`Callable`, *optional*):
            Token ids of a word, such as `PromptEncoder.word_ids`. Default: `StaticVectors.word_ids`.
        sharpness (`float`, defaults to `SHARPNESS`):
            τ ≥ 0.

    Returns:
        `torch.Tensor` of shape `(texts, labels)`, float64, on the CPU, within [−1, 1].

    Raises:
        `ValueError`: a word that the vocabulary cannot spell, a negative sharpness, a model without token vectors.
        `TypeError`: a text that is no string.
    """
    _check_texts(texts)
    if not (sharpness >= 0 and math.isfinite(sharpness)):
        raise ValueError(f"sharpness must be a number from 0 on, got {sharpness}.")
    verbalizer = Verbalizer.of(verbalizer)
    vectors = vectors or StaticVectors.of(model, tokenizer)
    ids = [list((word_ids or vectors.word_ids)(word)) for word in verbalizer.all_words]
    words = vectors.words(ids)  # (words, size)
    lengths = torch.tensor([len(own) for own in ids])
    similarity = torch.zeros(len(texts), len(ids), dtype=torch.float64)
    for row, text in enumerate(texts):
        tokens = vectors.token_ids(text)
        if not tokens:
            continue
        for length in lengths.unique().tolist():
            found, share = vectors.stretches(tokens, length)
            cosines = found @ words[lengths == length].T  # (stretches, words)
            similarity[row, lengths == length] = _soft_maximum(cosines, share, sharpness)
    return similarity @ verbalizer.weight_matrix()


def combine(
    network_scores: torch.Tensor,
    similarity: torch.Tensor,
    prior_weight: float,
    scale: float | None = None,
) -> torch.Tensor:
    """Scores of the network plus the static similarity, both in units of their own spread.

    Each side is centred within each text, divided by its standard deviation over all texts of the call, and weighed;
    the sum is given in the network's units, so that the softmax stays as sharp as without the prior:

        s = n + λ · σ(n) / σ(m) · m,  n and m centred within each text.

    One deviation for the call, not one a text: with two labels a text's own deviation would leave only signs.
    The similarity needs no calibration of its own, since the mean of running text is out of it.

    Args:
        network_scores (`torch.Tensor` of shape `(texts, labels)`):
            The network's scores, calibrated.
        similarity (`torch.Tensor` of shape `(texts, labels)`):
            What `static_similarity` gave.
        prior_weight (`float`):
            λ ≥ 0: 0 leaves the network's scores as they are, 1 weighs both the same.
        scale (`float`, *optional*):
            σ(n) / σ(m) from texts of a reference, as `prior_scale` gives it, so that each text is scored by itself.
            Default: from the texts of the call.

    Returns:
        `torch.Tensor` of shape `(texts, labels)`.

    Raises:
        `ValueError`: shapes that differ, or a weight that is negative or not finite.
    """
    if network_scores.shape != similarity.shape or network_scores.dim() != 2:
        raise ValueError(
            f"network_scores and similarity must both have the shape (texts, labels), got"
            f" {tuple(network_scores.shape)} and {tuple(similarity.shape)}."
        )
    if not (prior_weight >= 0 and math.isfinite(prior_weight)):
        raise ValueError(f"prior_weight must be a number from 0 on (0: no prior; 1 is usual), got {prior_weight}.")
    if prior_weight == 0:
        return network_scores
    if scale is None:
        scale = prior_scale(network_scores, similarity)
    prior = (similarity - similarity.mean(dim=1, keepdim=True)).to(network_scores)
    return network_scores + prior_weight * scale * prior


def prior_scale(network_scores: torch.Tensor, similarity: torch.Tensor) -> float:
    """How many of the network's units one unit of similarity is worth: σ(n) / σ(m), centred within each text.

    1 / σ(m) where the network says nothing, 0 where the similarity does.

    Args:
        network_scores (`torch.Tensor` of shape `(texts, labels)`):
            As of `combine`.
        similarity (`torch.Tensor` of shape `(texts, labels)`):
            As of `combine`.
    """
    spreads = [_spread(scores) for scores in (network_scores, similarity)]
    if spreads[1] == 0:
        return 0.0
    return (spreads[0] or 1.0) / spreads[1]


def _check_texts(texts: Any) -> None:
    wrong = [texts] if isinstance(texts, str) else [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise TypeError(f"static_similarity takes a list of strings, got {wrong[0]!r}.")


def _spread(scores: torch.Tensor) -> float:
    scores = scores.double()
    centred = scores - scores.mean(dim=1, keepdim=True)
    spread = float(centred.square().mean().sqrt()) if scores.numel() else 0.0
    # What is left of equal scores by rounding is no spread.
    return spread if spread > 1e-12 * float(scores.abs().max() if scores.numel() else 0.0) else 0.0


def _soft_maximum(values: torch.Tensor, share: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Of each column of `values`, between the mean by `share` (sharpness 0) and the maximum."""
    if sharpness == 0:
        return share @ values
    return (sharpness * values + share.log()[:, None]).logsumexp(dim=0) / sharpness


def _shares(model: Any, size: int) -> torch.Tensor:
    """Shares of the tokens in running text, from the bias of the output layer."""
    output = model.get_output_embeddings()
    bias = getattr(output, "bias", None)
    if not isinstance(bias, torch.Tensor) or bias.shape != (size,) or bias.is_meta:
        return torch.full((size,), 1 / size, dtype=torch.float64)
    return bias.detach().cpu().double().softmax(dim=0)


def _checked_shares(frequencies: torch.Tensor, size: int) -> torch.Tensor:
    shares = torch.as_tensor(frequencies).cpu().double()
    if shares.shape != (size,) or not bool((shares >= 0).all() & shares.isfinite().all()) or not shares.sum() > 0:
        raise ValueError(
            f"frequencies must be {size} numbers, one a token, none negative and not all 0; got shape"
            f" {tuple(shares.shape)}."
        )
    return shares / shares.sum()


def _mean(shares: torch.Tensor, table: torch.Tensor, rows: int = 8192) -> torch.Tensor:
    """Σ p(w) · vector(w) in float64, without a second table of that size."""
    pieces = (share @ part.double() for share, part in zip(shares.split(rows), table.split(rows), strict=True))
    return torch.stack(list(pieces)).sum(dim=0)
