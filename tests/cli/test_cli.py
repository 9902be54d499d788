"""The command line, in process where that is enough; the tiny random model stands in for the embedded one."""

import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, pipeline

import hf_nlpnotes
from hf_nlpnotes import cli
from hf_nlpnotes.cli import classify, demo
from hf_nlpnotes.cli._output import text_width
from hf_nlpnotes.prompting import PromptConfig

LINES = ["国足今晚出战", "银行业绩，股票", "", "  ", "手机芯片"]
TEXTS = [line for line in LINES if line.strip()]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_classify_prints_a_row_a_text(tiny: None, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["classify", "--labels", "体育,财经,房产市场", str(file)]) == 0
    out, err = capsys.readouterr()
    rows = out.splitlines()
    assert [row.rpartition("  ")[2] for row in rows] == TEXTS
    # Scores stand in one column of the terminal, whatever the label.
    assert len({text_width(row[: row.index("0.")]) for row in rows}) == 1
    assert "3/3" in err, "the progress bar is on stderr"


def test_classify_prints_json_lines(tiny: None, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["classify", "--labels", "体育，财经", "--json", "--no-progress", str(file)]) == 0
    out, err = capsys.readouterr()
    rows = objects(out)
    assert [row["line"] for row in rows] == [1, 2, 5]
    assert [row["sequence"] for row in rows] == TEXTS
    assert all(sorted(row["labels"]) == ["体育", "财经"] for row in rows)
    assert err == ""


