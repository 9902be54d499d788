"""The tokenizer in every call form, against stock BertTokenizer and pypinyin."""

from __future__ import annotations

import copy
import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pypinyin
import pytest
import torch
from datasets import Dataset
from datasets.fingerprint import Hasher
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    pipeline,
)

from hf_nlpnotes.models.chinesebert import ChineseBertTokenizer, PinyinTable
from hf_nlpnotes.models.chinesebert.pinyin_reader_chinesebert import PinyinReader

TEXTS = [
    "我在银行排队，他行走在大街上。",
    "重庆的重要性！",
    "我喜欢猫",
    "国足今晚出战abc123对阵〇",
    "",
    "他[MASK]说：还有10本unknownword书，\U00020000㐁😀。",
    "長城 Ｏｐｅｎ é 猫\u0301狗",
    "一不做",
]
LARGE = TEXTS * 10  # enough characters that the batch is read as arrays


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder: Path) -> ChineseBertTokenizer:
    return ChineseBertTokenizer.from_pretrained(tiny_chinesebert_folder)


@pytest.fixture(scope="module")
def stock(tokenizer: ChineseBertTokenizer) -> BertTokenizer:
    return BertTokenizer(vocab=dict(tokenizer.get_vocab()))


def read(text: str) -> dict[int, str]:
    """pypinyin's reading at each place of a text, as the official code asks for it."""
    readings = pypinyin.pinyin(
        text, style=pypinyin.Style.TONE3, heteronym=True, errors=lambda run: [["none"] for _ in run]
    )
    return {place: candidates[0] for place, candidates in enumerate(readings)}


def expected_pinyin(encoding: Any, texts: tuple[Any, ...]) -> list[int]:
    """The rule by offset, written out: one character of the text, whatever the token."""
    table = PinyinTable.default()
    readings = [read(text if isinstance(text, str) else "".join(text)) for text in texts]
    rows = []
    for token in range(len(encoding.ids)):
        start, end = encoding.offsets[token]
        sequence = encoding.token_to_sequence(token)
        if sequence is None or end - start != 1:
            rows.append(0)
            continue
        if not isinstance(texts[sequence], str):
            start += len("".join(texts[sequence][: encoding.word_ids[token]]))
        rows.append(table.index(readings[sequence][start]))
    return rows


def check(tokenizer: ChineseBertTokenizer, stock: BertTokenizer, text: Any, pair: Any = None, **options: Any) -> None:
    """Everything but the pinyin as stock BertTokenizer has it, and the pinyin by the rule."""
    output, reference = tokenizer(text, pair, **options), stock(text, pair, **options)
    assert set(output) == {*reference, "pinyin_ids"}
    for key, values in reference.items():
        assert to_list(output[key]) == to_list(values)
        assert type(output[key]) is type(values)
    split = options.get("is_split_into_words", False)
    batched = isinstance(text, list) and (not split or isinstance(text[0], list))
    texts, pairs = (text, pair) if batched else ([text], None if pair is None else [pair])
    rows = list(zip(texts, pairs, strict=True)) if pairs is not None else [(entry,) for entry in texts]
    samples = reference.get("overflow_to_sample_mapping", range(len(rows)))
    expected = [expected_pinyin(e, rows[int(s)]) for e, s in zip(reference.encodings, samples, strict=True)]
    if not (batched or "return_tensors" in options or options.get("return_overflowing_tokens")):
        (expected,) = expected
    assert to_list(output["pinyin_ids"]) == expected
    assert type(output["pinyin_ids"]) is type(output["input_ids"])


