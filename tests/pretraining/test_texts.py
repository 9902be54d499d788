"""Reading text: every kind of source gives the lines that reading it by hand gives, and errors say what to do."""

import logging
import re

import datasets
import numpy as np
import pytest
from datasets import Dataset, DatasetDict, IterableDataset

from hf_nlpnotes.pretraining import texts
from hf_nlpnotes.pretraining.packing import is_held_out, thin_out
from hf_nlpnotes.pretraining.texts import (
    check_encoding,
    han_share,
    keep_lines,
    read_texts,
    source_codes,
    split_held_out,
    split_line,
    thin,
)

CHINESE = "我喜欢猫。\n\n  北京是中国的首都 \n天气真好\n"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "b.txt").write_text("乙一\n乙二\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text(CHINESE, encoding="utf-8")
    (tmp_path / "deep" / "er" / "c.txt").write_text("丙\r\n丙二", encoding="utf-8")
    (tmp_path / "readme.md").write_text("not text of ours", encoding="utf-8")
    return tmp_path


def pairs(lines):
    return [(row["source"], row["text"]) for row in lines]


A = [("a", "我喜欢猫。"), ("a", "北京是中国的首都"), ("a", "天气真好")]
B = [("b", "乙一"), ("b", "乙二")]
C = [("c", "丙"), ("c", "丙二")]


@pytest.mark.parametrize("streaming", [False, True])
def test_files_folders_globs(folder, streaming, monkeypatch):
    def read(*sources):
        return pairs(read_texts(sources, streaming=streaming))

    assert read(folder / "a.txt") == A
    assert read(str(folder)) == A + B + C
    assert read(folder / "?.txt") == A + B
    assert read(folder / "**" / "*.txt") == A + B + C
    # In the order in which they are named; a file that several sources name is read once.
    assert read(folder / "b.txt", folder, folder / "a.txt") == B + A + C
    monkeypatch.chdir(folder)
    assert read("deep/er") == C
    assert pairs(read_texts("a.txt", streaming=streaming)) == A


def test_names_that_look_like_patterns(tmp_path):
    (tmp_path / "a[1].txt").write_text("一", encoding="utf-8")
    (tmp_path / "a1.txt").write_text("二", encoding="utf-8")
    assert pairs(read_texts(tmp_path / "a[1].txt")) == [("a[1]", "一")]


def test_a_changed_file_is_read_again(folder):
    assert pairs(read_texts(folder / "b.txt")) == B
    (folder / "b.txt").write_text("新的", encoding="utf-8")
    assert pairs(read_texts(folder / "b.txt")) == [("b", "新的")]


@pytest.mark.parametrize("streaming", [False, True])
def test_saved_data_sets(tmp_path, streaming):
    data = Dataset.from_dict({"content": [" 甲 ", None, "", "乙\n丙"], "label": [1, 2, 3, 4]})
    data.save_to_disk(tmp_path / "one")
    DatasetDict({"dev": data}).save_to_disk(tmp_path / "many")
    expected = ["甲", "乙", "丙"]
    one = read_texts([tmp_path / "one"], text_column="content", streaming=streaming)
    many = read_texts([tmp_path / "many"], text_column="content", split="dev", streaming=streaming)
    assert pairs(one) == [("one", line) for line in expected]
    assert pairs(many) == [("many", line) for line in expected]
    with pytest.raises(ValueError, match="no split 'train'; there are dev"):
        read_texts(tmp_path / "many", streaming=streaming)
    with pytest.raises(ValueError, match="no column 'text'; there are content, label"):
        read_texts(tmp_path / "one", streaming=streaming)


def test_hub_names(folder, monkeypatch):
    asked = []

    def load(*arguments, **options):
        asked.append((arguments, options))
        if arguments[0] == "text":
            return datasets.load_dataset(*arguments, **options)
        rows = Dataset.from_dict({"text": ["甲"]})
        return rows.to_iterable_dataset() if options["streaming"] else rows

    monkeypatch.setattr(texts, "load_dataset", load)
    lines = read_texts([folder / "b.txt", "owner/name:zh", "owner/other"], split="test")
    assert pairs(lines) == [*B, ("owner/name:zh", "甲"), ("owner/other", "甲")]
    assert asked[:2] == [
        (("owner/name", "zh"), {"split": "test", "streaming": False}),
        (("owner/other", None), {"split": "test", "streaming": False}),
    ]
    lines = read_texts(["owner/name", folder / "b.txt"], streaming=True)
    assert isinstance(lines, IterableDataset)
    assert pairs(lines) == [("owner/name", "甲"), *B]


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.txt: nothing found; looked for a file, a folder"):
        read_texts(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match=r"\*\.txt: nothing found"):
        read_texts(tmp_path / "*.txt")
    with pytest.raises(ValueError, match=r"hold no \*\.txt"):
        read_texts(tmp_path)
    with pytest.raises(ValueError, match="then for a data set on the hub"):
        read_texts("nobody/nothing-of-this-name")
    with pytest.raises(ValueError, match="no sources"):
        read_texts([])
    with pytest.raises(ValueError, match="longest=0"):
        read_texts(tmp_path, longest=0)


@pytest.mark.parametrize("streaming", [False, True])
def test_empty_files(folder, streaming, caplog):
    for name in ("d", "e"):
        (folder / f"{name}.txt").write_text("\n \n\n" if name == "d" else "", encoding="utf-8")
    with caplog.at_level(logging.WARNING, logger="hf_nlpnotes.pretraining.texts"):
        assert pairs(read_texts(folder, streaming=streaming)) == A + B + C
    assert [record.args[0].name for record in caplog.records] == ["d.txt", "e.txt"]
    with pytest.raises(ValueError, match="nothing but blanks"):
        read_texts([folder / "d.txt", folder / "e.txt"], streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "gb18030"])
