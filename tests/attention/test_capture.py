"""Capture, against the models' own eager `output_attentions`."""

import re
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from hf_nlpnotes.attention import AttentionMaps, capture_attention, capture_inputs
from hf_nlpnotes.attention.capture import record_attention
from hf_nlpnotes.attention.interface import AttentionCall, attention_implementation, observed

FAMILIES = ["bert", "roberta", "electra", "albert", "distilbert", "modernbert", "deberta-v2", "gpt2", "qwen2", "llama"]
OTHERS = ["gemma2", "gpt_oss", "bloom", "mpnet", "xlnet", "xglm"]
TEXT, PAIR = "国足今晚出战", "我喜欢猫"


def ids_of(length: int = 9) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 300, (1, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def eager(model: PreTrainedModel, inputs: dict[str, torch.Tensor], name: str = "attentions") -> list[np.ndarray]:
    """The model's own word on its attention."""
    with attention_implementation(model, "eager"), torch.no_grad():
        output = model(**inputs, output_attentions=True)
    return [weights[0].numpy() for weights in output[name]]


def assert_right(maps: AttentionMaps, expected: list[np.ndarray]) -> None:
    assert len(maps) == len(expected)
    for layer, weights in zip(maps.layers, expected, strict=True):
        np.testing.assert_allclose(layer.weights, weights, atol=1e-6)
        np.testing.assert_allclose(layer.rebuilt(), weights, atol=1e-6)
        # A rule that gives the same weights everywhere would pass without looking at anything.
        assert np.ptp(layer.weights[:, -1]) > 0.01


@pytest.mark.parametrize("model_type", [*FAMILIES, *OTHERS])
def test_weights_are_the_model_s_own_and_come_from_what_was_captured(make_model: Any, model_type: str) -> None:
    model, inputs = make_model(model_type), ids_of()
    assert_right(capture_inputs(model, inputs), eager(model, inputs))


def test_chinesebert(chinesebert: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    maps = capture_attention(chinesebert, tokenizer, TEXT, PAIR)
    inputs = dict(tokenizer(TEXT, PAIR, return_tensors="pt"))
    expected = eager(chinesebert, inputs)
    assert len(maps) == len(expected) == 2
    for layer, weights in zip(maps.layers, expected, strict=True):
        np.testing.assert_allclose(layer.weights, weights, atol=1e-6)
        np.testing.assert_allclose(layer.rebuilt(), weights, atol=1e-6)


def test_deberta_is_split_into_product_and_position_terms(make_model: Any) -> None:
    """The product of queries and keys alone is the content to content term; the others are the bias."""
    model, inputs = make_model("deberta-v2"), ids_of()
    layer = capture_inputs(model, inputs)[0]
    attention = model.encoder.layer[0].attention.self
    with torch.no_grad():
        hidden = model.embeddings(inputs["input_ids"], mask=inputs["attention_mask"])
        query, key = (
            projection(hidden)[0].view(-1, 4, 8).transpose(0, 1)
            for projection in (attention.query_proj, attention.key_proj)
        )
    content = (query @ key.transpose(-1, -2) / np.sqrt(3 * 8)).numpy()  # three terms share the scale
    np.testing.assert_allclose(layer.products(), content, atol=1e-5)
    assert layer.bias is not None
    assert np.abs(layer.bias).max() > 1e-3


def test_bloom_has_alibi_as_its_bias_and_the_future_masked(make_model: Any) -> None:
    layer = capture_inputs(make_model("bloom"), ids_of())[0]
    slopes = 0.25 ** np.arange(1, 5)  # four heads: 2^(-8 h / 4)
    places = np.arange(9)
    assert layer.bias is not None
    assert layer.mask is not None
    seen = np.tril(np.ones((9, 9), dtype=bool))
    # Added per key: it differs from the distance by a constant a row.
    bias = np.where(seen, layer.bias - layer.bias[:, :, :1], 0)
    np.testing.assert_allclose(bias, np.where(seen, slopes[:, None, None] * places, 0), atol=1e-4)
    assert (layer.mask[:, ~seen] < -1e4).all()
    assert not layer.mask[:, seen].any()


def test_grouped_keys_are_repeated_for_every_query(make_model: Any) -> None:
    layer = capture_inputs(make_model("llama"), ids_of())[0]
    assert layer.key is not None
    assert layer.value is not None
    np.testing.assert_array_equal(layer.key[0], layer.key[1])
    np.testing.assert_array_equal(layer.value[2], layer.value[3])
    assert np.abs(layer.key[1] - layer.key[2]).max() > 0.01


@pytest.mark.parametrize(
    ("model_type", "scaling"),
    [("bert", 8**-0.5), ("t5", 1.0), ("mpnet", 8**-0.5), ("xlnet", 8**-0.5), ("bloom", 8**-0.5)],
)
def test_scaling_is_the_model_s(make_model: Any, model_type: str, scaling: float) -> None:
    """MPNet divides its scores, XLNet multiplies them behind its position terms, BLOOM scales within the product."""
    assert capture_inputs(make_model(model_type), ids_of())[0].scaling == pytest.approx(scaling)


def test_sinks_and_softcap_are_recorded(make_model: Any) -> None:
    sunk = capture_inputs(make_model("gpt_oss"), ids_of())[0]
    assert sunk.sinks is not None
    assert (sunk.weights.sum(-1) < 0.99).any()
    capped = capture_inputs(make_model("gemma2"), ids_of())[0]
    assert capped.softcap == pytest.approx(0.1)
    assert capture_inputs(make_model("bert"), ids_of())[0].sinks is None


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_encoder_decoder(make_model: Any, tokenizer: PreTrainedTokenizerBase, model_type: str) -> None:
    model = make_model(model_type)
    maps = capture_attention(model, tokenizer, TEXT, decoder_text=PAIR)
    assert maps.kinds == ("encoder", "decoder", "cross")
    assert maps.decoder_tokens is not None
    assert maps.decoder_tokens.pieces[:3] == ("[CLS]", "[CLS]", "我")  # the start token, then the text without its end
    assert maps.decoder_tokens.pieces[-1] == "猫"
    shown = (maps.rows(maps.of_kind("cross")[0]), maps.columns(maps.of_kind("cross")[0]))
    assert shown == (maps.decoder_tokens, maps.tokens)
    inputs = {
        "input_ids": torch.tensor([tokenizer(TEXT)["input_ids"]]),
        "decoder_input_ids": torch.tensor([[2, *tokenizer(PAIR)["input_ids"][:-1]]]),
    }
    for kind, name in (("encoder", "encoder"), ("decoder", "decoder"), ("cross", "cross")):
        expected = eager(model, inputs, f"{name}_attentions")
        assert_right(maps.select(maps.of_kind(kind)), expected)  # type: ignore[arg-type]  # the loop's literals


def test_encoder_decoder_without_a_text_for_the_decoder(make_model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    model = make_model("t5")
    maps = capture_attention(model, tokenizer, TEXT)
    assert maps.kinds == ("encoder",)
    inputs = {"input_ids": torch.tensor([tokenizer(TEXT)["input_ids"]]), "decoder_input_ids": torch.tensor([[2]])}
    assert_right(maps, eager(model, inputs, "encoder_attentions"))


def test_kinds_are_told_by_what_the_weights_allow(make_model: Any) -> None:
    assert capture_inputs(make_model("gpt2"), ids_of()).kinds == ("decoder",)
    assert capture_inputs(make_model("bert"), ids_of()).kinds == ("encoder",)


def test_a_model_with_a_head_and_padding(make_model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    model = make_model("bert", AutoModelForSequenceClassification)
    inputs = ids_of()
    inputs["attention_mask"][:, 6:] = 0
    maps = capture_inputs(model, inputs)
    assert_right(maps, eager(model, inputs))
    assert maps[0].mask is not None
    assert maps[0].mask.shape == (1, 9, 9)
    assert maps[0].weights[:, :, 6:].max() == 0
    assert maps.model == "BertForSequenceClassification"


def test_a_model_inside_a_wrapper(make_model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """PEFT's forward names no inputs."""
    model = make_model("bert")
    wrapped = get_peft_model(make_model("bert"), LoraConfig(target_modules=["query"]))  # a new adapter adds zero
    expected = capture_attention(model, tokenizer, TEXT)
    np.testing.assert_allclose(capture_attention(wrapped, tokenizer, TEXT).weights(), expected.weights(), atol=1e-6)


class TestNothingIsLeftChanged:
    @pytest.mark.parametrize("setting", ["sdpa", "eager"])
    @pytest.mark.parametrize("model_type", ["bert", "deberta-v2"])
    def test_setting_mode_and_hooks(self, make_model: Any, model_type: str, setting: str) -> None:
        model = make_model(model_type)
        model.config._attn_implementation_internal = setting
        model.train()
        model.embeddings.eval()
        modes = [module.training for module in model.modules()]
        capture_inputs(model, ids_of())
        assert model.config._attn_implementation == setting
        assert [module.training for module in model.modules()] == modes
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())

    @pytest.mark.parametrize("model_type", ["bert", "deberta-v2"])
    def test_after_an_exception(self, make_model: Any, model_type: str) -> None:
        model = make_model(model_type).train()
        before = model.config._attn_implementation
        too_long = torch.ones(1, 9, dtype=torch.long) * 10_000
        with pytest.raises(IndexError):
            capture_inputs(model, {"input_ids": too_long})
        assert model.config._attn_implementation == before
        assert model.training
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())

    def test_the_output_is_what_it_was(self, make_model: Any) -> None:
        model, inputs = make_model("bert"), ids_of()
        with torch.no_grad():
            before = model(**inputs).last_hidden_state
            capture_inputs(model, inputs)
            torch.testing.assert_close(model(**inputs).last_hidden_state, before)

    def test_parts_with_settings_of_their_own_get_them_back(self, make_model: Any) -> None:
        model = make_model("t5")
        model.encoder.config._attn_implementation_internal = "eager"
        model.decoder.config._attn_implementation_internal = "sdpa"
        with observed(model, lambda call: call.output):
            pass
        assert model.encoder.config._attn_implementation == "eager"
        assert model.decoder.config._attn_implementation == "sdpa"

    def test_threads_on_one_model_each_see_their_own(self, make_model: Any) -> None:
        """The first to begin is the first to end, while the other still runs."""
        model, ids = make_model("bert"), ids_of()["input_ids"]
        begun, ended = threading.Event(), threading.Event()
        seen: dict[str, list[str]] = {"first": [], "last": []}

        def keep(thread: str, call: AttentionCall) -> torch.Tensor:
            seen[thread].append(type(call.module).__name__)
            return call.output

        def last() -> None:
            with observed(model, partial(keep, "last")):
                begun.set()
                ended.wait(10)
                model(ids)

        thread = threading.Thread(target=last)
        with observed(model, partial(keep, "first")):
            thread.start()
            begun.wait(10)
            model(ids)
        ended.set()
        thread.join()
        assert seen == dict.fromkeys(seen, ["BertSelfAttention"] * 2)
        assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("model_type", ["mpnet", "xglm"])
def test_a_batch_is_recorded_whole(make_model: Any, model_type: str) -> None:
    """Through the fallback, where heads and inputs could be mixed up: XGLM folds them into one dimension."""
    model = make_model(model_type)
    ids = torch.randint(5, 300, (3, 7), generator=torch.Generator().manual_seed(1))
    records = record_attention(model, {"input_ids": ids})
    with attention_implementation(model, "eager"), torch.no_grad():
        expected = model(ids, output_attentions=True).attentions
    for record, weights in zip(records, expected, strict=True):
        torch.testing.assert_close(record.weights, weights, atol=1e-6, rtol=0)


class TestTokens:
    def test_pairs_are_marked(self, chinesebert: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        tokens = capture_attention(chinesebert, tokenizer, "重庆 nlp", "还行").tokens
        assert tokens.texts == ("重庆 nlp", "还行")
        assert tokens.pieces == ("[CLS]", "重", "庆", "n", "##l", "##p", "[SEP]", "还", "行", "[SEP]")
        assert tokens.tokens == ("[CLS]", "重", "庆", "n", "l", "p", "[SEP]", "还", "行", "[SEP]")
        assert tokens.segments == (None, 0, 0, 0, 0, 0, None, 1, 1, None)
        assert tokens.spans == (None, (0, 1), (1, 2), (3, 4), (4, 5), (5, 6), None, (0, 1), (1, 2), None)
        assert tokens.words == (None, 0, 1, 2, 2, 2, None, 3, 4, None)
        assert tokens.pinyin == (None, "chóng", "qìng", None, None, None, None, "hái", "xíng", None)
        assert tokens.is_pair

    def test_words_of_one_s_own(self, chinesebert: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        def split(text: str) -> list[str]:
            return {"国足今晚出战": ["国足", "今晚", "出战"], "我 喜欢": ["我", " ", "喜欢"]}[text]

        tokens = capture_attention(chinesebert, tokenizer, TEXT, "我 喜欢", words=split).tokens
        assert tokens.words == (None, 0, 0, 1, 1, 2, 2, None, 3, 4, 4, None)

    def test_words_that_are_not_in_the_text(self, chinesebert: PreTrainedModel, tokenizer: Any) -> None:
        with pytest.raises(ValueError, match="'足球' is not in the text"):
            capture_attention(chinesebert, tokenizer, TEXT, words=lambda _: ["国", "足球"])

    def test_a_text_that_is_too_long(self, chinesebert: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        with pytest.raises(ValueError, match=r"202 tokens and the model takes 128.*truncation=True"):
            capture_attention(chinesebert, tokenizer, "国" * 200)
        maps = capture_attention(chinesebert, tokenizer, "国" * 200, truncation=True)
        assert maps[0].weights.shape == (2, 128, 128)

    def test_roberta_counts_its_positions_from_behind_the_padding(self, make_model: Any, tokenizer: Any) -> None:
        model = make_model("roberta")
        with pytest.raises(ValueError, match="the model takes 63"):
            capture_attention(model, tokenizer, "国" * 62)
        assert len(capture_attention(model, tokenizer, "国" * 61).tokens) == 63


class TestErrors:
    def test_a_model_without_attention(self, make_model: Any) -> None:
        with pytest.raises(ValueError, match="no attention was seen in FNetModel"):
            capture_inputs(make_model("fnet"), {"input_ids": ids_of()["input_ids"]})

    def test_no_tokenizer(self, chinesebert: PreTrainedModel) -> None:
        with pytest.raises(TypeError, match=re.escape("capture_inputs(model, inputs)")):
            capture_attention(chinesebert, None, TEXT)  # type: ignore[arg-type]  # the error is the point

    def test_no_model(self, tokenizer: PreTrainedTokenizerBase) -> None:
        with pytest.raises(TypeError, match="model is a str"):
            capture_attention("bert-base-chinese", tokenizer, TEXT)  # type: ignore[arg-type]  # as above

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_an_empty_text(self, chinesebert: PreTrainedModel, tokenizer: Any, text: str) -> None:
        with pytest.raises(ValueError, match="the text is empty"):
            capture_attention(chinesebert, tokenizer, text)

    def test_a_text_that_is_no_string(self, chinesebert: PreTrainedModel, tokenizer: Any) -> None:
        with pytest.raises(TypeError, match="text_pair is 3"):
            capture_attention(chinesebert, tokenizer, TEXT, 3)  # type: ignore[arg-type]  # as above

    def test_a_decoder_s_text_for_a_model_without_one(self, chinesebert: PreTrainedModel, tokenizer: Any) -> None:
        with pytest.raises(ValueError, match="ChineseBertModel has no decoder"):
            capture_attention(chinesebert, tokenizer, TEXT, decoder_text=PAIR)

    def test_more_than_one_input(self, make_model: Any) -> None:
        with pytest.raises(ValueError, match="expected one input"):
            capture_inputs(make_model("bert"), {"input_ids": torch.ones(2, 5, dtype=torch.long)})


def test_saved_and_loaded(chinesebert: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    maps = capture_attention(chinesebert, tokenizer, TEXT, PAIR)
    loaded = AttentionMaps.load(maps.save(tmp_path / "maps.npz"))
    assert loaded.tokens == maps.tokens
    assert repr(loaded) == repr(maps)
    for mine, theirs in zip(loaded.layers, maps.layers, strict=True):
        assert (mine.name, mine.kind, mine.scaling) == (theirs.name, theirs.kind, theirs.scaling)
        for name in ("weights", "query", "key", "value"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
