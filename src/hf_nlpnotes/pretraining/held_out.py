"""Accuracy of a masked language model on lines that it was not trained on.

Three questions about the same lines. `whole_words`: random words are hidden whole. `single`: one random token of each
of those words is hidden, and the rest of the word is seen. `scattered`: as many random tokens as in `whole_words` are
hidden one by one, whatever their words, so that a word may lose several. The first asks for words, the others for
characters; `single` is the easiest, since a word never loses more than one token and fewer are hidden in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .every_position import draw_words, word_ids
from .packing import TokenStream
from .vocabulary import is_han


@dataclass(frozen=True)
class HeldOut:
    """Held-out lines, one a row, with the tokens that are to be found.

    Attributes:
        input_ids: (lines, length), unmasked, padded with 0.
        pinyin_ids: (lines, length), or None.
        whole_words: (lines, length) bool, all tokens of random words.
        single: (lines, length) bool, one random token of each of those words.
        scattered: (lines, length) bool, random tokens, or None where they are not to be asked for.
    """

    input_ids: torch.Tensor
    pinyin_ids: torch.Tensor | None
    whole_words: torch.Tensor
    single: torch.Tensor
    scattered: torch.Tensor | None = None


def one_of_each_word(chosen: torch.Tensor, words: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One random token of each word that has chosen tokens, each of those with the same probability.

    Args:
        chosen: (batch, length) bool.
        words: (batch, length) int64, the number of each token's word in its row, from 0 to length − 1.

    Returns:
        (batch, length) bool, a subset of `chosen`.
    """
    # float64: among 2⁵³ numbers two tokens of a word do not draw the same one.
    lots = torch.rand(chosen.shape, generator=generator, dtype=torch.float64).masked_fill(~chosen, -1)
    highest = torch.full_like(lots, -1).scatter_reduce(1, words, lots, "amax")  # (batch, words)
    return chosen & (lots == highest.gather(1, words))


def held_out_rows(
    streams: Sequence[TokenStream],
    length: int,
    *,
    cls_token_id: int,
    sep_token_id: int,
    share: float = 0.15,
    seed: int = 0,
) -> HeldOut:
    """Rows of one line each, ``[CLS]`` … ``[SEP]``, long lines cut; 15 % of the words and of the tokens to be found.

    Args:
        streams: `encode_lines([line], …)` of each line.
        length: tokens a row, ``[CLS]`` and ``[SEP]`` among them.
        cls_token_id: id of ``[CLS]``.
        sep_token_id: id of ``[SEP]``.
        share: of the words (`whole_words`, `single`) and of the tokens (`scattered`).
        seed: of the choice.

    Raises:
        ValueError: `length` leaves no room for a token, or `share` is not a probability above 0.
    """
    if length < 3:
        raise ValueError(f"length={length}: expected at least 3, for [CLS], one token and [SEP]")
    if not 0 < share <= 1:
        raise ValueError(f"share={share}: expected more than 0 and at most 1")
    shape = (len(streams), length)
    ids, pinyin = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    continues, text = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    for row, stream in enumerate(streams):
        n = min(len(stream) - 1, length - 2)  # without the stream's own separator
        ids[row, 0], ids[row, n + 1] = cls_token_id, sep_token_id
        ids[row, 1 : n + 1] = torch.from_numpy(stream.input_ids[:n].astype(np.int64))
        continues[row, 1 : n + 1] = torch.from_numpy(stream.continues_word[:n])
        text[row, 1 : n + 1] = True
        if stream.pinyin_ids is not None:
            pinyin[row, 1 : n + 1] = torch.from_numpy(stream.pinyin_ids[:n].astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    scattered = (torch.rand(shape, generator=generator) < share) & text
    words = word_ids(continues)
    whole = draw_words(words, share, generator) & text
    single = one_of_each_word(whole, words, generator)
    has_pinyin = bool(streams) and streams[0].pinyin_ids is not None
    return HeldOut(ids, pinyin if has_pinyin else None, whole, single, scattered)


@torch.no_grad()
def masked_accuracy(
    model: Any, rows: HeldOut, vocabulary: Sequence[str], mask_token_id: int, *, batch_size: int = 64
) -> dict[str, float]:
    """Percentage of the chosen tokens that the model finds when every one of them is ``[MASK]``, without a reading.

    Args:
        model: `ChineseBertForMaskedLM`, or a BERT whose trunk is `model.bert` and head `model.cls`.
        rows: from `held_out_rows`.
        vocabulary: the tokens, to count Han characters also by themselves: punctuation is easy.
        mask_token_id: id of ``[MASK]``.
        batch_size: rows a forward pass.

    Returns:
        `whole_words`, `single` and, unless the rows have none, `scattered`; each also with `_han`, over Han characters
        alone, and `_tokens`, how many tokens there were. NaN where there was nothing to find.
    """
    han = torch.tensor([len(token) == 1 and is_han(token) for token in vocabulary])
    training, device = model.training, getattr(model, "device", torch.device("cpu"))
    model.eval()
    result: dict[str, float] = {}
    for kind in ("whole_words", "single", "scattered"):
        chosen = getattr(rows, kind)
        if chosen is None:
            continue
        hits, targets = [torch.zeros(0, dtype=torch.bool)], [torch.zeros(0, dtype=torch.int64)]
        for at in torch.arange(len(chosen)).split(batch_size) if len(chosen) else ():
            used = int((rows.input_ids[at] != 0).sum(1).max())
            ids, mask = rows.input_ids[at, :used], chosen[at, :used]
            inputs = {"input_ids": ids.masked_fill(mask, mask_token_id), "attention_mask": (ids != 0).long()}
            if rows.pinyin_ids is not None and model.config.model_type == "chinesebert":
                inputs["pinyin_ids"] = rows.pinyin_ids[at, :used].masked_fill(mask, 0)
            inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
            guess = model.cls(model.bert(**inputs)[0][mask.to(device)]).argmax(-1).cpu()
            hits.append(guess == ids[mask])
            targets.append(ids[mask])
        right, of_han = torch.cat(hits).float(), han[torch.cat(targets)]
        result[kind] = round(100 * right.mean().item(), 2)
        result[f"{kind}_han"] = round(100 * right[of_han].mean().item(), 2)
        result[f"{kind}_tokens"] = len(right)
    model.train(training)
    return result
