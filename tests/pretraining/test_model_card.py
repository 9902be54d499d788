"""The card: a header that tools can read, the figures that were given, the model's own answers, every source."""

import shutil

import pytest
import torch
import yaml
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_nlpnotes.pretraining.model_card import PROBES, fill_masks, write_card

ACCURACY = {
    f"{kind}{end}": value
    for kind, first in (("whole_words", 12.34), ("single", 56.78))
    for end, value in (("", first), ("_han", first - 1), ("_tokens", 1234))
}
HISTORY = {"a": [{"step": 7, "minutes": 1.5, "whole_words": 3.21, "single": 6.54}]}
SOURCES = [{"source": "tales", "repo": "someone/tales", "licence": "CC BY 4.0", "topic": "stories", "chars": 98765}]


@pytest.fixture
def folder(tiny_chinesebert_folder, tmp_path):
    return shutil.copytree(tiny_chinesebert_folder, tmp_path / "model")


def test_card(folder):
    write_card(
        folder, accuracy=ACCURACY, history=HISTORY, sources=SOURCES, options={"seed": "3"}, training_tokens=4321,
        overlap="test.txt  12 found", sheet="## Sheet", name="the-model",
    )  # fmt: skip
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == "transformers"
    for expected in (
        "12.3",
        "55.8",
        "1,234",
        "3.21",
        "someone/tales",
        "CC BY 4.0",
        "98,765",
        "`seed 3`",
        "CPU only",
        "4,321",
        "test.txt  12 found",
        "## Sheet",
        "# the-model",
    ):
        assert expected in body
    assert all(f"| {sentence} |" in body for sentence in PROBES)
    assert "license_name: see-sources" in header
    assert "pretrained from scratch" in body
    assert not list(folder.glob("*.tmp"))


def test_what_it_was_trained_on_from_and_what_does_not_fit(folder):
    """A short sentence and one of more tokens than the model has positions; no sources, so no licence."""
    long = "我" * AutoModelForMaskedLM.from_pretrained(folder).config.max_position_embeddings + "[MASK]"
    options = {"accuracy": ACCURACY, "history": HISTORY, "sources": [], "options": {}, "training_tokens": 1}
    write_card(folder, **options, base="owner/base", sentences=["我喜[MASK]你", long])
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "pretrained further from `owner/base`" in text
    assert "| 我喜[MASK]你 |" in text
    assert long not in text
    assert "license" not in text
    write_card(folder, **options, base=str(folder.parent))
    assert f"further from `{folder.parent.name}`" in (folder / "README.md").read_text(encoding="utf-8")


@torch.no_grad()
def test_answers_are_the_models(folder):
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    ((best, *_, last),) = fill_masks(model, tokenizer, ["我喜[MASK]你"], best=len(tokenizer))
    batch = tokenizer("我喜[MASK]你", return_tensors="pt")
    probabilities = model(**batch).logits[0, 3].softmax(-1)
    assert best[0] == tokenizer.convert_ids_to_tokens(int(probabilities.argmax()))
    assert best[1] == pytest.approx(probabilities.max().item(), rel=1e-5)
    assert last[1] == pytest.approx(probabilities.min().item(), rel=1e-4)


def test_probes_have_one_mask_each():
    assert all(sentence.count("[MASK]") == 1 for sentence in PROBES)


def test_what_the_trainer_logged_becomes_rows(folder):
    logs = [
        {"step": 10, "loss": 5.5},
        {"step": 10, "eval_single": 1.25, "eval_whole_words": 0.5},
        {"step": 20, "loss": 4.5},
        {"step": 20, "eval_single": 2.25, "eval_whole_words": 1.5},
        {"step": 20, "eval_single": 2.25, "eval_whole_words": 1.5},
    ]
    write_card(
        folder,
        accuracy=ACCURACY,
        history={"masked": logs},
        sources=[],
        options={},
        training_tokens=None,
        device="cuda",
    )
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "| masked | 10 | 5.5 | 0.5 | 1.25 |" in text
    assert text.count("| masked | 20 | 4.5 | 1.5 | 2.25 |") == 1
    assert "Streamed text" in text
    assert "on cuda" in text
