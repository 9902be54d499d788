"""Lines of text from files, folders, globs, saved data sets and the hub, read by `datasets` and kept in its cache.

A line is the unit of pretraining text here: a sentence or a paragraph. Everything below works on data sets with the
columns `text` and `source`, in memory-mapped Arrow files or as a stream.
"""

from __future__ import annotations

import codecs
import glob
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, overload

import numpy as np
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    IterableDataset,
    Value,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from .packing import is_held_out
from .vocabulary import is_han

logger = logging.getLogger(__name__)

Lines = TypeVar("Lines", Dataset, IterableDataset)
"""A data set of one kind or the other: what comes in goes out."""

FEATURES = Features({"text": Value("string"), "source": Value("string")})
BLOCK = 100  # neighbouring lines that `thin` keeps or drops together

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")
# Marks are tried from the longest: UTF-32's begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CLOSING = "”’」』）)】》]\"'"
_SENTENCE = re.compile(rf"(?s).*[。！？!?；\n][{re.escape(_CLOSING)}]*")
_CLAUSE = re.compile(r"(?s).*[\s，、,;]")


def split_line(line: str, longest: int) -> list[str]:
    """Cut a line into pieces of at most `longest` characters that concatenate to it.

    Each piece is as long as can be and ends with a sentence (``。！？!?；`` or a line feed, and closing quotes); where
    there is no such end, with a comma or blank; where there is none either, anywhere.
    """
    pieces, start = [], 0
    while len(line) - start > longest:
        stop = start + longest
        found = _SENTENCE.match(line, start, stop) or _CLAUSE.match(line, start, stop)
        end = found.end() if found else stop
        pieces.append(line[start:end])
        start = end
    return [*pieces, line[start:]]


@overload
def read_texts(
    sources: str | Path | Sequence[str | Path],
    *,
    encoding: str = ...,
    text_column: str = ...,
    split: str = ...,
    streaming: Literal[False] = ...,
    longest: int | None = ...,
) -> Dataset: ...
@overload
def read_texts(
    sources: str | Path | Sequence[str | Path],
    *,
    encoding: str = ...,
    text_column: str = ...,
    split: str = ...,
    streaming: bool,
    longest: int | None = ...,
) -> Dataset | IterableDataset: ...
def read_texts(
    sources: str | Path | Sequence[str | Path],
    *,
    encoding: str = "utf-8",
    text_column: str = "text",
    split: str = "train",
    streaming: bool = False,
    longest: int | None = 2000,
) -> Dataset | IterableDataset:
    """Read lines of text; what was read is kept in the cache of `datasets` until a file changes.

    Args:
        sources: each a text file, a folder (all its ``*.txt``, those of its subfolders too, sorted), a glob, a folder
            written by `Dataset.save_to_disk`, or a data set on the hub: ``owner/name`` or ``owner/name:config``.
            A text file that is named several times is read once.
        encoding: of text files. A byte order mark of UTF-8, UTF-16 or UTF-32 goes before it.
        text_column: column of the text, of saved data sets and those on the hub.
        split: which split of a data set to read.
        streaming: read while iterating, for text that is too large for a cache.
        longest: longer lines are cut into pieces (see `split_line`); None keeps them.

    Returns:
        Columns `text`, without blanks at its ends and never empty, and `source`: the stem of the file's name, or the
        name of the data set.

    Raises:
        ValueError: a source is nothing that is there; a file is not in `encoding` (of streams the first MiB of each
            file is looked at); a data set lacks the column or the split; there is no text in all of it.
    """
    sources = [sources] if isinstance(sources, (str, Path)) else list(sources)
    if not sources:
        raise ValueError("no sources: expected at least one file, folder, glob or data set")
    if longest is not None and longest < 1:
        raise ValueError(f"longest={longest}: expected 1 or more characters, or None")
    try:
        codecs.lookup(encoding)
    except LookupError as error:
        raise ValueError(
            f"encoding={encoding!r} is not known to Python: expected one like utf-8 or gb18030"
        ) from error
    found = [item for source in sources for item in _resolve(source, split, streaming)]
    # (encoding of a text file, or None for a data set; what to read). A file counts once.
    jobs: dict[Any, str | None] = {}
    for item in found:
        if not isinstance(item, Path):
            jobs[item] = None
        elif _is_blank(item, own := encoding_of(item, encoding)):
            logger.warning("%s is empty", item)
        else:
            jobs[item] = own
    parts: list[Any] = []
    for own, group in groupby(jobs.items(), key=lambda job: job[1]):
        items = [item for item, _ in group]
        if own is None:
            parts += [_clean(_column(data, text_column, name), [name], longest) for name, data in items]
        else:
            parts += _read_files(items, own, streaming, longest)
    lines = concatenate_datasets(parts) if parts else None
    if lines is None or (isinstance(lines, Dataset) and not len(lines)):
        raise ValueError(f"{', '.join(map(str, sources))}: nothing but blanks; expected text, a paragraph a line")
    return cast("Dataset | IterableDataset", lines)


