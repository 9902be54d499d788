"""Folders in the official layout, with one file damaged: read, taken for something else, or refused by its name."""

import json
import shutil

import pytest
from hardening_inputs import damaged, damaged_text, json_files, put, refused
from hypothesis import example, given
from hypothesis import strategies as st
from transformers.utils import logging

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, PinyinTable
from hf_nlpnotes.models.chinesebert.official_chinesebert import official_layout
from hf_nlpnotes.models.chinesebert.paddle_chinesebert import read_paddle_config

FILES = ("config.json", "vocab.txt", "config/pinyin_map.json", "config/pinyin2tensor.json")
FONT = "config/STFANGSO.TTF24.npy"


@pytest.fixture(scope="module")
def folder(official_folder, tmp_path_factory):
    """A copy to damage, with few readings, so that a damage hits something."""
    copy = tmp_path_factory.mktemp("damaged") / "official"
    shutil.copytree(official_folder, copy)
    path = copy / "config" / "pinyin2tensor.json"
    readings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(dict(list(readings.items())[:20])), encoding="utf-8")
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the order of the fonts is told with each reading
    yield copy
    logging.set_verbosity(verbosity)


def contents(path):
    text = path.read_text(encoding="utf-8")
    return json_files(json.loads(text)) if path.suffix == ".json" else damaged_text(text)


@pytest.mark.parametrize("name", [*FILES, FONT])
@given(data=st.data())
def test_a_folder_is_read_or_refused(folder, name, data):
    path = folder / name
    whole = path.read_bytes()
    try:
        put(folder, name, data.draw(damaged(whole) if name == FONT else contents(path)))
        # A configuration may contradict another file, which the message then names with the folder.
        layout = refused(official_layout, folder, naming=folder, kinds=(ValueError, FileNotFoundError))
        if layout is not None:
            assert len(layout.tokens) == len(layout.default_pinyin_ids) == layout.config["vocab_size"]
    finally:
        path.write_bytes(whole)


def test_a_header_that_is_cut_off_is_refused(folder):
    path = folder / FONT
    whole = path.read_bytes()
    try:
        put(folder, FONT, whole[:10] + b"{" + whole[10:])  # NumPy gives up with an error of Python's tokenizer
        with pytest.raises(ValueError, match="STFANGSO"):
            official_layout(folder)
    finally:
        path.write_bytes(whole)


CONFIG = {
    "model_type": "chinesebert",
    "vocab_size": 30,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "glyph_fonts": 3,
    "glyph_size": 24,
    "glyph_storage": "bits",
    "pinyin_table_size": 40,
    "token_classifier": "mlp",
}
TABLE = PinyinTable(["", "wo3", "ni3"], {"de": "wo3"}).to_dict()


@given(content=json_files(TABLE))
def test_a_pinyin_table_is_read_or_refused(folder, content):
    path = put(folder.parent, "pinyin.json", content)
    table = refused(PinyinTable.from_json_file, path, naming=path)
    if table is not None:
        assert PinyinTable.from_dict(table.to_dict()) == table


PADDLE = {"init_args": [{"hidden_size": 16, "pool_act": "tanh"}], "init_class": "ChineseBertForPretraining"}


@given(content=json_files(PADDLE))
@example(content=b'{"init_class": [null]}')
@example(content=b'{"init_args": 5}')
def test_a_configuration_of_paddle_is_read_or_refused(folder, content):
    path = put(folder.parent, "model_config.json", content)
    refused(read_paddle_config, path, naming=path)


def test_the_tables_of_this_file_are_whole(folder):
    assert official_layout(folder) is not None
    assert ChineseBertConfig(**CONFIG).glyph_fonts == 3
