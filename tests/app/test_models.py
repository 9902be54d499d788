"""Models are loaded late and once, and only those that can do their work."""

import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForSequenceClassification

import hf_nlpnotes
from hf_nlpnotes.app import AppOptions, Models, check_models, models

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


@pytest.fixture
def tiny(tiny_chinesebert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hf_nlpnotes, "EMBEDDED_MODEL", str(tiny_chinesebert_folder))
    return tiny_chinesebert_folder


def test_the_embedded_model_is_the_default(tiny: Path) -> None:
    found = Models(AppOptions(device="cpu"))
    assert found.name == tiny.name
    assert found.classifier().model.name_or_path == str(tiny)
    assert found.filler().model is found.classifier().model
    assert found.attention() == (found.classifier().model, found.classifier().tokenizer)
    assert found.tagger() is None
    assert found.reader("") is None


def test_many_at_once_load_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    original = models._pipeline

    def counting(task: str, *args: object, **options: object) -> object:
        made.append(task)
        return original(task, *args, **options)

    monkeypatch.setattr(models, "_pipeline", counting)
    found = Models(AppOptions(device="cpu"))
    assert made == [], "nothing is loaded before it is needed"
    together = threading.Barrier(8)
    seen = []

    def ask() -> None:
        together.wait()
        seen.append((found.classifier(), found.filler()))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == ["fill-mask", "zero-shot-prompt"]
    assert len(seen) == 8
    assert len({(id(one), id(other)) for one, other in seen}) == 1


def test_a_model_without_a_trained_head_is_refused(tiny: Path, quiet: None) -> None:
    found = Models(AppOptions(tagger=str(tiny), reader=str(tiny), device="cpu"))
    with pytest.raises(ValueError, match=r"not trained to tag: it is a model for MaskedLM; `hf-nlpnotes train tag`"):
        found.tagger()
    with pytest.raises(ValueError, match=r"not trained to answer questions: .* MaskedLM; `hf-nlpnotes train answer`"):
        found.reader()


def test_a_model_for_something_else_is_refused(tiny: Path, tmp_path: Path) -> None:
    """Its head has the weights of a tagger's, by their names."""
    BertForSequenceClassification(BertConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"not trained to tag: it is a model for SequenceClassification; "):
        Models(AppOptions(tagger=str(tmp_path), device="cpu")).tagger()


def test_only_ones_own_page_lets_readers_name_models(tagger_folder: Path, segmenter_folder: Path) -> None:
    closed = Models(AppOptions(tagger=str(tagger_folder), device="cpu"))
    assert closed.tagger(str(tagger_folder)) is closed.tagger()
    with pytest.raises(ValueError, match="names its own models"):
        closed.tagger(str(segmenter_folder))
    assert Models(AppOptions(device="cpu", choose_models=True)).tagger(str(segmenter_folder)) is not None


def test_few_named_models_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def make(name: str, device: str | None) -> str:
        assert device == "cpu"
        made.append(name)
        return name

    monkeypatch.setattr(models, "_tagging_pipeline", make)
    found = Models(AppOptions(device="cpu", choose_models=True))
    for name in ("a", "b", "a", "c", "a", "b"):
        assert found.tagger(name) == name
    assert made == ["a", "b", "c", "b"]


def test_a_name_that_leads_nowhere(tiny: Path, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    found = Models(AppOptions(model=nowhere, device="cpu", choose_models=True))
    for ask in (found.classifier, lambda: found.tagger(nowhere), lambda: found.reader(nowhere)):
        with pytest.raises(OSError, match="nowhere"):
            ask()
    with pytest.raises(ValueError, match="301 characters"):
        found.tagger("a" * 301)
    with pytest.raises(OSError, match="nowhere"):
        check_models(AppOptions(tagger=nowhere))
    check_models(AppOptions(str(tiny)))
