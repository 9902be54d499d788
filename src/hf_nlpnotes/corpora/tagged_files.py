"""Tagged sentences from the usual file formats.

`read_columns` (CoNLL), `read_conllu`, `read_roles` (CoNLL-U with a column a predicate), `read_json_lines`,
`read_segmented` (words with spaces between them), `read_utterances` (`seq.in`, `seq.out`, `label`) and `read_keywords`
read a file each; `read_tagged` makes texts to learn from and to test on out of a folder or of one file.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TypeGuard

from hf_nlpnotes.tagging import words_to_tags

from .files import files_of, lines_of, objects_of
from .sentences import TaggedSentence, cleaned, of_keywords, of_roles, of_text, of_words, scheme_of

Reader = Callable[[Path], Iterable[TaggedSentence]]
"""Reads a file."""


def read_tagged(
    data: str, read: Reader, test_data: str | None = None, limit: int | None = None, seed: int = 0
) -> tuple[list[TaggedSentence], list[TaggedSentence]]:
    """Sentences to learn from and to test on, drawn up alike every time.

    Args:
        data: a file, or a folder with a file (or folder) named `*train*` and one named `*test*`, or else `*dev*` or
            `*valid*`. One file without `test_data` is cut: a fifth of its sentences, drawn by `seed`, is for testing;
            what is said of one sentence stays together.
        read: the reader of a file, one of `READERS`.
        test_data: a file to test on, in place of that of `data`.
        limit: keep that many sentences to learn from, drawn by `seed`.
        seed: of whatever is drawn.

    Returns:
        Sentences without blank tokens, whose tags keep one scheme, told from all files: those that break it are
        repaired.

    Raises:
        ValueError: no such file, one without sentences, or lines that the reader does not understand.
    """
    train_file, test_file = _files(Path(data), test_data)
    train, *others = _cleaned(read, [train_file] if test_file is None else [train_file, test_file])
    if others:
        (test,) = others
    else:
        texts = list(dict.fromkeys(tuple(sentence.tokens) for sentence in train))
        if len(texts) < 2:
            raise ValueError(f"{data} has one sentence, which cannot be held out: give a file to test on")
        held_out = set(random.Random(seed).sample(texts, max(1, len(texts) // 5)))  # noqa: S311  (a sample)
        test = [sentence for sentence in train if tuple(sentence.tokens) in held_out]
        train = [sentence for sentence in train if tuple(sentence.tokens) not in held_out]
    if limit is not None and limit < len(train):
        train = random.Random(seed).sample(train, limit)  # noqa: S311  (a sample)
    return train, test


def read_columns(path: Path, column: int = -1) -> Iterator[TaggedSentence]:
    """A CoNLL file: a line a token, columns apart by tabs or spaces, a blank line ends a sentence.

    The first column has the tokens. Where all tokens of the file have their place in a word behind them (`科0`, `技1`,
    as in Weibo NER), they lose it. `-DOCSTART-` lines and comments are left out. A comment begins with `# `; such a
    line is the token `#` where it has as many columns as another line, and its tag.

    Args:
        path: the file.
        column: number of the tags' column, from 0; -1 is the last.

    Raises:
        ValueError: a line has no tag.
    """
    blocks = [
        [(line, _fields(line)) for line in block if not line.startswith("-DOCSTART-")] for block in _blocks(path)
    ]
    forms = set()  # numbers of columns and tags, of the lines that are no comments in any case
    for line, row in chain.from_iterable(blocks):
        if not line.startswith("# "):
            if len(row) < max(2, column + 1, -column):
                raise ValueError(f"{path} has a line without a tag: {line!r}")
            forms.add((len(row), row[column]))
    sentences = []
    for block in blocks:
        rows = [row for line, row in block if not line.startswith("# ") or (len(row), *row[column:][:1]) in forms]
        if rows:
            sentences.append(TaggedSentence([row[0] for row in rows], [row[column].strip() for row in rows]))
    tokens = _without_places([sentence.tokens for sentence in sentences])
    yield from (sentence._replace(tokens=own) for sentence, own in zip(sentences, tokens, strict=True))


def read_conllu(path: Path, column: int = 3, characters: bool = True, form: int = 1) -> Iterator[TaggedSentence]:
    """A CoNLL-U file: words with the tags of a column (3 universal, 4 language-specific parts of speech).

    With `characters` the sentence is in characters, and tags write words and parts of speech together (`B-NOUN`).

    Args:
        path: the file.
        column: number of the tags' column, from 0.
        characters: whether tokens are characters; else they are words.
        form: number of the words' column.
    """
    for rows in _conllu(path):
        words, tags = [row[form] for row in rows], [row[column] for row in rows]
        yield of_words(words, tags) if characters else TaggedSentence(words, tags)


def read_roles(path: Path, form: int = 1) -> Iterator[TaggedSentence]:
    """A CoNLL-U file as of the Universal Propositions: column 9 marks predicates, columns from 11 have arguments.

    A sentence of characters for each predicate. An argument is the word that has its label.

    Args:
        path: the file.
        form: number of the words' column, from 0.

    Raises:
        ValueError: a word has fewer than 10 columns, or there are other columns of arguments than predicates.
    """
    for rows in _conllu(path):
        words = [row[form] for row in rows]
        predicates = [number for number, row in enumerate(rows) if len(row) > 10 and row[9] != "_"]
        for place, number in enumerate(predicates):
            if len(rows[number]) != 10 + len(predicates):
                raise ValueError(
                    f"{path} has {len(predicates)} predicates and {len(rows[number]) - 10} columns of arguments in"
                    f" {' '.join(words)!r}: expected one each."
                )
            roles = [row[10 + place] for row in rows]
            yield of_roles(words, [None if role == "_" else role for role in roles], number)


def read_json_lines(path: Path, scheme: str = "BIOES") -> Iterator[TaggedSentence]:
    """An object a line: `tokens` and `tags`, or `text` with spans of its characters.

    Spans are `spans` or `entities` (`{"type" or "label", "start", "end"}`), CLUENER's `label` (`{"name": {"叶老桂":
    [[9, 11]]}}`, its ends included), or `entity_list` (`{"entity_type", "entity_index": {"begin", "end"}}`). Of spans
    that overlap, the longest counts.

    Args:
        path: the file.
        scheme: the tagging scheme that spans are written in.

    Raises:
        ValueError: an object has other columns, or spans that are outside of its text.
    """
    for number, row in objects_of(path):
        if "tokens" in row:
            tags = next((row[name] for name in ("tags", "ner_tags", "labels") if name in row), None)
            if tags is None:
                raise ValueError(f"{path} has tokens without tags: {sorted(row)}")
            if not (_are_texts(tags) and _are_texts(row["tokens"])):
                raise ValueError(
                    f"{path}, line {number}: expected lists of tokens and of tags, one a token, all of them texts. "
                    "Write the names of tags that are numbers"
                )
            yield TaggedSentence(row["tokens"], tags, None, row.get("intent"))
        elif "text" in row:
            try:
                spans = _flat(_spans(row, path))
                if not all(isinstance(name, str) for name, _, _ in spans):
                    raise ValueError(f"the type of a span is a text, got {spans}")
                yield of_text(row["text"], spans, scheme)._replace(text_class=row.get("intent"))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: {type(error).__name__} {error}") from error
        else:
            raise ValueError(f"{path} has the columns {sorted(row)}: expected 'tokens' and 'tags', or 'text'.")


def read_segmented(path: Path) -> Iterator[TaggedSentence]:
    """A sentence a line, its words apart by spaces, as of SIGHAN.

    Args:
        path: the file.
    """
    for line in lines_of(path):
        words = line.split()
        if words:
            yield TaggedSentence(list("".join(words)), words_to_tags(words))


def read_utterances(path: Path) -> Iterator[TaggedSentence]:
    """A folder with `seq.in`, `seq.out` and `label` (intents), a line an utterance; or a file of columns, or JSON.

    Args:
        path: the folder or file.

    Raises:
        ValueError: the three files have different lengths.
    """
    if not path.is_dir():
        yield from read_json_lines(path) if path.suffix in (".json", ".jsonl") else read_columns(path)
        return
    names = ("seq.in", "seq.out", "label")
    columns = [list(lines_of(path / name)) for name in names]
    for lines in columns:
        while lines and not lines[-1].strip():  # blank lines at the end are no utterances
            lines.pop()
    lengths = dict(zip(names, map(len, columns), strict=True))
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path} has files of different lengths: {lengths}")
    for words, tags, intent in zip(*columns, strict=True):
        yield TaggedSentence(words.split(), tags.split(), None, intent.strip())


def read_keywords(path: Path) -> Iterator[TaggedSentence]:
    """Texts with their keywords: JSON lines (`text` or `abst`, `keywords` or `keyword`), or a table of tabs.

    In a table the last two columns are the text and its keywords, apart by `_` or `;`.

    Args:
        path: the file.

    Raises:
        ValueError: a line has no text or no keywords.
    """
    for number, line in enumerate(lines_of(path), 1):
        if line.startswith("{"):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: no JSON ({error}); expected an object a line") from error
            text: Any = next((row[name] for name in ("text", "abst", "abstract") if name in row), None)
            keywords: Any = next((row[name] for name in ("keywords", "keyword") if name in row), None)
            keywords = keywords.split("_") if isinstance(keywords, str) else keywords
            if not isinstance(text, str) or not _are_texts(keywords):
                raise ValueError(f"{path}, line {number}: expected 'text' and 'keywords', got {line[:60]}")
            yield of_keywords(text, keywords)
        elif line.strip():
            if line.count("\t") < 1:
                raise ValueError(f"{path}, line {number}: expected a text, a tab and its keywords, got {line[:60]!r}")
            *_, text, joined = line.split("\t")
            yield of_keywords(text, re.split("[_;；]", joined))


def _files(path: Path, test_data: str | None) -> tuple[Path, Path | None]:
    """The file, or folder of three files, to learn from, and that to test on; None where it is to be cut out."""
    test = Path(test_data) if test_data else None
    if not path.is_dir() or (path / "seq.in").is_file():
        return path, test
    files = _parts(path)
    test = test or files.get("test", files.get("validation"))
    if "train" not in files or test is None:
        raise ValueError(f"{path} has no files named *train* and *test* or *dev*; to split one file, name the file.")
    return files["train"], test


def _parts(folder: Path) -> dict[str, Path]:
    """Files of each split, or folders where the splits are folders."""
    folders = {
        split: folder / name
        for split, names in (("train", ("train",)), ("validation", ("valid", "dev")), ("test", ("test",)))
        for name in names
        if (folder / name).is_dir()
    }
    return folders or files_of(folder)


def _cleaned(read: Reader, paths: Sequence[Path]) -> list[list[TaggedSentence]]:
    """What each file has, without blank tokens, its tags legal in the scheme of all files."""
    files = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"there is no {path}: expected a file or a folder")
        with _named(path):
            files.append(list(read(path)))
            if not files[-1]:
                raise ValueError("no sentences")
    with _named(*paths):
        scheme = scheme_of([sentence.tags for sentences in files for sentence in sentences])
    cleaned_files = []
    for path, sentences in zip(paths, files, strict=True):
        with _named(path):
            cleaned_files.append([cleaned(sentence, scheme) for sentence in sentences])
    return cleaned_files


@contextmanager
def _named(*paths: Path) -> Iterator[None]:
    """Put the files' names before messages that lack them."""
    try:
        yield
    except ValueError as error:
        if any(str(path) in str(error) for path in paths):
            raise
        raise ValueError(f"{', '.join(map(str, paths))}: {error}") from error


def _are_texts(values: Any) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(value, str) and value for value in values)


def _fields(line: str) -> list[str]:
    """Columns of a line; the first may be a blank, where a blank is a token."""
    line = line.rstrip()
    if "\t" in line:
        return line.split("\t")
    return [line[0], *line.split()] if line[:1].isspace() else line.split()


def _without_places(sentences: Sequence[list[str]]) -> Sequence[list[str]]:
    """Tokens without their places in words, where each has one and each sentence begins with a 0."""
    # As few characters as can be before the number: the digit 1 at place 10 is written 110.
    matches = [[re.fullmatch(r"(?s)(.+?)([0-9]+)", token) for token in tokens] for tokens in sentences]
    found = [[match for match in row if match is not None] for row in matches]
    if found == matches and all(row[0][2] == "0" for row in found):
        return [[match[1] for match in row] for row in found]
    return sentences


def _blocks(path: Path) -> Iterator[list[str]]:
    """Lines between blank lines."""
    lines: list[str] = []
    for line in [*lines_of(path), ""]:
        if line.strip():
            lines.append(line)
        elif lines:
            yield lines
            lines = []


def _conllu(path: Path) -> Iterator[list[list[str]]]:
    """The words of each sentence, without ranges (`1-2`) and empty nodes (`1.1`)."""
    for block in _blocks(path):
        rows = [line.split("\t") for line in block if not line.startswith("#")]
        words = [row for row in rows if row[0].isdigit()]
        if any(len(row) < 10 for row in words):
            raise ValueError(f"{path} is no CoNLL-U file: a word has fewer than 10 columns in {block[0]!r}")
        if words:
            yield words


def _flat(spans: Iterable[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Spans without those that overlap a longer one."""
    kept: list[tuple[str, int, int]] = []
    for span in sorted(spans, key=lambda each: each[1] - each[2]):
        if all(span[2] <= start or end <= span[1] for _, start, end in kept):
            kept.append(span)
    return kept


def _spans(row: dict[str, Any], path: Path) -> list[tuple[str, int, int]]:
    if "entity_list" in row:
        return [
            (each["entity_type"], each["entity_index"]["begin"], each["entity_index"]["end"])
            for each in row["entity_list"]
        ]
    if isinstance(row.get("label"), dict):
        return [
            (name, start, last + 1)
            for name, texts in row["label"].items()
            for places in texts.values()
            for start, last in places
        ]
    for column in ("spans", "entities", "slots"):
        if column in row:
            return [(each.get("type", each.get("label")), each["start"], each["end"]) for each in row[column]]
    raise ValueError(f"{path} has the columns {sorted(row)}: expected 'spans', 'entities', 'label' or 'entity_list'.")


READERS: dict[str, Reader] = {
    "columns": read_columns,
    "json": read_json_lines,
    "segmented": read_segmented,
    "conllu": read_conllu,
    "roles": read_roles,
    "utterances": read_utterances,
    "keywords": read_keywords,
}
"""Names of the formats of files."""
