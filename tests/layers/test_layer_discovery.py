"""Layers and groups of many architectures at their real sizes, on the meta device; autograd as oracle of the head.

The number of layers comes from the configuration. In a model with one stack, the first whole number in a parameter's
name is its layer.
"""

import re
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    T5EncoderModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hf_nlpnotes.layers.layer_discovery import LayerGroup, LayerStack, layer_groups, layer_stacks

# What single configurations need to be built at all.
OPTIONS: dict[str, dict[str, Any]] = {
    "esm": {"vocab_size": 33},
    "funnel": {"architectures": ["FunnelModel"]},  # there are two, and AutoModel asks which
    "xmod": {"default_language": "en_XX"},
    "xlnet": {"n_layer": 12, "d_model": 768, "n_head": 12, "d_inner": 3072},
    "deberta-v2": {"relative_attention": True, "norm_rel_ebd": "layer_norm", "position_buckets": 256},
    "deberta": {"relative_attention": True},
}
# Where the layers are not `num_hidden_layers` in one stack: what the configuration says instead.
COUNTS: dict[str, Any] = {
    "albert": lambda c: (c.num_hidden_groups,),  # 12 runs of one shared layer
    "canine": lambda c: (1, c.num_hidden_layers, 1),  # characters, molecules, characters
    "clip": lambda c: (c.text_config.num_hidden_layers, c.vision_config.num_hidden_layers),
    "funnel": lambda c: (sum(c.block_sizes), c.num_decoder_layers),
    "lxmert": lambda c: (c.l_layers, c.x_layers, c.r_layers),
    "modernvbert": lambda c: (c.vision_config.num_hidden_layers, c.text_config.num_hidden_layers),
    "perceiver": lambda c: (c.num_self_attends_per_block,),
    "swin": lambda c: (sum(c.depths),),
    "t5": lambda c: (c.num_layers, c.num_decoder_layers),
    "ultravbert": lambda c: (c.vision_config.num_hidden_layers, c.text_config.num_hidden_layers),
    "umt5": lambda c: (c.num_layers, c.num_decoder_layers),
    **dict.fromkeys(
        ("bart", "led", "m2m_100", "mbart", "mvp", "pegasus", "whisper"),
        lambda c: (c.encoder_layers, c.decoder_layers),
    ),
}
BEYOND_MASKED_LM = (
    *("beit", "bert-generation", "canine", "clip", "data2vec-vision", "deit", "dinov2", "gpt2", "layoutlmv3", "led"),
    *("lilt", "lxmert", "m2m_100", "markuplm", "openai-gpt", "pegasus", "qwen3", "splinter", "swin", "t5", "umt5"),
    *("visual_bert", "vit", "whisper", "xlnet", "hubert", "wav2vec2"),
)
ARCHITECTURES = sorted({*MODEL_FOR_MASKED_LM_MAPPING_NAMES, *BEYOND_MASKED_LM})
# Lists below the layers: convolutions over the wave, embeddings of the levels of a tree.
NUMBERED_BELOW = re.compile(r"conv_layers\.|xpath_\w+_embeddings\.")


def on_meta(name: str, auto_class: Any = AutoModel, **options: Any) -> tuple[nn.Module, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of defaults that an architecture does not like itself
        config = AutoConfig.for_model(name, **{**OPTIONS.get(name, {}), **options})
        with torch.device("meta"):
            return auto_class.from_config(config), config


def expected_counts(name: str, config: Any) -> tuple[int, ...]:
    return COUNTS.get(name, lambda c: (c.num_hidden_layers,))(config)


def by_name(groups: tuple[LayerGroup, ...]) -> dict[str, str]:
    return {parameter: group.name for group in groups for parameter in group.parameters}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_layers_and_groups(name: str) -> None:
    model, config = on_meta(name)
    counts = expected_counts(name, config)
    stacks, groups = layer_stacks(model), layer_groups(model)
    assert tuple(len(stack.layers) for stack in stacks) == counts
    for stack in stacks:
        for path in stack.layers:
            assert path.startswith(f"{stack.name}.")
            assert model.get_submodule(path)
    parameters = [name for name, _ in model.named_parameters()]
    assert sorted(p for group in groups for p in group.parameters) == sorted(parameters)
    kinds = [group.kind for group in groups]
    assert kinds == sorted(kinds, key=["embeddings", "layer", "head"].index)
    assert kinds.count("layer") == sum(counts)
    assert len({group.name for group in groups}) == len(groups)

    group_of = by_name(groups)
    first_name = {id(parameter): name for name, parameter in model.named_parameters()}
    inside = tuple(f"{path}." for stack in stacks for path in (*stack.layers, *stack.parallel))
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) and not path.startswith(inside):
            assert group_of[first_name[id(module.weight)]] == "embeddings"
    if len(counts) == 1 and name not in {"albert", "swin"}:
        for parameter in parameters:
            number = None if NUMBERED_BELOW.search(parameter) else re.search(r"\.(\d+)\.", f".{parameter}")
            expected = {f"layer.{number[1]}"} if number else {"embeddings", "head"}
            assert group_of[parameter] in expected, parameter


def test_how_many_architectures_are_looked_at() -> None:
    assert len(ARCHITECTURES) >= 70


SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "emb_dim", "embedding_size", "n_embd"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "encoder_layers", "decoder_layers", "n_layer"), 3),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_key_value_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_inner"), 32),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1),
    "vocab_size": 60,
    "max_position_embeddings": 64,
    "head_dim": 8,
}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "conv_kernel_size": 3}
TRAINED = {  # SqueezeBERT calls its layers' `forward`, which skips hooks
    "albert": {},
    "bart": {},
    "bert": {},
    "deberta-v2": {**DEBERTA, "norm_rel_ebd": "layer_norm"},
    "distilbert": {},
    "electra": {},
    "esm": {"token_dropout": False},
    "flaubert": {},
    "mbart": {},
    "megatron-bert": {},
    "modernbert": {},
    "mpnet": {},
    "roberta-prelayernorm": {},
    "roformer": {},
    "xlm": {},
    "xlm-roberta-xl": {},
    "xlnet": {},
    "gpt2": {},
}


