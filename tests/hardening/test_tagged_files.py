"""The readers of labelled files: what is written in a format is read back, and any file is read or refused by name."""

import json

import pytest
from hardening_inputs import damaged_text, json_files, nearly, put, refused
from hypothesis import given
from hypothesis import strategies as st

from hf_nlpnotes.corpora import READERS, read_columns, read_conllu, read_json_lines, read_question_file, read_tagged
from hf_nlpnotes.corpora.files import rows_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tagged")


# A token of a column file: anything without white space that is not taken for a comment, and no digit at the end.
tokens = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=4).filter(
    lambda token: not token.startswith(("#", "-DOCSTART-", "\ufeff")) and not token[-1].isdigit() and token.strip()
)
tags = st.sampled_from(["O", "B-PER", "I-PER", "B-地名", "S-x"])
sentences = st.lists(st.lists(st.tuples(tokens, tags), min_size=1, max_size=5), min_size=1, max_size=4)


@given(sentences=sentences, separator=st.sampled_from(["\t", " "]), end=st.sampled_from(["\n", "\r\n"]))
def test_columns_are_read_back(folder, sentences, separator, end):
    blocks = [end.join(f"{token}{separator}{tag}" for token, tag in sentence) for sentence in sentences]
    path = put(folder, "columns.txt", (end * 2).join(blocks).encode())
    assert [list(zip(one.tokens, one.tags, strict=True)) for one in read_columns(path)] == sentences


@given(sentences=sentences)
def test_json_lines_are_read_back(folder, sentences):
    rows = [dict(zip(("tokens", "tags"), zip(*sentence, strict=True), strict=True)) for sentence in sentences]
    path = put(folder, "lines.jsonl", "\n".join(json.dumps(row) for row in rows).encode())
    assert [list(zip(one.tokens, one.tags, strict=True)) for one in read_json_lines(path)] == sentences


@given(words=st.lists(st.tuples(tokens, st.sampled_from(["NOUN", "VERB"])), min_size=1, max_size=5))
def test_conllu_is_read_back(folder, words):
    lines = [f"{i}\t{form}\t_\t{tag}\t_\t_\t_\t_\t_\t_" for i, (form, tag) in enumerate(words, 1)]
    path = put(folder, "words.conllu", "\n".join(["# text", *lines, ""]).encode())
    (one,) = read_conllu(path, characters=False)
    assert list(zip(one.tokens, one.tags, strict=True)) == words


COLUMNS = "北 B-LOC\n京 I-LOC\n\n# x\n去 O\n"
CONLLU = "# a\n1\t北京\t_\tPROPN\tNR\t_\t0\troot\tY\tA0\tARG\n\n"
LINES = [
    {"tokens": ["北", "京"], "tags": ["B-LOC", "I-LOC"]},
    {"text": "去北京", "spans": [{"type": "LOC", "start": 1, "end": 3}], "intent": "go"},
    {"text": "去北京", "label": {"LOC": {"北京": [[1, 2]]}}},
    {"text": "去", "entity_list": [{"entity_type": "LOC", "entity_index": {"begin": 0, "end": 1}}]},
]
SQUAD = {
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "北京",
                    "qas": [{"id": "1", "question": "哪", "answers": [{"text": "北", "answer_start": 0}]}],
                }
            ],
        }
    ]
}


def json_lines(rows):
    return nearly(rows).map(
        lambda given: "\n".join(map(json.dumps, given if isinstance(given, list) else [given])).encode()
    )


FILES = {
    "columns": damaged_text(COLUMNS),
    "conllu": damaged_text(CONLLU),
    "roles": damaged_text(CONLLU),
    "json": json_lines(LINES) | damaged_text(json.dumps(LINES[1], ensure_ascii=False)),
    "segmented": damaged_text("北京 很 大\n"),
    "utterances": damaged_text(COLUMNS),
    "keywords": damaged_text("x\t北京很大\t北京;大\n") | json_lines([{"text": "北京", "keywords": ["北"]}]),
}


def test_every_reader_is_tried():
    assert FILES.keys() == READERS.keys()


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
def test_any_tagged_file_is_read_or_refused(folder, name, data):
    path = put(folder, "any.txt", data.draw(FILES[name]))
    for part in refused(read_tagged, str(path), READERS[name], str(path), naming=path) or ():
        for sentence in part:
            assert len(sentence.tokens) == len(sentence.tags)
            assert all(isinstance(token, str) and token for token in sentence.tokens)


@given(content=json_files(SQUAD))
def test_any_squad_file_is_read_or_refused(folder, content):
    path = put(folder, "squad.json", content)
    found = refused(read_question_file, path, naming=path)
    if found is not None:
        assert all(isinstance(row["context"], str) for row in found)


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl"])
@given(data=st.data())
def test_any_table_is_read_or_refused(folder, suffix, data):
    whole = (
        '{"text": "北京", "label": "a"}\n'
        if suffix == "jsonl"
        else "text\tlabel\n北京\ta\n".replace("\t", {"tsv": "\t", "csv": ","}[suffix])
    )
    path = put(folder, f"rows.{suffix}", data.draw(damaged_text(whole)))
    refused(rows_of, path, naming=path)
