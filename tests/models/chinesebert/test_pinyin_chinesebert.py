"""The table of readings and the reader, against pypinyin itself."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pypinyin
import pytest
from pypinyin.constants import PHRASES_DICT, PINYIN_DICT, RE_HANS

from hf_nlpnotes.models.chinesebert import pinyin_reader_chinesebert as reader_module
from hf_nlpnotes.models.chinesebert.pinyin_chinesebert import (
    LETTERS,
    PinyinTable,
    default_readings,
    to_tone3,
    to_tone_mark,
)
from hf_nlpnotes.models.chinesebert.pinyin_reader_chinesebert import PinyinReader, to_codes

LOADED_PHRASES = """
import itertools
from hf_nlpnotes.models.chinesebert import tokenization_chinesebert
assert not [name for name in sys.modules if name.startswith("pypinyin")]

import pypinyin
from hf_nlpnotes.models.chinesebert.pinyin_chinesebert import PinyinTable, to_tone_mark
from hf_nlpnotes.models.chinesebert.pinyin_reader_chinesebert import PinyinReader
from test_pinyin_chinesebert import fuzzed_texts, read_with_pypinyin

table = PinyinTable.default()
phrases = {"银行": "yin2 xing2", "行走江": ["hang2", "zou3", "jiang1"], "重": "chong2", "我的天哪": "wǒ dì tiān nǎ"}
reader = PinyinReader(table, phrases)
pieces = ["银行", "行走江", "重", "我的天哪", "我的天", "行走", "湖", "，"]
texts = ["".join(parts) for parts in itertools.product(pieces, repeat=3)] + fuzzed_texts(300, seed=5)
read = [reader.read_text(text) for text in texts]
large = reader.read(texts).tolist()
marked = {p: [[to_tone_mark(table.spell(r))] for r in readings] for p, readings in reader.phrases.items()}
pypinyin.load_phrases_dict(marked)
for text, rows in zip(texts, read):
    assert rows == read_with_pypinyin(text, table), text
