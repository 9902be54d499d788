"""`hf-nlpnotes tag`, in process, on taggers whose tags follow from the character."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForTokenClassification, BertTokenizer

from hf_nlpnotes import cli
from hf_nlpnotes.tagging import scheme_labels

Captured = pytest.CaptureFixture[str]
Make = Callable[[list[str], dict[str, str]], str]


@pytest.fixture(scope="module")
def make(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a maker of models that give a character the tag that a table says, and all others the tag of ""."""

    def tagger(labels: list[str], tag_of: dict[str, str]) -> str:
        folder = tmp_path_factory.mktemp("tagger")
        tokenizer = BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"), model_max_length=64)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=512,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            max_position_embeddings=64,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
        torch.manual_seed(0)
        model = BertForTokenClassification(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "LayerNorm" not in name and "word_embeddings" not in name:
                    parameter.zero_()
            # A dimension a token, which the layer normalization leaves at √512; the classifier reads it off.
            model.bert.embeddings.word_embeddings.weight.copy_(torch.eye(len(tokenizer), 512))
            for character, tag in tag_of.items():
                if character:
                    model.classifier.weight[labels.index(tag), tokenizer.convert_tokens_to_ids(character)] = 1.0
            model.classifier.bias[labels.index(tag_of[""])] = 5.0
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return tagger


@pytest.fixture(scope="module")
def entities(make: Make) -> str:
    labels = scheme_labels(["LOC", "ORG", "PER"], "BIOES")
    return make(labels, {"": "O", "北": "B-LOC", "京": "E-LOC", "国": "B-ORG", "足": "E-ORG", "我": "S-PER"})


@pytest.fixture(scope="module")
def segmenter(make: Make) -> str:
    return make(list("BMES"), {"": "S", "北": "B", "国": "B", "京": "E", "足": "E"})


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "texts.txt"
    path.write_text("国足在 北京\n\n我出战\n", encoding="utf-8")
    return str(path)


def run(model: str, *arguments: str) -> int:
    return cli.main(["tag", "--model", model, "--device", "cpu", "--quiet", *arguments])


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_table_of_entities(entities: str, file: str, capsys: Captured) -> None:
    assert run(entities, file) == 0
    out, err = capsys.readouterr()
    header, _, *rows = [line.split() for line in out.splitlines()]
    assert header == ["line", "type", "score", "place", "text"]
    assert [(row[0], row[1], row[3], row[4]) for row in rows] == [
        ("1", "ORG", "0:2", "国足"),
        ("1", "LOC", "4:6", "北京"),
        ("3", "PER", "0:1", "我"),
    ]
    assert err == ""


def test_places_count_the_spaces_before_a_line(entities: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "indented.txt"
    path.write_text("\u3000\u3000国足在北京  \n", encoding="utf-8")
    assert run(entities, str(path)) == 0
    _, _, *rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(row[3], row[4]) for row in rows] == [("2:4", "国足"), ("5:7", "北京")]
    assert run(entities, "--json", str(path)) == 0
    (row,) = objects(capsys.readouterr().out)
    assert [row["text"][one["start"] : one["end"]] for one in row["entities"]] == ["国足", "北京"]


def test_predicates_in_the_file_ask_for_arguments(entities: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "roles.jsonl"
    lines = ['{"text": "国足在北京", "predicates": [[2, 3]]}', ' {"text": "我", "predicates": []}']
    path.write_text("\n".join(lines), encoding="utf-8")
    assert run(entities, "--json", str(path)) == 0
    first, second = objects(capsys.readouterr().out)
    assert [frame["predicate"]["word"] for frame in first["frames"]] == ["在"]
    assert second["frames"] == []
    assert run(entities, str(path)) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:3] == ["line", "predicate", "role"]
    assert run(entities, "--view", "entities", str(path)) == 1
    assert "are for --view arguments, and the view is entities" in capsys.readouterr().err
    assert run(entities, "--predicate", "在", str(path)) == 1
    assert "line 1 has predicates of its own" in capsys.readouterr().err
    path.write_text(f"{lines[0]}\n北京\n", encoding="utf-8")
    for options in ([], ["--view", "arguments"], ["--json"]):
        assert run(entities, *options, str(path)) == 1
        assert "line 2 has none" in capsys.readouterr().err


def test_a_predicate_that_is_named_twice_is_one(entities: str, file: str, capsys: Captured) -> None:
    assert run(entities, "--predicate", "在,在", "--json", file) == 0
    assert [len(row["frames"]) for row in objects(capsys.readouterr().out)] == [1, 0]


def test_json_lines_from_standard_input(entities: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    lines = '国足出战\n{"text": "在北京"}\n{我}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert run(entities, "--json", "-") == 0
    first, second, third = objects(capsys.readouterr().out)
    assert (first["line"], first["text"]) == (1, "国足出战")
    assert [(each["entity_group"], each["word"]) for each in first["entities"]] == [("ORG", "国足")]
    assert (second["text"], second["entities"][0]["start"]) == ("在北京", 1)
    assert third["text"] == "{我}", "a text may begin with a brace"


def test_segmented_text_and_words_of_ones_own(segmenter: str, file: str, tmp_path: Path, capsys: Captured) -> None:
    assert run(segmenter, file) == 0
    assert capsys.readouterr().out == "国足 在 北京\n我 出 战\n"
    target = tmp_path / "out.txt"
    assert run(segmenter, "--words", "出战,不在", "-o", str(target), file) == 0
    assert capsys.readouterr().out == ""
    assert target.read_text(encoding="utf-8") == "国足 在 北京\n我 出战\n"


def test_parts_of_speech(make: Make, file: str, capsys: Captured) -> None:
    labels = scheme_labels(["N", "R", "V"], "BMES", outside=False)
    model = make(labels, {"": "S-V", "国": "B-N", "足": "E-N", "北": "B-N", "京": "E-N", "我": "S-R"})
    assert run(model, "--view", "tagged_words", file) == 0
    assert capsys.readouterr().out == "国足/N 在/V 北京/N\n我/R 出/V 战/V\n"
    assert run(model, "--view", "tagged_words", "--format", "conll", file) == 0
    assert capsys.readouterr().out == "国足\tN\n在\tV\n北京\tN\n\n我\tR\n出\tV\n战\tV\n\n"


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [([], ["B-ORG", "E-ORG", "O", "B-LOC", "E-LOC"]), (["iob2"], ["B-ORG", "I-ORG", "O", "B-LOC", "I-LOC"])],
)
def test_conll_columns_are_read_again(
    entities: str, file: str, tmp_path: Path, scheme: list[str], tags: list[str]
) -> None:
    from hf_nlpnotes.corpora import read_columns

    target = tmp_path / "tagged.conll"
    options = ["--scheme", *scheme] if scheme else []
    assert run(entities, "--format", "conll", *options, "-o", str(target), file) == 0
    first, second = read_columns(target)
    assert (first.tokens, first.tags) == (list("国足在北京"), tags)
    assert second.tokens == ["我", "出", "战"]


def test_keywords_and_arguments(entities: str, file: str, capsys: Captured) -> None:
    assert run(entities, "--view", "keywords", "--json", file) == 0
    first, _ = objects(capsys.readouterr().out)
    assert {each["word"] for each in first["keywords"]} == {"国足", "北京"}
    assert run(entities, "--predicate", "出战", file) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["line", "predicate", "role", "score", "place", "text"]
    assert [(row[0], row[1], row[2], row[5]) for row in rows[2:]] == [("3", "出战", "PER", "我")]
    assert run(entities, "--predicate", "在", "--json", file) == 0
    (frame,) = objects(capsys.readouterr().out)[0]["frames"]
    assert frame["predicate"] == {"word": "在", "start": 2, "end": 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--view", "arguments"], "needs predicates"),
        (["--view", "entities", "--predicate", "在"], "--predicate is for --view arguments"),
        (["--format", "segmented"], "--format segmented is for --view words"),
        (["--json", "--format", "conll"], "choose one of the two"),
        (["--scheme", "BIOES"], "--scheme is for --format conll"),
        (["--format", "conll", "--scheme", "BIX"], "no tagging scheme 'BIX'"),
        (["--format", "conll", "--view", "keywords"], "choose table or json"),
        (["--output", "absent/file"], "there is no folder 'absent'"),
        (["--max-length", "2"], "windows of 2 tokens"),
    ],
)
def test_what_cannot_be_tagged(entities: str, file: str, capsys: Captured, options: list[str], message: str) -> None:
    assert run(entities, *options, file) == 1
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_model_that_has_not_learnt_to_tag(tiny_chinesebert_folder: Path, file: str, capsys: Captured) -> None:
    assert run(str(tiny_chinesebert_folder), file) == 1
    err = capsys.readouterr().err
    assert "was not trained to tag" in err
    assert "hf-nlpnotes train tag" in err


def test_an_empty_file(entities: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("\n")
    assert cli.main(["tag", "--model", entities, str(path)]) == 0
    assert capsys.readouterr() == ("", f"hf-nlpnotes: {path} has no text\n")
    path.write_text('{"words": ["a"]}\n')
    assert run(entities, str(path)) == 1
    assert 'line 1: expected {"text"' in capsys.readouterr().err