def small(name: str, auto_class: Any, **options: Any) -> Any:
    config_class = type(AutoConfig.for_model(name))
    known = {*config_class().to_dict(), *config_class.attribute_map}
    sizes = {key: value for key, value in SMALL.items() if key in known}
    torch.manual_seed(0)
    return auto_class.from_config(config_class(**{**sizes, **options}))


def detached(output: Any) -> Any:
    if isinstance(output, torch.Tensor):
        return output.detach()
    if isinstance(output, dict):
        return {key: detached(value) for key, value in output.items()}
    return tuple(map(detached, output)) if isinstance(output, tuple | list) else output


@pytest.mark.parametrize("name", TRAINED)
def test_the_head_is_what_needs_no_backward_pass_through_a_layer(name: str) -> None:
    """Autograd is the oracle: with the last layer's output detached, the head alone gets gradients."""
    model = small(name, AutoModelForSequenceClassification, **TRAINED[name])
    ids = torch.randint(5, 60, (2, 8))
    ids[:, -1] = 1  # BART reads the end of the sentence

    def with_gradient() -> set[str]:
        model.zero_grad()
        model(input_ids=ids, labels=torch.tensor([0, 1])).loss.backward()
        return {name for name, parameter in model.named_parameters() if parameter.grad is not None}

    everything = with_gradient()
    stack = layer_stacks(model)[-1]
    places = [stack.layers[-1], *(f"{path}.{len(stack.layers) - 1}" for path in stack.parallel)]
    for place in places:
        model.get_submodule(place).register_forward_hook(lambda _module, _args, output: detached(output))
    head = {name for group in layer_groups(model) if group.kind == "head" for name in group.parameters}
    assert with_gradient() == head & everything
    assert head


class Layer(nn.Module):
    def __init__(self, size: int = 4) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(size, size), nn.Linear(size, size)


class Encoder(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.blocks = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(4)


def test_one_layer_run_three_times_is_one_group() -> None:
    model = Encoder([Layer()] * 3)
    assert layer_stacks(model) == (LayerStack("blocks", ("blocks.0",)),)
    assert [group.name for group in layer_groups(model)] == ["embeddings", "layer.0", "head"]


def test_a_tied_parameter_stands_once_at_its_lowest_place() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(4, 9)  # registered first, so the shared weight bears its name
            self.encoder = Encoder([Layer(), Layer()])
            self.encoder.words.weight = self.output.weight

    assert "output.weight" in layer_groups(Model())[0].parameters
    masked = small("bert", AutoModelForMaskedLM)
    assert masked.get_output_embeddings().weight is masked.get_input_embeddings().weight
    assert by_name(layer_groups(masked))["bert.embeddings.word_embeddings.weight"] == "embeddings"


def test_heads_in_a_list_are_no_layers() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 512, "vocab_size": 60}
            self.heads = nn.ModuleList([Layer(), Layer()])  # before the encoder
            self.encoder = BertModel(BertConfig(**sizes))

    groups = layer_groups(Model())
    assert [group.kind for group in groups].count("layer") == 12
    assert {name.split(".")[0] for name in groups[-1].parameters} == {"heads", "encoder"}  # and BERT's pooler


def test_a_list_of_models_is_no_stack() -> None:
    config = BertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8, vocab_size=9, num_hidden_layers=2)
    model = nn.Module()
    model.towers = nn.ModuleList([BertModel(config), BertModel(config)])
    assert [stack.name for stack in layer_stacks(model)] == ["towers.0.encoder.layer", "towers.1.encoder.layer"]
    names = [group.name for group in layer_groups(model)]
    assert names[1:5] == ["0.layer.0", "0.layer.1", "1.layer.0", "1.layer.1"]


def test_a_model_without_layers_is_named() -> None:
    with pytest.raises(ValueError, match=r"Sequential has no stack of layers: expected an nn.ModuleList"):
        layer_groups(nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4)))


def test_only_the_encoder_of_t5() -> None:
    config = AutoConfig.for_model("t5")
    with torch.device("meta"):
        groups = layer_groups(T5EncoderModel(config))
    assert groups[0].parameters == ("shared.weight",)
    assert [group.name for group in groups] == ["embeddings", *(f"layer.{i}" for i in range(6)), "head"]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("name", ["bert", "xlm"])
def test_adapters_belong_to_the_layer_that_they_change(name: str) -> None:
    import peft

    model = small(name, AutoModelForSequenceClassification)
    before = layer_groups(model)
    adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", target_modules=r".*(query|q_lin)"))
    after = layer_groups(adapted)
    assert [group.name for group in after] == [group.name for group in before]
    group_of = by_name(after)
    lora = [parameter for parameter in group_of if "lora_" in parameter]
    assert len(lora) == 6
    for parameter in lora:
        number = re.search(r"\.(\d+)\.", parameter)
        assert number
        assert group_of[parameter] == f"layer.{number[1]}"
    assert all(group_of[parameter] == "head" for parameter in group_of if "modules_to_save" in parameter)


def test_reading_the_layers_changes_nothing() -> None:
    model = small("bert", AutoModelForMaskedLM)
    before = {name: (id(value), value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    layer_groups(model)
    for name, value in model.state_dict(keep_vars=True).items():
        assert id(value) == before[name][0]
        assert torch.equal(value, before[name][1])