def test_encodings(folder, encoding, streaming):
    (folder / "a.txt").write_bytes(CHINESE.encode(encoding))
    if encoding == "gb18030":
        (folder / "b.txt").unlink()
        (folder / "deep" / "er" / "c.txt").unlink()
        assert pairs(read_texts(folder, encoding="gb18030", streaming=streaming)) == A
    else:  # marked: understood beside files without a mark, in order
        (folder / "0.txt").write_text("零", encoding="utf-8")
        assert pairs(read_texts(folder, streaming=streaming)) == [("0", "零"), *A, *B, *C]


def test_utf_16_without_a_mark_is_named(folder):
    (folder / "b.txt").write_text("中文" * 10, encoding="utf-8")
    with pytest.raises(ValueError, match=r"b\.txt is not in utf-16: (?i:(utf-16 )?stream does not start with BOM)"):
        check_encoding(folder / "b.txt", "utf-16")


@pytest.mark.parametrize("streaming", [False, True])
def test_another_encoding_is_named(folder, streaming):
    content = ("好" * 700_000).encode() + "中文".encode("gb18030")  # the wrong byte stands in the third MiB
    place = 700_000 * 3 if not streaming else 3
    (folder / "b.txt").write_bytes(content if not streaming else "好".encode() + "中文".encode("gb18030"))
    message = rf"b\.txt is not in utf-8: .* at byte {place}.*encoding=\"gb18030\".*iconv"
    with pytest.raises(ValueError, match=message):
        read_texts(folder, streaming=streaming)
    with pytest.raises(ValueError, match="not known to Python"):
        read_texts(folder, encoding="utf-88")


def test_check_encoding_finds_the_byte(tmp_path):
    file = tmp_path / "x.txt"
    for before in ("好" * 349_525, "好" * 349_526, "a" * (1 << 20)):  # characters that end at and across a block's end
        file.write_bytes(before.encode() + b"\xff")
        with pytest.raises(ValueError, match=f"at byte {len(before.encode())}"):
            check_encoding(file, "utf-8")
        check_encoding(file, "utf-8", limit=1)
    file.write_bytes("好好".encode()[:-1])
    with pytest.raises(ValueError, match="ends within a character, at byte 3"):
        check_encoding(file, "utf-8")


def test_split_line_loses_nothing():
    rng = np.random.default_rng(0)
    for longest in (1, 7, 50):
        for _ in range(50):
            line = "".join(rng.choice(list("我们好。！”，a "), size=int(rng.integers(0, 300))))
            pieces = split_line(line, longest)
            assert "".join(pieces) == line
            assert all(len(piece) <= longest for piece in pieces)
    assert split_line("一二。三四！”五六七八，九十", 6) == ["一二。三四！", "”五六七八，", "九十"]
    assert split_line("一二。三四！”五六七八", 8) == ["一二。三四！”", "五六七八"]
    assert split_line("一二三四五六七", 3) == ["一二三", "四五六", "七"]


