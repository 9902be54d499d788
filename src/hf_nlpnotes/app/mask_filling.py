"""Masks filled, with the pinyin that the model was given for every character.

The readings are the tokenizer's own: `pinyin_ids` looked up in its table, by the offsets of its tokens. A character
with several readings has the one of its sentence, 银行 háng and 行走 xíng. Models without pinyin have none shown.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

from hf_nlpnotes.model_inputs import longest_input
from hf_nlpnotes.models.chinesebert.pinyin_chinesebert import to_tone_mark

from ._bounds import bounded, counted

MASK = "[MASK]"
"""How a mask is written in the form, whatever the model's own token."""

MOST_MASKS = 8
MOST_CANDIDATES = 20


class Candidate(NamedTuple):
    """What may stand at a mask.

    Attributes:
        mask: Number of the mask in the text, from 1.
        token: The token.
        pinyin: Its reading in the text with this mask filled, the others left; "" where the model has no pinyin.
        score: Its probability.
    """

    mask: int
    token: str
    pinyin: str
    score: float


class FilledText(NamedTuple):
    """A text whose masks are filled.

    Attributes:
        characters: The text with the best candidate at each mask: (character, pinyin or "") pairs.
        candidates: The best candidates of each mask, mask by mask, best first.
    """

    characters: list[tuple[str, str]]
    candidates: list[Candidate]

    @property
    def text(self) -> str:
        """The filled text."""
        return "".join(character for character, _ in self.characters)


def fill_masks(pipe: Any, text: str, top_k: float = 5) -> FilledText:
    """Fill every `[MASK]` of a text; each is judged with the others still masked.

    Args:
        pipe: The stock pipeline `fill-mask`.
        text: The text.
        top_k: Candidates of each mask.

    Raises:
        ValueError: The text is empty, too long, or has no mask or too many; the model fills none.
    """
    text = bounded("text", text)
    top_k = counted("The number of candidates", top_k, 1, MOST_CANDIDATES)
    mask = pipe.tokenizer.mask_token
    if mask is None:
        raise ValueError(f"{pipe.model.name_or_path} fills no masks: start with a masked language model.")
    parts = text.replace(mask, MASK).split(MASK)
    masks = len(parts) - 1
    if not 1 <= masks <= MOST_MASKS:
        raise ValueError(f"The text has {masks} times {MASK}, expected 1 to {MOST_MASKS}.")
    _check_length(pipe, mask.join(parts))
    found = pipe(mask.join(parts), top_k=top_k)
    tokens = [
        [(one["token_str"].strip().removeprefix("##"), one["score"]) for one in row]
        for row in (found if masks > 1 else [found])
    ]
    candidates = []
    for number, row in enumerate(tokens):
        before, after = mask.join(parts[: number + 1]), mask.join(parts[number + 1 :])
        for token, score in row:
            read = readings(pipe.tokenizer, before + token + after)[len(before) : len(before) + len(token)]
            candidates.append(Candidate(number + 1, token, " ".join(filter(None, read)), score))
    filled = parts[0] + "".join(row[0][0] + part for row, part in zip(tokens, parts[1:], strict=True))
    pinyin = readings(pipe.tokenizer, filled)
    return FilledText(list(zip(filled, pinyin, strict=True)), candidates)


def readings(tokenizer: Any, text: str) -> list[str]:
    """Return the reading of each character of a text as the tokenizer gives it to the model, "" where it has none.

    Args:
        tokenizer: The model's; one without `pinyin_ids` reads nothing.
        text: The text.
    """
    found = [""] * len(text)
    if "pinyin_ids" not in tokenizer.model_input_names:
        return found
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    for row, (start, end) in zip(encoded["pinyin_ids"], encoded["offset_mapping"], strict=True):
        if row and end - start == 1:
            found[start] = to_tone_mark(tokenizer.readings.spelling(row))
    return found


def ruby(characters: Sequence[tuple[str, str]]) -> str:
    """Return (character, pinyin) pairs as HTML, the pinyin above its character.

    Args:
        characters: Each character with its pinyin, "" where it has none; plain text, which is escaped.

    >>> ruby([("猫", "māo"), ("<", "")])
    '<ruby>猫<rt>māo</rt></ruby>&lt;'
    """
    return "".join(
        f"<ruby>{html.escape(character)}<rt>{html.escape(pinyin)}</rt></ruby>" if pinyin else html.escape(character)
        for character, pinyin in characters
    )


def _check_length(pipe: Any, text: str) -> None:
    limit = longest_input(pipe.model, pipe.tokenizer)
    length = len(pipe.tokenizer(text)["input_ids"])
    if limit is not None and length > limit:
        raise ValueError(f"The text has {length} tokens, and the model takes up to {limit}: shorten it.")