def _resolve(source: str | Path, split: str, streaming: bool) -> list[Any]:
    """Text files as paths, data sets as (name, data)."""
    path, name = Path(source).expanduser(), str(source)
    if path.is_file():
        return [path.resolve()]
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return [(path.resolve().name, _of_disk(path, split, streaming))]
    if path.is_dir():
        files = sorted(file.resolve() for file in path.rglob("*.txt") if file.is_file())
        if not files:
            raise ValueError(f"{name}: the folder and its subfolders hold no *.txt; name other files by a glob")
        return files
    files = sorted(Path(match).resolve() for match in glob.glob(str(path), recursive=True) if Path(match).is_file())  # noqa: PTH207 (Path.glob takes no absolute pattern)
    if files:
        return list(files)
    tried = "looked for a file, a folder and files that match it as a glob"
    if not _HUB_NAME.fullmatch(name) or path.suffix == ".txt":
        raise ValueError(f"{name}: nothing found; {tried}")
    repository, _, config = name.partition(":")
    try:
        return [(name, load_dataset(repository, config or None, split=split, streaming=streaming))]
    except (DatasetNotFoundError, ConnectionError) as error:
        raise ValueError(f"{name}: nothing found; {tried}, then for a data set on the hub: {error}") from error


def _of_disk(path: Path, split: str, streaming: bool) -> Dataset | IterableDataset:
    """A data set that was saved to a folder, or one split of several."""
    data = load_from_disk(str(path))
    if isinstance(data, DatasetDict):
        if split not in data:
            raise ValueError(f"{path}: no split {split!r}; there are {', '.join(data)}: choose one by split=")
        data = data[split]
    return data.to_iterable_dataset(num_shards=max(1, len(data.cache_files))) if streaming else data


def _column(data: Any, column: str, name: str) -> Any:
    """The data set with the column of its text alone, as `text`."""
    names = data.column_names
    if names is None:  # a stream that does not know its columns before its first row
        names = list(next(iter(data), {}))
    if column not in names:
        raise ValueError(f"{name}: no column {column!r}; there are {', '.join(names)}: choose one by text_column=")
    data = data.select_columns([column])
    return data if column == "text" else data.rename_column(column, "text")


# ---------------------------------------------------------------------------------------------------------- text files


def encoding_of(path: Path, encoding: str) -> str:
    """The encoding that a byte order mark tells, else the one that was given."""
    with path.open("rb") as file:
        head = file.read(4)
    return next((own for mark, own in _MARKS.items() if head.startswith(mark)), encoding)


def _is_blank(path: Path, encoding: str) -> bool:
    """Whether the file is empty, or short and nothing but blanks."""
    if path.stat().st_size > 1 << 16:
        return False
    return not path.read_bytes().decode(encoding, errors="replace").strip("\ufeff \t\r\n\u3000")


def check_encoding(path: Path, encoding: str, *, limit: int | None = None) -> None:
    """Decode a file block by block, or its first `limit` bytes.

    Raises:
        ValueError: it is not in this encoding; names the file, the byte and the way out.
    """
    decoder, position = codecs.getincrementaldecoder(encoding)(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20 if limit is None else min(1 << 20, limit - position)):
            waiting = len(decoder.getstate()[0])
            try:
                decoder.decode(block)
            except UnicodeError as error:
                # UTF-16 and UTF-32 without a byte order mark fail without a place.
                reason, at = getattr(error, "reason", error), position - waiting + getattr(error, "start", 0)
                raise ValueError(
                    f"{path} is not in {encoding}: {reason} at byte {at}. Name its encoding, as in "
                    f'encoding="gb18030", or convert it: iconv -f GB18030 -t UTF-8 {path.name}'
                ) from error
            position += len(block)
    waiting = len(decoder.getstate()[0])
    if waiting and position != limit:
        raise ValueError(f"{path} is not in {encoding}: it ends within a character, at byte {position - waiting}")


