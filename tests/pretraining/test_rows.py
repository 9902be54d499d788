"""Rows: every token in exactly one row, lines of one source in order, words and readings those of the lines."""

import multiprocessing
import os
import signal
import sys
from collections import Counter
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from transformers import BertTokenizer

from hf_nlpnotes.models.chinesebert import ChineseBertTokenizer
from hf_nlpnotes.models.chinesebert.collator_chinesebert import (
    DataCollatorForChineseBertMaskedLM,
    words_of_tokens,
)
from hf_nlpnotes.pretraining import rows as module
from hf_nlpnotes.pretraining.rows import (
    NO_WORD,
    cached_rows,
    choose_single,
    row_spans,
    tokenize_lines,
    training_rows,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HAN = [chr(code) for code in range(0x4E00, 0x9FA6)]
FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12 and later


@pytest.fixture(scope="module")
def tokenizer():
    tokens = [*SPECIAL, *HAN, "py", "##thon", "##th", "##on", "20", "##23", "，"]
    return BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}, model_max_length=128)


def distinct_lines(seed=0, sources=3):
    """Lines in which no character stands twice, and for each character its line and place."""
    rng = np.random.default_rng(seed)
    texts, names, where, at = [], [], {}, 0
    while at < 5000:
        size = int(rng.integers(1, 40)) if rng.random() < 0.9 else int(rng.integers(60, 300))
        text = "".join(HAN[at : at + size])
        where.update({character: (len(texts), place) for place, character in enumerate(text)})
        texts.append(text)
        names.append(f"s{len(texts) * sources // 260}")
        at += size
    return Dataset.from_dict({"text": texts, "source": names}), where


def pairs_of(characters):
    """Cut into words of two characters."""
    return [characters[i : i + 2] for i in range(0, len(characters), 2)]


make = partial(training_rows, length=32, segmenter=pairs_of)


def decoded(tokenizer, row):
    return tokenizer.convert_ids_to_tokens(row["input_ids"])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("single_share", [0.0, 0.1, 1.0])
def test_every_token_is_in_one_row(tokenizer, single_share, streaming):
    lines, where = distinct_lines()
    given = lines.to_iterable_dataset() if streaming else lines
    result = list(make(given, tokenizer, single_share=single_share))
    seen, single, left_over = [], 0, 0
    for row in result:
        tokens = decoded(tokenizer, row)
        assert len(tokens) <= 32
        assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
        inside = tokens[1:-1]
        assert inside[0] != "[SEP]" != inside[-1]
        seen += [token for token in inside if token != "[SEP]"]
        places = [where[token] if token != "[SEP]" else None for token in inside]
        for here, there in pairwise(places):
            if here and there:  # neighbours of one line
                assert there == (here[0], here[1] + 1)
        for before, after in zip(places, places[2:], strict=False):
            if before and after and before[0] != after[0]:  # [SEP] stands between two lines
                assert before[1] == len(lines[before[0]]["text"]) - 1
                assert after[1] == 0 < after[0] - before[0]
        assert len({lines[place[0]]["source"] for place in places if place}) == 1
        whole_line = places[0][1] == 0 and "".join(inside) == lines[places[0][0]]["text"]
        single += whole_line
        left_over += len(tokens) < 31 and not whole_line
    assert Counter(seen) == Counter(where.keys())
    assert left_over <= 3  # one a source
    if single_share == 0.1:
        assert single / len(result) == pytest.approx(0.1, abs=0.02)
    if single_share == 1:
        assert {"".join(decoded(tokenizer, row)[1:-1]) for row in result} >= {
            line["text"] for line in lines if len(line["text"]) <= 30
        }


def test_rows_are_shuffled_by_seed(tokenizer):
    lines, where = distinct_lines()
    first = [where[decoded(tokenizer, row)[1]][0] for row in make(lines, tokenizer)]
    middle = np.corrcoef(first, np.arange(len(first)))[0, 1]
    assert abs(middle) < 4 / np.sqrt(len(first))  # four standard deviations of an unrelated order
    assert make(lines, tokenizer)[:] == make(lines, tokenizer)[:]
    other = make(lines, tokenizer, seed=1)[:]
    assert other["input_ids"] != make(lines, tokenizer)[:]["input_ids"]
    assert make(lines, tokenizer)._indices is None  # contiguous on disk


