"""The recipe of a pretraining: what it refuses before anything is read, and what a work folder belongs to."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer, TrainingArguments

import hf_nlpnotes
from hf_nlpnotes.pretraining.held_out import held_out_rows
from hf_nlpnotes.recipes.pretraining import (
    FurtherPretrainingArguments,
    ModelOptions,
    PretrainingArguments,
    PretrainingData,
    PretrainingRun,
    TextOptions,
    model_to_go_on_from,
    prepare_text,
    publish,
)
from hf_nlpnotes.recipes.pretraining.options import stated_options
from hf_nlpnotes.recipes.pretraining.text import read_lines

EMBEDDED = "chinesebert-small"


def arguments(folder: Path, **changes: Any) -> PretrainingArguments:
    return PretrainingArguments(str(folder / "model"), use_cpu=True, bf16=False, **changes)


@pytest.fixture
def lines(tmp_path: Path) -> str:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"我喜欢猫{number}\n" for number in range(300)), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("text", "model", "stock", "message"),
    [
        ({"segmenter": "words"}, {}, {}, "segmenter words: expected jieba or none"),
        ({"thin": ["docs"]}, {}, {}, "thin: docs: expected SOURCE=SHARE"),
        ({"limit": 0}, {}, {}, "limit 0: expected a positive number"),
        ({"streaming": True}, {"model_name_or_path": EMBEDDED}, {}, "--max_steps"),
        ({"streaming": True, "limit": 5}, {}, {}, "and no stream"),
        ({}, {"muon": True}, {"fsdp": "full_shard"}, "Muon works on whole matrices"),
        ({}, {"heads": 4}, {}, "heads 4: the warm start wants 8"),
        ({}, {"hidden_size": 128}, {}, "hidden_size 128: the warm start wants a multiple of 8 from 256"),
        ({}, {"fonts": ["one.ttf"]}, {}, "1 are given, expected 3"),
        ({}, {"mlm_probability": 1.0}, {}, "mlm_probability 1.0: expected more than 0"),
        ({"length": 129}, {"model_name_or_path": EMBEDDED}, {}, f"129 tokens: {EMBEDDED} takes 128"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_read(
    text: dict[str, Any], model: dict[str, Any], stock: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = arguments(tmp_path)
    for name, value in stock.items():
        setattr(given, name, value)
    with pytest.raises(ValueError, match=message):
        PretrainingRun(TextOptions(["absent.txt"], **text), ModelOptions(**model), given)
    assert list(tmp_path.iterdir()) == []


def test_a_font_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="Pillow is not installed")
    with pytest.raises(FileNotFoundError, match=r"absent\.ttf"):
        PretrainingRun(TextOptions(["absent.txt"]), ModelOptions(fonts=["absent.ttf"] * 3), arguments(tmp_path))


def test_words_without_jieba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)  # as Python notes what is not there
    with pytest.raises(ImportError, match=r"hf-nlpnotes\[pretrain\]"):
        PretrainingRun(TextOptions(["absent.txt"]), ModelOptions(EMBEDDED), arguments(tmp_path))
    PretrainingRun(TextOptions(["absent.txt"], segmenter="none"), ModelOptions(EMBEDDED), arguments(tmp_path))


def test_a_model_to_go_on_from_has_a_name(tmp_path: Path) -> None:
    run = PretrainingRun(TextOptions(["a"], segmenter="none"), ModelOptions(warm_start=False), arguments(tmp_path))
    with pytest.raises(ValueError, match="name a model to go on from"):
        model_to_go_on_from(run)
    assert ModelOptions(EMBEDDED).start()["pretrained_model_name_or_path"] == hf_nlpnotes.EMBEDDED_MODEL


def test_a_work_folder_is_of_what_the_weights_depend_on(tmp_path: Path) -> None:
    def stated(note: str = "", limit: int | None = None, rate: float = 1e-3) -> dict[str, str]:
        text, model = TextOptions(["a"], limit=limit), ModelOptions(note=note)
        return stated_options(text, model, arguments(tmp_path, learning_rate=rate))

    assert stated() == stated(note="other")
    assert stated() != stated(rate=1e-4)
    assert stated(limit=5) == {**stated(), "limit": "5"}
    assert not {"limit", "revision"} & set(stated())  # folders that know neither stay valid


def test_a_limit_takes_a_fixed_sample_in_order(lines: str) -> None:
    def texts(limit: int | None) -> list[str]:
        return list(read_lines(TextOptions([lines], limit=limit))[0]["text"])

    everything, some = texts(None), texts(20)
    assert len(some) == 20
    assert some == texts(20)
    assert some == [line for line in everything if line in set(some)]
    assert some != everything[:20]
    assert texts(10_000) == everything


def test_the_embedded_model_gets_rows_of_its_tokens(lines: str, tmp_path: Path) -> None:
    run = PretrainingRun(
        TextOptions([lines], segmenter="none", length=32), ModelOptions(EMBEDDED), arguments(tmp_path)
    )
    data = prepare_text(run)
    assert data.input_ids is not None
    assert data.unigram is not None
    assert isinstance(data.rows, Dataset)
    assert data.input_ids.tolist() == [number for row in data.rows["input_ids"] for number in row]
    assert max(map(len, data.rows["input_ids"])) == 32
    assert data.unigram.sum().item() == pytest.approx(1, abs=1e-3)
    accuracy = data.accuracy(model_to_go_on_from(run))
    assert accuracy["single_tokens"] > 0
    with pytest.raises(ValueError, match="learning_rate was"):
        prepare_text(PretrainingRun(run.text, run.model, arguments(tmp_path, learning_rate=1.0)))


def test_the_report_has_no_nan(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    """Nothing was held out, so there is nothing to find: JSON has null for that."""
    model = ModelOptions(str(tiny_chinesebert_folder))
    run = PretrainingRun(TextOptions(["a"], segmenter="none"), model, arguments(tmp_path))
    run.logs["masked language modelling"] = []
    network = model_to_go_on_from(run)
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    nothing = held_out_rows([], 16, cls_token_id=2, sep_token_id=3)
    data = PretrainingData(tokenizer, None, nothing, None, None, None)
    assert publish(run, data, network, before={"single": 1.5}, about={"task": "pretrain"})["single_tokens"] == 0
    text = (tmp_path / "model" / "training.json").read_text(encoding="utf-8")
    report = json.loads(text)
    assert (report["task"], report["before"], report["metrics"]["single"]) == ("pretrain", {"single": 1.5}, None)
    assert "NaN" not in text


def test_options_have_help_and_say_it_in_their_docstring() -> None:
    for options in (TextOptions, ModelOptions):
        for field in dataclasses.fields(options):
            assert f"    {field.name}: {field.metadata['help']}." in (options.__doc__ or "")
    stock = {field.name: field.metadata for field in dataclasses.fields(TrainingArguments)}
    for field in dataclasses.fields(FurtherPretrainingArguments):
        assert field.metadata == stock[field.name]
