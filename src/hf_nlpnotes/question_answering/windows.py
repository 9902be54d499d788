"""Windows over long contexts: each text is tokenised once, and windows are gathers from what that gave.

A window is `[CLS] question [SEP] part of the context [SEP]` or whatever the tokenizer makes of a pair. How it frames
a pair is read off one encoded pair; tokens of questions and contexts come from encoding each distinct text alone,
once, however many questions ask about a context. The result is what the tokenizer itself gives with
`truncation="only_second"`, `stride` and `return_overflowing_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from .collector import collector_at_rest

# Columns that the frame determines, not the text.
_FRAME_COLUMNS = ("token_type_ids", "attention_mask")
_NOT_INPUTS = ("offset_mapping", "special_tokens_mask", "overflow_to_sample_mapping", "length")
_PROBE = ("a", "b")


@dataclass(frozen=True)
class TokenPool:
    """Tokens of distinct texts, one after the other.

    Attributes:
        columns: Each (tokens,) int64: `input_ids` and whatever else the tokenizer gives a token of its text.
        starts, ends: Character offsets of each token in its text, (tokens,) int64.
        first: Place of each text's first token, and the number of tokens last, (texts + 1,) int64.
    """

    columns: dict[str, np.ndarray]
    starts: np.ndarray
    ends: np.ndarray
    first: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, (texts,) int64."""
        return np.diff(self.first)


@dataclass(frozen=True)
class PairFrame:
    """What a tokenizer puts around the two texts of a pair.

    Attributes:
        slots: Columns of the special tokens, then of a token of the first and second text, then of padding; each
            (specials + 3,) int64. Values of texts' own columns are of no meaning in the two places of the texts.
        before, between, after: Numbers of special tokens before the first text, between the two, after the second.
    """

    slots: dict[str, np.ndarray]
    before: int
    between: int
    after: int

    @property
    def specials(self) -> int:
        """Number of special tokens."""
        return self.before + self.between + self.after


@dataclass(frozen=True)
class Windows:
    """Windows of all examples, in the examples' order and from the beginning of a context to its end.

    Attributes:
        columns: Model inputs, each (windows, width) int64, padded.
        lengths: Tokens of each window without padding, (windows,).
        example: Number of each window's example, (windows,).
        context: Number of each window's text in `pool`, (windows,).
        context_start, context_end: Places of the context in the window, half-open, (windows,).
        source: Place in `pool` of the window's first context token, (windows,).
        pool: Tokens of the contexts.
        index: Place in `pool` of each token where it is one of the context, (windows, width).
        cls_index: Place of the classification token, where an impossible answer is labelled, (windows,).
    """

    columns: dict[str, np.ndarray]
    lengths: np.ndarray
    example: np.ndarray
    context: np.ndarray
    context_start: np.ndarray
    context_end: np.ndarray
    source: np.ndarray
    pool: TokenPool
    index: np.ndarray
    cls_index: np.ndarray

    def __len__(self) -> int:
        return len(self.example)

    @property
    def in_context(self) -> np.ndarray:
        """Where the tokens of the context are, (windows, width) bool."""
        place = np.arange(self.index.shape[1])
        return (place >= self.context_start[:, None]) & (place < self.context_end[:, None])

    def offsets(self) -> np.ndarray:
        """Character offsets in the context, (windows, width, 2) int64; -1 where a token is not of the context."""
        inside = self.in_context
        places = np.where(inside, self.index, 0)
        result = np.full((*self.index.shape, 2), -1, dtype=np.int64)
        if len(self.pool.starts):
            np.copyto(result[..., 0], self.pool.starts[places], where=inside)
            np.copyto(result[..., 1], self.pool.ends[places], where=inside)
        return result


