"""Tagged sentences for the examples, from the usual file formats or made up, always as `Sentence`.

`read_columns` (CoNLL), `read_conllu`, `read_roles` (CoNLL-U with a column a predicate), `read_json_lines`,
`read_segmented` (words with spaces between them), `read_utterances` (`seq.in`, `seq.out`, `label`) and `read_keywords`
read a file each; `read_splits` makes texts to learn from and to test on out of a folder or of one file.
"""

import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from _data import files_of

from hf_nlpnotes.tagging import (
    detect_scheme,
    detect_scheme_in,
    repair_tags,
    spans_to_tags,
    tags_to_spans,
    words_to_tags,
)


class Sentence(NamedTuple):
    """Words or characters with a tag each.

    Attributes:
        tokens: what has a tag each; none of it blank.
        tags: as many.
        predicate: first and last + 1 token of the predicate whose arguments are tagged.
        text_class: class of the whole text, such as an intent.
        keywords: as its authors gave them, whether they stand in the text or not.
    """

    tokens: list[str]
    tags: list[str]
    predicate: tuple[int, int] | None = None
    text_class: str | None = None
    keywords: tuple[str, ...] = ()


Reader = Callable[[Path], Iterable[Sentence]]


def read_splits(
    data: str, read: Reader, test_data: str | None = None, limit: int | None = None, seed: int = 0
) -> tuple[list[Sentence], list[Sentence]]:
    """Sentences to learn from and to test on, drawn up alike every time.

    `data` is a file or a folder with a file (or folder) named `*train*` and one named `*test*`, or else `*dev*` or
    `*valid*`. One file without `test_data` is cut: a fifth of its sentences, drawn by `seed`, is for testing; what is
    said of one sentence stays together. `limit` keeps that many sentences to learn from, also drawn by `seed`.
    """
    path = Path(data)
    if path.is_dir() and not (path / "seq.in").is_file():
        files = _parts(path)
        tests = files.get("test", files.get("validation"))
        if "train" not in files or (tests is None and test_data is None):
            raise SystemExit(
                f"{path} has no files named *train* and *test* or *dev*; to split one file, name the file."
            )
        train = _whole(read, files["train"])
        test = _whole(read, Path(test_data) if test_data else tests)
    elif not path.exists():
        raise SystemExit(f"There is no {path}: expected a file or a folder.")
    else:
        train = _whole(read, path)
        test = _whole(read, Path(test_data)) if test_data else []
        if not test:
            texts = list(dict.fromkeys(tuple(sentence.tokens) for sentence in train))
            held_out = set(random.Random(seed).sample(texts, max(1, len(texts) // 5)))
            test = [sentence for sentence in train if tuple(sentence.tokens) in held_out]
            train = [sentence for sentence in train if tuple(sentence.tokens) not in held_out]
    if limit is not None and limit < len(train):
        train = random.Random(seed).sample(train, limit)
    return train, test


def read_columns(path: Path, column: int = -1) -> Iterator[Sentence]:
    """A CoNLL file: a line a token, columns apart by tabs or spaces, a blank line ends a sentence.

    The first column has the tokens. Tokens with the number of their word behind them (`科0`, as in Weibo NER) lose the
    number. `# …` and `-DOCSTART-` lines are left out.
    """
    for block in _blocks(path):
        lines = [line for line in block if not line.startswith(("# ", "-DOCSTART-"))]
        rows = [_fields(line) for line in lines]
        tokens = [row[0] for row in rows]
        if rows and all(len(token) > 1 and token[-1].isdigit() for token in tokens):
            tokens = [token[:-1] for token in tokens]
        if rows:
            short = next((line for line, row in zip(lines, rows, strict=True) if len(row) < 2), None)
            if short is not None:
                raise SystemExit(f"{path} has a line without a tag: {short!r}")
            yield Sentence(tokens, [row[column].strip() for row in rows])


def read_conllu(path: Path, column: int = 3, characters: bool = True, form: int = 1) -> Iterator[Sentence]:
    """A CoNLL-U file: words with the tags of a column (3 universal, 4 language-specific parts of speech).

    With `characters` the sentence is in characters, and tags write words and parts of speech together (`B-NOUN`).
    """
    for rows in _conllu(path):
        words, tags = [row[form] for row in rows], [row[column] for row in rows]
        yield of_words(words, tags) if characters else Sentence(words, tags)


def read_roles(path: Path, form: int = 1) -> Iterator[Sentence]:
    """A CoNLL-U file as of the Universal Propositions: column 9 marks predicates, columns from 11 have arguments.

    A sentence of characters for each predicate. An argument is the word that has its label.
    """
    for rows in _conllu(path):
        words = [row[form] for row in rows]
        predicates = [number for number, row in enumerate(rows) if len(row) > 10 and row[9] != "_"]
        for place, number in enumerate(predicates):
            if len(rows[number]) != 10 + len(predicates):
                raise SystemExit(
                    f"{path} has {len(predicates)} predicates and {len(rows[number]) - 10} columns of arguments in"
                    f" {' '.join(words)!r}: expected one each."
                )
            roles = [row[10 + place] for row in rows]
            yield of_roles(words, [None if role == "_" else role for role in roles], number)


def read_json_lines(path: Path, scheme: str = "BIOES") -> Iterator[Sentence]:
    """An object a line: `tokens` and `tags`, or `text` with spans of its characters.

    Spans are `spans` or `entities` (`{"type" or "label", "start", "end"}`), CLUENER's `label` (`{"name": {"叶老桂":
    [[9, 11]]}}`, its ends included), or `entity_list` (`{"entity_type", "entity_index": {"begin", "end"}}`). Of spans
    that overlap, the longest counts.
    """
    for line in filter(str.strip, _lines(path)):
        row = json.loads(line)
        if "tokens" in row:
            tags = next((row[name] for name in ("tags", "ner_tags", "labels") if name in row), None)
            if tags is None:
                raise SystemExit(f"{path} has tokens without tags: {sorted(row)}")
            yield Sentence(row["tokens"], list(map(str, tags)), None, row.get("intent"))
        elif "text" in row:
            yield of_text(row["text"], _flat(_spans(row, path)), scheme)._replace(text_class=row.get("intent"))
        else:
            raise SystemExit(f"{path} has the columns {sorted(row)}: expected 'tokens' and 'tags', or 'text'.")


def read_segmented(path: Path) -> Iterator[Sentence]:
    """A sentence a line, its words apart by spaces, as of SIGHAN."""
    for line in _lines(path):
        words = line.split()
        if words:
            yield Sentence(list("".join(words)), words_to_tags(words))


def read_utterances(path: Path) -> Iterator[Sentence]:
    """A folder with `seq.in`, `seq.out` and `label` (intents), a line an utterance; or a file of columns, or JSON."""
    if not path.is_dir():
        yield from read_json_lines(path) if path.suffix in (".json", ".jsonl") else read_columns(path)
        return
    names = ("seq.in", "seq.out", "label")
    columns = [list(_lines(path / name)) for name in names]
    lengths = dict(zip(names, map(len, columns), strict=True))
    if len(set(lengths.values())) > 1:
        raise SystemExit(f"{path} has files of different lengths: {lengths}")
    for words, tags, intent in zip(*columns, strict=True):
        yield Sentence(words.split(), tags.split(), None, intent.strip())


def read_keywords(path: Path) -> Iterator[Sentence]:
    """Texts with their keywords: JSON lines (`text` or `abst`, `keywords` or `keyword`), or a table of tabs.

    In a table the last two columns are the text and its keywords, apart by `_` or `;`.
    """
    for line in _lines(path):
        if line.startswith("{"):
            row = json.loads(line)
            text = next(row[name] for name in ("text", "abst", "abstract") if name in row)
            keywords = next(row[name] for name in ("keywords", "keyword") if name in row)
            yield of_keywords(text, keywords)
        elif line.strip():
            *_, text, joined = line.split("\t")
            yield of_keywords(text, re.split("[_;；]", joined))


# --------------------------------------------------------------------------------------------------- one sentence


def of_text(text: str, spans: Iterable[tuple[str, int, int]], scheme: str) -> Sentence:
    """The characters of a text, blanks left out, with the tags of spans of them."""
    places = [place for place, character in enumerate(text) if not character.isspace()]
    number = {place: index for index, place in enumerate(places)}
    written = []
    for name, start, end in spans:
        inside = [number[place] for place in range(start, end) if place in number]
        if inside:
            written.append((name, inside[0], inside[-1] + 1))
    return Sentence([text[place] for place in places], spans_to_tags(written, len(places), scheme))


def of_words(words: Sequence[str], tags: Sequence[str]) -> Sentence:
    """The characters of tagged words, the words and their tags written together."""
    spans, place = [], 0
    for word, tag in zip(words, tags, strict=True):
        spans.append((tag, place, place + len(word)))
        place += len(word)
    return of_text("".join(words), spans, "BMES")


def of_roles(words: Sequence[str], roles: Sequence[str | None], predicate: int) -> Sentence:
    """The characters of words, arguments tagged, the predicate named."""
    spans, place, marked = [], 0, (0, 0)
    for number, (word, role) in enumerate(zip(words, roles, strict=True)):
        if role is not None:
            spans.append((role, place, place + len(word)))
        if number == predicate:
            marked = (place, place + len(word))
        place += len(word)
    return Sentence(list("".join(words)), spans_to_tags(spans, place, "BIOES"), marked)


def of_keywords(text: str, keywords: Iterable[str]) -> Sentence:
    """The characters of a text, every place of a keyword tagged; of keywords that overlap, the first and longest."""
    known = tuple(dict.fromkeys(keyword.strip() for keyword in keywords if keyword.strip()))
    longest_first = sorted(known, key=len, reverse=True)
    found = re.finditer("|".join(map(re.escape, longest_first)) or "(?!)", text)
    sentence = of_text(text, [("KEY", match.start(), match.end()) for match in found], "BIOES")
    return sentence._replace(keywords=tuple("".join(keyword.split()) for keyword in known))


# --------------------------------------------------------------------------------------------------- made-up sentences


class Word(NamedTuple):
    """A word of a made-up sentence with all that can be said of it."""

    form: str
    part_of_speech: str
    entity: str | None = None
    role: str | None = None


PEOPLE = ["小明", "李老师", "王医生", "张三丰", "欧阳修", "司马光", "陈小红", "刘洋"]
CITIES = ["北京", "上海", "广州", "乌鲁木齐", "哈尔滨", "重庆市", "西安", "日本东京"]
ORGANIZATIONS = ["中国银行", "新华社", "北京大学", "国家图书馆", "华为公司", "清华大学"]
DEEDS = [("参观", "博物馆"), ("看", "电影"), ("买", "手机"), ("研究", "历史"), ("发表", "文章"), ("踢", "足球")]
TIMES = ["今天", "昨天晚上", "去年", "星期三", "上个月", "早上"]


def made_up(size: int, seed: int, *, new_words: bool = False) -> list[list[Word]]:
    """Who does what, when and where, in several orders of words; some of the names only with `new_words`."""
    people, cities, organizations = (names if new_words else names[:-2] for names in (PEOPLE, CITIES, ORGANIZATIONS))
    draw = random.Random(seed)
    sentences = []
    for _ in range(size):
        verb, thing = draw.choice(DEEDS)
        who = Word(draw.choice(people), "PROPN", "PER", "A0")
        when = Word(draw.choice(TIMES), "NOUN", None, "AM-TMP")
        city, organization = draw.choice(cities), draw.choice(organizations)
        named = draw.choice([Word(city, "PROPN", "LOC", "AM-LOC"), Word(organization, "PROPN", "ORG", "AM-LOC")])
        where = [Word("在", "ADP"), named]
        begin = draw.choice(
            [[when, who, *where], [who, when, *where], [who, *where], [*where, Word("，", "PUNCT"), who]]
        )
        done = draw.choice([[], [Word("了", "PART")]])
        sentences.append([*begin, Word(verb, "VERB"), *done, Word(thing, "NOUN", None, "A1"), Word("。", "PUNCT")])
    return sentences


# --------------------------------------------------------------------------------------------------- parts


def _parts(folder: Path) -> dict[str, Path]:
    """Files of each split, or folders where the splits are folders."""
    folders = {
        split: folder / name
        for split, names in (("train", ("train",)), ("validation", ("valid", "dev")), ("test", ("test",)))
        for name in names
        if (folder / name).is_dir()
    }
    return folders or files_of(folder)


def _whole(read: Reader, path: Path | None) -> list[Sentence]:
    """What a file has, without blank tokens, its tags legal in their scheme."""
    assert path is not None
    sentences = list(read(path))
    if not sentences:
        raise SystemExit(f"{path} has no sentences.")
    scheme = scheme_of([sentence.tags for sentence in sentences])
    return [_clean(sentence, scheme) for sentence in sentences]


def scheme_of(tags: Sequence[Sequence[str]]) -> str:
    """The scheme that all sentences keep, or that their tags look like where some break it, as in most real data."""
    try:
        return detect_scheme_in(tags)
    except ValueError:
        return detect_scheme(tag for row in tags for tag in row)


def _clean(sentence: Sentence, scheme: str) -> Sentence:
    tokens, tags = sentence.tokens, sentence.tags
    if len(tokens) != len(tags):
        raise SystemExit(f"{len(tags)} tags for {len(tokens)} tokens: {' '.join(tokens)!r}")
    if scheme != "SINGLE" and not all(token.strip() for token in tokens):
        kept = [number for number, token in enumerate(tokens) if token.strip()]
        spans = [
            (span.type, sum(number < span.start for number in kept), sum(number < span.end for number in kept))
            for span in tags_to_spans(tags, scheme, illegal="repair")
        ]
        tags = spans_to_tags([span for span in spans if span[1] < span[2]], len(kept), scheme)
        tokens = [tokens[number] for number in kept]
    return sentence._replace(tokens=tokens, tags=repair_tags(tags, scheme))


def _lines(path: Path) -> Iterator[str]:
    """Lines without their ends; `str.splitlines` would also break at characters that a token may be."""
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            yield line.removesuffix("\n")


def _fields(line: str) -> list[str]:
    """Columns of a line; the first may be a blank, where a space is a token."""
    if "\t" in line:
        return line.split("\t")
    return [" ", *line.split()] if line.startswith(" ") else line.split()


def _blocks(path: Path) -> Iterator[list[str]]:
    """Lines between blank lines."""
    lines: list[str] = []
    for line in [*_lines(path), ""]:
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
            raise SystemExit(f"{path} is no CoNLL-U file: a word has fewer than 10 columns in {block[0]!r}")
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
    raise SystemExit(f"{path} has the columns {sorted(row)}: expected 'spans', 'entities', 'label' or 'entity_list'.")
