"""From lines of text to full rows of tokens, once, in an Arrow cache.

Two kinds of rows, as ChineseBERT was pretrained on (Sun et al. 2021, section 4.2): packed input, neighbouring lines of
one source with ``[SEP]`` between them, cut into full rows; and single input, a line by itself, one row in ten.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset, Features, IterableDataset, Value, load_from_disk
from datasets import Sequence as ListOf
from filelock import FileLock

from .packing import word_starts
from .texts import Lines

Segmenter = Callable[[str], Iterable[str]]

logger = logging.getLogger(__name__)

NO_WORD = -1  # word id of special tokens
CHUNK = 5000  # lines that are packed together; what they leave over is a shorter row a source
_AT_ONCE = 200_000  # characters given to the tokenizer in one call, which makes a Python object of each token
_FORMAT = 1  # goes up when the same options would give other rows


@dataclass(frozen=True)
class TokenizedLines:
    """Tokens of several lines one after the other, a separator behind each.

    Attributes:
        input_ids: (tokens,) int32.
        starts: (tokens,) bool, whether a word starts here; True for separators.
        pinyin_ids: (tokens,) int16, or None.
        ends: (lines,) int64, where each line ends, behind its separator.
    """

    input_ids: np.ndarray
    starts: np.ndarray
    pinyin_ids: np.ndarray | None
    ends: np.ndarray


def training_rows(
    lines: Lines,
    tokenizer: Any,
    *,
    length: int = 128,
    single_share: float = 0.1,
    segmenter: Segmenter | Literal["jieba"] | None = "jieba",
    seed: int = 0,
    num_proc: int | None = None,
) -> Lines:
    """Pack lines into rows for masked language modelling.

    Every token of the lines is in exactly one row. Rows hold lines of one source; they begin and end anywhere, also
    inside a word. The same lines, options and seed give the same rows, whatever the number of processes.

    Args:
        lines: with the columns `text` and `source`.
        tokenizer: a fast BERT tokenizer, with pinyin or without.
        length: tokens in a full row, with ``[CLS]`` and ``[SEP]``.
        single_share: share of the rows that are one line by itself, drawn from the lines that fit into a row. Where
            too few do, they are all single.
        segmenter: what tells words: ``"jieba"``, a function whose words concatenate to the text, or None: every Han
            character is a word. ``##`` pieces always continue one.
        seed: draws the single lines and the order of the rows, and is part of `mask_seed`.
        num_proc: processes; not for streams.

    Returns:
        Columns `input_ids`; `word_ids`, 0, 1, 2, … along the row, the same for tokens of one word, `NO_WORD` for
        special tokens; `pinyin_ids`, if the tokenizer gives them; `mask_seed`, a checksum of the row's tokens and the
        seed. A `Dataset` is shuffled and lies on disk in that order. A stream is shuffled within `CHUNK` lines only,
        so that it can be resumed in the middle: use its `shuffle` for more.

    Raises:
        ValueError: an option is outside its range; the tokenizer is slow or lacks ``[CLS]`` or ``[SEP]``.
        ImportError: ``segmenter="jieba"`` without jieba.
    """
    _check(tokenizer, length, single_share, seed)
    word_cutter(segmenter)
    columns = {"input_ids": ListOf(Value("int32")), "word_ids": ListOf(Value("int16"))}
    if "pinyin_ids" in tokenizer.model_input_names:
        columns["pinyin_ids"] = ListOf(Value("int16"))
    options: dict[str, Any] = {
        "batched": True,
        "batch_size": 1,
        "remove_columns": ["text", "source"],
        "features": Features({**columns, "mask_seed": Value("int32")}),
        "fn_kwargs": {
            "tokenizer": tokenizer,
            "length": length,
            "single_share": single_share,
            "segmenter": segmenter,
            "seed": seed,
        },
    }
    lines = lines.select_columns(["text", "source"])
    if isinstance(lines, IterableDataset):
        return lines.batch(CHUNK).map(_stream_rows, **options)
    if not len(lines):
        raise ValueError("no lines: expected text to make rows of")
    # One worker beside us gains nothing, and stays behind when we are killed.
    num_proc = None if num_proc == 1 else num_proc
    # In one process: several would begin their chunks at other lines. It is quick.
    chunks = lines.batch(CHUNK)
    rows = chunks.map(_chunk_rows, num_proc=num_proc, desc="Packing rows", **options)
    shuffled = rows.shuffle(seed=seed).with_format("arrow")  # Arrow tables are copied without a Python object a token
    return shuffled.flatten_indices(num_proc=num_proc).with_format(None)


def _check(tokenizer: Any, length: int, single_share: float, seed: int) -> None:
    if length < 3:
        raise ValueError(f"length={length}: expected at least 3, for [CLS], one token and [SEP]")
    if length > tokenizer.model_max_length:
        raise ValueError(
            f"length={length} is more than the tokenizer's model_max_length={tokenizer.model_max_length}: make "
            "shorter rows, or set tokenizer.model_max_length if the model has more positions"
        )
    if not 0 <= single_share <= 1:
        raise ValueError(f"single_share={single_share}: expected a number from 0 to 1")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}: expected a number from 0 to 2**32 - 1")
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} gives no offsets: expected a fast tokenizer")
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise ValueError("the tokenizer has no [CLS] or no [SEP]: expected a tokenizer of a BERT-like model")


def word_cutter(segmenter: Segmenter | Literal["jieba"] | None) -> Segmenter | None:
    """The function that tells words.

    Args:
        segmenter: ``"jieba"``, a function from text to words, which is given back, or None: no words.

    Raises:
        ValueError: another name.
        ImportError: jieba is missing.
    """
    if segmenter is None or callable(segmenter):
        return segmenter
    if segmenter != "jieba":
        raise ValueError(f'segmenter={segmenter!r}: expected "jieba", a function from text to words, or None')
    try:
        import jieba
    except ImportError as error:
        raise ImportError(
            'segmenter="jieba" needs jieba: pip install "hf-nlpnotes[pretrain]", or pass a function, or None'
        ) from error
    jieba.setLogLevel(logging.WARNING)  # else each process tells that it loads the dictionary
    cut: Segmenter = jieba.cut
    return cut


# -------------------------------------------------------------------------------------------------------------- tokens


def tokenize_lines(texts: Sequence[str], tokenizer: Any, cut: Segmenter | None = None) -> TokenizedLines:
    """Tokens, word borders and readings of lines; see `TokenizedLines`.

    Args:
        tokenizer: a fast tokenizer; tokens that begin with ``##`` continue a word.
        cut: segmenter, its words concatenating to the text; None: every token that is no such piece starts a word.
    """
    parts = [_tokenize(group, tokenizer, cut) for group in _groups(texts)]
    ends = np.concatenate([np.zeros(0, np.int64), *(part.ends for part in parts)])
    sizes = [len(part.ends) for part in parts]
    ends += np.repeat(np.cumsum([0, *(len(part.input_ids) for part in parts)])[:-1], sizes)
    pinyin = [part.pinyin_ids for part in parts if part.pinyin_ids is not None]
    return TokenizedLines(
        np.concatenate([np.zeros(0, np.int32), *(part.input_ids for part in parts)]),
        np.concatenate([np.zeros(0, bool), *(part.starts for part in parts)]),
        np.concatenate(pinyin) if pinyin else None,
        ends,
    )


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Lines in groups of about `_AT_ONCE` characters."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _tokenize(texts: list[str], tokenizer: Any, cut: Segmenter | None) -> TokenizedLines:
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    lengths = np.fromiter(map(len, encoded["input_ids"]), np.int64, len(texts))
    ends = np.cumsum(lengths + 1)
    text = np.ones(int(ends[-1]), dtype=bool)
    text[ends - 1] = False  # separators

    def spread(rows: Sequence[Sequence[int]], separator: int, dtype: Any) -> np.ndarray:
        flat = np.full(len(text), separator, dtype)
        flat[text] = np.fromiter(chain.from_iterable(rows), dtype, int(lengths.sum()))
        return flat

    ids = spread(encoded["input_ids"], tokenizer.sep_token_id, np.int32)
    starts = ~_continuing(tokenizer)[ids]
    if cut is not None:
        borders = np.concatenate([word_starts(line, cut) for line in texts])
        begins = np.concatenate([np.asarray(row, np.int64).reshape(-1, 2)[:, 0] for row in encoded["offset_mapping"]])
        first = np.cumsum([0, *map(len, texts)])[:-1]
        starts[text] &= borders[begins + np.repeat(first, lengths)]
    starts[(ends - lengths - 1)] = True  # a line begins a word; of a line without tokens this is its separator
    starts[~text] = True
    pinyin = spread(encoded["pinyin_ids"], 0, np.int16) if "pinyin_ids" in encoded else None
    return TokenizedLines(ids, starts, pinyin, ends)


def _continuing(tokenizer: Any) -> np.ndarray:
    """(vocabulary,) bool, which tokens are word pieces that continue a word."""
    vocabulary = tokenizer.get_vocab()
    continuing = np.zeros(max(vocabulary.values()) + 1, dtype=bool)
    continuing[[number for token, number in vocabulary.items() if token.startswith("##") and len(token) > 2]] = True
    return continuing


# ---------------------------------------------------------------------------------------------------------------- rows


def choose_single(lengths: np.ndarray, body: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """(lines,) bool: lines that become rows by themselves, so many that they are `share` of all rows.

    Args:
        lengths: (lines,) tokens of each line.
        body: tokens of a full row between ``[CLS]`` and ``[SEP]``; longer lines are not chosen.
    """
    order = rng.permutation(np.flatnonzero((lengths > 0) & (lengths <= body)))
    single = np.arange(1, len(order) + 1)
    left = (lengths + (lengths > 0)).sum() - np.cumsum(lengths[order] + 1)  # tokens to pack, with separators
    chosen = np.zeros(len(lengths), dtype=bool)
    # The share rises with each line that is taken out of the packed ones.
    chosen[order[: np.count_nonzero(single <= share * (single + np.ceil(left / body)))]] = True
    return chosen


def row_spans(separators: np.ndarray, body: int) -> list[tuple[int, int]]:
    """Cut a stream into spans of at most `body` tokens that neither begin nor end with a separator."""
    spans, start, size = [], 0, len(separators)
    marks = separators.tolist()
    while start < size:
        if marks[start]:
            start += 1
            continue
        stop = min(start + body, size)
        spans.append((start, stop - marks[stop - 1]))
        start = stop
    return spans


def _ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The numbers of all half-open ranges, one range after the other."""
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def _row_places(tokens: TokenizedLines, sources: Sequence[str], single: np.ndarray, body: int) -> list[np.ndarray]:
    """For each row the places of its tokens, without ``[CLS]`` and last ``[SEP]``: packed rows, then single ones."""
    ends = tokens.ends
    begins = np.concatenate([[0], ends[:-1]])
    separators = np.zeros(len(tokens.input_ids), dtype=bool)
    separators[ends - 1] = True
    filled = ends - begins > 1
    rows = []
    codes = np.unique(np.asarray(sources, dtype=object), return_inverse=True)[1]
    for code in range(int(codes.max()) + 1):
        of = np.flatnonzero((codes == code) & filled & ~single)
        stream = _ranges(begins[of], ends[of])
        rows += [stream[start:stop] for start, stop in row_spans(separators[stream], body)]
    rows += [np.arange(begins[line], ends[line] - 1) for line in np.flatnonzero(single)]
    return rows