def test_long_lines(tmp_path):
    line = "这是一句话。" * 50_000 + "没有句号的话" * 5000
    (tmp_path / "one.txt").write_text(line, encoding="utf-8")
    for streaming in (False, True):
        read = [row["text"] for row in read_texts(tmp_path, streaming=streaming)]
        assert "".join(read) == line
        assert max(map(len, read)) == 2000
        assert read[0] == "这是一句话。" * 333
    assert [row["text"] for row in read_texts(tmp_path, longest=None)] == [line]


def test_han_share():
    assert han_share(["我喜欢ab c", "猫"]) == 4 / 7
    assert han_share([]) == 0
    lines = Dataset.from_dict({"text": ["中"] * 900 + ["x"] * 100, "source": ["s"] * 1000})
    assert han_share(lines, sample=100) == pytest.approx(0.9, abs=0.02)
    assert han_share(lines.to_iterable_dataset(), sample=100) == 1


@pytest.fixture
def many():
    rows = [(f"第{i}行", "ab"[i % 3 == 0]) for i in range(3000)]
    return Dataset.from_dict({"text": [text for text, _ in rows], "source": [source for _, source in rows]})


@pytest.mark.parametrize("streaming", [False, True])
def test_held_out_lines(many, streaming):
    lines = many.to_iterable_dataset() if streaming else many
    train, held_out = split_held_out(lines, 5, of=lambda source: source == "a")
    assert pairs(train) == [pair for pair in pairs(many) if not is_held_out(pair[1], 5)]
    assert pairs(held_out) == [pair for pair in pairs(many) if is_held_out(pair[1], 5) and pair[0] == "a"]
    everything = split_held_out(lines, 5)
    assert sorted(pairs(everything[0]) + pairs(everything[1])) == sorted(pairs(many))
    with pytest.raises(ValueError, match="percent=101"):
        split_held_out(lines, 101)


def test_thin_is_thin_out_of_each_source(many):
    kept = pairs(thin(many, {"a": 0.3, "b": 1.0}, seed=4))
    of = {source: [text for own, text in pairs(many) if own == source] for source in "ab"}
    assert [text for source, text in kept if source == "a"] == thin_out(of["a"], 0.3, seed=4)
    assert [text for source, text in kept if source == "b"] == of["b"]
    assert 0 < len(kept) < 3000
    assert len(thin(many, {"a": 0.0})) == len(of["b"])
    with pytest.raises(ValueError, match="no lines of c: the sources are a, b"):
        thin(many, {"c": 0.5})
    with pytest.raises(ValueError, match="share 2 of a"):
        thin(many, {"a": 2})


def test_thin_of_a_stream(many):
    lines = many.to_iterable_dataset()
    kept = pairs(thin(lines, {"a": 0.3}))
    blocks = [pairs(many)[start : start + 100] for start in range(0, 3000, 100)]
    whole = 0
    for block in blocks:
        own = [pair for pair in block if pair[0] == "a"]
        assert set(own) <= set(kept) or not set(own) & set(kept)
        whole += own[0] in kept
    assert 0 < whole < 25
    assert [pair for pair in kept if pair[0] == "b"] == [pair for pair in pairs(many) if pair[0] == "b"]
    assert pairs(thin(lines, {"a": 0.3})) == kept != pairs(thin(lines, {"a": 0.3}, seed=1))


def test_keep_lines_and_source_codes(many):
    keep = np.arange(3000) % 7 == 2
    assert pairs(keep_lines(many, keep)) == [pair for pair, kept in zip(pairs(many), keep, strict=True) if kept]
    codes, names = source_codes(many)
    assert [names[code] for code in codes] == many["source"][:]
    assert source_codes(many.select([])) == (pytest.approx([]), [])


def test_the_message_tells_apart_files_and_hub():
    assert re.fullmatch(texts._HUB_NAME, "owner/name:zh.config")
    assert not re.fullmatch(texts._HUB_NAME, "a/b/c")