def test_words(tokenizer):
    lines, where = distinct_lines()
    parts = 0
    for row in make(lines, tokenizer):
        tokens = decoded(tokenizer, row)
        for here, there in pairwise(range(1, len(tokens) - 1)):
            if tokens[here] == "[SEP]" or tokens[there] == "[SEP]":
                continue
            same = where[tokens[here]][1] // 2 == where[tokens[there]][1] // 2
            assert (row["word_ids"][here] == row["word_ids"][there]) == same
        special = [token in SPECIAL for token in tokens]
        assert [number == NO_WORD for number in row["word_ids"]] == special
        numbers = [number for number in row["word_ids"] if number != NO_WORD]
        assert sorted(set(numbers)) == list(range(numbers[-1] + 1))
        assert numbers == sorted(numbers)
        parts += where[tokens[1]][1] % 2
    assert parts  # rows that begin inside a word were among them


TEXTS = ["我喜欢python2023，猫", "罕\U0001f600python猫狗", "\u200b", "2023 python"]


@pytest.mark.parametrize("cut", [None, lambda text: [text[:3], text[3:6], text[6:]]])
def test_words_of_pieces(tokenizer, cut):
    lines = Dataset.from_dict({"text": TEXTS, "source": ["s"] * 4})
    expected = {}
    for text in TEXTS:
        encoded = tokenizer(text, return_offsets_mapping=True)
        tokens = encoded.tokens()
        # By hand: a token continues a word as ## piece, or if no word starts at its first character.
        borders = {0, 3, 6} if cut else set(range(len(text)))
        numbers, number = [], -1
        for token, (start, _) in zip(tokens, encoded["offset_mapping"], strict=True):
            number += (start in borders and not token.startswith("##")) or not numbers
            numbers.append(NO_WORD if token in SPECIAL else number)
        kept = sorted({n for n in numbers if n != NO_WORD})
        expected["".join(tokens)] = [NO_WORD if n == NO_WORD else kept.index(n) for n in numbers]
    rows = training_rows(lines, tokenizer, single_share=1.0, segmenter=cut)
    assert len(rows) == 3  # a line without a token has no row
    for row in rows:
        assert row["word_ids"] == expected["".join(decoded(tokenizer, row))]


def test_without_segmenter_words_are_those_of_the_collator(tokenizer):
    lines, _ = distinct_lines(1)
    for row in training_rows(lines, tokenizer, segmenter=None):
        tokens = decoded(tokenizer, row)
        assert row["word_ids"] == words_of_tokens(tokens, [token in SPECIAL for token in tokens])


def test_pinyin_and_dtypes(tiny_chinesebert_folder):
    tokenizer = ChineseBertTokenizer.from_pretrained(tiny_chinesebert_folder)
    texts = ["重庆的银行还好", "我喜欢猫狗", "北京 abc 2023 音乐"]
    rows = training_rows(
        Dataset.from_dict({"text": texts, "source": ["s"] * 3}), tokenizer, single_share=1.0, segmenter=None
    )
    expected = {tuple(tokenizer(text)["input_ids"]): tokenizer(text)["pinyin_ids"] for text in texts}
    assert {tuple(row["input_ids"]): row["pinyin_ids"] for row in rows} == expected
    kinds = {name: getattr(feature, "feature", feature).dtype for name, feature in rows.features.items()}
    assert kinds == {"input_ids": "int32", "word_ids": "int16", "pinyin_ids": "int16", "mask_seed": "int32"}
    batch = DataCollatorForChineseBertMaskedLM(tokenizer)([rows[i] for i in range(3)])
    assert (batch["labels"] != -100).any()


def test_plain_bert_has_no_pinyin(tokenizer):
    lines, _ = distinct_lines()
    assert set(make(lines, tokenizer).column_names) == {"input_ids", "word_ids", "mask_seed"}


