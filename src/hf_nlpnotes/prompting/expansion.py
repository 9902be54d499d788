"""More words for each label without a word list: from the model's token vectors, or from unlabelled texts.

- `expand_from_vectors` takes the candidate words nearest to a label's words by the model's own token vectors
  (`StaticVectors`), if they are nearer to it than to every other label. It needs nothing but candidates. In Chinese,
  where a token is a character, 体验 is near 体育 because both begin with 体: candidates that share a token with the
  label's words are therefore left out, unless asked for.
- `expand_from_texts` sorts the texts by the words that there are, and takes the words that occur in the texts of one
  label more than in those of the others, by frequency and distinctness, as ConWea does (Mekala & Shang, ACL 2020,
  https://aclanthology.org/2020.acl-main.30). It finds what vectors do not know: names, jargon, events.

When to use: labels with one word or two. How it fails: where the first words sort the texts badly, what they share is
wrong too (a 科技 that gathers examinations stays so); more rounds make it worse rather than better. Look at the words
and strike out the wrong ones: that takes a minute and is worth more than any option here.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from .search import choose_words
from .static_prior import StaticVectors, static_similarity
from .verbalizer import Verbalizer, Words


def vocabulary_words(tokenizer: Any) -> list[str]:
    """The vocabulary's entries that are words by themselves, in the order of their ids.

    No special tokens, pieces inside words, digits or punctuation; of letters at least two, of Han characters one. For
    byte-level BPE and SentencePiece these are the entries that begin a word, without the mark of the space.

    Args:
        tokenizer (`PreTrainedTokenizerBase`):
            The tokenizer.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_ids)
    begins = any(token.startswith(("Ġ", "▁")) for token, _ in vocabulary)
    words = []
    for token, number in vocabulary:
        if number in special or token.startswith("##"):
            continue
        text = tokenizer.convert_tokens_to_string([token]).strip()
        inside = begins and not token.startswith(("Ġ", "▁")) and not _is_han(text)
        letters = bool(text) and all(unicodedata.category(c)[0] in "LM" for c in text)
        if letters and not inside and (len(text) > 1 or _is_han(text)):
            words.append(text)
    return list(dict.fromkeys(words))


def candidate_words(
    texts: Sequence[str],
    segment: Callable[[str], Iterable[str]] | None = None,
    min_texts: int = 5,
    max_share: float = 0.2,
) -> dict[str, tuple[int, ...]]:
    """Words of texts that are neither rare nor everywhere.

    Args:
        texts (`Sequence[str]`):
            Unlabelled texts.
        segment (`Callable`, *optional*):
            Words of a text. Default: jieba's (extra `pretrain`).
        min_texts (`int`, defaults to 5):
            A word must be in at least so many texts.
        max_share (`float`, defaults to 0.2):
            A word must be in at most this share of the texts.

    Returns:
        Word → the numbers of the texts that it is in, most frequent first. Words are of letters only, two or more.

    Raises:
        `ImportError`: no `segment` was given, and jieba is not installed.
        `ValueError`: limits that make no sense.
    """
    if min_texts < 1 or not 0 < max_share <= 1:
        raise ValueError(f"Need min_texts ≥ 1 and 0 < max_share ≤ 1, got {min_texts} and {max_share}.")
    segment = segment or _jieba()
    places: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        for word in dict.fromkeys(word.strip() for word in segment(text)):
            if len(word) > 1 and all(unicodedata.category(c)[0] in "LM" for c in word):
                places.setdefault(word, []).append(number)
    found = {word: tuple(own) for word, own in places.items() if min_texts <= len(own) <= max_share * len(texts)}
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def expand_from_vectors(
    vectors: StaticVectors,
    seeds: Verbalizer | Mapping[str, Words] | Sequence[str],
    candidates: Iterable[str],
    words_per_label: int = 8,
    min_margin: float = 0.05,
    shared_tokens: bool = False,
) -> Verbalizer:
    """The words nearest to each label's words by the model's token vectors.

    Args:
        vectors (`StaticVectors`):
            The vectors.
        seeds (`Verbalizer`, mapping from labels to words, or labels):
            The words that there are, which stay.
        candidates (`Iterable[str]`):
            Words to choose from; those that the vocabulary cannot spell are left out.
        words_per_label (`int`, defaults to 8):
            Most words of a label, seeds included.
        min_margin (`float`, defaults to 0.05):
            How much nearer, in cosine, a word must be to its label than to any other.
        shared_tokens (`bool`, defaults to `False`):
            Whether a word may share a token with a word of its label.
    """
    seeds = Verbalizer.of(seeds)
    _check_size(words_per_label)
    taken = set(seeds.all_words)
    words = {word: ids for word in candidates if word not in taken and (ids := _ids(vectors, word)) is not None}
    if not words:
        return seeds
    seed_ids = {word: vectors.word_ids(word) for word in seeds.all_words}
    table = vectors.words(list(words.values()))
    centres = torch.stack(
        [
            torch.tensor(weights, dtype=torch.float64) @ vectors.words([seed_ids[word] for word in own])
            for own, weights in zip(seeds.words, seeds.weights, strict=True)
        ]
    )
    cosines = table @ torch.nn.functional.normalize(centres, dim=1).T  # (words, labels)
    scores = cosines.clone()
    for column, own in enumerate(seeds.words):
        others = torch.cat([cosines[:, :column], cosines[:, column + 1 :]], dim=1)
        if others.shape[1]:
            scores[cosines[:, column] - others.amax(dim=1) < min_margin, column] = -torch.inf
        if not shared_tokens:
            tokens = {token for word in own for token in seed_ids[word]}
            shares = [not tokens.isdisjoint(ids) for ids in words.values()]
            scores[torch.tensor(shares), column] = -torch.inf
    kept = dict(zip(seeds.labels, seeds.words, strict=True))
    return choose_words(scores, list(words), seeds.labels, words_per_label, kept, floor=-torch.inf)


