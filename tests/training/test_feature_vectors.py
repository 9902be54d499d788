"""Vectors of texts: against one text at a time, pooled by hand."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from hf_nlpnotes.training.feature_vectors import extract_features

TEXTS = ["我喜欢猫", "难过", "国足今晚出战对阵球队体育", "很好", "北京大学老师开心"]


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


@pytest.mark.parametrize("pooling", ["mean", "max", "first"])
@pytest.mark.parametrize("head", [AutoModel, AutoModelForSequenceClassification])
def test_each_vector_is_that_of_its_text_alone(tiny_chinesebert_folder, tokenizer, pooling, head):
    model = head.from_pretrained(tiny_chinesebert_folder)
    found = extract_features(model, tokenizer, TEXTS, layers=[0, -1], pooling=pooling, batch_size=2)
    assert found.shape == (5, 64)
    assert found.dtype == np.float32
    pool = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "first": lambda x: x[0]}[pooling]
    for text, vector in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        expected = np.concatenate([pool(states[layer][0].numpy()) for layer in (0, 2)])
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_pairs_and_modes(tiny_chinesebert_folder, tokenizer):
    model = AutoModel.from_pretrained(tiny_chinesebert_folder).train()
    model.pooler.eval()
    pairs = extract_features(model, tokenizer, [("我", "你"), ("猫", "狗")])
    assert pairs.shape == (2, 32)
    assert model.training
    assert model.embeddings.dropout.training
    assert not model.pooler.training
    np.testing.assert_array_equal(pairs, extract_features(model, tokenizer, [("我", "你"), ("猫", "狗")]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"texts": "我"}, TypeError, r"Pass \[text\]"),
        ({"texts": []}, ValueError, "empty"),
        ({"pooling": "sum"}, ValueError, "got 'sum'"),
        ({"layers": 3}, ValueError, "layer 3"),
        ({"layers": []}, ValueError, "layers is empty"),
        ({"batch_size": 0}, ValueError, "got 0"),
    ],
)
def test_bad_options(tiny_chinesebert_folder, tokenizer, arguments, error, message):
    model = AutoModel.from_pretrained(tiny_chinesebert_folder)
    with pytest.raises(error, match=message):
        extract_features(model, tokenizer, **{"texts": TEXTS, **arguments})
