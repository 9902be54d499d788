"""Masking for masked language modelling with pinyin: whole words or single characters, without a leak.

ChineseBERT is pretrained with whole-word masking 90 % and character masking 10 % of the time (Sun et al. 2021,
section 4.2), on 15 % of the tokens, of which 80 % become ``[MASK]``, 10 % a random token and 10 % stay (BERT). (The
paper's 0.9 and 0.1 for packed inputs and single sentences are another matter: that is how the rows were made.) The
reading of a hidden character nearly names it, and so does the reading that a random token would inherit: the first is
blanked, the second is replaced by the random token's own. Tokens that are seen keep the readings that the whole text
gave them, as in the paper: a reading that a hidden neighbour decided stays.

The functions are pure: randomness comes in as numbers from 0 to 1. The collator takes them from a generator without a
state: each number is a function of seed, epoch, the example's own seed and the token's place. So batch size, order,
workers, processes and resuming change nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

Segmenter = Callable[[str], Iterable[str]]
_UINT64 = (1 << 64) - 1
IGNORED = -100  # label of a token that is not predicted, as torch and transformers have it
NO_WORD = -1  # word id of a token that is never masked: special tokens and padding


def random_bits(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Output number `counter` of the generator SplitMix64 begun at `key` (Steele, Lea and Flood 2014, figure 16).

    Args:
        key: uint64, of a shape that broadcasts with `counter`'s; not both scalars.
        counter: integers from 0.

    Returns:
        uint64 of the broadcast shape, all 64 bits random.
    """
    z = key + (counter.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def row_keys(seed: int, epoch: int, mask_seeds: Sequence[int]) -> np.ndarray:
    """(rows,) uint64: where each row's random numbers begin, scattered over all 2⁶⁴ places.

    Args:
        seed: any integer, as `epoch` and the rows' own `mask_seeds`; they are taken modulo 2⁶⁴.
    """
    key, first = np.zeros(1, dtype=np.uint64), np.zeros(1, dtype=np.uint64)
    for numbers in ([seed], [epoch], mask_seeds):
        part = np.fromiter((int(number) & _UINT64 for number in numbers), dtype=np.uint64, count=len(numbers))
        key = random_bits(key ^ part, first)
    return key


def uniform_numbers(key: np.ndarray, counter: np.ndarray) -> np.ndarray:
    """Random numbers from [0, 1), multiples of 2⁻⁵³; arguments as of `random_bits`."""
    return (random_bits(key, counter) >> np.uint64(11)) * 2.0**-53


def choose_words(word_ids: np.ndarray, uniform: np.ndarray, probability: float) -> np.ndarray:
    """Choose words for masking, each with the same probability; a row with words gets at least one.

    Every word and so every token is chosen with `probability` (plus, for a row of n words, the share (1 − p)ⁿ / n of
    the rows that would have none).

    Args:
        word_ids: (batch, length), for each token the number of its word in the row, from 0 to length − 1, or
            `NO_WORD`. Tokens of one word are chosen together.
        uniform: (batch, length) random numbers from [0, 1); the one at [b, w] decides on word w of row b.

    Returns:
        (batch, length) bool.
    """
    rows, length = word_ids.shape
    text = word_ids != NO_WORD
    present = np.zeros((rows, length + 1), dtype=bool)
    np.put_along_axis(present, np.where(text, word_ids, length), True, axis=1)
    score = np.where(present[:, :length], uniform, np.inf)
    drawn = score < probability  # (batch, words)
    empty = np.flatnonzero(~drawn.any(1) & text.any(1))
    drawn[empty, score[empty].argmin(1)] = True
    return np.take_along_axis(drawn, np.where(text, word_ids, 0), axis=1) & text


def characters_as_words(word_ids: np.ndarray) -> np.ndarray:
    """Word ids (batch, length) in which every maskable token is a word of its own: for character masking."""
    return np.where(word_ids != NO_WORD, np.arange(word_ids.shape[1]), NO_WORD)


def number_words(word_ids: np.ndarray) -> np.ndarray:
    """Number the words of each row 0, 1, 2, …: a word is a run of tokens with the same number, whatever it is.

    Args:
        word_ids: (batch, length) integers, below 0 for tokens without a word.

    Returns:
        (batch, length), `NO_WORD` for tokens without a word.
    """
    before = np.concatenate([np.full((len(word_ids), 1), NO_WORD, word_ids.dtype), word_ids[:, :-1]], axis=1)
    starts = (word_ids >= 0) & (word_ids != before)
    return np.where(word_ids >= 0, starts.cumsum(1) - 1, NO_WORD)


def replace_tokens(
    input_ids: np.ndarray,
    pinyin_ids: np.ndarray | None,
    chosen: np.ndarray,
    uniform: np.ndarray,
    random_ids: np.ndarray,
    *,
    mask_token_id: int,
    default_pinyin_ids: np.ndarray | None = None,
    mask_share: float = 0.8,
    random_share: float = 0.1,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Hide the chosen tokens: ``[MASK]``, a random token, or the token itself.

    Args:
        input_ids: (batch, length).
        pinyin_ids: (batch, length) readings, or None for a model without pinyin.
        chosen: (batch, length) bool, the tokens to predict.
        uniform: (batch, length) from [0, 1), decides between the three.
        random_ids: (batch, length) tokens to put where the draw says "random".
        default_pinyin_ids: (vocab,) reading of each token; needed with `pinyin_ids`.

    Returns:
        New input ids; new pinyin ids, 0 (no reading) at ``[MASK]`` and the random token's own reading at a random
        token; labels, the original token where it is to be predicted, `IGNORED` elsewhere. The arguments stay as they
        were.
    """
    masked = chosen & (uniform < mask_share)
    random = chosen & ~masked & (uniform < mask_share + random_share)
    new_ids = np.where(masked, mask_token_id, np.where(random, random_ids, input_ids))
    labels = np.where(chosen, input_ids, IGNORED)
    if pinyin_ids is None:
        return new_ids, None, labels
    if default_pinyin_ids is None:
        raise ValueError("pinyin_ids without default_pinyin_ids: the readings of random tokens are not known")
    new_pinyin = np.where(masked, 0, np.where(random, default_pinyin_ids[random_ids], pinyin_ids))
    return new_ids, new_pinyin, labels


def words_of_tokens(tokens: Sequence[str], special: Sequence[bool], cut: Segmenter | None = None) -> list[int]:
    """Number the words of one example's tokens: pieces with ``##`` continue a word, special tokens are `NO_WORD`.

    Args:
        tokens: WordPiece tokens.
        special: for each token, whether it is special.
        cut: segmenter for runs of single characters, its words concatenating to what it was given (``jieba.cut``);
            None makes each character a word.
    """
    starts = [not (token.startswith("##") and len(token) > 2) for token in tokens]
    if cut is not None:
        position = 0
        while position < len(tokens):
            end = position
            while end < len(tokens) and not special[end] and len(tokens[end]) == 1:
                end += 1
            at = position
            for word in cut("".join(tokens[position:end])) if end > position else ():
                starts[at + 1 : at + len(word)] = [False] * (len(word) - 1)
                at += len(word)
            if at != end:
                raise ValueError(f"the segmenter's words cover {at - position} of {end - position} characters")
            position = end + 1
    words, number = [], -1
    previous_special = True
    for start, is_special in zip(starts, special, strict=True):
        number += not is_special and (start or previous_special)
        previous_special = bool(is_special)
        words.append(NO_WORD if is_special else number)
    return words


@dataclass
class DataCollatorForChineseBertMaskedLM:
    """Pad examples and mask them, for ChineseBERT and for plain BERT models (those without `pinyin_ids`).

    Example keys beside the tokenizer's, all optional and left out of the batch:

    - `word_ids`, a number a token; neighbours with the same number are a word, special tokens have -1 or None;
    - `mask_seed`, an integer of the example's own;
    - `special_tokens_mask`, 1 for tokens that are never masked.

    The `Trainer` drops the first two before they get here, unless it is told `remove_unused_columns=False`. Values may
    be lists, arrays or tensors. Finding words with a segmenter is much slower than bringing them.

    Args:
        tokenizer: has `mask_token_id`, `pad`, and for examples with `pinyin_ids` also `default_pinyin_ids`.
        mlm_probability: share of the tokens to predict.
        whole_word_share: share of the examples in which whole words are masked; in the others single characters.
        mask_share: share of the chosen tokens that become ``[MASK]``.
        random_share: share of the chosen tokens that become a random token, any but the special ones; the rest stays.
        segmenter: how to find words where examples bring no `word_ids`: a function from text to words, ``"jieba"``, or
            None: every Han character is a word, word pieces are joined.
        seed: together with `epoch` and the example's `mask_seed` (else a checksum of its tokens) fixes its masks.
        pad_to_multiple_of: as in `tokenizer.pad`.

    Raises:
        ValueError: a share or probability is outside its range; the tokenizer has no mask token.
    """

    tokenizer: Any
    mlm_probability: float = 0.15
    whole_word_share: float = 0.9
    mask_share: float = 0.8
    random_share: float = 0.1
    segmenter: Segmenter | Literal["jieba"] | None = None
    seed: int = 0
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"mlm_probability={self.mlm_probability}: expected more than 0 and less than 1")
        for name in ("whole_word_share", "mask_share", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number from 0 to 1")
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(
                f"mask_share={self.mask_share} and random_share={self.random_share} add up to more than 1: lower one"
            )
        if self.tokenizer.mask_token_id is None:
            raise ValueError("the tokenizer has no mask token: expected a tokenizer of a masked language model")
        # In shared memory, because a worker that outlives an epoch got its copy of the collator when it began.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        special = set(self.tokenizer.all_special_ids)
        self._special = np.array(sorted(special), dtype=np.int64)
        # Asked for once: the tokenizer looks every token of the vocabulary up.
        readings = getattr(self.tokenizer, "default_pinyin_ids", None)
        self._readings = None if readings is None else np.asarray(readings)
        self._ordinary = np.array([i for i in range(len(self.tokenizer)) if i not in special], dtype=np.int64)

    @property
    def epoch(self) -> int:
        """Number of the epoch, 0 until `set_epoch`; workers see it too."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw other masks for the same examples; call it before an epoch's batches are asked for.

        In the `Trainer` the callback `hf_nlpnotes.pretraining.masking_epoch.MaskingEpoch` does it.

        Args:
            epoch: Number of the epoch, from 0.
        """
        self._epoch.fill_(epoch)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Batch of `input_ids`, `pinyin_ids` where the examples have them, `labels`, and what the tokenizer pads."""
        examples = [dict(feature) for feature in features]
        words = [self._word_ids(example) for example in examples]
        key = row_keys(self.seed, self.epoch, [self._mask_seed(example) for example in examples])[:, None]
        for example in examples:
            example.pop("labels", None)
        batch = self._pad(examples)
        ids = batch["input_ids"]
        lengths = np.array([len(own) for own in words])
        left = self.tokenizer.padding_side == "left"
        first = (ids.shape[1] - lengths if left else np.zeros_like(lengths))[:, None]  # (batch, 1)
        place = np.arange(ids.shape[1]) - first  # of each token in its own row, wherever padding puts that
        word_ids = np.full(ids.shape, NO_WORD, dtype=np.int64)
        word_ids[(place >= 0) & (place < lengths[:, None])] = np.concatenate(words)
        word_ids = number_words(word_ids)
        text = (word_ids != NO_WORD) & ~np.isin(ids, self._special)

        # Four numbers a place: for the word of that number, what to put there, which random token, kind of masking.
        whole = uniform_numbers(key, np.array([3])) < self.whole_word_share
        units = np.where(text, np.where(whole, word_ids, place), NO_WORD)
        chosen = choose_words(units, uniform_numbers(key, 4 * np.arange(ids.shape[1])), self.mlm_probability)
        random = uniform_numbers(key, 4 * place + 2)
        new_ids, new_pinyin, labels = replace_tokens(
            ids,
            batch.get("pinyin_ids"),
            chosen,
            uniform_numbers(key, 4 * place + 1),
            self._ordinary[(random * len(self._ordinary)).astype(np.int64)],
            mask_token_id=self.tokenizer.mask_token_id,
            default_pinyin_ids=self._readings,
            mask_share=self.mask_share,
            random_share=self.random_share,
        )
        arrays = {**batch, "input_ids": new_ids, "labels": labels}
        if new_pinyin is not None:
            arrays["pinyin_ids"] = new_pinyin
        return {name: torch.from_numpy(values.astype(np.int64, copy=False)) for name, values in arrays.items()}

    def _pad(self, examples: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Arrays (batch, length) of the examples' values."""
        for name, value in examples[0].items():
            if np.asarray(value).dtype.kind not in "iub":
                raise ValueError(f"{name}: expected integers, got {value!r}: leave this column out of the examples")
        lengths = {len(example["input_ids"]) for example in examples}
        if len(lengths) > 1 or lengths.pop() % (self.pad_to_multiple_of or 1):
            multiple = self.pad_to_multiple_of
            padded = self.tokenizer.pad(examples, return_tensors="np", pad_to_multiple_of=multiple)
            return {name: np.asarray(values) for name, values in padded.items()}
        # Packed rows: the tokenizer would take most of the collator's time to find nothing to pad.
        batch = {name: np.array([example[name] for example in examples]) for name in examples[0]}
        if "attention_mask" in self.tokenizer.model_input_names:
            batch.setdefault("attention_mask", np.ones_like(batch["input_ids"]))
        return batch

    def _word_ids(self, example: dict[str, Any]) -> np.ndarray:
        """(length,) word ids of an example; takes `word_ids` and `special_tokens_mask` out of it."""
        brought, never = example.pop("word_ids", None), example.pop("special_tokens_mask", None)
        if brought is None:
            ids = np.asarray(example["input_ids"])
            tokens = self.tokenizer.convert_ids_to_tokens(ids.tolist())
            words = np.array(
                words_of_tokens(tokens, np.isin(ids, self._special).tolist(), self._cut()), dtype=np.int64
            )
        else:
            words = np.asarray(brought)
            if words.dtype.kind not in "iu":  # with None, or what arrays have in its stead: NaN
                none = [word is None or word != word for word in brought]  # noqa: PLR0124 (NaN)
                words = np.array([NO_WORD if no else int(w) for w, no in zip(brought, none, strict=True)], np.int64)
        if len(words) != len(example["input_ids"]):
            expected = len(example["input_ids"])
            raise ValueError(f"word_ids has {len(words)} entries for {expected} tokens: expected one a token")
        return words if never is None else np.where(np.asarray(never, dtype=bool), NO_WORD, words)

    def _mask_seed(self, example: dict[str, Any]) -> int:
        """Seed of an example's own; takes `mask_seed` out of it."""
        own = example.pop("mask_seed", None)
        if own is None:
            return zlib.crc32(np.asarray(example["input_ids"], dtype=np.int64).tobytes())
        return int(own)

    def _cut(self) -> Segmenter | None:
        if self.segmenter != "jieba":
            return self.segmenter
        try:
            import jieba
        except ImportError as error:
            raise ImportError(
                'segmenter="jieba" needs jieba: pip install "hf-nlpnotes[pretrain]", or pass a function'
            ) from error
        cut: Segmenter = jieba.cut
        return cut


__all__ = [
    "DataCollatorForChineseBertMaskedLM",
    "characters_as_words",
    "choose_words",
    "number_words",
    "random_bits",
    "replace_tokens",
    "row_keys",
    "uniform_numbers",
    "words_of_tokens",
]
