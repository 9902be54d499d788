"""The loss of hidden positions alone is the stock model's; with all tokens as candidates so is the sampled one."""

import copy

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertForMaskedLM
from hf_nlpnotes.pretraining.sampled_masked_lm import SampledBertForMaskedLM, SampledChineseBertForMaskedLM

SIZES = {
    "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
    "max_position_embeddings": 16, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def pair(kind):
    torch.manual_seed(0)
    if kind == "bert":
        stock, sampled = BertForMaskedLM(BertConfig(**SIZES)), SampledBertForMaskedLM(BertConfig(**SIZES))
    else:
        config = ChineseBertConfig(**SIZES, glyph_size=4, pinyin_embedding_size=8, pinyin_table_size=30)
        stock, sampled = ChineseBertForMaskedLM(config), SampledChineseBertForMaskedLM(copy.deepcopy(config))
    torch.nn.init.normal_(stock.cls.predictions.bias)
    sampled.load_state_dict(stock.state_dict())
    return stock.train(), sampled.train()


def batch(kind):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (5, 12), generator=generator)
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.3, ids, -100)
    mask = torch.ones_like(ids)
    mask[0, 9:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    if kind == "chinesebert":
        inputs["pinyin_ids"] = torch.randint(30, ids.shape, generator=generator)
    return inputs


def gradients(model, **inputs):
    model.zero_grad()
    loss = model(**inputs).loss
    loss.backward()
    return loss, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", ["bert", "chinesebert"])
@pytest.mark.parametrize("negatives", [None, 1000])
def test_loss_and_gradients_of_the_stock_model(kind, negatives):
    stock, sampled = pair(kind)
    sampled.negatives = negatives  # more than the vocabulary has: no part of it is left out
    sampled.set_unigram(torch.full((60,), 1 / 60))
    inputs = batch(kind)
    expected, found = gradients(stock, **inputs), gradients(sampled, **inputs)
    torch.testing.assert_close(found[0], expected[0])
    assert set(found[1]) == set(expected[1])
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["bert", "chinesebert"])
def test_parts_of_a_batch_add_up(kind):
    _, sampled = pair(kind)
    inputs = batch(kind)
    whole = sampled(**inputs).loss
    number = (inputs["labels"] != -100).sum()
    parts = [
        sampled(**{name: value[rows] for name, value in inputs.items()}, num_items_in_batch=number).loss
        for rows in (slice(0, 2), slice(2, 5))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_outside_of_training_it_is_the_stock_model():
    stock, sampled = pair("chinesebert")
    inputs = batch("chinesebert")
    torch.testing.assert_close(sampled.eval()(**inputs).logits, stock.eval()(**inputs).logits, rtol=0, atol=0)


def test_saved_as_what_the_auto_class_loads(tmp_path):
    _, sampled = pair("bert")
    sampled.save_pretrained(tmp_path)
    again = BertForMaskedLM.from_pretrained(tmp_path).eval()
    ids = batch("bert")["input_ids"]
    assert torch.equal(again(ids).logits, sampled.eval()(ids).logits)


def test_no_hidden_position_at_all():
    _, sampled = pair("bert")
    inputs = batch("bert")
    loss = sampled(**{**inputs, "labels": torch.full_like(inputs["labels"], -100)}).loss
    assert loss.item() == 0


def test_sampling_needs_frequencies():
    _, sampled = pair("bert")
    sampled.negatives = 10
    with pytest.raises(ValueError, match="set_unigram"):
        sampled(**batch("bert"))
