"""The tokenizer against the official one's outputs; every case comes from the files in the folder."""

from __future__ import annotations

import json

import numpy as np
import pypinyin
import pytest

from hf_nlpnotes.models.chinesebert import ChineseBertTokenizer


@pytest.fixture(scope="module")
def folder(golden_folder):
    if not (golden_folder / "chinesebert").is_dir():
        pytest.skip(f"no folder chinesebert in {golden_folder}")
    return golden_folder / "chinesebert"


@pytest.fixture(scope="module")
def official_tokenizer(folder):
    return ChineseBertTokenizer.from_pretrained(folder / "tok-official")


def read_lines(path):
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def installed_pypinyin():
    return "pypinyin" + "".join(pypinyin.__version__.split(".")[:2])


def made_with_this_pypinyin(folder, stem):
    """Rows of the file that was made with the installed version of pypinyin; skip where there is none."""
    path = folder / f"{stem}_{installed_pypinyin()}.jsonl"
    if not path.is_file():
        pytest.skip(f"{path.name} is absent: the golden files were made with another version of pypinyin")
    rows = read_lines(path)
    assert rows, f"{path} is empty"
    return rows


def check(tokenizer, row, input_ids, pinyin_ids):
    assert list(input_ids) == row["input_ids"], row["text"]
    letters = np.asarray(tokenizer.pinyin_table[np.asarray(pinyin_ids)]).ravel()
    assert letters.tolist() == row["pinyin_ids"], row["text"]


@pytest.mark.parametrize("batched", [True, False], ids=["batch", "single"])
def test_sentences(folder, official_tokenizer, batched):
    """Ids, offsets and letters; rows with an error are those that the official code refuses as too long."""
    rows = made_with_this_pypinyin(folder, "tok")
    limit = official_tokenizer.model_max_length
    official_tokenizer.model_max_length = 10**9
    try:
        texts = [row["text"] for row in rows]
        batch = official_tokenizer(texts, return_offsets_mapping=True) if batched else None
        for place, row in enumerate(rows):
            one = official_tokenizer(row["text"], return_offsets_mapping=True) if batch is None else None
            ids, pinyin_ids, offsets = (
                batch[key][place] if one is None else one[key] for key in ("input_ids", "pinyin_ids", "offset_mapping")
            )
            if row["error"] is not None:
                assert len(ids) > limit, row["text"]
                continue
            check(official_tokenizer, row, ids, pinyin_ids)
            if "offsets" in row:
                assert [list(offset) for offset in offsets] == row["offsets"], row["text"]
            if "tokens" in row:
                assert official_tokenizer.convert_ids_to_tokens(ids) == row["tokens"], row["text"]
    finally:
        official_tokenizer.model_max_length = limit


def test_pairs_and_masks(folder, official_tokenizer):
    """Rows of the official data sets: pairs, cut at the end as a whole, and sentences with one masked token."""
    rows = made_with_this_pypinyin(folder, "tok_pairs")
    mask, closing = official_tokenizer.mask_token_id, official_tokenizer.sep_token_id
    for row in rows:
        texts = [row[name] for name in ("text", "text_pair") if name in row]
        if row["kind"] == "spm":  # this data set takes the blanks out
            texts = [text.replace(" ", "") for text in texts]
        output = official_tokenizer(*texts)
        ids, pinyin_ids = list(output["input_ids"]), list(output["pinyin_ids"])
        if "location" in row:
            place = row["location"] + 1
            ids[place], pinyin_ids[place] = mask, 0
        limit = row.get("max_length")
        if limit is not None and len(ids) > limit:
            ids, pinyin_ids = [*ids[: limit - 1], closing], [*pinyin_ids[: limit - 1], 0]
        check(official_tokenizer, row, ids, pinyin_ids)


def test_external_samples(folder, official_tokenizer):
    """Sentences whose ids and letters were published by others, of the real files."""
    samples = json.loads((folder / "external_goldens.json").read_text(encoding="utf-8"))
    assert samples
    for row in samples:
        output = official_tokenizer(row["text"])
        check(official_tokenizer, row, output["input_ids"], output["pinyin_ids"])
