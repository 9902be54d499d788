"""`hf-nlpnotes answer`, in process, on a model that answers with what stands between 你 and 们."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForQuestionAnswering, BertTokenizer

from hf_nlpnotes import cli

TEXT = "国足今晚在北京出战，你他们上海队。\n天气很好。"


@pytest.fixture(scope="module")
def model(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One layer that passes the embeddings on, and a head that finds two of them."""
    folder = tmp_path_factory.mktemp("answering")
    tokenizer = BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"), model_max_length=64)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    made = BertForQuestionAnswering(config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "LayerNorm" not in name and "word_embeddings" not in name:
                parameter.zero_()
        first, last = made.bert.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids(["你", "们"])]
        made.qa_outputs.weight[0], made.qa_outputs.weight[1] = 2 * first / first.norm(), 2 * last / last.norm()
        made.qa_outputs.weight *= 10
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "article.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


@pytest.fixture
def squad(tmp_path: Path) -> str:
    qas = [{"id": f"q{number}", "question": "谁", "answers": []} for number in range(2)]
    path = tmp_path / "squad.json"
    paragraphs = [{"context": TEXT, "qas": qas}]
    path.write_text(json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    return str(path)


Captured = pytest.CaptureFixture[str]


def run(model: str, *arguments: str) -> int:
    return cli.main(["answer", "--model", model, "--device", "cpu", *arguments])


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_row_an_answer(model: str, text: str, capsys: Captured) -> None:
    assert run(model, "--question", "谁", text) == 0
    (row,) = capsys.readouterr().out.splitlines()
    score, place, answer = row.split()
    assert (place, answer) == ("10:13", "你他们")
    assert 0 < float(score) <= 1


def test_several_questions_and_answers(model: str, text: str, capsys: Captured) -> None:
    assert run(model, "--question", "谁", "--question", "什么", "--top", "3", text) == 0
    rows = capsys.readouterr().out.splitlines()
    assert (rows[0], rows[4], len(rows)) == ("谁", "什么", 8)


def test_standard_input_and_json(model: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert run(model, "--question", "谁", "--json", "-") == 0
    (row,) = objects(capsys.readouterr().out)
    assert row["question"] == "谁"
    (answer,) = row["answers"]
    assert TEXT[answer["start"] : answer["end"]] == answer["answer"] == "你他们"


def test_predictions_of_a_squad_file(model: str, squad: str, tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "predictions.json"
    assert run(model, "--predictions", str(target), squad) == 0
    assert json.loads(target.read_text(encoding="utf-8")) == {"q0": "你他们", "q1": "你他们"}
    assert str(target) in capsys.readouterr().err
    assert run(model, "--json", squad) == 0
    assert [row["id"] for row in objects(capsys.readouterr().out)] == ["q0", "q1"]


@pytest.mark.parametrize("lines", [True, False])
def test_lists_and_lines_of_json(model: str, tmp_path: Path, capsys: Captured, lines: bool) -> None:
    rows = [{"question": "谁", "context": TEXT}, {"question": "什么", "context": "今晚你们"}]
    path = tmp_path / "rows.json"
    path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")
    assert run(model, "--json", str(path)) == 0
    assert [row["answers"][0]["answer"] for row in objects(capsys.readouterr().out)] == ["你他们", "你们"]


def test_no_answer_and_thresholds(model: str, text: str, capsys: Captured) -> None:
    assert run(model, "--question", "谁", "--impossible", "--top", "200", "--json", text) == 0
    (row,) = objects(capsys.readouterr().out)
    assert "" in [answer["answer"] for answer in row["answers"]]
    assert run(model, "--question", "谁", "--threshold", "0.5", text) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (" \n", ["--question", "谁"], "has no text to ask about"),
        (TEXT, [], "line 1: no JSON"),
        ('[{"question": "谁"}]', [], "expected question and context"),
        ("[]", [], "has no questions"),
        ('{"question": "谁", "context": ""}', [], "context of input 0 is empty"),
        (TEXT, ["--question", "谁", "--predictions", "out.json"], "--predictions is for a file of questions with ids"),
        ('[{"question": "谁", "context": "我"}]', ["--predictions", "out.json"], "id of its own"),
        ('{"data": ["x"]}', [], 'expected question and context, got "x"'),
        ('{"data": [{"paragraphs": ["x"]}]}', [], 'expected question and context, got "x"'),
        (
            '{"data": [{"paragraphs": [{"context": "我", "qas": ["谁"]}]}]}',
            [],
            'expected question and context, got "谁"',
        ),
        ('{"data": [{"paragraphs": "x"}]}', [], "expected question and context"),
        (TEXT, ["--question", "谁", "--predictions", "absent/out.json"], "--predictions 'absent/out.json'"),
    ],
)
def test_what_cannot_be_answered(
    model: str, tmp_path: Path, capsys: Captured, content: str, arguments: list[str], message: str
) -> None:
    path = tmp_path / "file"
    path.write_text(content, encoding="utf-8")
    assert run(model, *arguments, str(path)) == 1
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_model_that_has_not_learnt_to_answer(tiny_chinesebert_folder: Path, text: str, capsys: Captured) -> None:
    assert run(str(tiny_chinesebert_folder), "--question", "谁", text) == 1
    assert "was not trained to answer questions" in capsys.readouterr().err
    assert run(str(Path(text).parent / "absent"), "--question", "谁", text) == 1
    assert "cannot be loaded" in capsys.readouterr().err


def test_wrong_usage(text: str) -> None:
    for arguments in (["answer", text], ["answer", "--model", "m", "--threshold", "2", text]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        assert stopped.value.code == 2
