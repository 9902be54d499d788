"""`hf-nlpnotes attention` writes the page that was asked for, or says why it cannot."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizerFast, T5Config, T5Model

from hf_nlpnotes import cli
from hf_nlpnotes.cli import attention

Captured = pytest.CaptureFixture[str]


def data_of(path: Path) -> dict[str, Any]:
    (text,) = re.findall(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    result: dict[str, Any] = json.loads(text)
    return result


def test_a_page_of_two_texts(tiny_chinesebert_folder: Path, tmp_path: Path, capsys: Captured) -> None:
    page = tmp_path / "page.html"
    options = ["--layer", "1", "--head", "-1", "--view", "matrix", "--theme", "dark", "-o", str(page)]
    assert cli.main(["attention", "--model", str(tiny_chinesebert_folder), "国足出战", "球队", *options]) == 0
    out, err = capsys.readouterr()
    assert not out, "the page is the result"
    assert f"wrote {page}, 0." in err
    assert "layers: 2 encoder" in err
    data = data_of(page)
    assert (data["view"], data["layer"], data["head"]) == ("matrix", 1, 1)
    assert 'data-theme="dark"' in page.read_text(encoding="utf-8")
    assert data["sequences"][0]["segments"].count(1) == 2


def test_words(tiny_chinesebert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_words", lambda: lambda text: [text[:2], text[2:]])
    page = tmp_path / "page.html"
    assert (
        cli.main(["attention", "--model", str(tiny_chinesebert_folder), "国足出战", "--words", "-o", str(page)]) == 0
    )
    assert data_of(page)["sequences"][0]["tokens"] == ["[CLS]", "国足", "出战", "[SEP]"]


def test_an_encoder_decoder(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t5"
    config = T5Config(vocab_size=400, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5Model(config).save_pretrained(folder)
    BertTokenizerFast(str(tiny_chinesebert_folder / "vocab.txt")).save_pretrained(folder)
    page = tmp_path / "page.html"
    assert cli.main(["attention", "--model", str(folder), "国足出战", "--decoder-text", "球队", "-o", str(page)]) == 0
    assert [layer["kind"] for layer in data_of(page)["layers"]] == ["encoder", "decoder", "cross"]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (" ", [], "the text is empty"),
        ("国足", ["--layer", "2"], "layer 2: there are 2"),
        ("国足", ["--words", "--view", "neuron"], "words have no queries"),
        ("国足" * 100, [], "the text has 202 tokens and the model takes 128"),
        ("国足", ["--decoder-text", "球队"], "has no decoder"),
        ("国足", ["-o", "absent/page.html"], "--output 'absent/page.html'"),
    ],
)
def test_what_cannot_be_shown(
    tiny_chinesebert_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    text: str,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["attention", "--model", str(tiny_chinesebert_folder), text, *options]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_long_text_is_cut_when_asked(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["attention", "--model", str(tiny_chinesebert_folder), "国足" * 100, "--truncate", "-o", str(page)]
    assert cli.main(arguments) == 0
    assert len(data_of(page)["sequences"][0]["tokens"]) == 128


def test_no_such_model(tmp_path: Path, capsys: Captured) -> None:
    assert cli.main(["attention", "--model", str(tmp_path / "absent"), "国足"]) == 1
    assert "cannot be loaded" in capsys.readouterr().err
