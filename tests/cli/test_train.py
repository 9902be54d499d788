"""`hf-nlpnotes train`: a few steps of the tiny model, and the command that reads what came out."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_nlpnotes import cli

Captured = pytest.CaptureFixture[str]
FEW = ["--epochs", "2", "--device", "cpu", "--batch-size", "4", "--quiet"]


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture
def model(tiny_chinesebert_folder: Path) -> list[str]:
    return ["--model", str(tiny_chinesebert_folder)]


def lines(path: Path, *rows: str) -> str:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def reviews(tmp_path: Path) -> str:
    good, bad = ["酒店很好", "喜欢", "推荐", "满意"], ["酒店不好", "难过", "差", "不满意"]
    rows = [f"{label}\t{text}" for label, texts in (("好评", good), ("差评", bad)) for text in texts]
    return lines(tmp_path / "reviews.tsv", "label\ttext", *rows * 3)


@pytest.fixture
def entities(tmp_path: Path) -> str:
    sentences = [f"北 B-LOC\n京 E-LOC\n{character} O\n" for character in "我你他她们的是了不在"]
    return lines(tmp_path / "ner.txt", *sentences)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    def paragraph(number: int) -> dict[str, Any]:
        answer = {"text": "北京", "answer_start": 3}
        qas = [{"id": str(number), "question": "国足在哪里", "answers": [answer]}]
        return {"context": f"国足在北京出战{number}", "qas": qas}

    return lines(tmp_path / "squad.json", json.dumps({"data": [{"paragraphs": [paragraph(n) for n in range(6)]}]}))


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return found


def test_classify(model: list[str], reviews: str, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "classifier"
    command = ["train", "classify", "--data", reviews, "--output", str(folder), *model, "--epochs", "24"]
    # Options of TrainingArguments, with dashes and with underscores; a row an evaluation.
    stock = ["--learning-rate", "3e-3", "--seed", "7", "--gradient_accumulation_steps", "1", "--eval-steps", "30"]
    assert cli.main([*command, "--device", "cpu", "--eval-strategy", "steps", *stock]) == 0
    out, err = capsys.readouterr()
    table = dict(line.split() for line in out.splitlines()[2:])
    assert float(table["accuracy"]) >= 2 / 3
    assert "21 examples to learn from, 3 held out" in err
    assert "held out: loss" in err
    made = report(folder)
    assert (made["task"], made["options"]["seed"], made["options"]["learning_rate"]) == ("classify", 7, 3e-3)
    assert made["metrics"]["accuracy"] == pytest.approx(float(table["accuracy"]), abs=1e-3)
    # Nothing but the model is left: no checkpoints' folder, no pickle.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classifier", "reviews.tsv"]
    assert not list(folder.glob("*.bin"))

    texts = lines(tmp_path / "new.txt", "酒店很好", "不满意")
    assert cli.main(["classify", "--model", str(folder), "--json", "-q", texts]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["labels"][0] for row in rows] == ["好评", "差评"]
    assert sorted(rows[0]) == ["labels", "line", "scores", "sequence"]
    assert sum(rows[0]["scores"]) == pytest.approx(1)
    assert cli.main(["classify", "--model", str(folder), "--labels", "好评", "-q", texts]) == 1
    assert "--labels is for prompts" in capsys.readouterr().err
    assert cli.main(["tag", "--model", str(folder), texts]) == 1
    assert "was not trained to tag" in capsys.readouterr().err


@pytest.mark.parametrize("crf", [[], ["--no-crf"]])
def test_tag(model: list[str], entities: str, tmp_path: Path, capsys: Captured, crf: list[str]) -> None:
    folder = tmp_path / "tagger"
    command = ["train", "tag", "--data", entities, "--output", str(folder), *model, *crf, *FEW, "--epochs", "12"]
    assert cli.main([*command, "--learning-rate", "1e-2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["examples"] == {"train": 8, "held_out": 2}
    assert printed["metrics"]["f1"] == report(folder)["metrics"]["f1"] == 1
    texts = lines(tmp_path / "new.txt", "我在北京")
    assert cli.main(["tag", "--model", str(folder), "--format", "conll", "-q", texts]) == 0
    assert capsys.readouterr().out == "我\tO\n在\tO\n北\tB-LOC\n京\tE-LOC\n\n"


def test_tag_with_intents_words_and_roles(model: list[str], tmp_path: Path, capsys: Captured) -> None:
    rows = [
        {"text": f"去北京{mark}", "spans": [{"type": "city", "start": 1, "end": 3}], "intent": intent}
        for mark, intent in ("吗A", "。B") * 5
    ]
    data = lines(tmp_path / "slots.json", *(json.dumps(row, ensure_ascii=False) for row in rows))
    few = [*model, *FEW, "--test-data", data, "--json"]
    folder = str(tmp_path / "slots")
    assert cli.main(["train", "tag", "--data", data, "--data-format", "utterances", "--output", folder, *few]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["metrics"]["text_class_accuracy"] <= 1
    assert cli.main(["tag", "--model", folder, "--json", "-q", lines(tmp_path / "new.txt", "去北京")]) == 0
    assert json.loads(capsys.readouterr().out)["intent"]["label"] in "AB"

    data = lines(tmp_path / "words.utf8", *("我 在 北京", "他们 喜欢 猫") * 5)
    folder = str(tmp_path / "words")
    assert cli.main(["train", "tag", "--data", data, "--data-format", "segmented", "--output", folder, *few[:-3]]) == 0
    capsys.readouterr()
    assert cli.main(["tag", "--model", folder, "-q", str(tmp_path / "new.txt")]) == 0
    assert capsys.readouterr().out.replace(" ", "") == "去北京\n"

    word = "{}\t{}\t_\tV\t_\t_\t0\t_\t{}\t_\t{}"
    block = "\n".join([word.format(1, "我", "_", "A0"), word.format(2, "说", "Y", "_").replace("Y\t_", "Y\tY")])
    data = lines(tmp_path / "roles.conllu", block.replace("_\tA0", "_\tA0"), "")
    folder = str(tmp_path / "roles")
    command = ["train", "tag", "--data", data, "--test-data", data, "--data-format", "roles", "--output", folder]
    assert cli.main([*command, *model, *FEW]) == 0


def test_answer(model: list[str], questions: str, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "reader"
    command = ["train", "answer", "--data", questions, "--output", str(folder), *model, *FEW]
    sizes = ["--max-length", "24", "--doc-stride", "4", "--epochs", "25", "--learning-rate", "3e-3"]
    assert cli.main([*command, *sizes]) == 0
    assert "f1" in capsys.readouterr().out
    text = lines(tmp_path / "text.txt", "国足在北京出战")
    assert cli.main(["answer", "--model", str(folder), "--question", "国足在哪里", "-q", "--json", text]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["answer"] == "北京"


def test_the_process_group_is_left_last(
    model: list[str], entities: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, written = tmp_path / "tagger", []
    monkeypatch.setattr("hf_nlpnotes.training.leave_process_group", lambda: written.append(folder.is_dir()))
    assert cli.main(["train", "tag", "--data", entities, "--output", str(folder), *model, *FEW]) == 0
    assert written == [True]


def test_nothing_is_replaced_unasked(model: list[str], reviews: str, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "classifier"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    command = ["train", "classify", "--data", reviews, "--output", str(folder), *model, *FEW]
    assert cli.main([*command, "--overwrite"]) == 1
    assert "holds other files" in capsys.readouterr().err
    (folder / "config.json").write_text("{}")
    assert cli.main(command) == 1
    assert "give --overwrite" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "notes.txt"]
    assert cli.main([*command, "--overwrite", "--max-steps", "1"]) == 0
    assert (folder / "model.safetensors").is_file()
    assert not (folder / "notes.txt").exists()
    assert cli.main([*command[:4], "--output", reviews]) == 1
    assert "is a file: name a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["classify", "--data", "absent.tsv"], "there is no absent.tsv"),
        (["classify", "--data", "empty.tsv"], "has no rows"),
        (["tag", "--data", "absent"], "there is no absent"),
        (["tag", "--data", "empty.tsv"], "no sentences"),
        (["answer", "--data", "empty.tsv"], "not in SQuAD's layout"),
        (["answer", "--data", "absent.json"], "there is no absent.json"),
        (["classify", "--data", "empty.tsv", "--model", "."], "is a folder without a model"),
    ],
)
def test_what_cannot_be_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.tsv").touch()
    assert cli.main(["train", *arguments, "--output", "out", "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("hf-nlpnotes: error: ")
    assert message in err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max_length", "5"], "unrecognized arguments: --max_length 5"),
        (["--learning-rate", "high"], "invalid float value: 'high'"),
        (["--epochs", "0"], "expected a positive number"),
    ],
)
def test_wrong_usage(capsys: Captured, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "classify", "--data", "x.tsv", "--output", str(tmp_path / "out"), *more])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_stock_options_are_listed(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "tag", "--help-training"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert "--gradient-accumulation-steps" in shown
    assert shown.startswith("usage: hf-nlpnotes train tag --data DATA")