def expand_from_texts(
    texts: Sequence[str],
    seeds: Verbalizer | Mapping[str, Words] | Sequence[str],
    vectors: StaticVectors,
    candidates: Mapping[str, Sequence[int]] | None = None,
    words_per_label: int = 8,
    classify: Callable[[Sequence[str], Verbalizer], torch.Tensor] | None = None,
    sharpness: float = 2.0,
    smoothing: float = 5.0,
    rounds: int = 1,
) -> Verbalizer:
    """The words that set the texts of each label apart.

    The texts are shared out among the labels by their scores, centred over the texts, in units of their standard
    deviation: P(y | x) = softmax(κ z). With n(w) the number of texts that hold w, n(w, y) = Σ P(y | x) over them, and
    P(y) the mean, a word's worth for a label is √n(w) · log((n(w, y) + a P(y)) / ((n(w) + a) P(y))): how often (the
    root) and how clearly (the logarithm; a smooths) it is the label's. A word serves its best label only.

    Args:
        texts (`Sequence[str]`):
            Unlabelled texts, some hundreds or more, about as many of each label.
        seeds (`Verbalizer`, mapping from labels to words, or labels):
            The words that there are, which stay.
        vectors (`StaticVectors`):
            Vectors to sort the texts by; words that their vocabulary cannot spell are left out.
        candidates (`Mapping[str, Sequence[int]]`, *optional*):
            Words and the texts that they are in. Default: `candidate_words(texts)`.
        words_per_label (`int`, defaults to 8):
            Most words of a label, seeds included.
        classify (`Callable`, *optional*):
            Scores of texts for a verbalizer's labels, of shape `(texts, labels)`. Default: `static_similarity`.
        sharpness (`float`, defaults to 2):
            κ, positive.
        smoothing (`float`, defaults to 5):
            a, positive.
        rounds (`int`, defaults to 1):
            How often to sort and choose anew, from the seeds.

    Raises:
        `ValueError`: fewer than two texts, or a number out of its range.
    """
    seeds = Verbalizer.of(seeds)
    _check_size(words_per_label)
    if len(texts) < 2 or rounds < 1 or not sharpness > 0 or not smoothing > 0:
        raise ValueError(
            "Need two texts or more, rounds ≥ 1, sharpness > 0 and smoothing > 0, got"
            f" {len(texts)} texts, {rounds}, {sharpness} and {smoothing}."
        )
    candidates = candidate_words(texts) if candidates is None else candidates
    taken = set(seeds.all_words)
    found = {w: own for w, own in candidates.items() if w not in taken and own and _ids(vectors, w) is not None}
    if not found:
        return seeds
    places = torch.tensor([place for own in found.values() for place in own])
    counts = torch.tensor([len(own) for own in found.values()], dtype=torch.float64)
    owner = torch.arange(len(found)).repeat_interleave(counts.long())
    kept = dict(zip(seeds.labels, seeds.words, strict=True))
    current = seeds
    for _ in range(rounds):
        if classify is None:
            scores = static_similarity(None, vectors.tokenizer, texts, current, vectors=vectors)
        else:
            scores = classify(texts, current).double()
        scores = scores - scores.mean(dim=0)
        posterior = (sharpness * scores / scores.std().clamp_min(1e-12)).softmax(dim=1)  # (texts, labels)
        prior = posterior.mean(dim=0)
        held = torch.zeros(len(found), len(seeds.labels), dtype=torch.float64).index_add_(0, owner, posterior[places])
        share = (held + smoothing * prior) / (counts[:, None] + smoothing)
        worth = counts.sqrt()[:, None] * (share / prior).log()
        current = choose_words(worth, list(found), seeds.labels, words_per_label, kept, floor=0.0)
    return current


def _is_han(text: str) -> bool:
    return bool(text) and all("CJK UNIFIED" in unicodedata.name(c, "") for c in text)


def _ids(vectors: StaticVectors, word: str) -> list[int] | None:
    try:
        return vectors.word_ids(word)
    except ValueError:  # cannot be spelled
        return None


def _check_size(words_per_label: int) -> None:
    if words_per_label < 1:
        raise ValueError(f"words_per_label must be 1 or more, got {words_per_label}.")


def _jieba() -> Callable[[str], Iterable[str]]:
    try:
        import jieba
    except ImportError as error:
        raise ImportError(
            "Words of Chinese texts come from jieba: pip install 'hf-nlpnotes[pretrain]', or pass segment=…, a"
            " function from a text to its words."
        ) from error
    segment: Callable[[str], Iterable[str]] = jieba.lcut
    return segment