def to_list(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else values


class TestCallForms:
    @pytest.mark.parametrize("text", [*TEXTS, "银行重庆" * 200], ids=lambda text: text[:6])
    def test_single(self, tokenizer, stock, text: str) -> None:
        check(tokenizer, stock, text)
        check(tokenizer, stock, text, return_offsets_mapping=True, return_special_tokens_mask=True, return_length=True)

    @pytest.mark.parametrize("texts", [TEXTS, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"add_special_tokens": False},
            {"return_token_type_ids": False, "return_attention_mask": False},
            {"return_offsets_mapping": True},
            {"padding": True},
            {"padding": True, "padding_side": "left"},
            {"padding": "max_length", "max_length": 40},
            {"padding": True, "pad_to_multiple_of": 16},
            {"padding": True, "return_tensors": "pt"},
            {"padding": True, "return_tensors": "np", "padding_side": "left"},
            {"truncation": True, "max_length": 7},
            {"truncation": True, "max_length": 7, "padding": "max_length", "return_tensors": "pt"},
            {"truncation": True, "max_length": 7, "stride": 2, "return_overflowing_tokens": True},
            {
                "truncation": True,
                "max_length": 7,
                "stride": 2,
                "return_overflowing_tokens": True,
                "padding": True,
                "return_tensors": "pt",
            },
        ],
        ids=lambda options: " ".join(f"{key}={value}" for key, value in options.items()) or "plain",
    )
    def test_batch(self, tokenizer, stock, texts, options) -> None:
        check(tokenizer, stock, texts, **options)

    @pytest.mark.parametrize("times", [1, 10])
    @pytest.mark.parametrize("strategy", [False, "longest_first", "only_first", "only_second"])
    @pytest.mark.parametrize("overflowing", [False, True])
    def test_pairs(self, tokenizer, stock, times: int, strategy, overflowing: bool) -> None:
        first = ["银行排队银行", "我的重庆人", "行走在银行"] * times
        second = ["银行，重庆！abc", "行行行行行", "10本书〇"] * times
        options: dict[str, Any] = {"truncation": strategy, "max_length": 14}
        if overflowing:
            options.update(stride=1, return_overflowing_tokens=True)
        check(tokenizer, stock, first, second, **options)
        check(tokenizer, stock, first[0], second[0], **options)

    def test_an_empty_text_without_special_tokens(self, tokenizer) -> None:
        assert tokenizer("", add_special_tokens=False)["pinyin_ids"] == []
        assert tokenizer([""], add_special_tokens=False)["pinyin_ids"] == [[]]

    def test_truncation_side_left(self, tokenizer, stock) -> None:
        tokenizer, stock = copy.deepcopy(tokenizer), copy.deepcopy(stock)
        tokenizer.truncation_side = stock.truncation_side = "left"
        check(tokenizer, stock, LARGE, truncation=True, max_length=6)

    def test_tuples_are_pairs(self, tokenizer) -> None:
        pairs = [("银行", "行走"), ("重庆", "重要")]
        as_tuples, as_arguments = tokenizer(pairs), tokenizer(*map(list, zip(*pairs, strict=True)))
        assert dict(as_tuples) == dict(as_arguments)

    @pytest.mark.parametrize("times", [1, 40])
    def test_words_are_read_as_if_written_together(self, tokenizer, stock, times: int) -> None:
        words = [["我", "在", "银", "行", "abc", "排队"], ["重", "庆市", "", "的"], list("一不做二不休")] * times
        check(tokenizer, stock, words, is_split_into_words=True)
        check(tokenizer, stock, words[0], is_split_into_words=True)
        check(tokenizer, stock, words, [["行", "走"]] * len(words), is_split_into_words=True)
        check(tokenizer, stock, words, is_split_into_words=True, padding=True, return_tensors="pt")
        options = {"truncation": True, "max_length": 5, "stride": 1, "return_overflowing_tokens": True}
        check(tokenizer, stock, words, is_split_into_words=True, **options)
        joined = tokenizer("我在银行")["pinyin_ids"]
        assert tokenizer(["我", "在", "银", "行"], is_split_into_words=True)["pinyin_ids"] == joined

    def test_added_tokens_that_hold_characters(self, tokenizer, stock) -> None:
        tokenizer, stock = copy.deepcopy(tokenizer), copy.deepcopy(stock)
        texts = ["重重庆庆银行重庆", "庆重庆重", "重庆猫"] * 50
        check(tokenizer, stock, texts)
        for each in (tokenizer, stock):
            each.add_tokens(["重庆", "银"])
        check(tokenizer, stock, texts)

    def test_without_blanks_around_characters(self, tokenizer, stock) -> None:
        vocabulary = {**tokenizer.get_vocab(), **{f"##{c}": len(tokenizer) + i for i, c in enumerate("行庆猫")}}
        options = {"vocab": vocabulary, "tokenize_chinese_chars": False}
        check(ChineseBertTokenizer(**options), BertTokenizer(**options), ["银行", "重庆", "猫"] * 60)

    def test_fuzzed_batches_follow_the_offsets(self, tokenizer, stock) -> None:
        choose = random.Random(3)
        readable = "我在银行重庆的一不做二休还有猫〇㐁\U00020000\uf900豈\ue820\U0002f800"
        others = "ａＢ cd12，。！\u0301\u3000\tカが한"
        pieces = [*readable, *others, "[MASK]", "[UNK]", "银行", "还有", "unknown", "😀"]
        texts = ["".join(choose.choices(pieces, k=choose.randint(0, 30))) for _ in range(1500)]
        check(tokenizer, stock, texts)
        check(tokenizer, stock, texts[:700], texts[700:1400])

    def test_model_input_names_decide(self, tokenizer) -> None:
        plain = copy.deepcopy(tokenizer)
        plain.model_input_names = ["input_ids", "attention_mask"]
        assert set(plain(TEXTS)) == {"input_ids", "attention_mask"}


