"""`hf-nlpnotes train pretrain`: a few steps of the tiny model on a few lines, and what other commands make of it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from datasets.utils.logging import enable_progress_bar
from transformers import AutoModelForMaskedLM, AutoTokenizer, GPT2Config

from hf_nlpnotes import cli

Captured = pytest.CaptureFixture[str]
pytest.importorskip("jieba", reason="jieba is not installed")
CHINESE = "".join(f"我喜欢猫{number}\n" for number in range(50))
SMALL = ["--device", "cpu", "--max-length", "16", "--batch-size", "8", "--bf16", "false", "--held-out-percent", "20"]


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield
    enable_progress_bar()


@pytest.fixture
def texts(tmp_path: Path) -> str:
    folder = tmp_path / "texts"
    folder.mkdir()
    # Half of it is one character, which a few steps are enough to learn.
    lines = [f"{a}很好好，{b}好好好" for a in "我你他她们国足北京酒店" for b in "电影不要喜欢看了公司市"]
    (folder / "domain.txt").write_text("\n".join(lines), encoding="utf-8")
    return str(folder)


def test_on_from_a_model(tiny_chinesebert_folder: Path, texts: str, tmp_path: Path, capsys: Captured) -> None:
    start, folder = str(tiny_chinesebert_folder), tmp_path / "encoder"
    command = ["train", "pretrain", "--data", texts, "--model", start, *SMALL, "--learning-rate", "1e-2"]
    assert cli.main([*command, "--output", str(folder), "--max-steps", "20"]) == 0
    out, err = capsys.readouterr()
    header, _, *rows = out.splitlines()
    assert header.split() == ["hidden", "before", "after", "tokens"]
    single = rows[0].split()
    assert float(single[4]) > float(single[2]) + 10
    assert "rows to learn from" in err
    shown = [line for line in err.splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in shown] == ["4", "8", "12", "16", "20"]

    report = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert (report["task"], report["model"]) == ("pretrain", start)
    assert (report["options"]["max_steps"], report["options"]["learning_rate"]) == ("20", "0.01")
    assert f"{report['before']['single']:.1f}" == single[2]
    assert f"{report['metrics']['single']:.1f}" == single[4]
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"pretrained further from `{tiny_chinesebert_folder.name}`" in card
    assert f"| masked language modelling | 0 |  | {report['before']['whole_words']:.4g} |" in card
    assert str(tiny_chinesebert_folder) not in card  # a path of this machine
    assert "hidden_size 256" not in card  # of a new model, and this one has 32
    assert "license" not in card  # nothing was said of the text's

    old, new = (AutoModelForMaskedLM.from_pretrained(name).state_dict() for name in (start, folder))
    assert old.keys() == new.keys()
    moved = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(old[moved], new[moved])
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == AutoTokenizer.from_pretrained(start).get_vocab()
    (tmp_path / "new.txt").write_text("我喜欢电影\n", encoding="utf-8")
    labels = ["--labels", "好,差", "--json", "-q", str(tmp_path / "new.txt")]
    assert cli.main(["classify", "--model", str(folder), *labels]) == 0
    assert json.loads(capsys.readouterr().out)["labels"]


def test_the_same_command_goes_on_and_gives_the_same(
    tiny_chinesebert_folder: Path, texts: str, tmp_path: Path, capsys: Captured
) -> None:
    """With a checkpoint and no end, as a kill leaves it; another optimizer, a limit, other names of folders."""
    work = tmp_path / "kept"
    few = ["--limit", "40", "--max-steps", "4", "--save-steps", "2", "--optim", "adamw_torch", "--segmenter", "none"]
    command = ["train", "pretrain", "--data", f"{texts}/*.txt", "--model", str(tiny_chinesebert_folder), *SMALL, *few]
    command += ["--output-dir", str(work), "--json", "-q"]
    assert cli.main([*command, "--output", str(tmp_path / "one")]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert not err
    assert told["output"] == str(tmp_path / "one")
    assert told["metrics"]["whole_words_tokens"] > 0
    assert told["before"] is not None
    assert 0 < told["examples"]["train"] <= 40
    options = json.loads((tmp_path / "one" / "training.json").read_text(encoding="utf-8"))["options"]
    assert (options["muon"], options["limit"]) == ("False", "40")
    stage = work / "masked-language-modelling"
    assert (stage / "checkpoint-2").is_dir()
    for name in ("done", "checkpoint-4"):
        (stage / name).rename(work / f"away-{name}")
    assert cli.main([*command, "--output", str(tmp_path / "two")]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == told["metrics"]
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    assert cli.main([*command, "--output", str(tmp_path / "three"), "--max-steps", "5"]) == 1
    assert "max_steps was '4' and is '5'" in capsys.readouterr().err
    assert cli.main([*command, "--output", str(tmp_path / "one")]) == 1
    assert "give --overwrite" in capsys.readouterr().err


def test_from_scratch(texts: str, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "new"
    size = ["--layers", "1", "--hidden-size", "32", "--vocab-size", "200", "--no-warm-start"]
    command = ["train", "pretrain", "--data", texts, "--from-scratch", *size, *SMALL, "--max-steps", "2"]
    assert cli.main([*command, "--output", str(folder)]) == 0
    assert capsys.readouterr().out.split()[:3] == ["hidden", "found", "tokens"]
    config = AutoModelForMaskedLM.from_pretrained(folder).config
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size <= 200) == (1, 32, True)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "pretrained from scratch" in card
    assert "`learning_rate 0.0006`" in card  # not that of going on


@pytest.mark.parametrize(
    ("text", "more", "message"),
    [
        ("hello world, no Han here\n" * 50, [], "0.0% of the characters are Han characters"),
        ("\n \n", [], "nothing but blanks"),
        ("我喜欢猫\n", [], "none of 1 lines is held out at 20 %"),
        (CHINESE, ["--data", "absent.txt"], "absent.txt: nothing found"),
        (CHINESE, ["--encoding", "utf-16"], "text.txt is not in utf-16"),
        (CHINESE, ["--model", "gpt"], "is a model of type 'gpt2': expected one of ['bert', 'chinesebert']"),
        (CHINESE, ["--model", "absent/model"], "absent/model"),
        (CHINESE, ["--model", "empty"], "is a folder without a model"),
        (CHINESE, ["--max-length", "4000"], "rows of 4000 tokens: chinesebert-small takes 128 at most"),
        (CHINESE, ["--layers", "2"], "--layers is for --from-scratch"),
        (CHINESE, ["--no-warm-start"], "--no-warm-start is for --from-scratch"),
        (CHINESE, ["--from-scratch", "--revision", "v1"], "--revision is of a --model"),
        (CHINESE, ["--from-scratch", "--hidden-size", "64"], "hidden_size 64: the warm start wants"),
        (CHINESE, ["--from-scratch", "--vocab-size", "9"], "size=9 is too small"),
        (CHINESE, ["--mlm-probability", "0"], "expected more than 0"),
        (CHINESE, ["--exclude", "absent.tsv"], "no such file or folder of evaluation texts"),
    ],
)
def test_what_cannot_work_is_said_on_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, text: str, more: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(text, encoding="utf-8")
    Path("empty").mkdir()
    GPT2Config().save_pretrained("gpt")
    assert cli.main(["train", "pretrain", "--data", "text.txt", "--output", "out", *SMALL, *more]) == 1
    out, err = capsys.readouterr()
    assert not out
    (line,) = [line for line in err.splitlines() if line.startswith("hf-nlpnotes: error: ")]
    assert message in line
    assert not Path("out").exists()


def test_files_of_others_are_not_replaced(texts: str, tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "thesis.txt").write_text("the only copy", encoding="utf-8")
    assert cli.main(["train", "pretrain", "--data", texts, "--output", str(folder), *SMALL, "--overwrite"]) == 1
    assert "holds other files" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_without_jieba_the_extra_is_named(
    texts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)  # as Python notes what is not there
    assert cli.main(["train", "pretrain", "--data", texts, "--output", str(tmp_path / "out"), *SMALL]) == 1
    err = capsys.readouterr().err
    assert 'pip install "hf-nlpnotes[pretrain]", or take segmenter none' in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max_length", "5"], "unrecognized arguments: --max_length 5"),
        (["--from-scratch", "--model", "x"], "not allowed with argument"),
        (["--segmenter", "words"], "invalid choice: 'words'"),
    ],
)
def test_wrong_usage(capsys: Captured, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train", "pretrain", "--data", "x.txt", "--output", str(tmp_path / "out"), *more])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_help(capsys: Captured) -> None:
    for option, expected in (("--help", "--from-scratch"), ("--help-training", "(default: 0.0001)")):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train", "pretrain", option])
        assert stopped.value.code == 0
        assert expected in " ".join(capsys.readouterr().out.split())