def test_mask_seeds_follow_content_and_seed(tokenizer):
    lines, _ = distinct_lines()
    by_row = {tuple(row["input_ids"]): row["mask_seed"] for row in make(lines, tokenizer)}
    assert len(set(by_row.values())) == len(by_row)
    assert min(by_row.values()) >= 0
    again = training_rows(lines, tokenizer, length=32, segmenter=None)  # other words, the same rows
    assert {tuple(row["input_ids"]): row["mask_seed"] for row in again} == by_row
    other = {tuple(row["input_ids"]): row["mask_seed"] for row in make(lines, tokenizer, single_share=0, seed=1)}
    same = {tuple(row["input_ids"]): row["mask_seed"] for row in make(lines, tokenizer, single_share=0, seed=2)}
    assert set(other) == set(same)
    assert all(other[row] != same[row] for row in other)


@FORKS
def test_processes_change_nothing(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 50)
    lines, _ = distinct_lines()
    alone, shared = make(lines, tokenizer, segmenter=None), make(lines, tokenizer, segmenter=None, num_proc=2)
    assert alone[:] == shared[:]


def test_a_stream_goes_on_where_it_was(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 50)
    lines, _ = distinct_lines()
    stream = make(lines.to_iterable_dataset(num_shards=2), tokenizer)
    everything = list(stream)
    iterator = iter(stream)
    for _ in range(60):
        next(iterator)
    state = stream.state_dict()
    again = make(lines.to_iterable_dataset(num_shards=2), tokenizer)
    again.load_state_dict(state)
    assert list(again) == everything[60:]


def test_an_endless_stream_begins_anew_with_other_masks(tokenizer, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 50)
    lines, _ = distinct_lines()
    once = make(lines.to_iterable_dataset(), tokenizer).shuffle(seed=3, buffer_size=20)
    rows = list(once)
    stream = module.endless(once)
    first, second = (list(islice(stream, start, start + len(rows))) for start in (0, len(rows)))
    for again in (first, second):
        assert [row["input_ids"] for row in again] == [row["input_ids"] for row in rows]
        assert [row["word_ids"] for row in again] == [row["word_ids"] for row in rows]
    assert not {row["mask_seed"] for row in first} & {row["mask_seed"] for row in second}
    assert second == list(islice(module.endless(once), len(rows), 2 * len(rows)))