class TestPadding:
    @pytest.mark.parametrize("side", ["right", "left"])
    @pytest.mark.parametrize("tensors", [None, "pt", "np"])
    def test_pad_equals_padding_at_once(self, tokenizer, side: str, tensors: str | None) -> None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.padding_side = side
        features = [tokenizer(text) for text in TEXTS]
        padded = tokenizer.pad(features, pad_to_multiple_of=8, return_tensors=tensors)
        at_once = tokenizer(TEXTS, padding=True, pad_to_multiple_of=8, return_tensors=tensors)
        assert set(padded) == set(at_once)
        for key in padded:
            assert to_list(padded[key]) == to_list(at_once[key])
            assert type(padded[key]) is type(at_once[key])

    def test_pads_letters_too(self, tokenizer) -> None:
        letters = tokenizer.pinyin_table[tokenizer("我的猫")["pinyin_ids"][1:-1]].tolist()
        features = [{"input_ids": [5], "pinyin_ids": letters[:1]}, {"input_ids": [5, 6, 7], "pinyin_ids": letters}]
        padded = tokenizer.pad(features, return_tensors="pt")["pinyin_ids"]
        assert padded.tolist() == [[letters[0], [0] * 8, [0] * 8], letters]

    def test_stock_collators(self, tokenizer) -> None:
        features = [dict(tokenizer(text)) for text in TEXTS]
        lengths = [len(feature["input_ids"]) for feature in features]
        expected = tokenizer.pad(features, return_tensors="pt")["pinyin_ids"]
        labelled = [{**feature, "labels": [0] * n} for feature, n in zip(features, lengths, strict=True)]
        batches = [
            DataCollatorWithPadding(tokenizer)(features),
            DataCollatorForTokenClassification(tokenizer)(labelled),
            DataCollatorForLanguageModeling(tokenizer)(features),
        ]
        for batch in batches:
            torch.testing.assert_close(batch["pinyin_ids"], expected)
        choices = [{key: [feature[key]] * 2 for key in feature} | {"label": 0} for feature in features]
        batch = DataCollatorForMultipleChoice(tokenizer)(choices)
        torch.testing.assert_close(batch["pinyin_ids"][:, 1], expected)


