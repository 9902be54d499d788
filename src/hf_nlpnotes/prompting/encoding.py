"""From a template and a text to the model's inputs.

The prompt is tokenized in two runs, the part before the label slot and the part after it, each as running text; the
masks come between them. So a text is read in its context (its pinyin too, for ChineseBERT), and what the tokenizer
makes of it is what it would make of the same prompt written out with mask tokens. Three things differ, on purpose:

- special tokens in a text stay text: `"[MASK]"` in a review is a bracket, a word and a bracket;
- a text that does not fit is cut at its end, the longest text first, and never the template or the masks;
- the cut is the same for label words of every length, so that their scores are about the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .template import LABEL_SLOT, Literal, Slot, Template

TEMPLATE = ""
"""Owner of a token of the template itself; any other owner is the name of a column."""


@dataclass
class _Run:
    """Encoded running text.

    `features` maps names of model inputs to one value a token; `owners` says what each token comes from, a column or
    `TEMPLATE`.
    """

    features: dict[str, list[Any]]
    owners: list[str]

    def keep(self, kept: Sequence[int]) -> dict[str, list[Any]]:
        return {name: [values[i] for i in kept] for name, values in self.features.items()}


class PromptEncoder:
    """Encodes texts for one template and one tokenizer.

    Args:
        template (`Template`):
            The template.
        tokenizer:
            A fast tokenizer (one that gives offsets) with a mask token.
        max_length (`int`, *optional*):
            Most tokens of an input, special tokens included. `None`: texts are never cut.

    Raises:
        `ValueError`: the tokenizer has no mask token, no offsets, or the template spells out the mask token.
    """

    def __init__(self, template: Template, tokenizer: Any, max_length: int | None = None) -> None:
        if tokenizer.mask_token_id is None:
            raise ValueError(
                f"{type(tokenizer).__name__} has no mask token, so there is nothing to put where the label word goes:"
                " use the tokenizer of a masked language model (BERT, RoBERTa, ChineseBERT, …)."
            )
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} gives no character offsets, which prompts need: use a fast tokenizer."
            )
        literals = "".join(part.text for part in template.parts if isinstance(part, Literal))
        if tokenizer.mask_token in literals:
            raise ValueError(
                f"The template {template.source!r} contains {tokenizer.mask_token!r}, which would be read as plain"
                f" text: write '{{{LABEL_SLOT}}}', it becomes as many masks as the label word has tokens."
            )
        self.template = template
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._forbidden = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        self._prefix, self._suffix = self._special_tokens()

    def encode(self, values: Mapping[str, str], num_masks: Sequence[int]) -> list[dict[str, list[int]]]:
        """Encode one text for label words of each of the given lengths.

        Args:
            values (`Mapping[str, str]`):
                The text of each of the template's columns.
            num_masks (`Sequence[int]`):
                Lengths of label words, in tokens.

        Returns:
            One input a length: the tokenizer's model inputs and `label_mask` (1 where the label word goes, 0
            elsewhere), each a list of one integer a token.

        Raises:
            `ValueError`: template and masks alone do not fit into `max_length`.
        """
        position = self.template.label_position
        left = self._run(self.template.parts[:position], values, before_label=True)
        right = self._run(self.template.parts[position + 1 :], values)
        fixed = len(self._prefix["input_ids"]) + len(self._suffix["input_ids"]) + max(num_masks)
        kept_left, kept_right = self._cut(left.owners, right.owners, fixed)
        before, after = left.keep(kept_left), right.keep(kept_right)
        return [self._join(before, after, count) for count in num_masks]

    def word_ids(self, word: str) -> list[int]:
        """Token ids of a label word as it is written in the template, found by its offsets there.

        A byte-level or SentencePiece tokenizer writes a word differently after a space: it is read in its place.

        Raises:
            `ValueError`: the word is empty, or the vocabulary cannot spell it.
        """
        if not word.strip():
            raise ValueError(f"The label word {word!r} is empty: a label needs a word that the model can predict.")
        ids = self._ids_in_place(word)
        if not self._spells(ids):
            pieces = self.tokenizer.convert_ids_to_tokens(ids)
            raise ValueError(
                f"The vocabulary cannot spell the label word {word!r} (it reads {pieces}): choose another word for"
                " this label, for example verbalizer={label: word}."
            )
        return ids

    def can_spell(self, word: str) -> bool:
        """Whether `word_ids` has an answer for this word."""
        return bool(word.strip()) and self._spells(self._ids_in_place(word))

    def _spells(self, ids: list[int]) -> bool:
        return bool(ids) and self.tokenizer.unk_token_id not in ids

    def _ids_in_place(self, word: str) -> list[int]:
        position = self.template.label_position
        before = self._neighbour(position - 1)
        after = self._neighbour(position + 1)
        encoded = self._tokenize(before + word + after)
        start, end = len(before), len(before) + len(word)
        found = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < end and b > start]
        reach = [encoded["offset_mapping"][i] for i in found]
        outside = "".join((before + word + after)[a:start] + (before + word + after)[end:b] for a, b in reach)
        if outside.strip():
            # The word has merged with the template around it, so that it has no tokens of its own there.
            space = before[len(before.rstrip()) :]
            encoded = self._tokenize(space + word)
            found = list(range(len(encoded["input_ids"])))
        return [encoded["input_ids"][i] for i in found]

    def _neighbour(self, index: int) -> str:
        """The template's own text at `index` of its parts, empty where there is a slot or nothing."""
        if 0 <= index < len(self.template.parts):
            part = self.template.parts[index]
            return part.text if isinstance(part, Literal) else ""
        return ""

    def _tokenize(self, text: str) -> dict[str, Any]:
        encoded = dict(
            self.tokenizer(
                text,
                add_special_tokens=False,
                split_special_tokens=True,
                return_offsets_mapping=True,
                verbose=False,
            )
        )
        # A SentencePiece vocabulary holds "<s>" as a piece, which plain text may match.
        if not self._forbidden.isdisjoint(encoded["input_ids"]):
            unknown = self.tokenizer.unk_token_id
            if unknown is None:
                raise ValueError(f"{type(self.tokenizer).__name__} reads special tokens in the text {text[:40]!r}.")
            encoded["input_ids"] = [unknown if i in self._forbidden else i for i in encoded["input_ids"]]
        encoded["attention_mask"] = [1] * len(encoded["input_ids"])
        return encoded

    def _special_tokens(self) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """What the tokenizer puts before and after a text: `[CLS]` and `[SEP]`, `<s>` and `</s>`, and so on."""
        probe = "a"
        inside = self.tokenizer(probe, add_special_tokens=False)["input_ids"]
        whole = dict(self.tokenizer(probe, add_special_tokens=True))
        whole["attention_mask"] = [1] * len(whole["input_ids"])
        names = [name for name in self.tokenizer.model_input_names if name in whole]
        names = list(dict.fromkeys([*names, "attention_mask"]))
        ids = whole["input_ids"]
        start = next(i for i in range(len(ids)) if ids[i : i + len(inside)] == inside)
        end = start + len(inside)
        return {name: whole[name][:start] for name in names}, {name: whole[name][end:] for name in names}

    def _run(self, parts: Sequence[Literal | Slot], values: Mapping[str, str], before_label: bool = False) -> _Run:
        text, spans = "", []
        for part in parts:
            piece = part.text if isinstance(part, Literal) else values[part.name]
            if before_label and part is parts[-1] and isinstance(part, Literal):
                # The space before a label word belongs to the word (see `word_ids`).
                piece = piece.rstrip()
            spans.append((len(text), len(text) + len(piece), TEMPLATE if isinstance(part, Literal) else part.name))
            text += piece
        encoded = self._tokenize(text)
        owners = [_owner(start, end, spans) for start, end in encoded["offset_mapping"]]
        return _Run({name: encoded[name] for name in self._prefix}, owners)

    def _cut(self, left: Sequence[str], right: Sequence[str], fixed: int) -> tuple[list[int], list[int]]:
        """Positions of the tokens to keep in each run, when `fixed` tokens more must fit."""
        owners = [*left, *right]
        kept = list(range(len(owners)))
        if self.max_length is not None and len(owners) + fixed > self.max_length:
            lengths = {name: owners.count(name) for name in dict.fromkeys(owners) if name != TEMPLATE}
            fixed += owners.count(TEMPLATE)
            room = self.max_length - fixed
            if room < 0:
                raise ValueError(
                    f"The template {self.template.source!r} and the label words take {fixed} tokens, more than the"
                    f" {self.max_length} that the model reads: shorten the template or the label words, or raise"
                    " max_length."
                )
            allowed = _share(lengths, room)
            seen = dict.fromkeys(lengths, 0)
            kept = []
            for i, owner in enumerate(owners):
                if owner != TEMPLATE:
                    seen[owner] += 1
                    if seen[owner] > allowed[owner]:
                        continue
                kept.append(i)
        return [i for i in kept if i < len(left)], [i - len(left) for i in kept if i >= len(left)]

    def _join(self, before: dict[str, list[Any]], after: dict[str, list[Any]], count: int) -> dict[str, list[int]]:
        blank = {"input_ids": self.tokenizer.mask_token_id, "attention_mask": 1}
        joined = {
            name: [
                *self._prefix[name],
                *before[name],
                *[blank.get(name, 0)] * count,
                *after[name],
                *self._suffix[name],
            ]
            for name in self._prefix
        }
        start = len(self._prefix["input_ids"]) + len(before["input_ids"])
        length = len(joined["input_ids"])
        joined["label_mask"] = [int(start <= i < start + count) for i in range(length)]
        return joined


def _owner(start: int, end: int, spans: Sequence[tuple[int, int, str]]) -> str:
    """Where the token `[start, end)` comes from; a token that reaches into the template is the template's."""
    touched = [name for a, b, name in spans if a < end and start < b]
    return TEMPLATE if TEMPLATE in touched or not touched else touched[0]


def _share(lengths: Mapping[str, int], room: int) -> dict[str, int]:
    """How many tokens each text may keep so that all fit into `room`: the longest are shortened first.

    >>> _share({"question": 10, "passage": 300}, 100)
    {'question': 10, 'passage': 90}
    >>> _share({"first": 90, "second": 70}, 101)
    {'first': 51, 'second': 50}
    """
    allowed: dict[str, int] = {}
    waiting = sorted(lengths, key=lambda name: lengths[name])
    for done, name in enumerate(waiting):
        allowed[name] = min(lengths[name], room // (len(waiting) - done))
        room -= allowed[name]
    return {name: allowed[name] for name in lengths}
