"""Tiny models behind the tabs, and the browser of the attention page's tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, pipeline
from transformers.utils import logging

from hf_nlpnotes.models.chinesebert import ChineseBertForQuestionAnswering, ChineseBertForTokenClassification
from hf_nlpnotes.tagging import scheme_labels


@pytest.fixture(scope="session")
def classifier(tiny_chinesebert_folder: Path) -> Any:
    return pipeline("zero-shot-prompt", model=str(tiny_chinesebert_folder), device="cpu")  # type: ignore[call-overload]  # ours


@pytest.fixture(scope="session")
def filler(tiny_chinesebert_folder: Path) -> Any:
    return pipeline("fill-mask", model=str(tiny_chinesebert_folder), device="cpu")


def saved(head: Any, source: Path, folder: Path, **options: Any) -> Path:
    """A folder with a random head over the tiny model, as if it had been trained."""
    torch.manual_seed(0)
    head.from_pretrained(source, **options).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tagger_folder(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = dict(enumerate(scheme_labels(["PER", "ORG"], "BIOES")))
    folder = tmp_path_factory.mktemp("tagger")
    return saved(ChineseBertForTokenClassification, tiny_chinesebert_folder, folder, id2label=labels)


@pytest.fixture(scope="session")
def segmenter_folder(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = dict(enumerate(scheme_labels([""], "BMES", outside=False)))
    folder = tmp_path_factory.mktemp("segmenter")
    return saved(ChineseBertForTokenClassification, tiny_chinesebert_folder, folder, id2label=labels)


@pytest.fixture(scope="session")
def reader_folder(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(ChineseBertForQuestionAnswering, tiny_chinesebert_folder, tmp_path_factory.mktemp("reader"))


@pytest.fixture
def quiet() -> Iterator[None]:
    """Without the libraries' reports of new heads; the command turns them off, and here they come back."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture(scope="session")
def gradio() -> Any:
    """The library that the page is made with."""
    return pytest.importorskip("gradio", reason="no gradio: pip install 'hf-nlpnotes[app]', or make test-app")


@pytest.fixture(scope="session")
def run_chromium() -> Any:
    """A function that starts the headless browser with which the attention page is tested."""
    path = Path(__file__).parents[1] / "attention" / "page" / "conftest.py"
    spec = importlib.util.spec_from_file_location("chromium_of_the_attention_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.find_chromium() is None:
        pytest.skip(module.INSTALL)
    return module.chromium
