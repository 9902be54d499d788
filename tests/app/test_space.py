"""A Space's folder has what the hub asks for, and is written whole or not at all."""

import ast
import os
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import hf_nlpnotes
from hf_nlpnotes.app import AppOptions, export_space
from hf_nlpnotes.cli import main

# https://huggingface.co/docs/hub/spaces-config-reference
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if gradio were installed: its version is all that is asked for."""
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "6.31.0" if name == "gradio" else version(name))


def header(folder: Path) -> dict[str, object]:
    _, front, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    found: dict[str, object] = yaml.safe_load(front)
    return found


def test_what_the_hub_reads(tmp_path: Path) -> None:
    folder = export_space(tmp_path / "space", AppOptions(reader="some/reader"))
    assert {path.name for path in folder.iterdir()} == {"app.py", "requirements.txt", "README.md"}
    found = header(folder)
    assert (found["sdk"], found["sdk_version"], found["app_file"]) == ("gradio", "6.31.0", "app.py")
    assert {found["colorFrom"], found["colorTo"]} <= COLORS
    assert len(str(found["short_description"])) <= 60
    assert found["models"] == ["some/reader"]
    assert found["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    requirement = Requirement((folder / "requirements.txt").read_text(encoding="utf-8").splitlines()[-1])
    assert (requirement.name, requirement.extras) == ("hf-nlpnotes", {"app"})
    assert requirement.specifier.contains(hf_nlpnotes.__version__, prereleases=True)
    ast.parse((folder / "app.py").read_text(encoding="utf-8"))
    assert "reader='some/reader'" in (folder / "app.py").read_text(encoding="utf-8")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = "hf-nlpnotes[app] @ git+https://example.org/x.git"
    assert main(["app", "--export", str(tmp_path / "space"), "--requirement", line]) == 0
    assert "hf upload" in capsys.readouterr().out
    assert (tmp_path / "space" / "requirements.txt").read_text(encoding="utf-8").endswith(f"\n{line}\n")
    assert "models" not in header(tmp_path / "space")
    assert main(["app", "--export", str(tmp_path / "space")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["app", "--requirement", line]) == 1
    assert "--export" in capsys.readouterr().err


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "space").mkdir()
    assert (export_space(tmp_path / "space") / "app.py").is_file()


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="push it to the hub"):
        export_space(tmp_path / "space", AppOptions(model=str(tmp_path)))
    with pytest.raises(ValueError, match="choose_models"):
        export_space(tmp_path / "space", AppOptions(choose_models=True))
    with pytest.raises(ValueError, match="no folder"):
        export_space(tmp_path / "nowhere" / "space")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        export_space(tmp_path / "space")
    assert not list(tmp_path.iterdir())


def test_without_gradio_the_way_out_is_told(
    quiet: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    assert main(["app", "--port", "1"]) == 1
    assert capsys.readouterr().err == "hf-nlpnotes: error: the app needs gradio: pip install 'hf-nlpnotes[app]'\n"
