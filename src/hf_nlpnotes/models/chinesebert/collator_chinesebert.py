"""Masking for masked language modelling with pinyin: whole words or single characters, without a leak.

ChineseBERT is pretrained with whole-word masking 90 % and character masking 10 % of the time (Sun et al. 2021,
section 4.2), on 15 % of the tokens, of which 80 % become ``[MASK]``, 10 % a random token and 10 % stay (BERT). The
reading of a hidden character nearly names it, and so does the reading that a random token would inherit: the first is
blanked, the second is replaced by the random token's own.

The functions are pure: randomness comes in as numbers from 0 to 1. The collator draws them for each example from a
seed of the example's own, so that batch size, workers, processes and resuming change nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

Segmenter = Callable[[str], Iterable[str]]
IGNORED = -100  # label of a token that is not predicted, as torch and transformers have it
NO_WORD = -1  # word id of a token that is never masked: special tokens and padding


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

    Example keys beside the tokenizer's, both optional and left out of the batch: `word_ids`, a number a token (the
    same for tokens of one word, -1 or None for special tokens), and `mask_seed`, an integer.

    Args:
        tokenizer: has `mask_token_id`, `pad`, and for examples with `pinyin_ids` also `default_pinyin_ids`.
        mlm_probability: share of the tokens to predict.
        whole_word_share: share of the examples in which whole words are masked; in the others single characters. The
            paper's packed inputs have 0.9, its single sentences 0.1.
        mask_share: share of the chosen tokens that become ``[MASK]``.
        random_share: share of the chosen tokens that become a random token; the rest stays.
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
    epoch: int = field(default=0, init=False)

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
        special = set(self.tokenizer.all_special_ids)
        self._special = np.array(sorted(special), dtype=np.int64)
        # Asked for once: the tokenizer looks every token of the vocabulary up.
        readings = getattr(self.tokenizer, "default_pinyin_ids", None)
        self._readings = None if readings is None else np.asarray(readings)
        self._ordinary = np.array([i for i in range(len(self.tokenizer)) if i not in special], dtype=np.int64)

    def set_epoch(self, epoch: int) -> None:
        """Draw other masks for the same examples; call it when an epoch begins."""
        self.epoch = epoch

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Batch of `input_ids`, `pinyin_ids` where the examples have them, `labels`, and what the tokenizer pads."""
        examples = [dict(feature) for feature in features]
        words = [self._word_ids(example) for example in examples]
        randoms = [self._random_numbers(example) for example in examples]
        for example in examples:
            example.pop("labels", None)
        batch = self.tokenizer.pad(examples, return_tensors="np", pad_to_multiple_of=self.pad_to_multiple_of)
        ids = batch["input_ids"].astype(np.int64)
        word_ids = np.full(ids.shape, NO_WORD, dtype=np.int64)
        uniform = np.zeros((3, *ids.shape))
        whole = np.zeros((len(ids), 1), dtype=bool)
        for row, (example, own, (coin, drawn)) in enumerate(zip(examples, words, randoms, strict=True)):
            length = len(example["input_ids"])
            at = slice(ids.shape[1] - length, None) if self.tokenizer.padding_side == "left" else slice(0, length)
            word_ids[row, at] = own
            # Word w of a row is decided by the number at index w, wherever padding puts the row.
            uniform[0, row, :length] = drawn[0]
            uniform[1:, row, at] = drawn[1:]
            whole[row] = coin < self.whole_word_share
        # Characters are numbered within the row's own tokens, or padding on the left would change the draw.
        first = (word_ids != NO_WORD).argmax(1)[:, None]
        single = np.where(word_ids != NO_WORD, np.arange(ids.shape[1]) - first, NO_WORD)
        chosen = choose_words(np.where(whole, word_ids, single), uniform[0], self.mlm_probability)
        random_ids = self._ordinary[(uniform[2] * len(self._ordinary)).astype(np.int64)]
        pinyin = batch.get("pinyin_ids")
        new_ids, new_pinyin, labels = replace_tokens(
            ids,
            pinyin,
            chosen,
            uniform[1],
            random_ids,
            mask_token_id=self.tokenizer.mask_token_id,
            default_pinyin_ids=self._readings,
            mask_share=self.mask_share,
            random_share=self.random_share,
        )
        arrays = {**batch, "input_ids": new_ids, "labels": labels}
        if new_pinyin is not None:
            arrays["pinyin_ids"] = new_pinyin
        return {name: torch.as_tensor(np.asarray(values, dtype=np.int64)) for name, values in arrays.items()}

    def _word_ids(self, example: dict[str, Any]) -> np.ndarray:
        """(length,) word ids of an example, numbered from 0; takes `word_ids` out of it."""
        ids = np.asarray(example["input_ids"])
        special = np.isin(ids, self._special)
        brought = example.pop("word_ids", None)
        if brought is None:
            tokens = self.tokenizer.convert_ids_to_tokens(ids.tolist())
            return np.array(words_of_tokens(tokens, special.tolist(), self._cut()), dtype=np.int64)
        if len(brought) != len(ids):
            raise ValueError(f"word_ids has {len(brought)} entries for {len(ids)} tokens: expected one a token")
        words = np.array([NO_WORD if word is None else word for word in brought], dtype=np.int64)
        text = ~special & (words >= 0)
        numbers = np.full(len(ids), NO_WORD, dtype=np.int64)
        numbers[text] = np.unique(words[text], return_inverse=True)[1]
        return numbers

    def _random_numbers(self, example: dict[str, Any]) -> tuple[float, np.ndarray]:
        """One number for the kind of masking and (3, length) for the tokens; takes `mask_seed` out of the example."""
        ids = np.asarray(example["input_ids"], dtype=np.int64)
        own = example.pop("mask_seed", None)
        own = zlib.crc32(ids.tobytes()) if own is None else int(own)
        generator = np.random.default_rng([self.seed, self.epoch, own])
        return float(generator.random()), generator.random((3, len(ids)))

    def _cut(self) -> Segmenter | None:
        if self.segmenter != "jieba":
            return self.segmenter
        try:
            import jieba
        except ImportError as error:
            raise ImportError('segmenter="jieba" needs jieba: pip install jieba, or pass a function') from error
        cut: Segmenter = jieba.cut
        return cut


__all__ = [
    "DataCollatorForChineseBertMaskedLM",
    "characters_as_words",
    "choose_words",
    "replace_tokens",
    "words_of_tokens",
]