assert large == [row for rows in read for row in rows]
"""

FUZZED = int(os.environ.get("HF_NLPNOTES_FUZZ", "3000"))


@pytest.fixture(scope="module")
def table() -> PinyinTable:
    return PinyinTable.default()


@pytest.fixture(scope="module")
def reader(table: PinyinTable) -> PinyinReader:
    return PinyinReader(table)


def read_with_pypinyin(text: str, table: PinyinTable) -> list[int]:
    """What the official code looks up for each character of a text."""
    readings = pypinyin.pinyin(
        text, style=pypinyin.Style.TONE3, heteronym=True, errors=lambda run: [["not chinese"] for _ in run]
    )
    assert len(readings) == len(text)
    return [table.index(candidates[0]) for candidates in readings]


def fuzzed_texts(number: int, seed: int) -> list[str]:
    """Strings of phrases, their beginnings and ends, rare characters, and what may stand between runs of them."""
    choose = random.Random(seed)
    phrases = list(PHRASES_DICT)
    readable = [chr(code) for code in PINYIN_DICT]
    han = [chr(code) for code in range(0x3000, 0x32400) if RE_HANS.match(chr(code))]
    others = [
        "，",
        "。",
        " ",
        "a",
        "Z",
        "\n",
        "1",
        "〇",
        "\ue820",
        "\U00020000",
        "é",
        "😀",
        "\U0002b820",
        "カ",
        "\u0301",
    ]

    def piece() -> str:
        phrase = choose.choice(phrases)
        return choose.choice(
            [
                phrase,
                phrase,
                phrase[: choose.randint(1, len(phrase))],
                phrase[choose.randrange(len(phrase)) :],
                phrase[:2] * choose.randint(1, 4),
                choose.choice(readable),
                choose.choice(han),
                choose.choice(others),
            ]
        )

    return ["".join(piece() for _ in range(choose.randint(1, 9))) for _ in range(number)]


class TestTable:
    def test_row_zero_is_no_pinyin_and_rows_are_distinct(self, table: PinyinTable) -> None:
        assert table.rows.shape == (len(table), 8)
        assert table.rows.dtype == np.uint8
        assert not table.rows[0].any()
        assert len(np.unique(table.rows, axis=0)) == len(table)

    def test_covers_every_reading_of_the_installed_pypinyin(self, table: PinyinTable) -> None:
        marked = {reading for readings in PINYIN_DICT.values() for reading in readings.split(",")}
        marked |= {reading for phrase in PHRASES_DICT.values() for readings in phrase for reading in readings}
        for reading in sorted({to_tone3(reading) for reading in marked}):
            expected = reading + "5" if not reading[-1].isdigit() and table.index(reading + "5") else reading
            if set(reading) <= set(LETTERS):
                assert "".join(LETTERS[i] for i in table.rows[table.index(reading)] if i) == expected
            else:
                assert table.index(reading) == 0

    def test_fifty_six_syllables_have_a_written_neutral_tone(self, table: PinyinTable) -> None:
        written = [
            reading for reading in table.readings if not reading[-1].isdigit() and table.spell(reading)[-1] == "5"
        ]
        assert len(written) == 56
        assert {"de", "le", "men", "zi"} <= set(written)
        assert table.spell("bai") == "bai"

    def test_unknown_readings_have_no_pinyin(self, table: PinyinTable) -> None:
        assert [table.index(reading) for reading in ("", "ê2", "xyz9", "not chinese")] == [0, 0, 0, 0]

    def test_rows_are_read_only(self, table: PinyinTable) -> None:
        with pytest.raises(ValueError, match="read-only"):
            table.rows[1, 0] = 3

    def test_survives_json_pickle_and_deepcopy(self, table: PinyinTable, tmp_path) -> None:
        table.to_json_file(tmp_path / "pinyin.json")
        assert [path.name for path in tmp_path.iterdir()] == ["pinyin.json"]
        for other in (
            PinyinTable.from_json_file(tmp_path / "pinyin.json"),
            pickle.loads(pickle.dumps(table)),
            copy.deepcopy(table),
        ):
            assert other == table
            assert hash(other) == hash(table)
            np.testing.assert_array_equal(other.rows, table.rows)

    @pytest.mark.parametrize(
        ("rows", "respelled", "message"),
        [
            ([], {}, "Row 0"),
            (["a1"], {}, "Row 0"),
            (["", "a1", "a1"], {}, "distinct"),
            (["", "zhuangng4"], {}, "at most 8"),
            (["", "ü4"], {}, "letters of"),
            (["", "a1"], {"de": "de5"}, "no row"),
        ],
    )
    def test_refuses_bad_rows(self, rows, respelled, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            PinyinTable(rows, respelled)


class TestOfficialFiles:
    @pytest.fixture
    def folder(self, tmp_path, table: PinyinTable):
        """A folder in the released layout, with as much of the table as half its readings."""
        (tmp_path / "config").mkdir()
        char2idx = {letter: number for number, letter in enumerate(LETTERS)}
        self.write(tmp_path, "pinyin_map.json", {"idx2char": list(LETTERS), "char2idx": char2idx})
        listed = [reading for reading in table.readings if len(reading) % 2 or not reading[-1].isdigit()]
        self.write(tmp_path, "pinyin2tensor.json", {r: table.rows[table.index(r)].tolist() for r in listed})
        return tmp_path

    @staticmethod
    def write(folder, name: str, data: object) -> None:
        (folder / "config" / name).write_text(json.dumps(data), encoding="utf-8")

    def test_gives_the_default_table_where_that_is_the_same(self, folder, table: PinyinTable) -> None:
        assert PinyinTable.from_official(folder) == table

    def test_gives_its_own_where_a_row_differs(self, folder, table: PinyinTable) -> None:
        tensors = json.loads((folder / "config" / "pinyin2tensor.json").read_text(encoding="utf-8"))
        tensors["bai"] = [7, 6, 14, 5, 0, 0, 0, 0]
        self.write(folder, "pinyin2tensor.json", tensors)
        own = PinyinTable.from_official(folder)
        assert own != table
        assert own.rows[own.index("bai")].tolist() == tensors["bai"]
        for reading in set(table.readings) - {"bai"}:
            assert own.rows[own.index(reading)].tolist() == table.rows[table.index(reading)].tolist()
        assert PinyinTable.from_dict(json.loads(json.dumps(own.to_dict()))) == own

    @pytest.mark.parametrize("name", ["pinyin_map.json", "pinyin2tensor.json"])
    @pytest.mark.parametrize("content", [None, '{"a": [', "version https://git-lfs.github.com/spec/v1", "[]"])
    def test_names_the_file_that_is_absent_or_broken(self, folder, name: str, content: str | None) -> None:
        path = folder / "config" / name
        if content is None:
            path.unlink()
        else:
            path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=name):
            PinyinTable.from_official(folder)

    @pytest.mark.parametrize("ids", [[1, 2, 3], [0] * 7 + [32], "zhong1", [1.5] * 8])
    def test_refuses_rows_that_are_not_eight_letters(self, folder, ids) -> None:
        self.write(folder, "pinyin2tensor.json", {"zhong1": ids})
        with pytest.raises(ValueError, match="zhong1"):
            PinyinTable.from_official(folder)


class TestReader:
    def test_kinds_are_pypinyins(self) -> None:
        kinds = reader_module.kinds_of(np.arange(0x110000))
        for code in range(0x110000):
            assert bool(kinds[code] & reader_module.READABLE) == bool(RE_HANS.match(chr(code))), hex(code)

    def test_reads_fuzzed_strings_as_pypinyin(self, reader: PinyinReader, table: PinyinTable) -> None:
        texts = fuzzed_texts(FUZZED, seed=20260)
        one_by_one = [reader.read_text(text) for text in texts]
        for text, rows in zip(texts, one_by_one, strict=True):
            assert rows == read_with_pypinyin(text, table), text
        assert reader.read(texts).tolist() == [row for rows in one_by_one for row in rows]

    @pytest.mark.parametrize("text", ["", "\n", "银行", "行走", "一不做", "一不做，二不休", "重庆的重要", "〇"])
    @pytest.mark.parametrize("times", [1, 400])
    def test_small_and_large_ways_agree(self, reader: PinyinReader, table: PinyinTable, text: str, times: int) -> None:
        text *= times
        expected = read_with_pypinyin(text, table)
        assert reader.read_text(text) == expected
        codes = to_codes([text, text])
        assert reader.read_codes(codes).tolist() == [*expected, 0, *expected, 0]

    def test_texts_do_not_see_each_other(self, reader: PinyinReader) -> None:
        texts = ["银", "行"] * 400
        assert reader.read(texts).tolist() == [*reader.read_text("银"), *reader.read_text("行")] * 400

    def test_lone_surrogates_are_no_characters(self, reader: PinyinReader) -> None:
        assert reader.read(["\ud800我" * 300]).tolist() == [0, reader.table.index("wo3")] * 300


class TestPhrases:
    def test_read_as_pypinyin_reads_them_when_loaded(self) -> None:
        """In a process of its own, since pypinyin's dictionaries are global; which also shows that nothing is read
        from them when the tokenizer is imported.
        """
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n{LOADED_PHRASES}"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)

    @pytest.mark.parametrize(
        ("phrases", "message"),
        [
            ({"重庆": ["chong2"]}, "2 characters but 1 readings"),
            ({"重庆": ["chong2", "qing9"]}, "'qing9'"),
            ({"重庆": "chong2 xyz1"}, "'xyz1'"),
            ({"": []}, "Chinese characters"),
            ({"卡拉OK": ["ka3", "la1", "o1", "ke1"]}, "Chinese characters"),
        ],
    )
    def test_refuses(self, table: PinyinTable, phrases, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            PinyinReader(table, phrases)

    def test_refuses_other_kinds(self, table: PinyinTable) -> None:
        with pytest.raises(TypeError, match="string"):
            PinyinReader(table, {"重庆": [1, 2]})  # type: ignore[list-item]

    def test_accepts_marks_digits_and_both_spellings_of_v(self, table: PinyinTable) -> None:
        phrases = {"绿": ["lǜ"], "女": ["nü3"], "吕": ["lv3"], "的": ["de5"], "了": ["le"]}
        assert PinyinReader(table, phrases).phrases == {
            "绿": ["lv4"],
            "女": ["nv3"],
            "吕": ["lv3"],
            "的": ["de5"],
            "了": ["le"],
        }

    def test_reader_is_a_value(self, table: PinyinTable) -> None:
        one, other = (PinyinReader(table, {"重庆": ["chong2", "qing4"], "银": ["yin2"]}) for _ in range(2))
        assert one == other == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)
        assert hash(one) == hash(other)
        assert one != PinyinReader(table)
        before = pickle.dumps(one)
        one.read(["重庆银行" * 100])
        assert pickle.dumps(one) == before


class TestDefaultReadings:
    def test_are_pypinyins_first_of_each_character(self, table: PinyinTable) -> None:
        tokens = ["[PAD]", "我", "的", "##行", "行", "〇", "一个", "a", "", "##", "，", "\u2028", "㐁"]
        expected = [
            read_with_pypinyin(token.removeprefix("##"), table)[0] if len(token.removeprefix("##")) == 1 else 0
            for token in tokens
        ]
        assert default_readings(tokens, table).tolist() == expected
        assert all(expected[i] for i in (1, 2, 3, 4, 5))


class TestToneMarks:
    def test_are_what_pypinyin_turns_into_digits(self, table: PinyinTable) -> None:
        marked = {reading for readings in PINYIN_DICT.values() for reading in readings.split(",")}
        for reading in sorted(marked):
            if (row := table.index(to_tone3(reading))) and not reading.startswith(("m", "n", "h")):
                assert to_tone_mark(table.spelling(row)) == unicodedata.normalize("NFC", reading)

    @pytest.mark.parametrize(
        ("spelling", "marked"),
        [
            ("zhong1", "zhōng"),
            ("lv4", "lǜ"),
            ("lve4", "lüè"),
            ("gui4", "guì"),
            ("liu2", "liú"),
            ("ou3", "ǒu"),
            ("xue2", "xué"),
            ("de5", "de"),
            ("bai", "bai"),
            ("", ""),
        ],
    )
    def test_examples(self, spelling: str, marked: str) -> None:
        assert to_tone_mark(spelling) == marked