def _read_files(files: list[Path], encoding: str, streaming: bool, longest: int | None) -> list[Any]:
    """Lines of text files of one encoding, with the file's stem as source."""
    if streaming:
        for file in files:
            check_encoding(file, encoding, limit=1 << 20)
    try:
        # A split a file: `datasets` would forget which file a line came from.
        splits = load_dataset(
            "text",
            data_files={f"file{number}": glob.escape(str(file)) for number, file in enumerate(files)},
            features=Features({"text": Value("string")}),
            encoding=encoding,
            streaming=streaming,
        )
    except DatasetGenerationError as error:
        for file in files:
            check_encoding(file, encoding)
        if isinstance(error.__cause__, OSError):  # a full disk
            raise error.__cause__ from error
        raise
    parts, names = list(splits.values()), [file.stem for file in files]
    if streaming:
        return [_clean(part, [name], longest) for part, name in zip(parts, names, strict=True)]
    ends = np.cumsum([len(part) for part in parts]).tolist()
    return [_clean(concatenate_datasets(parts), names, longest, ends)]


def _clean(data: Any, names: list[str], longest: int | None, ends: list[int] | None = None) -> Any:
    """Columns `text` and `source` of raw lines: of one source, or of several that end at the rows `ends`."""
    return data.map(
        _clean_batch,
        batched=True,
        with_indices=True,
        input_columns=["text"],
        remove_columns=["text"],
        fn_kwargs={"names": names, "longest": longest, "ends": ends},
        features=FEATURES,
    )


def _clean_batch(
    texts: Sequence[str | None],
    rows: Sequence[int],
    names: Sequence[str],
    longest: int | None,
    ends: Sequence[int] | None,
) -> dict[str, list[str]]:
    lines: list[str] = []
    sources: list[str] = []
    places = np.searchsorted(ends, rows, side="right") if ends is not None else np.zeros(len(rows), dtype=int)
    for text, place in zip(texts, places.tolist(), strict=True):
        for line in _pieces(text or "", longest):
            lines.append(line)
            sources.append(names[place])
    return {"text": lines, "source": sources}


def _pieces(text: str, longest: int | None) -> Iterator[str]:
    """What there is in a raw line: no blank, no separator of lines, nothing longer than `longest`."""
    for line in text.splitlines():
        line = line.strip().strip("\ufeff")
        for piece in (line,) if longest is None or len(line) <= longest else split_line(line, longest):
            if piece := piece.strip():
                yield piece


# ----------------------------------------------------------------------------------------------------- choosing lines


def han_share(lines: Iterable[Any], *, sample: int = 2000) -> float:
    """Share of Han characters among the characters of a sample that are no blanks; 0 without any.

    Args:
        lines: texts, or rows with `text`. Of a `Dataset` lines at equal distances are taken, else the first ones.
        sample: number of lines.
    """
    if isinstance(lines, Dataset):
        places = np.linspace(0, max(0, len(lines) - 1), min(sample, len(lines)), dtype=int)
        lines = lines.select(places)
    texts = [line["text"] if isinstance(line, Mapping) else line for line in islice(lines, sample)]
    characters = [character for text in texts for character in text if not character.isspace()]
    return sum(map(is_han, characters)) / len(characters) if characters else 0.0