def tokenize_once(tokenizer: Any, texts: Sequence[str], *, offsets: bool = True) -> TokenPool:
    """Encodes texts without special tokens and without truncation; `offsets=False` leaves them at 0."""
    with collector_at_rest():
        encoded = tokenizer(
            list(texts) or [""],  # a tokenizer fails on no text at all
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=offsets,
            verbose=False,  # a context may be longer than the model: it is cut into windows
        )
        rows = encoded["input_ids"]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        total = int(lengths.sum())
        columns = {
            name: np.fromiter(chain.from_iterable(encoded[name]), dtype=np.int64, count=total)
            for name in encoded
            if name not in _FRAME_COLUMNS and name not in _NOT_INPUTS
        }
        places = np.zeros((total, 2), dtype=np.int64)
        if offsets:
            pairs = chain.from_iterable(chain.from_iterable(encoded["offset_mapping"]))
            places = np.fromiter(pairs, dtype=np.int64, count=2 * total).reshape(total, 2)
    return TokenPool(
        columns,
        np.ascontiguousarray(places[:, 0]),
        np.ascontiguousarray(places[:, 1]),
        np.concatenate([[0], np.cumsum(lengths)]),
    )


def read_frame(tokenizer: Any) -> PairFrame:
    """Encodes a pair to see what the tokenizer puts around its texts.

    Raises:
        ValueError: The tokenizer encodes a text of a pair in another way than the same text alone, or has no padding.
    """
    alone = tokenize_once(tokenizer, _PROBE)
    encoded = tokenizer(*_PROBE, padding=False, truncation=False)
    owners = encoded.sequence_ids(0)
    ids = list(encoded["input_ids"])
    first = [place for place, owner in enumerate(owners) if owner == 0]
    second = [place for place, owner in enumerate(owners) if owner == 1]
    expected = alone.columns["input_ids"]
    kept = [ids[place] for place in first + second]
    if not first or not second or first[-1] > second[0] or kept != expected.tolist():
        raise ValueError(
            f"{type(tokenizer).__name__} does not encode the texts of a pair as it encodes them alone: got {kept} in"
            f" the pair {_PROBE} and {expected.tolist()} alone. Windows need a tokenizer that does."
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(f"{type(tokenizer).__name__} has no padding token: set tokenizer.pad_token.")
    padded = tokenizer.pad(
        {name: [encoded[name]] for name in encoded}, padding="max_length", max_length=len(ids) + 1, return_tensors="np"
    )
    left = tokenizer.padding_side == "left"
    specials = [place for place, owner in enumerate(owners) if owner is None]
    places = [place + left for place in (*specials, first[0], second[0])] + [0 if left else len(ids)]
    return PairFrame(
        {name: np.asarray(padded[name][0], dtype=np.int64)[places] for name in encoded if name not in _NOT_INPUTS},
        before=first[0],
        between=second[0] - first[-1] - 1,
        after=len(ids) - second[-1] - 1,
    )


def window_starts(
    lengths: np.ndarray, rooms: np.ndarray, doc_stride: int, side: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where windows over texts lie.

    Args:
        lengths: Tokens of each text, (texts,).
        rooms: Tokens of it that a window takes, (texts,); more than `doc_stride` where one window is not enough.
        doc_stride: Tokens that two neighbouring windows share.
        side: `"right"`: from the beginning, the last window may be shorter. `"left"`: from the end.

    Returns:
        The text, first token and end of each window, each (windows,) int64.
    """
    steps = np.where(lengths > rooms, rooms - doc_stride, 1)
    counts = np.where(lengths > rooms, -(-(lengths - rooms) // steps) + 1, 1)
    text = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(text)) - np.repeat(np.cumsum(counts) - counts, counts)
    shift = number * steps[text]
    if side == "right":
        return text, shift, np.minimum(shift + rooms[text], lengths[text])
    stop = lengths[text] - shift
    return text, np.maximum(stop - rooms[text], 0), stop


def make_windows(
    questions: TokenPool,
    contexts: TokenPool,
    question_of: np.ndarray,
    context_of: np.ndarray,
    frame: PairFrame,
    *,
    max_length: int,
    doc_stride: int,
    max_question_length: int | None = None,
    width: int | None = None,
    cls_id: int | None = None,
    padding_side: str = "right",
    truncation_side: str = "right",
) -> Windows:
    """Lays windows over the contexts of examples.

    Args:
        questions, contexts: Tokens of the distinct texts.
        question_of, context_of: Texts of each example, (examples,).
        frame: What stands around them. With `padding_side="left"` the context is the first text of the pair.
        max_length: Tokens of a window with the special tokens.
        doc_stride: Tokens that neighbouring windows of a context share.
        max_question_length: Questions are cut to so many tokens; `None` cuts only those that would leave a window no
            step, so that half of what `doc_stride` leaves is the context's.
        width: Number of columns of the result; `None` for the longest window.
        cls_id: The token at which an impossible answer is labelled, if the frame has it.
        padding_side, truncation_side: As the tokenizer's.
    """
    left = padding_side == "left"
    space = max_length - frame.specials
    question_lengths = questions.lengths[question_of]
    if max_question_length is None:
        longest = (space - doc_stride) // 2
        context_lengths = contexts.lengths[context_of]
        rooms = space - question_lengths
        stuck = (rooms <= doc_stride) & (rooms < context_lengths)
        question_lengths = np.where(stuck, np.minimum(question_lengths, longest), question_lengths)
    else:
        question_lengths = np.minimum(question_lengths, max_question_length)
    example, start, stop = window_starts(
        contexts.lengths[context_of], space - question_lengths, doc_stride, truncation_side
    )
    context, taken, asked = context_of[example], stop - start, question_lengths[example]
    lengths = taken + asked + frame.specials
    width = int(lengths.max(initial=0)) if width is None else width

    first, second = (taken, asked) if left else (asked, taken)
    padding = width - lengths if left else np.zeros_like(lengths)
    first_place = padding + frame.before
    second_place = first_place + first + frame.between
    context_place, question_place = (first_place, second_place) if left else (second_place, first_place)

    # Everything a window can hold lies in one row per column: contexts, questions, then the frame's slots. A window
    # is then a row of places in it.
    source = contexts.first[context] + start
    question_source = len(contexts.starts) + questions.first[question_of[example]]
    if truncation_side == "left":
        question_source = question_source + questions.lengths[question_of[example]] - asked
    frame_source = len(contexts.starts) + len(questions.starts)
    pad_slot = frame_source + frame.specials + 2
    index = np.full((len(example), width), pad_slot, dtype=np.int64)
    place = np.arange(width)
    for begin, number, origin in ((context_place, taken, source), (question_place, asked, question_source)):
        inside = (place >= begin[:, None]) & (place < (begin + number)[:, None])
        np.copyto(index, place + (origin - begin)[:, None], where=inside)
    rows = np.arange(len(example))
    slot = frame_source
    for begin, number in (
        (padding, frame.before),
        (first_place + first, frame.between),
        (second_place + second, frame.after),
    ):
        for step in range(number):
            index[rows, begin + step] = slot
            slot += 1

    columns: dict[str, np.ndarray] = {}
    for name, values in frame.slots.items():
        if name in contexts.columns:
            pool = np.concatenate([contexts.columns[name], questions.columns[name], values])
        else:
            # A column that says only which text a token belongs to.
            owner = (frame.specials, frame.specials + 1) if left else (frame.specials + 1, frame.specials)
            pool = np.concatenate(
                [
                    np.full(len(contexts.starts), values[owner[0]]),
                    np.full(len(questions.starts), values[owner[1]]),
                    values,
                ]
            )
        columns[name] = pool[index]
    return Windows(
        columns=columns,
        lengths=lengths,
        example=example,
        context=context,
        context_start=context_place,
        context_end=context_place + taken,
        source=source,
        pool=contexts,
        index=index,
        cls_index=_cls_index(frame, cls_id, padding, first_place + first, second_place + second),
    )


def _cls_index(
    frame: PairFrame, cls_id: int | None, before: np.ndarray, between: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """Place of the classification token in each window; the first token where the frame has none, (windows,)."""
    ids = frame.slots["input_ids"][: frame.specials].tolist()
    if cls_id is None or cls_id not in ids:
        return before
    number = ids.index(cls_id)
    if number < frame.before:
        return before + number
    number -= frame.before
    return between + number if number < frame.between else after + number - frame.between
