"""The ends of the sub-layers, against what runs: hooks note the order in which linear layers are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModel

from hf_nlpnotes.adapters import BottleneckAdapterConfig, SubLayers, sub_layers
from hf_nlpnotes.layers.layer_discovery import layer_stacks

# peft 0.21 asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 60,
}
DIM = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "vocab_size": 60}
# Encoders of many hands: post-norm and pre-norm, gated, shared layers, fused projections, two lists.
MODELS: dict[str, dict[str, Any]] = {
    "albert": {**SIZES, "embedding_size": 16},
    "bert": SIZES,
    "big_bird": {**SIZES, "attention_type": "original_full"},
    "camembert": SIZES,
    "canine": {**SIZES, "num_hash_buckets": 64},
    "chinesebert": {**SIZES, "pinyin_embedding_size": 8, "pinyin_table_size": 4},
    "convbert": {**SIZES, "embedding_size": 16},
    "data2vec-text": SIZES,
    "deberta": SIZES,
    "deberta-v2": SIZES,
    "distilbert": DIM,
    "electra": {**SIZES, "embedding_size": 16},
    "ernie": SIZES,
    "esm": {**SIZES, "pad_token_id": 1, "mask_token_id": 2},
    "flaubert": {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "n_words": 60},
    "layoutlm": SIZES,
    "longformer": {**SIZES, "attention_window": 4},
    "luke": {**SIZES, "entity_vocab_size": 10, "entity_emb_size": 16},
    "megatron-bert": SIZES,
    "modernbert": {
        **SIZES,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    },
    "mpnet": SIZES,
    "nystromformer": {**SIZES, "num_landmarks": 2, "segment_means_seq_len": 16},
    "rembert": {**SIZES, "input_embedding_size": 16},
    "roberta": SIZES,
    "roberta-prelayernorm": SIZES,
    "roformer": {**SIZES, "embedding_size": 16},
    "splinter": SIZES,
    "xlm": {"emb_dim": 32, "n_layers": 2, "n_heads": 2, "n_words": 60},
    "xlm-roberta": SIZES,
    "xlm-roberta-xl": SIZES,
    "yoso": {**SIZES, "use_expectation": True},
}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return AutoModel.from_config(AutoConfig.for_model(name, **MODELS[name])).eval()


def inputs(name: str) -> dict[str, torch.Tensor]:
    length = 16 if name in {"canine", "nystromformer"} else 8
    ids = torch.arange(5, 5 + 2 * length).view(2, length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def calls(model: nn.Module, name: str) -> list[tuple[str, int]]:
    """Names of the linear layers in the order of their calls, with the identity of what went in."""
    order: list[tuple[str, int]] = []
    kept = []
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear):

            def note(_: nn.Module, arguments: tuple[torch.Tensor, ...], path: str = path) -> None:
                kept.append(arguments[0])  # alive, so that no other tensor gets its identity
                order.append((path, id(arguments[0])))

            module.register_forward_pre_hook(note)
    with torch.no_grad():
        model(**inputs(name))
    return order


def inside(path: str, layer: SubLayers, model: nn.Module) -> bool:
    if ".attentions." in f".{layer.layer}":  # XLM: a layer lies in several lists
        return path.split(".")[1] == layer.layer.split(".")[1]
    return path.startswith(f"{layer.layer}.")


@pytest.mark.parametrize("name", MODELS)
def test_the_ends_are_those_that_run_last(name: str) -> None:
    model = build(name)
    found = sub_layers(model)
    assert [layer.index for layer in found] == [i for stack in layer_stacks(model) for i in range(len(stack.layers))]
    order = calls(model, name)
    for layer in found:
        own = [(path, source) for path, source in order if inside(path, layer, model)]
        own = own[-len(dict(own)) :]  # a shared layer runs several times
        paths = [path for path, _ in own]
        assert paths[-1] == layer.feed_forward
        first = paths.index(layer.feed_forward_input)
        # What follows the first layer up to the last reads the same input (gated) or nothing at all lies between.
        assert {source for _, source in own[first:-1]} == {own[first][1]}
        assert layer.attention == (paths[first - 1],)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("placement", ["houlsby", "parallel"])
def test_adapters_run_in_every_encoder(name: str, placement: str) -> None:
    plain = build(name)
    with torch.no_grad():
        expected = plain(**inputs(name)).last_hidden_state
    layers = len(sub_layers(plain))
    config = BottleneckAdapterConfig(bottleneck_size=4, placement=placement, non_linearity="gelu")  # no dead units
    model = get_peft_model(plain, config)
    with torch.no_grad():
        assert torch.equal(model(**inputs(name)).last_hidden_state, expected)
    count = layers * (2 if placement == "houlsby" else 1)
    assert model.get_nb_trainable_parameters()[0] == count * (2 * 4 * 32 + 32 + 4)
    hidden = model(**inputs(name)).last_hidden_state
    (hidden * torch.randn_like(hidden)).sum().backward()
    ups = [parameter for key, parameter in model.named_parameters() if "bottleneck_adapter_up" in key]
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in ups)


def test_norms_of_a_layer() -> None:
    at = "encoder.layer.1"
    assert sub_layers(build("bert"))[1].norms == (f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm")
    assert len(sub_layers(build("xlm"))[0].norms) == 2


def test_a_feed_forward_network_as_wide_as_the_model() -> None:
    model = AutoModel.from_config(AutoConfig.for_model("bert", **{**SIZES, "intermediate_size": 32}))
    layer = sub_layers(model)[0]
    assert layer.feed_forward == "encoder.layer.0.output.dense"
    assert layer.feed_forward_input == "encoder.layer.0.intermediate.dense"
    assert layer.attention == ("encoder.layer.0.attention.output.dense",)


def test_cross_attention_is_a_sub_layer_too() -> None:
    config = AutoConfig.for_model("bert", **SIZES, is_decoder=True, add_cross_attention=True)
    layer = sub_layers(AutoModel.from_config(config))[0]
    assert layer.attention == (
        "encoder.layer.0.attention.output.dense",
        "encoder.layer.0.crossattention.output.dense",
    )


def test_layers_are_seen_through_adapters() -> None:
    """The same places under other adapters, and on the meta device."""
    expected = sub_layers(build("roberta"))
    targets = ["query", "intermediate.dense", "output.dense"]
    model = get_peft_model(build("roberta"), LoraConfig(target_modules=targets)).get_base_model()
    assert sub_layers(model) == expected
    model = get_peft_model(build("roberta"), BottleneckAdapterConfig(placement="houlsby")).get_base_model()
    assert sub_layers(model) == expected
    with torch.device("meta"):
        assert sub_layers(build("roberta")) == expected


def test_attention_without_a_last_linear_layer() -> None:
    fnet = AutoModel.from_config(AutoConfig.for_model("fnet", **{k: v for k, v in SIZES.items() if "heads" not in k}))
    assert all(layer.attention == () for layer in sub_layers(fnet))
    with pytest.raises(ValueError, match=r"does not end in a linear layer.*take placement='pfeiffer'"):
        get_peft_model(fnet, BottleneckAdapterConfig(placement="houlsby"))
    get_peft_model(fnet, BottleneckAdapterConfig(placement="pfeiffer"))