def split_held_out(lines: Lines, percent: float = 1.0, of: Callable[[str], bool] | None = None) -> tuple[Lines, Lines]:
    """Take lines out of the training text, by a function of a line's text alone, so that every run takes the same.

    Args:
        lines: with `text` and `source`.
        percent: of the lines.
        of: which sources the held-out lines may come from (None: all). Of the others they are left out of both.

    Returns:
        The lines to train on, the held-out lines.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"percent={percent}: expected a number from 0 to 100")
    train = _filter(lines, _for_training, {"percent": percent})
    return train, _filter(lines, _for_held_out, {"percent": percent, "of": of})


def _filter(lines: Lines, choose: Callable[..., list[bool]], options: dict[str, Any], batch_size: int = 1000) -> Lines:
    """Lines for which `choose(texts, sources, **options)` is true."""
    if isinstance(lines, IterableDataset):
        return lines.filter(
            choose, batched=True, batch_size=batch_size, input_columns=["text", "source"], fn_kwargs=options
        )
    # Not `Dataset.filter`: reading through its list of rows takes longer than all else that is done here.
    kept = lines.with_format("arrow").map(
        _filter_table, batched=True, fn_kwargs={"choose": choose, "options": options}
    )
    return kept.with_format(None)


def _filter_table(table: Any, choose: Callable[..., list[bool]], options: dict[str, Any]) -> Any:
    return table.take(np.flatnonzero(choose(table["text"].to_pylist(), table["source"].to_pylist(), **options)))


def keep_lines(lines: Dataset, keep: np.ndarray) -> Dataset:
    """A copy of the lines whose entry in `keep`, (lines,) bool, is true; quicker to read than `Dataset.select`."""
    kept = lines.with_format("arrow").map(_keep_rows, batched=True, with_indices=True, fn_kwargs={"keep": keep})
    return kept.with_format(None)


def _keep_rows(table: Any, rows: list[int], keep: np.ndarray) -> Any:
    return table.take(np.flatnonzero(keep[rows]))


def _for_training(texts: Sequence[str], _sources: Sequence[str], percent: float) -> list[bool]:
    return [not is_held_out(text, percent) for text in texts]


def _for_held_out(
    texts: Sequence[str], sources: Sequence[str], percent: float, of: Callable[[str], bool] | None
) -> list[bool]:
    wanted = {source: of is None or bool(of(source)) for source in set(sources)}
    return [wanted[source] and is_held_out(text, percent) for text, source in zip(texts, sources, strict=True)]


def thin(lines: Lines, shares: Mapping[str, float], *, seed: int = 0) -> Lines:
    """Keep about a share of the lines of some sources, in blocks of 100 neighbours so that texts stay readable.

    A `Dataset` is thinned out as `packing.thin_out` thins out the list of a source's lines. Of a stream, blocks are
    what is read together, chosen by their text: the same again at every reading, in any process.

    Args:
        lines: with `text` and `source`.
        shares: source → share of its lines; sources that are not named keep all.

    Raises:
        ValueError: a share is outside [0, 1]; a source has no lines (not told of streams).
    """
    for source, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"share {share} of {source}: expected a number from 0 to 1")
    if isinstance(lines, IterableDataset):
        return _filter(lines, _keep_block, {"shares": dict(shares), "seed": seed}, batch_size=BLOCK)
    codes, names = source_codes(lines)
    if unknown := set(shares) - set(names):
        raise ValueError(f"no lines of {', '.join(sorted(unknown))}: the sources are {', '.join(sorted(names))}")
    keep = np.ones(len(codes), dtype=bool)
    for source, share in shares.items():
        places = np.flatnonzero(codes == names.index(source))
        chosen = np.random.default_rng(seed).random(-(-len(places) // BLOCK)) < share
        keep[places] = np.repeat(chosen, BLOCK)[: len(places)] | (share == 1)
    return keep_lines(lines, keep)


def _keep_block(texts: Sequence[str], sources: Sequence[str], shares: Mapping[str, float], seed: int) -> list[bool]:
    drawn = zlib.crc32("\n".join(texts).encode(), seed) / 2**32
    return [drawn < shares.get(source, 1.0) for source in sources]


def source_codes(lines: Dataset) -> tuple[np.ndarray, list[str]]:
    """For each line the number of its source, (lines,), and the names of the sources."""
    if not len(lines):
        return np.zeros(0, dtype=np.int64), []
    table = lines.select_columns(["source"]).with_format("arrow")[:]
    column = table["source"].dictionary_encode().unify_dictionaries().combine_chunks()
    return column.indices.to_numpy(zero_copy_only=False), column.dictionary.to_pylist()
