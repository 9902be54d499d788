"""The six examples of sequence tagging run, on sentences of their own and on files, and keep models that work."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForTokenClassification, pipeline

from hf_nlpnotes.tagging import tags_to_spans

FOLDER = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture
def run(monkeypatch, capsys, tiny_chinesebert_folder):
    def main(name, *arguments):
        monkeypatch.syspath_prepend(str(FOLDER))  # where a script finds its neighbours
        few = ["--model", tiny_chinesebert_folder, "--test_limit", 4, *arguments]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, few)])
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return main


def losses(printed):
    return [float(loss) for loss in re.findall(r"^epoch \d +loss (\S+)$", printed, re.MULTILINE)]


def test_words(run, tmp_path):
    few = ["--limit", 40, "--epochs", 2, "--head_learning_rate", 0.05]
    printed = run("word_segmentation", *few, "--output_dir", tmp_path, "--words", "电影。")
    first, second = losses(printed)
    assert second < first
    assert re.search(r"^4 sentences: P \S+  R \S+  F1 \S+  OOV recall \S+  IV recall \S+$", printed, re.MULTILINE)
    lines = [line for line in printed.splitlines()[-3:] if "电影" in line]
    assert lines
    assert all(line.endswith(" 电影。") for line in lines)
    segment = pipeline("sequence-tagging", model=str(tmp_path))
    assert segment.model.config.model_type == "crf"
    assert "".join(word["word"] for word in segment("国足今晚出战")) == "国足今晚出战"


def test_parts_of_speech_of_characters_and_of_words(run, tmp_path):
    printed = run("pos_tagging", "--limit", 20, "--epochs", 1)
    assert re.search(r"^4 sentences: words with tags P \S+  R \S+  F1 \S+$", printed, re.MULTILINE)
    rows = [f"{n}\t{w}\t_\t{t}\t_\t_\t_\t_\t_\t_" for n, (w, t) in enumerate([("我们", "PRON"), ("吃饭", "VERB")], 1)]
    path = tmp_path / "f.conllu"
    path.write_text("\n".join(rows) + "\n\n", encoding="utf-8")
    printed = run("pos_tagging", "--data", path, "--test_data", path, "--given_words", "true", "--epochs", 1)
    assert re.search(r"^1 sentences: accuracy \S+  of unknown words 0\.000$", printed, re.MULTILINE)
    assert re.fullmatch(r"我们/(PRON|VERB) 吃饭/(PRON|VERB)", printed.splitlines()[-1])


def test_entities_with_a_softmax_and_again_without_training(run, tmp_path):
    for split in ("train", "test"):
        # The shorter sentence first: predictions that are grouped by length come in another order.
        lines = ["上 B-LOC", "海 I-LOC", "市 E-LOC", "", "国 B-ORG", "足 E-ORG", "在 O", "北 B-LOC", "京 E-LOC", ""]
        (tmp_path / f"{split}.bioes").write_text("\n".join(lines), encoding="utf-8")
    folder, few = tmp_path / "tagger", ["--data", tmp_path, "--crf", "false", "--max_length", 6, "--overlap", 3]
    printed = run("ner", *few, "--epochs", 30, "--learning_rate", 5e-3, "--output_dir", folder)
    assert re.search(r"^ +micro avg +1\.000 +1\.000 +1\.000 +3$", printed, re.MULTILINE)
    assert printed.splitlines()[-2:] == ["上海市  上海市/LOC", "国足在北京  国足/ORG 北京/LOC"]
    assert (
        type(AutoModelForTokenClassification.from_pretrained(folder)).__name__ == "ChineseBertForTokenClassification"
    )
    again = run("ner", "--model", folder, "--epochs", 0, *few)
    assert not losses(again)
    assert again.strip() in printed


def test_entities_of_json_lines(run, tmp_path):
    row = {"text": "国足在北京", "label": {"address": {"北京": [[3, 4]]}}}
    for split in ("train", "dev"):
        (tmp_path / f"{split}.json").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert "address" in run("ner", "--data", tmp_path, "--format", "json", "--epochs", 1)


def test_roles(run):
    printed = run("semantic_roles", "--limit", 20, "--epochs", 1)
    assert re.search(r"^4 predicates: P \S+  R \S+  F1 \S+$", printed, re.MULTILINE)
    assert len(re.findall(r"^\S+。  (?:参观|看|买|研究|发表|踢): ", printed, re.MULTILINE)) == 3


def test_slots_with_and_without_intents(run, tmp_path):
    printed = run("slot_filling", "--limit", 30, "--epochs", 1)
    assert re.search(r"^4 utterances: slot F1 \S+  intent accuracy \S+  exact \S+$", printed, re.MULTILINE)
    assert len(re.findall(r"^\S+  (?:播放|天气|订票): ", printed, re.MULTILINE)) == 3
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").write_text("上 B-city\n海 E-city\n\n", encoding="utf-8")
    printed = run("slot_filling", "--data", tmp_path, "--epochs", 1)
    assert re.search(r"^1 utterances: slot F1 \S+  exact \S+$", printed, re.MULTILINE)


def test_keywords(run):
    printed = run("keyword_extraction", "--limit", 20, "--epochs", 1, "--top", 2)
    assert re.search(r"^all +P \S+  R \S+  F1 \S+$", printed, re.MULTILINE)
    assert re.search(r"^top 2 +P \S+  R \S+  F1 \S+$", printed, re.MULTILINE)


def test_intents_need_the_model_with_a_crf(run):
    with pytest.raises(ValueError, match="beside the tags of a model with a CRF"):
        run("slot_filling", "--limit", 20, "--crf", "false")


@pytest.mark.parametrize("crf", [True, False])
def test_what_is_scored_is_what_the_pipeline_finds(monkeypatch, tiny_chinesebert_folder, crf):
    monkeypatch.syspath_prepend(str(FOLDER))
    from _tagging_training import Tagger, TaggingOptions
    from semantic_roles import built_in

    options = TaggingOptions(
        str(tiny_chinesebert_folder), crf=crf, epochs=3, head_learning_rate=0.1, max_length=14, overlap=5
    )
    tagger = Tagger(options, built_in(60, 0))
    test = built_in(8, 1)
    scored = [tags_to_spans(tags, tagger.scheme) for tags in tagger.tag(test)]
    find = pipeline("sequence-tagging", model=tagger.model, tokenizer=tagger.tokenizer, view="arguments")
    inputs = [{"text": "".join(sentence.tokens), "predicates": [sentence.predicate]} for sentence in test]
    found = [
        [(each["role"], each["start"], each["end"]) for each in frames[0]["arguments"]]
        for frames in find(inputs, max_length=14, stride=5)
    ]
    assert found == scored
    assert any(scored)
