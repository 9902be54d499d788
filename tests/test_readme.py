"""The snippets of both README files and docs/*.md run, and print what they say they print.

A ```python block stands by itself and runs in a folder with the files that the snippets name. Text after `# ` behind a
`print(...)`, or a ```text block below, is what it prints, with `...` for any text. In a ```bash block the lines that
call `hf-nlpnotes` run as they stand; others (`make`, `pip`, `git`) are for the reader's machine.
"""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from PIL import ImageFont

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertForMaskedLM, ChineseBertTokenizer

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = sorted((REPOSITORY / "docs").glob("*.md"))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "README.zh-CN.md", *DOCS]
FENCE = re.compile(
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL
)


class Snippet(NamedTuple):
    """A fenced block: the page, the line on which its code begins, its code, and the output shown below it."""

    page: Path
    line: int
    code: str
    output: str


def snippets(language: str) -> list[Snippet]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match["language"] == language:
                line = text.count("\n", 0, match.start("code")) + 1
                found.append(Snippet(page, line, match["code"], match["output"] or ""))
    return found


def shell_commands() -> dict[str, str]:
    """Return every call of `hf-nlpnotes` on the pages, each once, with the output shown below a block of one call."""
    commands: dict[str, str] = {}
    for snippet in snippets("bash"):
        calls = re.findall(r"^(?:hf-nlpnotes|echo .*\| *hf-nlpnotes) .*$", snippet.code, flags=re.MULTILINE)
        assert len(calls) == 1 or not snippet.output, f"{identifier(snippet)}: which call printed this?"
        for call in calls:
            commands[call] = snippet.output or commands.get(call, "")
    return commands


def identifier(snippet: Snippet) -> str:
    return f"{snippet.page.name}:{snippet.line}"


def promised_output(snippet: Snippet) -> list[str]:
    """Return the lines of the block below a snippet, or the comments behind its `print(...)` calls."""
    return snippet.output.splitlines() or re.findall(r"^ *print\(.*\)  # (.+)$", snippet.code, re.MULTILINE)


def matches(promised: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in promised.split("..."))
    return re.fullmatch(pattern, printed) is not None


@pytest.fixture(scope="session")
def official_folder(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in ShannonAI's layout, with legacy weights that hold the bitmaps and a stray position_ids."""
    folder = tmp_path_factory.mktemp("official")
    tokenizer = ChineseBertTokenizer.from_pretrained(tiny_chinesebert_folder)
    config = ChineseBertConfig.from_pretrained(
        tiny_chinesebert_folder, glyph_storage="float32", pinyin_embedding_size=128
    )
    weights = ChineseBertForMaskedLM(config).state_dict()
    own = [name for name in weights if name.endswith((".pinyin_table", ".default_pinyin_ids"))]
    glyphs = weights["bert.embeddings.glyph_embeddings.embedding.weight"]
    weights["bert.embeddings.glyph_embeddings.embedding.weight"] = torch.randint(0, 256, glyphs.shape).float()
    weights["bert.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    torch.save({name: value for name, value in weights.items() if name not in own}, folder / "pytorch_model.bin")
    official = {
        name: value for name, value in config.to_dict().items() if "pinyin" not in name and "glyph" not in name
    }
    official |= {"model_type": "bert", "architectures": ["GlyceBertForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(official), encoding="utf-8")
    shutil.copy(tiny_chinesebert_folder / "vocab.txt", folder)
    (folder / "config").mkdir()
    table = tokenizer.readings
    letters = {"idx2char": list(table.letters), "char2idx": {letter: i for i, letter in enumerate(table.letters)}}
    rows = {reading: table.rows[table.index(reading)].tolist() for reading in table.readings if reading}
    (folder / "config" / "pinyin_map.json").write_text(json.dumps(letters), encoding="utf-8")
    (folder / "config" / "pinyin2tensor.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


@pytest.fixture
def reader_folder(tmp_path: Path, official_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which a reader tries the snippets, with the files that they name; it is the working one."""
    (tmp_path / "titles.txt").write_text("国足今晚出战亚洲杯\n央行宣布下调存款利率\n", encoding="utf-8")
    shutil.copytree(official_folder, tmp_path / "ChineseBERT-base")
    for name in ("song.ttf", "hei.ttf", "kai.ttf"):
        (tmp_path / name).write_bytes(ImageFont.load_default(24).font_bytes)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What torch's ONNX exporter says of itself.
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:# The axis name:UserWarning")
@pytest.mark.parametrize("snippet", snippets("python"), ids=identifier)
def test_python_snippet(snippet: Snippet, reader_folder: Path) -> None:
    place = f"{snippet.page}:{snippet.line}"
    # Blank lines in front give tracebacks the page's own line numbers.
    program = compile("\n" * (snippet.line - 1) + snippet.code, str(snippet.page), "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(program, {"__name__": "__main__"})
    promised = promised_output(snippet)
    if promised:
        lines = printed.getvalue().splitlines()
        assert len(lines) == len(promised), place
        for expected, line in zip(promised, lines, strict=True):
            assert matches(expected, line), f"{place} promises {expected!r} and prints {line!r}"


@pytest.mark.parametrize(("command", "output"), shell_commands().items(), ids=list(shell_commands()))
def test_shell_command(command: str, output: str, reader_folder: Path) -> None:
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert matches(output.strip(), done.stdout.strip()) or not output, done.stdout


def test_every_link_to_a_file_of_the_repository_leads_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in [*PAGES, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"]
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_the_two_readmes_link_to_each_other() -> None:
    english, chinese = ((REPOSITORY / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert "](README.zh-CN.md)" in english
    assert "](README.md)" in chinese


def test_the_first_page_names_every_page_of_the_documentation() -> None:
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    missing = [page.name for page in DOCS if page.name != "index.md" and f"({page.name})" not in index]
    assert not missing


@pytest.mark.parametrize(
    ("promised", "printed", "expected"),
    [("体育", "体育", True), ("体育 0.9...", "体育 0.95", True), ("体育", "财经", False), ("[1...]", "[1, 2]", True)],
)
def test_the_comparison_of_outputs(promised: str, printed: str, expected: bool) -> None:
    assert matches(promised, printed) is expected
