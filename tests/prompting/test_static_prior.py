"""The static prior: the formula written out token by token is the oracle."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from hf_nlpnotes.prompting.static_prior import StaticVectors, combine, prior_scale, static_similarity

TEXTS = ["国足今晚出战，对阵球队", "股票大涨", "", "足", "猫!", "银行的业绩很好是的", "鑫"]
WORDS: dict[str, Any] = {"体育": ["足球", "球", "今晚出"], "财经": {"银行": 3.0, "股票市": 1.0}}


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder: Path) -> Any:
    return BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"))


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForMaskedLM(
        BertConfig(vocab_size=len(tokenizer), intermediate_size=8, initializer_range=0.5, **sizes)
    ).eval()
    torch.nn.init.normal_(model.cls.predictions.bias, std=3.0)
    return model


def brute_force(model: Any, tokenizer: Any, texts: list[str], sharpness: float) -> np.ndarray:
    """Docstrings of `static_similarity` and the module, one token at a time."""
    bias = model.cls.predictions.bias.detach().double().numpy()
    share = np.exp(bias) / np.exp(bias).sum()
    table = model.bert.embeddings.word_embeddings.weight.detach().double().numpy()
    mean = sum(share[i] * table[i] for i in range(len(table)))
    weight = {i: 1e-3 / (1e-3 + share[i]) for i in range(len(table)) if i not in tokenizer.all_special_ids}

    def vector(tokens: list[int]) -> np.ndarray:
        total = sum(weight[i] * (table[i] - mean) for i in tokens)
        return total / np.linalg.norm(total)

    def similarity(text: str, word: str) -> float:
        tokens = [i for i in tokenizer(text, add_special_tokens=False)["input_ids"] if i in weight]
        asked = tokenizer(word, add_special_tokens=False)["input_ids"]
        if not tokens:
            return 0.0
        length = min(len(asked), len(tokens))
        pieces = [tokens[i : i + length] for i in range(len(tokens) - length + 1)]
        weights = [sum(weight[i] for i in piece) for piece in pieces]
        cosines = [float(vector(piece) @ vector(asked)) for piece in pieces]
        if sharpness == 0:
            return sum(w * c for w, c in zip(weights, cosines, strict=True)) / sum(weights)
        total = sum(w / sum(weights) * math.exp(sharpness * c) for w, c in zip(weights, cosines, strict=True))
        return math.log(total) / sharpness

    sport = [np.mean([similarity(t, w) for w in WORDS["体育"]]) for t in texts]
    money = [0.75 * similarity(t, "银行") + 0.25 * similarity(t, "股票市") for t in texts]
    return np.array([sport, money]).T


@pytest.mark.parametrize("sharpness", [0.0, 1e-9, 5.0, 40.0])
def test_similarity_is_the_formula(model: Any, tokenizer: Any, sharpness: float) -> None:
    found = static_similarity(model, tokenizer, TEXTS, WORDS, sharpness=sharpness)
    assert found.dtype == torch.float64
    # logsumexp near sharpness 0 is the mean up to rounding divided by the sharpness
    tolerance = 1e-5 if sharpness == 1e-9 else 1e-12
    np.testing.assert_allclose(found, brute_force(model, tokenizer, TEXTS, sharpness), atol=tolerance)
    assert (found[[2, 6]] == 0).all(), "no known token"


def test_a_text_is_scored_by_itself_in_any_company(model: Any, tokenizer: Any) -> None:
    together = static_similarity(model, tokenizer, TEXTS, WORDS)
    assert torch.equal(together, static_similarity(model, tokenizer, TEXTS, WORDS)), "twice the same"
    for row, text in enumerate(TEXTS):
        assert torch.equal(together[row : row + 1], static_similarity(model, tokenizer, [text], WORDS))
    turned = dict(reversed(WORDS.items()))
    torch.testing.assert_close(together.flip(1), static_similarity(model, tokenizer, TEXTS, turned))
    vectors = StaticVectors.of(model, tokenizer)
    assert torch.equal(together, static_similarity(model, tokenizer, TEXTS, WORDS, vectors=vectors))
    assert static_similarity(model, tokenizer, [], WORDS).shape == (0, 2)


def test_a_word_that_the_text_holds_is_most_similar(model: Any, tokenizer: Any) -> None:
    similarity = static_similarity(model, tokenizer, ["老师学生足球学校老师"], ["足球", "银行"], sharpness=1000.0)
    assert similarity[0, 0] == pytest.approx(1.0, abs=0.01)
    assert similarity[0, 0] > similarity[0, 1]


def test_markup_in_a_text_stays_text(model: Any, tokenizer: Any) -> None:
    vectors = StaticVectors.of(model, tokenizer)
    assert tokenizer.mask_token_id not in vectors.token_ids("[MASK]足[SEP]")
    assert vectors.token_ids("足") != []


def test_frequent_tokens_count_less_and_infinite_smoothing_makes_them_equal(model: Any, tokenizer: Any) -> None:
    size = len(tokenizer)
    counts = torch.ones(size)
    often = tokenizer.convert_tokens_to_ids("的")
    counts[often] = 1000.0
    weights = StaticVectors.of(model, tokenizer, counts).weights
    rest = torch.tensor([i not in {*tokenizer.all_special_ids, often} for i in range(size)])
    share = 1 / (size - 1 + 1000)
    torch.testing.assert_close(weights[rest], torch.full((int(rest.sum()),), 1e-3 / (1e-3 + share)).double())
    assert weights[often] == pytest.approx(1e-3 / (1e-3 + 1000 * share))
    equal = StaticVectors.of(model, tokenizer, counts, smoothing=math.inf).weights
    assert (equal[rest] == 1).all()
    assert equal[often] == 1
    assert (equal[tokenizer.all_special_ids] == 0).all()


def test_a_chinesebert_in_half_precision(tiny_chinesebert_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    model = AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    expected = static_similarity(model, tokenizer, TEXTS, WORDS)
    torch.testing.assert_close(static_similarity(model.half(), tokenizer, TEXTS, WORDS), expected, atol=0.01, rtol=0)


def test_combine_sums_both_in_units_of_their_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    network = torch.randn(6, 4, generator=generator) * 7
    similarity = torch.randn(6, 4, generator=generator, dtype=torch.float64) / 10
    assert combine(network, similarity, 0.0) is network
    n, m = network.double().numpy(), similarity.numpy()
    n = n - n.mean(axis=1, keepdims=True)
    m = m - m.mean(axis=1, keepdims=True)
    expected = n / n.std() + 0.5 * m / m.std()  # z-scores
    found = combine(network, similarity, 0.5).double().numpy()
    found = (found - found.mean(axis=1, keepdims=True)) / n.std()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    shifted = similarity * 3 + torch.arange(6)[:, None]
    torch.testing.assert_close(combine(network, shifted, 0.5), combine(network, similarity, 0.5))
    scale = prior_scale(network, similarity)
    one = combine(network[:1], similarity[:1], 0.5, scale=scale)
    torch.testing.assert_close(one, combine(network, similarity, 0.5)[:1])


def test_combine_where_a_side_says_nothing() -> None:
    network, similarity = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.3, 0.1]])
    flat = torch.full((1, 2), 0.1)
    assert combine(network, flat, 1.0).argmax() == 1
    assert combine(flat, similarity, 1.0).argmax() == 0
    assert combine(flat, flat, 1.0).tolist() == flat.tolist()
    assert combine(torch.zeros(0, 2), torch.zeros(0, 2), 1.0).shape == (0, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"texts": "国足"}, TypeError, "list of strings, got '国足'"),
        ({"texts": ["国", None]}, TypeError, "got None"),
        ({"verbalizer": ["鑫"]}, ValueError, "cannot spell the label word '鑫'"),
        ({"verbalizer": {"体育": " "}}, ValueError, "empty"),
        ({"sharpness": -1.0}, ValueError, "sharpness .* got -1.0"),
        ({"sharpness": math.nan}, ValueError, "sharpness"),
    ],
)
def test_errors(model: Any, tokenizer: Any, options: Any, error: type[Exception], message: str) -> None:
    arguments = {"texts": TEXTS, "verbalizer": WORDS, **options}
    with pytest.raises(error, match=message):
        static_similarity(model, tokenizer, **arguments)


def test_errors_of_vectors_and_of_combine(model: Any, tokenizer: Any) -> None:
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 8}
    blind = CLIPVisionModel(CLIPVisionConfig(intermediate_size=8, patch_size=4, **sizes))
    with pytest.raises(ValueError, match="no table of token vectors"):
        StaticVectors.of(blind, tokenizer)
    with pytest.raises(ValueError, match="one a token"):
        StaticVectors.of(model, tokenizer, torch.ones(3))
    with pytest.raises(ValueError, match="smoothing must be positive, got 0"):
        StaticVectors.of(model, tokenizer, smoothing=0)
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2, 3\)"):
        combine(torch.zeros(2, 2), torch.zeros(2, 3), 1.0)
    with pytest.raises(ValueError, match=r"prior_weight .* got -0\.5"):
        combine(torch.zeros(2, 2), torch.zeros(2, 2), -0.5)
