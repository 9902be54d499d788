"""The matrix of word scores: the stock model on the prompt written out is the oracle."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_nlpnotes.prompting.text_scores import score_texts, targets_of

TEXTS = ["国足今晚出战", "", "银行业绩很好，股票大涨", "猫"]
WORDS = ["体育", "赛", "北京人", "财经"]
TEMPLATE = "下面报道一则{label}新闻。{text}"


@pytest.fixture(scope="module")
def model(tiny_chinesebert_folder: Path) -> Any:
    return AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


def test_scores_are_the_models_at_the_masks(model: Any, tokenizer: Any) -> None:
    found = score_texts(model, tokenizer, TEMPLATE, TEXTS, WORDS)
    for row, text in enumerate(TEXTS):
        for column, word in enumerate(WORDS):
            ids = tokenizer(word, add_special_tokens=False)["input_ids"]
            prompt = TEMPLATE.replace("{label}", tokenizer.mask_token * len(ids)).replace("{text}", text)
            inputs = tokenizer(prompt, return_tensors="pt")
            with torch.no_grad():
                logits = model(**inputs).logits[inputs["input_ids"] == tokenizer.mask_token_id]
            own = logits.gather(1, torch.tensor(ids)[:, None])[:, 0]
            expected = (own - logits.logsumexp(dim=1)).mean()
            assert found.log_probs[row, column] == pytest.approx(float(expected), abs=1e-5)
            assert found.centred[row, column] == pytest.approx(float((own - logits.mean(dim=1)).mean()), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_and_order_change_nothing(model: Any, tokenizer: Any, batch_size: int) -> None:
    expected = score_texts(model, tokenizer, TEMPLATE, TEXTS, WORDS).log_probs
    found = score_texts(model, tokenizer, TEMPLATE, TEXTS[::-1], WORDS[::-1], batch_size=batch_size).log_probs
    torch.testing.assert_close(found.flip(0, 1), expected, atol=1e-5, rtol=0)
    again = score_texts(model, tokenizer, TEMPLATE, TEXTS, WORDS).log_probs
    assert torch.equal(again, expected)
    assert score_texts(model, tokenizer, TEMPLATE, [], WORDS).log_probs.shape == (0, 4)


def test_a_model_in_training_is_left_in_training(model: Any, tokenizer: Any) -> None:
    expected = score_texts(model, tokenizer, TEMPLATE, TEXTS, WORDS).log_probs
    model.train()
    try:
        assert torch.equal(score_texts(model, tokenizer, TEMPLATE, TEXTS, WORDS).log_probs, expected), "no dropout"
        assert model.training
    finally:
        model.eval()


def test_modules_that_are_not_in_training_stay_so(model: Any, tokenizer: Any) -> None:
    part = next(module for module in model.modules() if module is not model)
    model.train()
    part.eval()
    score_texts(model, tokenizer, "{text}，{label}", ["国足"], ["体育"])
    assert model.training
    assert not part.training
    model.eval()


def test_batches_of_nothing(model: Any, tokenizer: Any) -> None:
    for batch_size in (0, -1):
        with pytest.raises(ValueError, match="batch_size must be a positive whole number"):
            score_texts(model, tokenizer, "{text}，{label}", ["国足"], ["体育"], batch_size=batch_size)


def test_columns(model: Any, tokenizer: Any) -> None:
    template = "{title}。{label}：{text}"
    found = score_texts(model, tokenizer, template, [{"title": "国足", "text": "今晚", "id": 3}], WORDS)
    written = score_texts(model, tokenizer, "国足。{label}：{text}", ["今晚"], WORDS)
    torch.testing.assert_close(found.log_probs, written.log_probs)


@pytest.mark.parametrize(
    ("texts", "words", "error", "message"),
    [
        ([{"title": "国"}], WORDS, ValueError, "no column 'text'"),
        ([{"text": None}], WORDS, TypeError, "holds None"),
        ([3], WORDS, TypeError, "got 3"),
        (TEXTS, ["鑫"], ValueError, "cannot spell the label word '鑫'"),
        (TEXTS, ["赛", "赛"], ValueError, "twice"),
        (TEXTS, [], ValueError, "no label"),
    ],
)
def test_errors(model: Any, tokenizer: Any, texts: Any, words: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        score_texts(model, tokenizer, TEMPLATE, texts, words)


def test_targets() -> None:
    assert targets_of(["b", "a", "b"], ["a", "b"]).tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match=r"label 'c' of an example is none of \['a', 'b'\]"):
        targets_of(["a", "c"], ["a", "b"])
    with pytest.raises(ValueError, match="'b' has no example"):
        targets_of(["a"], ["a", "b"])
