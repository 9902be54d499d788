"""Texts as a tagger sees them: pieces that have a tag each, and windows of tokens that cover them all."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hf_nlpnotes.tagging.alignment import merge_windows

from ._texts import brief, check_characters

Units = Literal["words", "characters", "tokens"]
UNITS: tuple[Units, ...] = ("words", "characters", "tokens")

# Scripts that are written without spaces: Han, kana, and the marks and full-width forms that stand among them.
_UNSPACED = ((0x2E80, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF00, 0xFFEF))
_UNSPACED_SUPPLEMENT = (0x20000, 0x323AF)


@dataclass
class Document:
    """One text with one sequence of tags.

    Attributes:
        text: the user's string, or his words joined.
        units: (units, 2), start and end in the text of each piece that has a tag.
        words: the pieces, where they are given to the tokenizer as words.
        predicate: (start, end) in the text that is marked for the model.
        windows: model inputs, one-dimensional tensors.
        places: for each window, (tokens,): the unit that a token's logits are those of, or -1.
        logits: for each window, (tokens, labels).
        text_logits: (classes,), of the whole text, where the model has them.
    """

    text: str
    units: NDArray[np.int64]
    words: list[str] | None = None
    predicate: tuple[int, int] | None = None
    windows: list[dict[str, torch.Tensor]] = field(default_factory=list)
    places: list[NDArray[np.int64]] = field(default_factory=list)
    logits: list[torch.Tensor] = field(default_factory=list)
    text_logits: torch.Tensor | None = None

    def unit_logits(self, overlap: Literal["mean", "max_context"]) -> torch.Tensor:
        """(units, labels): those of the windows brought together. Units that no token stands for are left out."""
        if len(self.windows) == 1:
            (places,), (logits,) = self.places, self.logits
            kept = np.flatnonzero(places >= 0)
            units = places[kept]
            if len(units) < len(self.units):
                self.units = self.units[units]
            if len(kept) and kept[-1] - kept[0] + 1 == len(kept):  # all but special tokens: no copy
                return logits[int(kept[0]) : int(kept[-1]) + 1]
            return logits[torch.from_numpy(kept)]
        numbers: list[list[int]] = [window.tolist() for window in self.places]
        merged = merge_windows([table.numpy() for table in self.logits], numbers, len(self.units), overlap=overlap)
        self.units = self.units[merged.covered]
        return torch.from_numpy(merged.scores[merged.covered]).float()


def documents_of(item: Any, units: Units, *, is_split: bool, delimiter: str) -> tuple[list[Document], bool]:
    """One document for a text, or one for each of its predicates; and whether it has predicates.

    Args:
        item: a text, a list of words (`is_split`), or a mapping with `"text"` or `"words"`, and `"predicates"`.
        units: what has a tag each, where words are not given.
        is_split: whether a list is the words of one text.
        delimiter: what stands between words.

    Raises:
        ValueError: an empty text, a predicate outside of it, or columns that are unknown.
        TypeError: no text at all.
    """
    columns = {"words" if is_split else "text": item} if not isinstance(item, Mapping) else dict(item)
    unknown = set(columns) - {"text", "words", "predicate", "predicates"}
    if unknown or ("text" in columns) == ("words" in columns):
        raise ValueError(
            f"the input has the columns {sorted(columns)}: expected 'text' or 'words', and 'predicates' where the"
            " model finds their arguments"
        )
    text, words, pieces = _pieces(columns, units, delimiter)
    predicates = _predicates(columns, words is not None and "words" in columns, pieces, text)
    if predicates is None:
        return [Document(text, _table(pieces), words)], False
    return [Document(text, _table(pieces), words, predicate) for predicate in predicates], True


def _table(pieces: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(pieces, dtype=np.int64).reshape(-1, 2)


def _pieces(
    columns: Mapping[str, Any], units: Units, delimiter: str
) -> tuple[str, list[str] | None, list[tuple[int, int]]]:
    if "words" in columns:
        words = columns["words"]
        if isinstance(words, str) or not isinstance(words, Sequence):
            raise TypeError(f"words are a list of strings, got {brief(words)}")
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise ValueError(f"expected words, none of them empty, got {brief(words)}")
        for place, word in enumerate(words):
            check_characters(f"word {place}", word)
        begins = np.cumsum([0, *(len(word) + len(delimiter) for word in words)]).tolist()
        pieces = [(begin, begin + len(word)) for begin, word in zip(begins, words, strict=False)]
        return delimiter.join(words), list(words), pieces
    text = columns["text"]
    if not isinstance(text, str):
        raise TypeError(f"a text is a string, got {type(text).__name__}: {brief(text)}")
    if not text.strip():
        raise ValueError(f"the text is empty: {brief(text)}. Leave out texts without a character")
    check_characters("the text", text)
    if units != "characters":
        return text, None, []
    pieces = [(place, place + 1) for place, character in enumerate(text) if not character.isspace()]
    return text, [text[start:end] for start, end in pieces], pieces


def _predicates(
    columns: Mapping[str, Any], by_words: bool, pieces: Sequence[tuple[int, int]], text: str
) -> list[tuple[int, int]] | None:
    if "predicates" not in columns and "predicate" not in columns:
        return None
    listed = columns["predicates"] if "predicates" in columns else [columns["predicate"]]
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise TypeError(f"predicates are a list of [start, end) in the input, got {listed!r}")
    found = []
    for given in listed:
        is_pair = isinstance(given, Sequence) and len(given) == 2
        if not is_pair or not all(isinstance(place, Integral) for place in given):
            raise ValueError(f"a predicate is given as [start, end) in the input, two whole numbers, got {given!r}")
        start, end = given
        limit = len(pieces) if by_words else len(text)
        if not 0 <= start < end <= limit:
            raise ValueError(f"the predicate [{start}, {end}) does not lie in the input, which ends at {limit}")
        found.append((pieces[start][0], pieces[end - 1][1]) if by_words else (start, end))
    return found


def encode(
    documents: Sequence[Document], tokenizer: Any, units: Units, *, max_length: int | None, stride: int | None
) -> None:
    """Give documents their windows, places and, where these follow from the tokens, units.

    Raises:
        ValueError: windows too short, a tokenizer without offsets, or a predicate that cannot be marked.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"{type(tokenizer).__name__} gives no offsets: load the tokenizer's fast version")
    for is_split in (False, True):
        chosen = [document for document in documents if (document.words is not None) == is_split]
        if chosen:
            _encode(chosen, tokenizer, units, is_split, max_length, stride)


