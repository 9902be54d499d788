"""Reading text with a tokenizer as nothing but text, and knowing what the tokenizer puts around texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .shortening import MARKS

_PROBE = "a"


@dataclass
class Reading:
    """Tokens of a text.

    `features` maps names of model inputs to one value a token; `offsets` are character spans; `words` are the numbers
    of the words that the tokens belong to.
    """

    features: dict[str, list[Any]]
    offsets: list[tuple[int, int]]
    words: list[int | None]

    @property
    def ids(self) -> list[int]:
        """The token ids."""
        return self.features["input_ids"]


@dataclass(frozen=True)
class Frame:
    """What a tokenizer puts around one or two texts.

    Args:
        gaps (`tuple[dict[str, list[int]], ...]`):
            Features of the special tokens before the first text, between texts, and after the last.
        segments (`tuple[int, ...]`):
            The token type of each text.
    """

    gaps: tuple[dict[str, list[int]], ...]
    segments: tuple[int, ...]


class PlainTextReader:
    """Reads text as text: what looks like a special token is taken letter by letter.

    Args:
        tokenizer:
            A fast tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._forbidden = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        self.single = self._frame([_PROBE])
        self.pair = self._frame([_PROBE, _PROBE])
        self.names: tuple[str, ...] = tuple(self.single.gaps[0])
        self.marks: tuple[str, ...] = tuple(filter(self._begins_a_word, MARKS))

    def read(self, text: str) -> Reading:
        """Tokenize a text, without special tokens."""
        output = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
        )
        encoded = dict(output)
        # A SentencePiece vocabulary holds "<s>" as a piece, which plain text may match.
        if not self._forbidden.isdisjoint(encoded["input_ids"]):
            unknown = self.tokenizer.unk_token_id
            if unknown is None:
                raise ValueError(f"{type(self.tokenizer).__name__} reads special tokens in the text {text[:40]!r}.")
            encoded["input_ids"] = [unknown if i in self._forbidden else i for i in encoded["input_ids"]]
        encoded["attention_mask"] = [1] * len(encoded["input_ids"])
        features = {name: encoded[name] for name in self.names}
        return Reading(features, encoded["offset_mapping"], output.word_ids())

    def spells(self, ids: Sequence[int]) -> bool:
        """Whether these are tokens, none of them unknown."""
        return bool(ids) and self.tokenizer.unk_token_id not in ids

    def _begins_a_word(self, mark: str) -> bool:
        """Whether a punctuation mark is never read together with what stands before it."""
        words = self.read(f"国{mark}a{mark}1{mark}国").words
        return len(words) == len(set(words)) == 7

    def _frame(self, texts: list[str]) -> Frame:
        inside = self.tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
        whole = dict(self.tokenizer(*texts, add_special_tokens=True))
        ids = whole["input_ids"]
        whole["attention_mask"] = [1] * len(ids)
        names = [name for name in self.tokenizer.model_input_names if name in whole]
        names = list(dict.fromkeys([*names, "attention_mask"]))
        gaps, segments, position = [], [], 0
        for _ in texts:
            start = next(i for i in range(position, len(ids)) if ids[i : i + len(inside)] == inside)
            gaps.append({name: whole[name][position:start] for name in names})
            segments.append(whole["token_type_ids"][start] if "token_type_ids" in names else 0)
            position = start + len(inside)
        gaps.append({name: whole[name][position:] for name in names})
        return Frame(tuple(gaps), tuple(segments))