def _word_ids(starts: np.ndarray, special: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Word ids of rows that lie one after the other, `first` being the place of each row's ``[CLS]``."""
    starts = starts.copy()
    starts[first + 1] = True  # a row may begin inside a word
    word = np.cumsum(starts) - 1
    present = np.zeros(word[-1] + 1, dtype=bool)
    present[word[~special]] = True
    number = np.cumsum(present)[word] - 1  # words without an ordinary token are not counted
    lengths = np.diff(np.append(first, len(starts)))
    number -= np.repeat(number[first] + 1, lengths)
    number[special] = NO_WORD
    return number


def _chunk_rows(
    chunk: dict[str, list[list[str]]],
    tokenizer: Any,
    length: int,
    single_share: float,
    segmenter: Segmenter | Literal["jieba"] | None,
    seed: int,
) -> dict[str, list[Any]]:
    """All rows of one chunk of lines."""
    (texts,), (sources,) = chunk["text"], chunk["source"]
    tokens = tokenize_lines(texts, tokenizer, word_cutter(segmenter))
    body = length - 2
    rng = np.random.default_rng([seed, zlib.crc32("\n".join(texts).encode())])
    lengths = np.diff(np.append(0, tokens.ends)) - 1
    rows = _row_places(tokens, sources, choose_single(lengths, body, single_share, rng), body)
    rows = [rows[place] for place in rng.permutation(len(rows))]
    names = ["input_ids", "word_ids", "mask_seed"] + ["pinyin_ids"] * ("pinyin_ids" in tokenizer.model_input_names)
    if not rows:
        return {name: [] for name in names}

    sizes = np.array([len(row) + 2 for row in rows])
    first = np.cumsum(sizes) - sizes
    inside = np.ones(sizes.sum(), dtype=bool)
    inside[first] = inside[first + sizes - 1] = False
    places = np.concatenate(rows)

    def lay_out(values: np.ndarray, begin: int, end: int) -> np.ndarray:
        flat = np.empty(len(inside), values.dtype)
        flat[first], flat[first + sizes - 1], flat[inside] = begin, end, values[places]
        return flat

    input_ids = lay_out(tokens.input_ids, tokenizer.cls_token_id, tokenizer.sep_token_id)
    special = np.isin(input_ids, tokenizer.all_special_ids)
    words = _word_ids(lay_out(tokens.starts, True, True), special, first).astype(np.int16)
    result = {"input_ids": np.split(input_ids, first[1:]), "word_ids": np.split(words, first[1:])}
    if tokens.pinyin_ids is not None:
        result["pinyin_ids"] = np.split(lay_out(tokens.pinyin_ids, 0, 0), first[1:])
    seeds = [zlib.crc32(row.astype("<i4").tobytes(), seed) & 0x7FFFFFFF for row in result["input_ids"]]
    return {**result, "mask_seed": seeds}


def _stream_rows(chunk: dict[str, list[list[str]]], **options: Any) -> dict[str, list[Any]]:
    """`_chunk_rows` as lists, which a `Dataset` would give; a stream hands on what it gets."""
    rows = _chunk_rows(chunk, **options)
    return {
        name: np.asarray(values).tolist() if name == "mask_seed" else [value.tolist() for value in values]
        for name, values in rows.items()
    }


def endless(rows: IterableDataset) -> IterableDataset:
    """A stream of rows that begins anew whenever it ends, with other masks each time.

    The stock `Trainer` does not know how long a stream is: it counts `max_steps` as one epoch, and a run that is
    resumed after the text's end would begin with its first rows and the first epoch's masks. In an endless stream the
    place of a row says all.

    Args:
        rows: as `training_rows` makes them of a stream; shuffle before.

    Returns:
        The same columns; `mask_seed` is a checksum of the row's own and of its place in the stream.
    """
    return rows.repeat(None).map(_reseed, with_indices=True, features=rows.features)


def _reseed(row: dict[str, Any], place: int) -> dict[str, Any]:
    return {"mask_seed": zlib.crc32(place.to_bytes(8, "little"), row["mask_seed"]) & 0x7FFFFFFF}


# --------------------------------------------------------------------------------------------------------------- cache


def cached_rows(folder: str | Path, key_parts: Mapping[str, Any], build: Callable[[], Dataset]) -> Dataset:
    """Open ``FOLDER/rows-KEY``, or build and save it first.

    The folder is written beside its place and renamed at the end, so that a killed process leaves nothing that is
    taken for whole. Processes that ask for the same rows at once wait for the first one, which builds them.

    Args:
        folder: of the caches.
        key_parts: all that the rows depend on: options, the tokenizer, and the files (paths, whose *contents* count:
            a copy or a checkout changes times, an edit within the clock's resolution does not) or the lines themselves
            (a `Dataset`, by its fingerprint, which `datasets` makes of files' names and times, and costs nothing).
            Numbers, strings, None, and lists and dicts of these are taken as they are.
        build: makes the rows.

    Raises:
        TypeError: a part of the key is of another kind, such as a function: name it by a string.
        OSError: the disk is full; what was written is removed.
    """
    folder = Path(folder)
    canonical = json.dumps([_FORMAT, _canonical(key_parts)], sort_keys=True, ensure_ascii=False)
    key = hashlib.sha256(canonical.encode()).hexdigest()
    place, temporary = folder / f"rows-{key}", folder / f".rows-{key}.tmp"
    if place.exists() and (rows := _opened(place)) is not None:
        return rows
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".rows-{key}.lock"):
        if place.exists():
            if (rows := _opened(place)) is not None:
                return rows
            logger.warning("%s is damaged: the rows are made again.", place)
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed: nobody else has the lock
        try:
            build().save_to_disk(str(temporary))
            shutil.rmtree(place, ignore_errors=True)
            os.replace(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    rows = _opened(place)
    assert rows is not None, f"{place} was written a moment ago"
    return rows


def _opened(place: Path) -> Dataset | None:
    """The rows of a folder; None where a file is absent, cut off or no Arrow."""
    try:
        rows = load_from_disk(str(place))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None
    return rows if isinstance(rows, Dataset) else None


def _canonical(part: Any) -> Any:
    """A part of a key in terms of JSON."""
    if part is None or isinstance(part, (bool, int, float, str)):
        return part
    if isinstance(part, Path):
        return {"file": part.name, "sha256": _checksum(part)}
    if isinstance(part, Dataset):
        return {"lines": part._fingerprint}
    if isinstance(part, Mapping):
        return {str(name): _canonical(value) for name, value in part.items()}
    if isinstance(part, (list, tuple)):
        return [_canonical(value) for value in part]
    if hasattr(part, "backend_tokenizer"):
        return {"tokenizer": type(part).__name__, "sha256": _tokenizer_checksum(part)}
    raise TypeError(
        f"a key cannot hold {type(part).__name__}: expected numbers, strings, paths of files, data sets, tokenizers, "
        "and lists and dicts of these"
    )


def _checksum(path: Path) -> str:
    """SHA-256 of a file, or of all files of a folder and their names."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        listed = "".join(f"{file.relative_to(path).as_posix()}\n{_checksum(file)}\n" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _tokenizer_checksum(tokenizer: Any) -> str:
    """SHA-256 of what a tokenizer makes of text: vocabulary, normalizer, readings."""
    # Truncation and padding are left behind by the last call and change nothing here.
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    described: list[Any] = [{name: value for name, value in backend.items() if name not in ("truncation", "padding")}]
    if "pinyin_ids" in tokenizer.model_input_names:
        described += [tokenizer.readings.to_dict(), tokenizer.phrases]
    described.append([tokenizer.cls_token_id, tokenizer.sep_token_id, sorted(tokenizer.all_special_ids)])
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
