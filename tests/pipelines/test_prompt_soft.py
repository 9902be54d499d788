"""Soft tokens in the prompt pipeline: what `PromptForSequenceClassification` says of the same texts is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline

from hf_nlpnotes.pipelines import ZeroShotPromptPipeline
from hf_nlpnotes.prompting import PromptConfig, PromptForSequenceClassification
from hf_nlpnotes.prompting.soft_prompts import SOFT_FILE

WORDS = {"体育": ["体育", "球"], "财经": "财经", "教育": "校"}
SOFT = PromptConfig(
    template={"{soft:这是}{text}{soft:2}{label}": 2, "{label}：{text}": 1, "{text}{soft:3}，{label}": 1},
    verbalizer=WORDS,
)
TEXTS = ["国足今晚出战", "银行业绩", "，", "新" * 300]
EXAMPLES = [{"text": text} for text in TEXTS]


@pytest.fixture
def trained(tiny_chinesebert_folder: Path) -> Any:
    """A model with strong opinions, whose soft tokens are no words any more."""
    model = PromptForSequenceClassification.from_pretrained(tiny_chinesebert_folder, config=SOFT)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    model.calibrate(EXAMPLES)
    return model


def answers(pipe: Any, **options: Any) -> torch.Tensor:
    found = [{one["label"]: one["score"] for one in answer} for answer in pipe(TEXTS, top_k=None, **options)]
    return torch.tensor([[answer[label] for label in WORDS] for answer in found])


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_folder_that_training_has_saved(trained: Any, tmp_path: Path, batch_size: int) -> None:
    expected = trained.predict(EXAMPLES).softmax(dim=1)
    assert expected.std() > 0.05, "a model without opinions proves nothing"
    trained.save_pretrained(tmp_path)
    saved = pipeline("zero-shot-prompt", model=str(tmp_path), device="cpu", batch_size=batch_size)
    assert_close(answers(saved), expected)
    assert_close(answers(pipeline("zero-shot-prompt", prompt=str(tmp_path), device="cpu")), expected)
    assert_close(answers(pipeline("zero-shot-prompt", model=trained, device="cpu")), expected)
    # Every way of reading words puts the soft tokens in their places.
    reranked = PromptForSequenceClassification.from_pretrained(tmp_path, config=saved._stored.replace(rerank=2))
    assert_close(answers(saved, rerank=2), reranked.predict(EXAMPLES).softmax(dim=1))
    assert not torch.allclose(answers(saved, scoring="left-to-right"), expected, atol=1e-3)


def test_soft_tokens_without_the_weights(trained: Any, tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    """The network as it was: only the prompt and its tokens are stored, which name it."""
    model = PromptForSequenceClassification.from_pretrained(tiny_chinesebert_folder, config=SOFT)
    with torch.no_grad():
        model.soft_prompt.soft_tokens.normal_(generator=torch.Generator().manual_seed(0))
    model.save_prompt(tmp_path, model=str(tiny_chinesebert_folder))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompt.json", SOFT_FILE]
    assert_close(
        answers(pipeline("zero-shot-prompt", prompt=str(tmp_path), device="cpu")),
        model.predict(EXAMPLES).softmax(dim=1),
    )


def test_a_bias_is_measured_anew_with_other_soft_tokens(trained: Any) -> None:
    pipe = pipeline("zero-shot-prompt", model=trained, device="cpu")
    before = answers(pipe, calibration="contextual")
    with torch.no_grad():
        trained.soft_prompt.soft_tokens *= -1
    after = answers(pipe, calibration="contextual")
    assert not torch.allclose(after, before, atol=1e-3)
    assert_close(after, answers(pipeline("zero-shot-prompt", model=trained, device="cpu"), calibration="contextual"))


def test_soft_tokens_belong_to_their_templates(trained: Any, tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path)
    pipe = pipeline("zero-shot-prompt", model=str(tmp_path), device="cpu")
    with pytest.raises(ValueError, match="has soft tokens, whose vectors are trained"):
        pipe(TEXTS[0], template="{text}{soft:2}{label}")
    assert len(pipe(TEXTS, template="{text}，{label}")) == 4
    (tmp_path / SOFT_FILE).unlink()
    with pytest.raises(ValueError, match="has soft tokens, whose vectors are trained"):
        pipeline("zero-shot-prompt", model=str(tmp_path), device="cpu")
    model = AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    with pytest.raises(ValueError, match="has soft tokens, whose vectors are trained"):
        ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, prompt=SOFT, device="cpu")