def _encode(
    documents: Sequence[Document],
    tokenizer: Any,
    units: Units,
    is_split: bool,
    max_length: int | None,
    stride: int | None,
) -> None:
    options: dict[str, Any] = {}
    if max_length is not None:
        room = max_length - tokenizer.num_special_tokens_to_add()
        overlap = room // 4 if stride is None else stride
        if room < 1 or not 0 <= overlap < room:
            raise ValueError(
                f"windows of {max_length} tokens, {max_length - room} of them special, cannot overlap by {overlap}: "
                "expected a smaller stride, or longer windows"
            )
        options = {"truncation": True, "max_length": max_length, "stride": overlap, "return_overflowing_tokens": True}
    encoded = tokenizer(
        [document.words if is_split else document.text for document in documents],
        is_split_into_words=is_split,
        return_offsets_mapping=True,
        **options,
    )
    offsets = encoded.pop("offset_mapping")
    owners = encoded.pop("overflow_to_sample_mapping", range(len(documents)))
    tokens: list[list[_Tokens]] = [[] for _ in documents]
    for window, owner in enumerate(owners):
        inputs = {name: torch.tensor(values[window]) for name, values in encoded.items()}
        documents[owner].windows.append(inputs)
        places = np.array(offsets[window], dtype=np.int64).reshape(-1, 2)
        words = [-1 if word is None else word for word in encoded.word_ids(window)]
        tokens[owner].append(_Tokens(places[:, 0], places[:, 1], np.array(words, dtype=np.int64)))
    for document, windows in zip(documents, tokens, strict=True):
        if is_split:
            document.places = [_first_of_words(window) for window in windows]
            for of_window in windows:  # from within each word to the text
                inside = of_window.word >= 0
                begins = document.units[of_window.word[inside], 0]
                of_window.start[inside] += begins
                of_window.end[inside] += begins
        else:
            _find_units(document, windows, units)
        if document.predicate is not None:
            _mark(document, windows)