class TestDatasets:
    def test_map_in_processes(self, tokenizer) -> None:
        data = Dataset.from_dict({"text": LARGE})
        mapped = data.map(lambda rows: tokenizer(rows["text"]), batched=True, batch_size=16, num_proc=2)
        assert list(mapped["pinyin_ids"]) == tokenizer(LARGE)["pinyin_ids"]

    def test_calls_do_not_change_the_hash(self, tokenizer) -> None:
        tokenizer = copy.deepcopy(tokenizer)
        before, pickled = Hasher.hash(tokenizer), pickle.dumps(tokenizer)
        tokenizer(LARGE)
        assert pickle.dumps(tokenizer) == pickled
        tokenizer(LARGE, padding=True, truncation=True, max_length=9, return_tensors="pt")
        tokenizer.decode_with_pinyin([5], [7])
        assert tokenizer.default_pinyin_ids.any()
        assert Hasher.hash(tokenizer) == before

    def test_phrases_change_the_hash(self, tokenizer) -> None:
        other = copy.deepcopy(tokenizer)
        other.add_phrases({"重庆": "zhong4 qing4"})
        assert Hasher.hash(other) != Hasher.hash(tokenizer)


class TestStoring:
    def test_saved_and_loaded_anywhere(self, tokenizer, tmp_path) -> None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.add_phrases({"重庆": ["zhong4", "qing4"], "银": ["xing2"]})
        tokenizer.add_tokens(["行走"])
        tokenizer.save_pretrained(tmp_path / "one")
        again = ChineseBertTokenizer.from_pretrained(tmp_path / "one")
        again.save_pretrained(tmp_path / "two")
        for name in ("tokenizer.json", "tokenizer_config.json", "pinyin.json"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        for other in (again, copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
            assert dict(other(LARGE)) == dict(tokenizer(LARGE))
            assert other.phrases == {"重庆": ["zhong4", "qing4"], "银": ["xing2"]}
            np.testing.assert_array_equal(other.default_pinyin_ids, tokenizer.default_pinyin_ids)

    def test_a_vocabulary_trained_anew_keeps_the_readings(self, tokenizer) -> None:
        own = PinyinTable(["", "xing2", "chang2"])
        original = copy.deepcopy(tokenizer)
        original._reader = PinyinReader(own, {"行长": ["xing2", "chang2"]})
        trained = original.train_new_from_iterator([["行长", "我喜欢猫"]], 50)
        assert trained.readings == own
        assert trained.phrases == {"行长": ["xing2", "chang2"]}
        assert trained("行长")["pinyin_ids"] == [0, 1, 2, 0]
        assert len(trained) < len(original)

    def test_auto_tokenizer(self, tiny_chinesebert_folder: Path, tokenizer) -> None:
        auto = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
        assert type(auto) is ChineseBertTokenizer
        assert dict(auto(TEXTS)) == dict(tokenizer(TEXTS))

    def test_official_folder_with_a_blank_line(self, tokenizer, tmp_path) -> None:
        tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
        lines = [*tokens, "", "釆", "\u2028", "枧"]
        (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (tmp_path / "config").mkdir()
        table = PinyinTable.default()
        letters = list(table.letters)
        files = {
            "pinyin_map.json": {"idx2char": letters, "char2idx": {c: i for i, c in enumerate(letters)}},
            "pinyin2tensor.json": {r: table.rows[table.index(r)].tolist() for r in table.readings},
        }
        for name, content in files.items():
            (tmp_path / "config" / name).write_text(json.dumps(content), encoding="utf-8")
        official = ChineseBertTokenizer.from_pretrained(tmp_path)
        assert len(official) == len(lines)
        assert official.convert_ids_to_tokens(list(range(len(lines)))) == lines
        assert official("枧")["input_ids"][1] == len(lines) - 1
        assert official.readings == table
        assert official.model_max_length == 512
        official.save_pretrained(tmp_path / "saved")
        again = ChineseBertTokenizer.from_pretrained(tmp_path / "saved")
        assert again.get_vocab() == official.get_vocab()
        assert again.model_max_length == 512

        (tmp_path / "config" / "pinyin2tensor.json").unlink()
        with pytest.raises(ValueError, match="pinyin2tensor"):
            ChineseBertTokenizer.from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        "content", ['{"rows": ["", "a1"', '{"rows": "a1"}', '{"rows": [""], "phrases": {"重": ["a1"]}}']
    )
    def test_broken_pinyin_file(self, tiny_chinesebert_folder: Path, tmp_path, content: str) -> None:
        for path in tiny_chinesebert_folder.glob("*.json"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / "pinyin.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"pinyin\.json"):
            ChineseBertTokenizer.from_pretrained(tmp_path)


class TestPhrases:
    def test_are_read_in_context(self, tokenizer) -> None:
        tokenizer = copy.deepcopy(tokenizer)
        before = tokenizer("重庆人在重庆")["pinyin_ids"]
        tokenizer.add_phrases({"重庆人": ["zhong4", "qing4", "ren2"]})
        after = tokenizer("重庆人在重庆")["pinyin_ids"]
        assert tokenizer.pinyin_table[after[1]].tolist() != tokenizer.pinyin_table[before[1]].tolist()
        assert after[2:] == before[2:]
        assert [tokenizer.readings.spelling(row) for row in after[1:4]] == ["zhong4", "qing4", "ren2"]

    def test_given_at_construction(self, tokenizer) -> None:
        own = ChineseBertTokenizer(vocab=dict(tokenizer.get_vocab()), phrases={"银行": "yín xíng"})
        one = own("银行")
        text = own.decode_with_pinyin(one["input_ids"], one["pinyin_ids"], skip_special_tokens=True)
        assert text == "银(yín)行(xíng)"

    def test_a_refused_one_changes_nothing(self, tokenizer) -> None:
        tokenizer = copy.deepcopy(tokenizer)
        with pytest.raises(ValueError, match="qing9"):
            tokenizer.add_phrases({"银行": "yin2 xing2", "重庆": "chong2 qing9"})
        assert tokenizer.phrases == {}


class TestDecoding:
    @pytest.mark.parametrize("tensors", [None, "np", "pt"])
    def test_text_with_pinyin(self, tokenizer, tensors: str | None) -> None:
        batch = tokenizer(["我喜欢猫", "abc 12绿，"], padding=True, return_tensors=tensors)
        options = {"skip_special_tokens": True}
        decoded = tokenizer.decode_with_pinyin(batch["input_ids"], batch["pinyin_ids"], **options)
        assert decoded == ["我(wǒ)喜(xǐ)欢(huān)猫(māo)", "abc 12绿(lǜ)，"]

    def test_letters_and_special_tokens(self, tokenizer) -> None:
        one = tokenizer("我的绿猫")
        text = tokenizer.decode_with_pinyin(one["input_ids"], one["pinyin_ids"], tone_marks=False)
        assert text == "[CLS]我(wo3)的(de5)绿(lv4)猫(mao1)[SEP]"

    def test_refuses_what_does_not_fit(self, tokenizer) -> None:
        with pytest.raises(ValueError, match="as many"):
            tokenizer.decode_with_pinyin([1, 2], [0])
        with pytest.raises(ValueError, match="rows of the table"):
            tokenizer.decode_with_pinyin([1], [len(tokenizer.pinyin_table)])


class TestPipelines:
    @pytest.mark.parametrize("task", ["fill-mask", "feature-extraction"])
    def test_stock_pipelines_hand_pinyin_on(self, tiny_chinesebert_folder: Path, task: str) -> None:
        stock = pipeline(task, model=str(tiny_chinesebert_folder))
        seen = []
        stock.model.register_forward_pre_hook(lambda _module, _args, kwargs: seen.append(kwargs), with_kwargs=True)
        stock("我喜欢[MASK]。")
        assert seen[0]["pinyin_ids"].any()

    def test_default_readings_are_those_of_single_characters(self, tokenizer) -> None:
        rows = tokenizer.default_pinyin_ids
        assert rows.shape == (len(tokenizer),)
        for token, number in tokenizer.get_vocab().items():
            alone = tokenizer(token)["pinyin_ids"] if len(token) == 1 else [0]
            assert rows[number] == max(alone)
