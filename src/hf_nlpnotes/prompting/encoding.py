"""From a template and a text to the model's inputs.

The prompt is tokenized in runs, as far as it goes on without a break (the label slot, a separator, soft tokens), each
as running text; the masks come between them. So a text is read in its context (its pinyin too, for ChineseBERT), and
what the tokenizer makes of it is what it would make of the same prompt written out with mask tokens. Three things
differ, on purpose:

- special tokens in a text stay text: `"[MASK]"` in a review is a bracket, a word and a bracket;
- a text that does not fit is cut where its slot says, the longest text first, and never the template or the masks;
- the cut is the same for label words of every length, so that their scores are about the same words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from .filled_prompt import TEMPLATE, Demonstration, LabelPlace, Piece, SoftPlace, fill
from .plain_text import PlainTextReader, Reading
from .shortening import MARGIN, Shortened, is_exact, share, shorten
from .template import Template
from .template_parts import LABEL_SLOT, Literal, Separator, SlotOptions, Soft

_FACTORS = (2, 8, 32)
"""Characters to read for each token that may be kept: Chinese needs one or two, English four or five."""


@dataclass
class _Run:
    """Encoded text: `features` maps names of model inputs to one value a token, `owners` says whose each token is."""

    features: dict[str, list[Any]]
    owners: list[int]


class PromptEncoder:
    """Encodes texts for one template and one tokenizer.

    Args:
        template (`Template`):
            The template.
        tokenizer:
            A fast tokenizer (one that gives offsets) with a mask token.
        max_length (`int`, *optional*):
            Most tokens of an input, special tokens included. `None`: texts are cut only where their slot says so.

    Attributes:
        soft_tokens (`tuple[int | None, ...]`):
            The template's soft tokens, in the order of their numbers: the id of the token that each begins as, `None`
            for one that begins at random.

    Raises:
        `ValueError`: the tokenizer has no mask token, no offsets, no separator that the template asks for; or the
            template spells out the mask token, or soft tokens that the vocabulary does not have.
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
        self._reader = PlainTextReader(tokenizer)
        separators = [part for part in template.parts if isinstance(part, Separator)]
        self._frame = self._reader.pair if any(part.pair for part in separators) else self._reader.single
        if (separators or template.demonstrations) and not self._reader.pair.gaps[1]["input_ids"]:
            raise ValueError(
                f"{type(tokenizer).__name__} puts nothing between two texts, and the template {template.source!r} asks"
                " for a separator there ({sep} or {demos}): write one out, such as '。'."
            )
        self.soft_tokens: tuple[int | None, ...] = ()
        self._soft_numbers: dict[int, range] = {}  # place in `template.parts` -> numbers of its soft tokens
        for place, part in enumerate(template.parts):
            if isinstance(part, Soft):
                first = len(self.soft_tokens)
                self.soft_tokens += self._soft_tokens(part)
                self._soft_numbers[place] = range(first, len(self.soft_tokens))

    def encode(
        self,
        values: Mapping[str, str],
        num_masks: Sequence[int],
        labels: Sequence[str] = (),
        demonstrations: Sequence[Demonstration] = (),
    ) -> list[dict[str, list[int]]]:
        """Encode one text for label words of each of the given lengths.

        Args:
            values (`Mapping[str, str]`):
                The text of each of the template's columns.
            num_masks (`Sequence[int]`):
                Lengths of label words, in tokens.
            labels (`Sequence[str]`, *optional*):
                What `{options}` lists.
            demonstrations (`Sequence[tuple[Mapping[str, str], str]]`, *optional*):
                What `{demos}` shows: columns, and the word of the label.

        Returns:
            One input a length: the tokenizer's model inputs and `label_mask` (1 where the label word goes, 0
            elsewhere), each a list of one integer a token. With soft tokens also `soft_index`: the number of the soft
            token that stands there, -1 elsewhere; the ids at those places are placeholders.

        Raises:
            `ValueError`: what is never cut (template, masks, `whole` texts) does not fit into `max_length`.
        """
        prompt = fill(self.template, values, labels, demonstrations)
        runs, place, segment = [self._special(self._frame.gaps[0])], 0, 0
        pieces: list[Piece] = []
        for atom in (*prompt.atoms, None):
            if isinstance(atom, Piece):
                pieces.append(atom)
                continue
            if pieces:
                runs.append(self._run(pieces, prompt.cuts, segment, before_label=isinstance(atom, LabelPlace)))
                pieces = []
            match atom:
                case LabelPlace():
                    place, mask = len(runs), self._blank(self.tokenizer.mask_token_id, segment)
                case SoftPlace(part):
                    runs.append(self._soft(part, segment))
                case Separator(pair=True):
                    runs.append(self._special(self._reader.pair.gaps[1]))
                    segment = 1
                case Separator():
                    runs.append(self._special(self._reader.pair.gaps[1], segment))
        runs.append(self._special(self._frame.gaps[-1]))

        kept = self._kept([run.owners for run in runs], prompt.cuts, max(num_masks))
        before, after = _joined(runs[:place], kept[:place]), _joined(runs[place:], kept[place:])
        encodings = []
        for count in num_masks:
            row = {name: [*before[name], *[mask[name]] * count, *after[name]] for name in before}
            start, end, length = len(before["input_ids"]), len(before["input_ids"]) + count, len(row["input_ids"])
            row["label_mask"] = [int(start <= i < end) for i in range(length)]
            encodings.append(row)
        return encodings

    def word_ids(self, word: str) -> list[int]:
        """Token ids of a label word as it is written in the template, found by its offsets there.

        A byte-level or SentencePiece tokenizer writes a word differently after a space: it is read in its place.

        Args:
            word (`str`):
                The word.

        Raises:
            `ValueError`: the word is empty, or the vocabulary cannot spell it.
        """
        return self.word_features(word)["input_ids"]

    def word_features(self, word: str) -> dict[str, list[int]]:
        """`word_ids` as `input_ids`, with what else the model reads about these tokens, such as their pinyin.

        Args:
            word (`str`):
                The word.

        Raises:
            `ValueError`: the word is empty, or the vocabulary cannot spell it.
        """
        if not word.strip():
            raise ValueError(f"The label word {word!r} is empty: a label needs a word that the model can predict.")
        features = self._features_in_place(word)
        ids = features["input_ids"]
        if not self._reader.spells(ids):
            pieces = self.tokenizer.convert_ids_to_tokens(ids)
            raise ValueError(
                f"The vocabulary cannot spell the label word {word!r} (it reads {pieces}): choose another word for"
                " this label, for example verbalizer={label: word}."
            )
        return features

    def can_spell(self, word: str) -> bool:
        """Whether `word_ids` has an answer for this word.

        Args:
            word (`str`):
                The word.
        """
        return bool(word.strip()) and self._reader.spells(self._features_in_place(word)["input_ids"])

    def _features_in_place(self, word: str) -> dict[str, list[int]]:
        position = self.template.label_position
        before = self._neighbour(position - 1)
        after = self._neighbour(position + 1)
        reading = self._reader.read(before + word + after)
        start, end = len(before), len(before) + len(word)
        found = [i for i, (a, b) in enumerate(reading.offsets) if a < end and b > start]
        reach = [reading.offsets[i] for i in found]
        outside = "".join((before + word + after)[a:start] + (before + word + after)[end:b] for a, b in reach)
        if outside.strip():
            # The word has merged with the template around it, so that it has no tokens of its own there.
            space = before[len(before.rstrip()) :]
            reading = self._reader.read(space + word)
            found = list(range(len(reading.ids)))
        names = [name for name in reading.features if name not in ("attention_mask", "token_type_ids")]
        return {name: [reading.features[name][i] for i in found] for name in names}

    def _neighbour(self, index: int) -> str:
        """The template's own text at `index` of its parts, empty where there is a slot or nothing."""
        if 0 <= index < len(self.template.parts):
            part = self.template.parts[index]
            return part.text if isinstance(part, Literal) else ""
        return ""

    def _soft_tokens(self, part: Soft) -> tuple[int | None, ...]:
        """What the soft tokens of a part begin as."""
        if part.text is None:
            return (None,) * (part.length or 0)
        ids = self._reader.read(part.text).ids
        if not self._reader.spells(ids):
            raise ValueError(
                f"The vocabulary cannot spell {part.text!r}, which soft tokens of the template"
                f" {self.template.source!r} begin as: choose other words, or give a number of tokens."
            )
        return tuple(ids)

    def _blank(self, token: int, segment: int) -> dict[str, int]:
        """Features of a token that is no text: its id, and 0 for what is looked up in the text, such as pinyin."""
        known = {"input_ids": token, "attention_mask": 1, "token_type_ids": self._frame.segments[segment]}
        blank = {name: known.get(name, 0) for name in self._reader.names}
        return {**blank, "soft_index": -1} if self.soft_tokens else blank

    def _special(self, features: Mapping[str, list[int]], segment: int | None = None) -> _Run:
        """A run of special tokens, of the given segment or as the tokenizer has them."""
        run = _Run(dict(features), [TEMPLATE] * len(features["input_ids"]))
        return self._finished(run, segment)

    def _soft(self, place: int, segment: int) -> _Run:
        numbers = self._soft_numbers[place]
        length = len(numbers)
        unknown, padding = self.tokenizer.unk_token_id, self.tokenizer.pad_token_id
        blank = self._blank(unknown if unknown is not None else padding or 0, segment)
        run = _Run({name: [value] * length for name, value in blank.items()}, [TEMPLATE] * length)
        run.features["soft_index"] = list(numbers)
        return run

    def _finished(self, run: _Run, segment: int | None) -> _Run:
        """The run with the features that do not come from reading it."""
        length = len(run.owners)
        if segment is not None and "token_type_ids" in run.features:
            run.features["token_type_ids"] = [self._frame.segments[segment]] * length
        if self.soft_tokens:
            run.features["soft_index"] = [-1] * length
        return run

    def _run(self, pieces: Sequence[Piece], cuts: Sequence[SlotOptions], segment: int, before_label: bool) -> _Run:
        """Running text, of which long texts are not read where none of it can be kept."""
        if before_label and pieces[-1].owner == TEMPLATE:
            # The space before a label word belongs to the word (see `word_ids`).
            pieces = [*pieces[:-1], Piece(pieces[-1].text.rstrip())]
        for factor in (*_FACTORS, None):
            shortened = [self._shortened(piece, cuts, factor) for piece in pieces]
            ends = [0]
            for piece in shortened:
                ends.append(ends[-1] + len(piece.text))
            reading = self._reader.read("".join(piece.text for piece in shortened))
            if all(
                self._is_exact(reading, ends[i], ends[i + 1], piece.seam, cuts[pieces[i].owner])
                for i, piece in enumerate(shortened)
                if piece.seam is not None
            ):
                break
        spans = [(ends[i], ends[i + 1], piece.owner) for i, piece in enumerate(pieces)]
        owners = [_owner(start, end, spans) for start, end in reading.offsets]
        return self._finished(_Run(reading.features, owners), segment)

    def _most(self, cut: SlotOptions) -> int | None:
        """Most tokens of a text that can be kept."""
        limits = [limit for limit in (self.max_length, cut.max_tokens) if limit is not None]
        return None if cut.cut == "whole" else min(limits, default=None)

    def _shortened(self, piece: Piece, cuts: Sequence[SlotOptions], factor: int | None) -> Shortened:
        most = None if piece.owner == TEMPLATE else self._most(cuts[piece.owner])
        if most is None or factor is None:
            return Shortened(piece.text)
        sides = (factor * most + 2 * MARGIN, 2 * MARGIN)
        head, tail = sides if cuts[piece.owner].cut == "tail" else sides[::-1]
        return shorten(piece.text, head, tail, self._reader.marks)

    def _is_exact(self, reading: Reading, start: int, end: int, seam: int, cut: SlotOptions) -> bool:
        most = self._most(cut) or 0
        left, right = (most, 0) if cut.cut == "tail" else (0, most)
        return is_exact(reading.offsets, reading.words, start, end, start + seam, left, right)

    def _kept(self, owners: Sequence[Sequence[int]], cuts: Sequence[SlotOptions], num_masks: int) -> list[list[int]]:
        """Positions of the tokens to keep in each run, when `num_masks` tokens more must fit."""
        everything = list(chain.from_iterable(owners))
        counts = dict.fromkeys(range(len(cuts)), 0)
        fixed = num_masks
        for owner in everything:
            if owner == TEMPLATE or cuts[owner].cut == "whole":
                fixed += 1
            else:
                counts[owner] += 1
        allowed = {text: min(count, cuts[text].max_tokens or count) for text, count in counts.items()}
        if self.max_length is not None and fixed + sum(allowed.values()) > self.max_length:
            if fixed > self.max_length:
                whole = any(cut.cut == "whole" for cut in cuts)
                raise ValueError(
                    f"The template {self.template.source!r}{', the texts that it keeps whole' * whole} and the label"
                    f" words take {fixed} tokens, more than the {self.max_length} that the model reads: shorten"
                    " them, or raise max_length."
                )
            allowed = share(allowed, self.max_length - fixed)
        # Of a text, the tokens from `first` to `last` stay, counted from its beginning.
        ranges = {
            text: (counts[text] - allowed[text], counts[text]) if cut.cut == "head" else (0, allowed[text])
            for text, cut in enumerate(cuts)
            if cut.cut != "whole"
        }
        seen = dict.fromkeys(ranges, 0)

        def stays(owner: int) -> bool:
            if owner not in ranges:
                return True
            seen[owner] += 1
            return ranges[owner][0] < seen[owner] <= ranges[owner][1]

        return [[i for i, owner in enumerate(run) if stays(owner)] for run in owners]


def _joined(runs: Sequence[_Run], kept: Sequence[Sequence[int]]) -> dict[str, list[int]]:
    """The kept tokens of some runs, one after another."""
    return {
        name: [run.features[name][i] for run, places in zip(runs, kept, strict=True) for i in places]
        for name in runs[0].features
    }


def _owner(start: int, end: int, spans: Sequence[tuple[int, int, int]]) -> int:
    """Where the token `[start, end)` comes from; a token that reaches into the template is the template's."""
    touched = [owner for a, b, owner in spans if a < end and start < b]
    return TEMPLATE if TEMPLATE in touched or not touched else touched[0]