@dataclass
class _Tokens:
    """Tokens of one window: their characters, and the tokenizer's word (-1 for special tokens)."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    word: NDArray[np.int64]


def _first_of_words(window: _Tokens) -> NDArray[np.int64]:
    """The word of each token that begins one, -1 for the others; offsets are those within words."""
    begins = (window.word >= 0) & (window.start == 0)
    # Some tokenizers begin a word with an empty piece; only the first at 0 counts.
    begins[1:] &= (window.word[1:] != window.word[:-1]) | ~begins[:-1]
    return np.where(begins, window.word, -1)


def _find_units(document: Document, windows: Sequence[_Tokens], units: Units) -> None:
    """Units are the tokens, or the words that they are pieces of; in scripts without spaces each token by itself.

    A space belongs to what follows it, where a tokenizer has a token for it alone.
    """
    starts = np.concatenate([window.start[_has_characters(window)] for window in windows])
    ends = np.concatenate([window.end[_has_characters(window)] for window in windows])
    words = np.concatenate([window.word[_has_characters(window)] for window in windows])
    starts, first, same = np.unique(starts, return_index=True, return_inverse=True)
    # Several tokens may begin at one character: its bytes, or an empty piece before a word, [0, 1) beside [0, 5). They
    # are one, up to the farthest end of them, and to the next token at most.
    farthest = ends[first]
    np.maximum.at(farthest, same, ends)
    limits = np.append(starts[1:], len(document.text))
    ends, words = _with_marks(document.text, np.minimum(farthest, limits), limits), words[first]
    begins = np.ones(len(starts), np.bool_)
    if len(starts) > 1:
        goes_on = _spaces(document.text, starts, ends)[:-1] == (ends - starts)[:-1]
        if units == "words":
            unspaced = _is_unspaced(np.frombuffer(document.text.encode("utf-32-le"), dtype=np.uint32))
            goes_on |= ~unspaced[starts[1:]] & ~unspaced[ends[:-1] - 1]
        begins[1:] = ~(goes_on & (words[1:] == words[:-1]) & (starts[1:] == ends[:-1]))
    last = np.append(np.flatnonzero(begins)[1:], len(starts)) - 1
    found = np.stack([starts[begins], ends[last]], 1) if len(starts) else _table([])
    found[:, 0] += _spaces(document.text, found[:, 0], found[:, 1])
    has_text = found[:, 0] < found[:, 1]
    document.units = found[has_text]
    numbers = np.full(len(starts), -1, np.int64)
    numbers[begins] = np.where(has_text, np.cumsum(has_text) - 1, -1)
    for window in windows:
        places = np.full(len(window.start), -1, np.int64)
        real = _has_characters(window)
        places[real] = numbers[np.searchsorted(starts, window.start[real])]
        # Of tokens that begin at one character the first stands for the unit.
        again = np.zeros(len(places), np.bool_)
        again[1:] = (places[1:] >= 0) & (places[1:] == places[:-1])
        places[again] = -1
        document.places.append(places)


def _with_marks(text: str, ends: NDArray[np.int64], limits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ends of pieces, behind the combining marks that a tokenizer has dropped or counts to no token."""
    result = ends.copy()
    for piece in np.flatnonzero(ends < limits).tolist():
        while result[piece] < limits[piece] and unicodedata.category(text[result[piece]])[0] == "M":
            result[piece] += 1
    return result


def _spaces(text: str, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many spaces each piece of a text begins with: some tokenizers count the one before a word to it."""
    pieces = (text[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True))
    return np.array([len(piece) - len(piece.lstrip()) for piece in pieces], dtype=np.int64)


def _has_characters(window: _Tokens) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (window.word >= 0) & (window.end > window.start)
    return result


def _is_unspaced(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    result = np.zeros(len(codes), np.bool_)
    for first, last in (*_UNSPACED, _UNSPACED_SUPPLEMENT):
        result |= (codes >= first) & (codes <= last)
    return result


def _mark(document: Document, windows: Sequence[_Tokens]) -> None:
    """Set the segment of the predicate's tokens to 1."""
    assert document.predicate is not None
    start, end = document.predicate
    for inputs, window in zip(document.windows, windows, strict=True):
        if "token_type_ids" not in inputs:
            raise ValueError("the predicate is marked as a segment (token_type_ids 1), which this tokenizer has not")
        touched = _has_characters(window) & (window.start < end) & (window.end > start)
        inputs["token_type_ids"] = torch.from_numpy(touched.astype(np.int64))


def batches(
    documents: Sequence[Document], batch_size: int
) -> Iterator[tuple[list[tuple[Document, int]], list[dict[str, torch.Tensor]]]]:
    """Windows of all documents, those of like length together: whose they are, and the model's inputs."""
    windows = [(document, number) for document in documents for number in range(len(document.windows))]
    windows.sort(key=lambda pair: len(pair[0].windows[pair[1]]["input_ids"]))
    for document in documents:
        document.logits = [torch.empty(0)] * len(document.windows)
    for begin in range(0, len(windows), batch_size):
        rows = windows[begin : begin + batch_size]
        yield rows, [document.windows[number] for document, number in rows]


__all__ = ["UNITS", "Document", "Units", "batches", "documents_of", "encode"]