def test_the_answers_are_the_pipelines(
    tiny: None, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import pipeline

    words = {"体育": ["体育", "足球"], "财经": {"财经": 2, "股票": 1}}
    verbalizer = tmp_path / "words.json"
    verbalizer.write_text(json.dumps(words), encoding="utf-8")
    options = ["--template", "{text}，{label}", "--verbalizer", str(verbalizer), "--batch-size", "2", "--json"]
    pipe = pipeline("zero-shot-prompt", model=hf_nlpnotes.EMBEDDED_MODEL, device="cpu")
    for calibration in ("none", "contextual", "domain", "batch", "prior"):
        prior = ["--prior", "0.9,0.1"] if calibration == "prior" else []
        assert cli.main(["classify", *options, "--calibration", calibration, *prior, str(file)]) == 0
        expected = pipe(
            TEXTS,
            ["体育", "财经"],
            template="{text}，{label}",
            verbalizer=words,
            calibration=calibration,
            label_prior=[0.9, 0.1] if prior else None,
        )
        for row, answer in zip(objects(capsys.readouterr().out), expected, strict=True):
            assert row["labels"] == answer["labels"]
            assert row["scores"] == pytest.approx(answer["scores"], abs=1e-5)


@pytest.mark.parametrize(
    ("encoding", "option"),
    [
        ("utf-8", []),
        ("utf-8-sig", []),
        ("utf-8-sig", ["--encoding", "UTF_8"]),
        ("gb18030", ["--encoding", "gb18030"]),
        ("utf-16", ["--encoding", "utf-16"]),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_encodings_and_line_ends(
    tiny: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    encoding: str,
    option: list[str],
    newline: str,
    last: bool,
) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes((newline.join(LINES) + newline * last).encode(encoding))
    assert cli.main(["classify", "--labels", "体育,财经", "--json", *option, str(path)]) == 0
    assert [(row["line"], row["sequence"]) for row in objects(capsys.readouterr().out)] == [
        (number, line) for number, line in enumerate(LINES, 1) if line.strip()
    ]


def test_standard_input(tiny: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("国足\n股票".encode()), encoding="ascii"))
    assert cli.main(["classify", "--labels", "体育,财经", "--json", "-"]) == 0
    assert [row["sequence"] for row in objects(capsys.readouterr().out)] == ["国足", "股票"]


def test_no_text_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "empty.txt"
    path.write_text("\n  \n", encoding="utf-8")
    assert cli.main(["classify", "--labels", "体育,财经", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{path} has no text" in err


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--labels", "体育,体育"], "'体育' is given twice"),
        (["--labels", " , "], "no labels: give --labels"),
        ([], "no labels: give --labels"),
        (["--labels", "体育,鼯鼠"], "cannot spell the label word '鼯鼠'"),
        (["--labels", "体育", "--template", "新闻{text}"], "No '{label}' in the template"),
        (["--labels", "体育", "--template", "{label}{正文}{标题}"], "the input is one text"),
        (["--labels", "体育", "--verbalizer", "absent.json"], "no file 'absent.json'"),
        (["--labels", "体育", "--encoding", "klingon"], "unknown encoding 'klingon'"),
        (["--labels", "体育", "--prior", "1"], "--prior is for --calibration prior"),
        (["--labels", "体育,财经", "--prior", "1,2,3", "--calibration", "prior"], "3 values for 2 labels"),
        (["--labels", "体育", "--model", "absent/folder"], "absent/folder"),
        (["--labels", "体育", "--max-length", "3"], "more than the 3"),
        (["--labels", "体育", "--device", "gpu0"], "no device 'gpu0' here; try cpu"),
        (["--labels", "体育", "--device", "cuda:99"], "no device 'cuda:99' here"),
    ],
)
def test_errors_are_told_on_stderr(
    tiny: None, file: Path, capsys: pytest.CaptureFixture[str], options: list[str], what: str
) -> None:
    assert cli.main(["classify", *options, "--no-progress", str(file)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hf-nlpnotes: error: ")
    assert what in err
    assert "Traceback" not in err


def test_a_trained_model_reads_the_beginning_of_long_texts(
    tiny_chinesebert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where its tokenizer knows no longest text, as that of a script that left it out."""
    tokenizer = BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=16,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "texts.txt"
    for text, options in (("国足今晚出战" * 20, []), ("国足今晚出战" * 20, ["--max-length", "500"]), ("国足" * 7, [])):
        path.write_text(text, encoding="utf-8")
        assert cli.main(["classify", "--model", str(tmp_path), "--device", "cpu", "--json", *options, str(path)]) == 0
    long, asked, short = objects(capsys.readouterr().out)
    assert long["scores"] == asked["scores"]
    assert len(short["scores"]) == 2


def test_a_prompt_beside_the_model_holds_where_no_other_is_given(
    tiny_chinesebert_folder: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"好": ["喜欢", "很好"], "难": ["难过"]}
    prompt = PromptConfig(
        template="{text}，{label}", verbalizer=words, bias={"好": 0.5, "难": 0.0}, model=str(tiny_chinesebert_folder)
    )
    prompt.save_pretrained(tmp_path / "alone")
    shutil.copytree(tiny_chinesebert_folder, tmp_path / "beside")
    prompt.replace(model=None).save_pretrained(tmp_path / "beside")
    pipe = pipeline("zero-shot-prompt", model=str(tmp_path / "beside"), device="cpu")
    quiet = ["--device", "cpu", "--json", "--quiet"]
    for folder in ("beside", "alone"):
        assert cli.main(["classify", "--model", str(tmp_path / folder), *quiet, str(file)]) == 0
        for row, answer in zip(objects(capsys.readouterr().out), pipe(TEXTS, list(words)), strict=True):
            assert dict(zip(row["labels"], row["scores"], strict=True)) == pytest.approx(
                dict(zip(answer["labels"], answer["scores"], strict=True)), abs=1e-5
            )
    assert cli.main(["classify", "--model", str(tmp_path / "beside"), "--verbalizer", "names", *quiet, str(file)]) == 1
    assert "no labels" in capsys.readouterr().err
    names = ["--verbalizer", "names", "--labels", "好,难"]
    assert cli.main(["classify", "--model", str(tmp_path / "beside"), *names, *quiet, str(file)]) == 0
    expected = pipe(TEXTS[0], ["好", "难"], verbalizer=["好", "难"])
    first = objects(capsys.readouterr().out)[0]
    assert (first["labels"], first["scores"]) == (expected["labels"], pytest.approx(expected["scores"], abs=1e-5))


def test_a_verbalizer_with_a_byte_order_mark(
    tiny: None, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.json"
    words.write_text('{"体育": "足球", "财经": "股票"}', encoding="utf-8-sig")
    assert cli.main(["classify", "--verbalizer", str(words), "--quiet", str(file)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(TEXTS)


def test_an_absent_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["classify", "--labels", "体育", str(tmp_path / "absent.txt")]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert cli.main(["classify", "--labels", "体育", str(tmp_path)]) == 1
    assert "is a folder: name a file in it" in capsys.readouterr().err


def test_results_go_to_a_file_whole_or_not_at_all(
    tiny: None, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["classify", "--labels", "体育,财经", "-q", "--output", str(tmp_path / "answers.txt"), str(file)]
    assert cli.main(command) == 0
    assert capsys.readouterr() == ("", "")
    written = (tmp_path / "answers.txt").read_text(encoding="utf-8")
    assert len(written.splitlines()) == 3

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert cli.main([*command, "--json"]) == 1
    assert (tmp_path / "answers.txt").read_text(encoding="utf-8") == written
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.txt", "texts.txt"]
    assert cli.main([*command[:-1], str(file), "--output", str(tmp_path)]) == 1
    assert "is a folder: add the name of a file" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["classify", "--labels", "体育"], ["tag"], ["answer", "--question", "谁"]])
def test_a_folder_without_a_model(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.main([*command, "--model", str(tmp_path / "empty"), str(file)]) == 1
    assert "is a folder without a model: expected one with config.json" in capsys.readouterr().err
    (tmp_path / "empty" / "checkpoint-5").mkdir()
    (tmp_path / "empty" / "checkpoint-5" / "config.json").write_text("{}")
    assert cli.main([*command, "--model", str(tmp_path / "empty"), str(file)]) == 1
    assert "its folder 'checkpoint-5' has one" in capsys.readouterr().err
    assert cli.main([*command, "--model", str(file), str(file)]) == 1
    assert "is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("architecture", "what"), [("BertForTokenClassification", "sequence tagging"), ("BertModel", "without a head")]
)
def test_classify_refuses_models_for_something_else(
    tiny_chinesebert_folder: Path,
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    architecture: str,
    what: str,
) -> None:
    folder = shutil.copytree(tiny_chinesebert_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}), encoding="utf-8")
    assert cli.main(["classify", "--labels", "体育", "--model", str(folder), str(file)]) == 1
    err = capsys.readouterr().err
    assert what in err
    assert "hf-nlpnotes train classify" in err


def test_foreign_code_is_refused_without_a_question(
    tiny_chinesebert_folder: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_chinesebert_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "other", "auto_map": {"AutoConfig": "code.Config"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "code.py").write_text("raise SystemExit('run')", encoding="utf-8")
    assert cli.main(["classify", "--labels", "体育", "--model", str(folder), str(file)]) == 1
    assert "trust_remote_code" in capsys.readouterr().err


def test_a_wrong_encoding_names_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(b"ascii\n" + "国足".encode("gb18030"))
    assert cli.main(["classify", "--labels", "体育", str(path)]) == 1
    assert "line 2: not utf-8 text" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["[]", "{", '"体育"'])
def test_a_wrong_verbalizer_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(words, encoding="utf-8")
    assert cli.main(["classify", "--verbalizer", str(path), str(path)]) == 1
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["clasify"],
        ["classify", "--labels", "体育"],
        ["classify", "--labels", "体育", "--calibration", "best", "-"],
        ["classify", "--labels", "体育", "--batch-size", "0", "-"],
        ["classify", "--labels", "体育", "--prior", "1,x", "-"],
        ["convert-chinesebert", "src"],
        ["eval"],
        ["eval", "fewclue"],
        ["eval", "glue", "--data", "."],
        ["eval", "fewclue", "--data", ".", "--shots", "one"],
        ["eval", "fewclue", "--data", ".", "--seeds", "-1"],
        ["eval", "fewclue", "--data", ".", "--learning-rate", "0"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: hf-nlpnotes" in capsys.readouterr().err


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ["demo", "classify", "tag", "answer", "attention", "app", "train", "eval", "convert-chinesebert"]
    tasks = [["train", task] for task in ("classify", "tag", "answer")]
    for arguments in ([], *([command] for command in commands), *tasks):
        with pytest.raises(SystemExit) as caught:
            cli.main([*arguments, "--help"])
        assert caught.value.code == 0
        shown = capsys.readouterr().out
        examples = shown.partition("examples:\n")[2]
        assert examples.count("hf-nlpnotes ") >= 2, arguments
        parser = cli._parser()
        for line in examples.splitlines():
            for part in line.split(" | ")[-1].split(" && ")[:1]:
                if part.strip().startswith("hf-nlpnotes ") and not part.endswith("--help"):
                    parser.parse_known_args(shlex.split(part)[1:])  # exits with 2 where an example is wrong
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"hf-nlpnotes {hf_nlpnotes.__version__}\n"


def test_demo_shows_tables(tiny: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "loaded in" in out
    assert "hf-nlpnotes classify" in out
    for _, _, labels, texts in demo._DEMO_TASKS:
        for text in texts:
            (row,) = [line for line in out.splitlines() if text in line]
            assert any(label in row for label in labels)
    # Columns are aligned on the terminal: every rule under a header starts where the cells start.
    for rule in [line for line in out.splitlines() if set(line.strip()) == {"-", " "}]:
        assert len(rule.split()) in (3, 6)


def test_demo_as_json(tiny: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["load_seconds"] > 0
    assert sum(len(task["answers"]) for task in report["classification"]) >= 8
    for mask in report["fill_mask"]:
        assert len(mask["answers"]) == 5
        for answer in mask["answers"]:
            assert 0 < answer["score"] < 1


def test_demo_gives_readings_in_context(tiny_chinesebert_folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    found = {"token_str": "行", "score": 0.5}
    assert demo._candidate(tokenizer, "他在银[MASK]工作", found)["pinyin"] == "háng"
    assert demo._candidate(tokenizer, "人[MASK]道", found)["pinyin"] == "xíng"


def test_convert_calls_the_converter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hf_nlpnotes.models.chinesebert import convert_chinesebert

    calls: list[Any] = []

    def convert(src: str, dst: str, overwrite: bool = False) -> Path:
        calls.append((src, dst, overwrite))
        return Path(dst)

    monkeypatch.setattr(convert_chinesebert, "convert_official", convert)
    assert cli.main(["convert-chinesebert", "a", "b", "--overwrite"]) == 0
    assert calls == [("a", "b", True)]
    assert "AutoModel.from_pretrained('b')" in capsys.readouterr().out


def test_convert_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert-chinesebert", str(tmp_path), str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err.startswith("hf-nlpnotes: error: ")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_is_full_where_tensors_are_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is no OSError; but errors that nobody expects keep their traceback."""
    from hf_nlpnotes.models.chinesebert import convert_chinesebert

    for error in (SafetensorError("No space left on device (os error 28)"), ZeroDivisionError("a defect")):

        def convert(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(convert_chinesebert, "convert_official", convert)
        if isinstance(error, SafetensorError):
            assert cli.main(["convert-chinesebert", "a", "b"]) == 1
            assert capsys.readouterr().err == "hf-nlpnotes: error: No space left on device (os error 28)\n"
        else:
            with pytest.raises(ZeroDivisionError):
                cli.main(["convert-chinesebert", "a", "b"])


def test_a_reader_that_goes_away(tiny: None, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", encoding="utf-8") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert cli.main(["classify", "--labels", "体育,财经", str(file)]) == 141


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(classify, "text_lines", interrupt)
    assert cli.main(["classify", "--labels", "体育,财经", str(file)]) == 130


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command as its script does, and print the heavy modules that it has imported on standard error."""
    program = (
        "import sys\n"
        "from hf_nlpnotes_command import main\n"
        "try:\n"
        "    status = main()\n"
        "finally:\n"
        "    heavy = {'torch', 'transformers', 'numpy', 'tqdm', 'hf_nlpnotes._registration'} & sys.modules.keys()\n"
        "    sys.stderr.write(' '.join(sorted(heavy)))\n"
        "sys.exit(status)\n"
    )
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"} | environment
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, env=variables, check=False)


def test_as_a_process_under_a_plain_locale(tiny_chinesebert_folder: Path, file: Path) -> None:
    """Pipes get UTF-8; nothing is on stderr; the exit code is 0; the package registers itself where it is needed."""
    words = file.with_suffix(".json")
    words.write_text('{"体育": "足球", "财经": "股票"}', encoding="utf-8")
    model = ["--model", str(tiny_chinesebert_folder)]
    arguments = ["classify", "--verbalizer", str(words), "--quiet", *model, str(file)]
    done = process(*arguments, LC_ALL="C", LANG="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode() == "hf_nlpnotes._registration numpy torch tqdm transformers"
    assert [line.rpartition("  ")[2] for line in done.stdout.decode("utf-8").splitlines()] == TEXTS


def test_help_imports_nothing_heavy() -> None:
    done = process("train", "tag", "--help")
    assert done.returncode == 0
    assert done.stderr == b"", "torch and transformers are imported where a command runs"
    assert b"--data-format" in done.stdout


def test_a_terminal_that_cannot_show_chinese_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream)
    cli._write_utf8()
    stream.write("国足")
    stream.flush()
    assert stream.buffer.getvalue() == rb"\u56fd\u8db3"  # type: ignore[attr-defined]


def test_completion(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="the extra completion is not installed")
    for shell in ("bash", "zsh"):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["--print-completion", shell])
        assert stopped.value.code == 0
        script = capsys.readouterr().out
        for known in ("convert-chinesebert", "--data-format", "segmented"):
            assert known in script
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--print-completion", "bash"])
    assert stopped.value.code == 2
    assert "hf-nlpnotes[completion]" in capsys.readouterr().err


def test_widths() -> None:
    assert text_width("abc") == 3
    assert text_width("体育，a") == 7
    assert text_width("e\u0301") == 1