def test_choose_single_by_enumeration():
    rng = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.5, 0.97, 1.0):
        lengths = rng.integers(0, 60, size=200)
        chosen = choose_single(lengths, 30, share, np.random.default_rng(1))
        assert not chosen[(lengths > 30) | (lengths == 0)].any()
        order = np.random.default_rng(1).permutation(np.flatnonzero((lengths > 0) & (lengths <= 30)))
        best = 0
        for k in range(len(order) + 1):
            packed = -(-sum(n + 1 for i, n in enumerate(lengths) if n and i not in set(order[:k])) // 30)
            if k <= share * (k + packed):
                best = k
        assert chosen.sum() == best


def test_row_spans():
    assert row_spans(np.array([0, 0, 1, 0, 0, 1], bool), 3) == [(0, 2), (3, 5)]
    assert row_spans(np.array([0, 0, 0, 1, 0, 0, 1], bool), 3) == [(0, 3), (4, 6)]
    assert row_spans(np.zeros(0, bool), 3) == []


def test_tokenize_lines_in_groups(tokenizer, monkeypatch):
    lines, _ = distinct_lines()
    texts = lines["text"][:]
    at_once = tokenize_lines(texts, tokenizer, pairs_of)
    monkeypatch.setattr(module, "_AT_ONCE", 100)
    grouped = tokenize_lines(texts, tokenizer, pairs_of)
    for name in ("input_ids", "starts", "ends"):
        assert np.array_equal(getattr(at_once, name), getattr(grouped, name))
    assert len(tokenize_lines([], tokenizer).input_ids) == 0


def test_jieba(tokenizer):
    jieba = pytest.importorskip("jieba")
    text = "我喜欢北京天安门和自然语言处理"
    (row,) = training_rows(Dataset.from_dict({"text": [text], "source": ["s"]}), tokenizer)
    expected = [number for number, word in enumerate(jieba.cut(text)) for _ in word]
    assert row["word_ids"] == [NO_WORD, *expected, NO_WORD]


def test_errors(tokenizer, monkeypatch):
    lines, _ = distinct_lines()
    for options, message in (
        ({"length": 2}, "length=2"),
        ({"length": 129}, "model_max_length=128"),
        ({"single_share": 1.5}, "single_share=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"segmenter": "pkuseg"}, "segmenter='pkuseg'"),
        ({"segmenter": lambda text: [text[1:]]}, "the segmenter's words cover"),
    ):
        with pytest.raises(ValueError, match=message):
            training_rows(lines, tokenizer, **{"segmenter": None, **options})
    with pytest.raises(ValueError, match="no lines"):
        training_rows(lines.select([]), tokenizer, segmenter=None)
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(ImportError, match=r"hf-nlpnotes\[pretrain\]"):
        training_rows(lines, tokenizer)


# --------------------------------------------------------------------------------------------------------------- cache


def small():
    return Dataset.from_dict({"input_ids": [[2, 5, 3]], "mask_seed": [1]})


def test_cache_builds_once(tmp_path):
    calls = []

    def build():
        calls.append(1)
        return small()

    for _ in range(2):
        assert cached_rows(tmp_path / "new", {"seed": 1}, build)[:] == small()[:]
    assert len(calls) == 1
    cached_rows(tmp_path / "new", {"seed": 2}, build)
    assert len(calls) == 2
    assert len(list((tmp_path / "new").glob("rows-*"))) == 2
    assert not list((tmp_path / "new").glob("*.tmp"))


def test_key_covers_contents(tmp_path, tokenizer, tiny_chinesebert_folder):
    def place(**parts):
        before = set(tmp_path.glob("rows-*"))
        cached_rows(tmp_path, parts, small)
        return len(set(tmp_path.glob("rows-*")) - before) == 1  # whether it was built

    file = tmp_path / "a.txt"
    file.write_text("一", encoding="utf-8")
    stat = file.stat()
    assert place(file=file)
    assert not place(file=file)
    file.write_text("二", encoding="utf-8")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the same size and time, another text
    assert place(file=file)
    lines, _ = distinct_lines()
    assert place(lines=lines)
    assert place(lines=lines.select(range(3)))
    assert place(tokenizer=tokenizer)
    tokenizer(["一"], truncation=True, max_length=3, padding="max_length")  # leaves its mark on the backend
    assert not place(tokenizer=tokenizer)
    chinesebert = ChineseBertTokenizer.from_pretrained(tiny_chinesebert_folder)
    assert place(tokenizer=chinesebert)
    chinesebert.add_phrases({"重庆": ["zhong4", "qing4"]})
    assert place(tokenizer=chinesebert)
    assert place(options=[1, {"a": None}])
    assert not place(options=(1, {"a": None}))
    with pytest.raises(TypeError, match="a key cannot hold function"):
        place(cut=pairs_of)


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    def build():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        cached_rows(tmp_path, {"a": 1}, build)
    monkeypatch.setattr(Dataset, "save_to_disk", lambda _, folder: (Path(folder).mkdir(), build()))
    with pytest.raises(OSError, match="No space left"):
        cached_rows(tmp_path, {"a": 1}, small)
    monkeypatch.undo()
    monkeypatch.setattr(module.os, "replace", lambda _, __: build())
    with pytest.raises(OSError, match="No space left"):
        cached_rows(tmp_path, {"a": 1}, small)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    monkeypatch.undo()
    assert len(cached_rows(tmp_path, {"a": 1}, small)) == 1


def _die(folder):
    original = Dataset.save_to_disk

    def save(self, path):
        original(self, path)
        os.kill(os.getpid(), signal.SIGKILL)

    Dataset.save_to_disk = save
    cached_rows(folder, {"a": 1}, small)


@FORKS
def test_a_killed_process_leaves_nothing_that_is_taken_for_whole(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob("rows-*"))
    assert cached_rows(tmp_path, {"a": 1}, small)[:] == small()[:]
    assert not list(tmp_path.glob("*.tmp"))
