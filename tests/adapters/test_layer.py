"""Bottleneck adapters against BERT layers written out by hand, and everything that PEFT does with a method."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2Model,
)

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.adapters import BottleneckAdapterConfig, BottleneckAdapterLayer

# peft 0.21 asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

D, M, LAYERS, HEADS = 16, 3, 3, 2
PLACEMENTS = ["houlsby", "pfeiffer", "parallel"]
IDS = torch.arange(2, 22).view(2, 10)
FUNCTIONS = {"relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh, "identity": lambda x: x}


def base(**options: Any) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=D,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=24,
        max_position_embeddings=16,
        **options,
    )
    model = BertForSequenceClassification(config).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def randomise(model: nn.Module, name: str = "default", seed: int = 1) -> None:
    """Give an adapter weights that matter."""
    torch.manual_seed(seed)
    for key, parameter in model.named_parameters():
        if f".{name}." in key and "bottleneck_adapter" in key:
            nn.init.normal_(parameter, std=0.5)


def adapted(task_type: str | None = None, **options: Any) -> PeftModel:
    model = get_peft_model(base(), BottleneckAdapterConfig(bottleneck_size=M, task_type=task_type, **options))
    randomise(model)
    return model.double().eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def by_hand(
    model: PeftModel, state: dict[str, torch.Tensor], placement: str, function: str, scaling: float
) -> torch.Tensor:
    """The encoder from its equations: Vaswani et al. 2017 for the layer, the three papers for the adapters."""
    weights = {key.removeprefix("base_model.model."): value for key, value in state.items()}

    def linear(path: str, x: torch.Tensor) -> torch.Tensor:
        at = path if f"{path}.weight" in weights else f"{path}.base_layer"
        return x @ weights[f"{at}.weight"].T + weights[f"{at}.bias"]

    def norm(path: str, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (D,), weights[f"{path}.weight"], weights[f"{path}.bias"], 1e-12)

    def adapter(path: str, x: torch.Tensor) -> torch.Tensor:
        down, up = (f"{path}.bottleneck_adapter_{side}.default" for side in ("down", "up"))
        return scaling * linear(up, FUNCTIONS[function](linear(down, x)))

    h = model.get_base_model().bert.embeddings(input_ids=IDS)
    for i in range(LAYERS):
        at = f"bert.encoder.layer.{i}"
        q, k, v = (
            linear(f"{at}.attention.self.{name}", h).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        mixed = (q @ k.transpose(-1, -2) / (D / HEADS) ** 0.5).softmax(-1) @ v
        a = linear(f"{at}.attention.output.dense", mixed.transpose(1, 2).flatten(-2))
        if placement == "houlsby":  # figure 2, left: after the projection, before the skip connection
            a = a + adapter(f"{at}.attention.output.dense", a)
        h = norm(f"{at}.attention.output.LayerNorm", h + a)
        f = linear(f"{at}.output.dense", F.gelu(linear(f"{at}.intermediate.dense", h)))
        f = f + adapter(f"{at}.output.dense", h if placement == "parallel" else f)
        h = norm(f"{at}.output.LayerNorm", h + f)
    pooled = torch.tanh(linear("bert.pooler.dense", h[:, 0]))
    return linear("classifier", pooled)


@pytest.mark.parametrize("function", ["relu", "gelu", "tanh", "identity"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_model_computes_what_the_papers_say(placement: str, function: str) -> None:
    model = adapted(placement=placement, non_linearity=function, scaling=0.7)
    expected = by_hand(model, model.state_dict(), placement, function, 0.7)
    torch.testing.assert_close(logits(model), expected.detach(), rtol=1e-12, atol=1e-12)
    assert (logits(model) - logits(base())).abs().max() > 1e-2


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_gradients_against_the_equations(placement: str) -> None:
    model = adapted(placement=placement, non_linearity="gelu")
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(model(input_ids=IDS).logits.square().sum(), list(trained.values()))
    leaves = {name: parameter.detach().clone().requires_grad_() for name, parameter in trained.items()}
    loss = by_hand(model, {**model.state_dict(), **leaves}, placement, "gelu", 1.0).square().sum()
    expected = torch.autograd.grad(loss, list(leaves.values()))
    assert all("bottleneck_adapter" in name for name in trained)
    for one, other in zip(found, expected, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("placement", "per_layer"), [("houlsby", 2), ("pfeiffer", 1), ("parallel", 1)])
def test_number_of_parameters(placement: str, per_layer: int) -> None:
    """Houlsby et al. 2019, section 2.1: 2md + d + m an adapter."""
    model = get_peft_model(base(), BottleneckAdapterConfig(bottleneck_size=M, placement=placement))
    adapter = 2 * M * D + D + M
    assert model.get_nb_trainable_parameters()[0] == LAYERS * per_layer * adapter
    with_norms = get_peft_model(
        base(), BottleneckAdapterConfig(bottleneck_size=M, placement=placement, train_layer_norms=True)
    )
    assert with_norms.get_nb_trainable_parameters()[0] == LAYERS * (per_layer * adapter + 2 * 2 * D)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("training", [False, True])
def test_a_new_adapter_changes_nothing(placement: str, training: bool) -> None:
    plain = base(hidden_dropout_prob=0.1).train(training)
    config = BottleneckAdapterConfig(bottleneck_size=M, placement=placement, train_layer_norms=True)
    model = get_peft_model(copy.deepcopy(plain), config).train(training)
    torch.manual_seed(3)
    expected = logits(plain)
    torch.manual_seed(3)
    assert torch.equal(logits(model), expected)


def test_initial_weights() -> None:
    model = get_peft_model(base(), BottleneckAdapterConfig(bottleneck_size=64, init_weights=False))
    values = torch.cat([p.flatten() for n, p in model.named_parameters() if "bottleneck_adapter" in n])
    assert values.std().item() == pytest.approx(1e-2, rel=0.05)
    zero = get_peft_model(base(), BottleneckAdapterConfig(bottleneck_size=64))
    for name, parameter in zero.named_parameters():
        if "bottleneck_adapter_up" in name or ("bottleneck_adapter_down" in name and name.endswith("bias")):
            assert not parameter.any(), name
        elif "bottleneck_adapter_down" in name:
            assert 0.5 * D**-0.5 < parameter.abs().max() <= D**-0.5  # uniform, as nn.Linear


# ------------------------------------------------------------------------------------------- saving and switching


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_saved_and_loaded(placement: str, tmp_path: Path) -> None:
    model = adapted("SEQ_CLS", placement=placement, layers_to_transform=[0, 2], scaling=2.0, train_layer_norms=True)
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            nn.init.normal_(parameter)
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["peft_type"] == "BOTTLENECK_ADAPTER"
    assert saved["task_type"] == "SEQ_CLS"
    assert type(PeftConfig.from_pretrained(str(tmp_path))) is BottleneckAdapterConfig
    loaded = PeftModel.from_pretrained(base(), str(tmp_path)).double()
    assert type(loaded).__name__ == "PeftModelForSequenceClassification"
    assert torch.equal(logits(loaded), logits(model))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    places = [n for n, module in loaded.named_modules() if isinstance(module, BottleneckAdapterLayer)]
    assert {name.split(".layer.")[1][0] for name in places} == {"0", "2"}
    trainable = PeftModel.from_pretrained(base(), str(tmp_path), is_trainable=True)
    assert trainable.get_nb_trainable_parameters()[0] == model.get_nb_trainable_parameters()[0]


def test_transformers_own_loading(tmp_path: Path) -> None:
    base().float().save_pretrained(tmp_path / "base")
    model = get_peft_model(
        BertForSequenceClassification.from_pretrained(tmp_path / "base"),
        BottleneckAdapterConfig(bottleneck_size=M, placement="houlsby", task_type="SEQ_CLS"),
    )
    randomise(model)
    model.eval().save_pretrained(tmp_path / "adapter")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded), logits(model))
    # And without PeftModel: the model itself takes the adapter.
    plain = BertForSequenceClassification.from_pretrained(tmp_path / "base")
    expected = logits(plain)
    plain.load_adapter(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(plain), logits(model))
    plain.disable_adapters()
    torch.testing.assert_close(logits(plain), expected)


def test_several_adapters() -> None:
    model = adapted("SEQ_CLS", placement="houlsby")
    first = logits(model)
    model.add_adapter("other", BottleneckAdapterConfig(bottleneck_size=2, placement="parallel", task_type="SEQ_CLS"))
    model = model.double()
    assert torch.equal(logits(model), first)
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".other." in n)
    randomise(model, "other", seed=2)
    model.set_adapter("other")
    second = logits(model)
    assert (second - first).abs().max() > 1e-2
    assert {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad and "bottleneck" in n} == {
        "other"
    }
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base()))
    assert torch.equal(logits(model), second)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    with pytest.warns(UserWarning, match="default was active which is now deleted"):
        model.delete_adapter("default")
    assert model.active_adapters == ["other"]
    assert torch.equal(logits(model), second)
    assert not any(".default." in name for name, _ in model.named_parameters())
    with pytest.raises(ValueError, match="different peft types"):
        model.add_adapter("third", LoraConfig())


def test_each_of_several_adapters_is_saved_alone(tmp_path: Path) -> None:
    model = adapted(placement="pfeiffer")
    model.add_adapter("other", BottleneckAdapterConfig(bottleneck_size=2, placement="houlsby"))
    model = model.double()
    randomise(model, "other", seed=2)
    outputs = {}
    for name in ("default", "other"):
        model.set_adapter(name)
        outputs[name] = logits(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base(), str(tmp_path / "other"), adapter_name="mine").double()
    assert torch.equal(logits(loaded), outputs["other"])
    loaded.load_adapter(str(tmp_path), "default")
    loaded.double().set_adapter("default")
    assert torch.equal(logits(loaded), outputs["default"])


def test_active_adapters_add_up() -> None:
    """Both read the layer's own output, so the order does not matter."""
    model = adapted(layers_to_transform=[2])
    config = BottleneckAdapterConfig(bottleneck_size=2, layers_to_transform=2, non_linearity="tanh")
    model.add_adapter("other", config)
    model = model.double()
    randomise(model, "other", seed=2)
    layer = model.get_base_model().bert.encoder.layer[2].output.dense
    x = torch.randn(4, 24, dtype=torch.float64)
    parts = []
    for names in (["default"], ["other"], ["default", "other"], ["other", "default"]):
        model.base_model.set_adapter(names)
        parts.append((layer(x) - layer.base_layer(x)).detach())
    assert all(part.abs().max() > 1e-2 for part in parts)
    torch.testing.assert_close(parts[2], parts[0] + parts[1])
    torch.testing.assert_close(parts[3], parts[2])


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_copies_and_unloading(placement: str) -> None:
    model = adapted(placement=placement)
    expected = logits(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin), expected)
        randomise(twin, seed=5)
        assert (logits(twin) - expected).abs().max() > 1e-2
        assert torch.equal(logits(model), expected)
    plain = model.unload()
    assert torch.equal(logits(plain), logits(base()))
    assert not any(isinstance(module, BottleneckAdapterLayer) for module in plain.modules())
    assert not any(module._forward_pre_hooks for module in plain.bert.encoder.modules())


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_activation_checkpointing_changes_no_gradient(placement: str) -> None:
    model = adapted(placement=placement).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    gradients = []
    for reentrant in (None, False, True):
        if reentrant is not None:
            getattr(model.get_base_model(), f"{CHECKPOINTING}_enable")({"use_reentrant": reentrant})
        model.zero_grad()
        model(input_ids=IDS).logits.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.requires_grad and p.grad is not None])
    assert len(gradients[0]) == 4 * LAYERS * (2 if placement == "houlsby" else 1)
    for others in gradients[1:]:
        for one, other in zip(gradients[0], others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_half_precision_base() -> None:
    model = get_peft_model(base().bfloat16(), BottleneckAdapterConfig(bottleneck_size=M))
    assert {p.dtype for n, p in model.named_parameters() if "bottleneck" in n} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16
    assert torch.equal(logits(model), logits(base().bfloat16()))


def test_nothing_of_a_step_is_kept() -> None:
    model = adapted(placement="parallel")
    logits(model)
    with model.disable_adapter():
        logits(model)
    layers = [module for module in model.modules() if isinstance(module, BottleneckAdapterLayer)]
    assert all(layer._feed_forward_input is not None for layer in layers)
    assert not any(layer._feed_forward_input.values for layer in layers if layer._feed_forward_input)


def test_threads_do_not_see_each_other() -> None:
    """Two calls at once: the second passes the adapter's input while the first stands behind it."""
    model = adapted(placement="parallel")
    inputs = [IDS, IDS.flip(1)]
    expected = [model(input_ids=ids).logits.detach() for ids in inputs]
    entered, passed = threading.Event(), threading.Event()
    found: dict[int, torch.Tensor] = {}

    def wait(*_: Any) -> None:
        if threading.current_thread() is first and not entered.is_set():
            entered.set()
            passed.wait(10)

    middle = model.get_base_model().bert.encoder.layer[0].intermediate
    middle.register_forward_hook(wait)  # behind the network's first layer
    first = threading.Thread(target=lambda: found.update({0: model(input_ids=inputs[0]).logits.detach()}))
    first.start()
    assert entered.wait(10)
    found[1] = model(input_ids=inputs[1]).logits.detach()
    passed.set()
    first.join()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_compiled_in_one_graph() -> None:
    model = adapted(placement="parallel")
    torch.compiler.reset()
    with torch.no_grad():
        found = torch.compile(model, backend="eager", fullgraph=True)(input_ids=IDS).logits
    torch.testing.assert_close(found, logits(model))


def test_copied_after_a_step_that_broke_off() -> None:
    model = adapted(placement="parallel").train()
    middle = model.get_base_model().bert.encoder.layer[1].intermediate
    handle = middle.register_forward_hook(lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        model(input_ids=IDS)
    handle.remove()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin.eval()), logits(model.eval()))


# ------------------------------------------------------------------------------------------------------- merging


@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_adapters_are_merged(placement: str, bias: bool) -> None:
    plain = base()
    if not bias:
        for layer in plain.bert.encoder.layer:
            layer.output.dense.register_parameter("bias", None)
    before = copy.deepcopy(plain.state_dict())
    model = get_peft_model(
        plain, BottleneckAdapterConfig(bottleneck_size=M, placement=placement, non_linearity="identity", scaling=0.5)
    )
    model = model.double().eval()
    randomise(model)
    expected = logits(model)
    model.merge_adapter(safe_merge=True)
    assert model.get_model_status().merged_adapters == ["default"]
    torch.testing.assert_close(logits(model), expected, rtol=1e-12, atol=1e-12)
    model.unmerge_adapter()
    assert torch.equal(logits(model), expected)
    after = {k.replace("base_model.model.", "").replace("base_layer.", ""): v for k, v in model.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    model.merge_adapter()
    with model.disable_adapter():  # which takes them out again, as with LoRA
        assert (logits(model) - expected).abs().max() > 1e-2
    merged = model.merge_and_unload()
    assert type(merged) is BertForSequenceClassification
    torch.testing.assert_close(logits(merged), expected, rtol=1e-12, atol=1e-12)
    assert not any("bottleneck" in name for name in merged.state_dict())


def test_merged_in_single_precision() -> None:
    model = adapted(placement="houlsby", non_linearity="identity").float()
    expected = logits(model)
    torch.testing.assert_close(logits(model.merge_and_unload()), expected, rtol=1e-5, atol=1e-5)


def test_several_merged_adapters_add_up() -> None:
    model = adapted(placement="pfeiffer", non_linearity="identity")
    model.add_adapter("other", BottleneckAdapterConfig(bottleneck_size=2, non_linearity="linear"))
    model = model.double()
    randomise(model, "other", seed=2)
    model.base_model.set_adapter(["default", "other"])
    expected = logits(model)
    model.merge_adapter(["default"])
    with pytest.warns(UserWarning, match="additionally merging other"):
        model.merge_adapter(["other"])
    torch.testing.assert_close(logits(model), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"non_linearity": "relu"}, "has the non-linearity 'relu' between its two maps"),
        ({"non_linearity": "identity", "placement": "parallel"}, "stands beside the feed-forward network"),
    ],
)
def test_what_cannot_be_merged(options: dict[str, Any], message: str) -> None:
    model = adapted("SEQ_CLS", modules_to_save=["embeddings.LayerNorm"], **options)
    state, expected = copy.deepcopy(model.state_dict()), logits(model)
    for attempt in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match=message):
            attempt()
        assert torch.equal(logits(model), expected)
        assert list(model.state_dict()) == list(state)


def test_a_broken_adapter_is_not_merged() -> None:
    model = adapted(non_linearity="identity")
    expected = logits(base())
    layer = model.get_base_model().bert.encoder.layer[0].output.dense
    nn.init.constant_(layer.bottleneck_adapter_up["default"].bias, float("inf"))
    with pytest.raises(ValueError, match="not finite: the adapter seems to be broken"):
        model.merge_adapter(safe_merge=True)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)


# ----------------------------------------------------------------------------------------------- targets and errors


def test_targets_by_name() -> None:
    model = get_peft_model(
        base(), BottleneckAdapterConfig(bottleneck_size=M, target_modules=["attention.output.dense"])
    )
    names = [n for n, module in model.named_modules() if isinstance(module, BottleneckAdapterLayer)]
    assert len(names) == LAYERS
    assert all(name.endswith("attention.output.dense") for name in names)
    some = get_peft_model(
        base(),
        BottleneckAdapterConfig(bottleneck_size=M, placement="houlsby", exclude_modules=r".*layer\.0\..*"),
    )
    names = [n for n, module in some.named_modules() if isinstance(module, BottleneckAdapterLayer)]
    assert len(names) == 2 * (LAYERS - 1)


def test_a_layer_that_is_trained_whole_gets_no_adapter() -> None:
    config = BottleneckAdapterConfig(bottleneck_size=M, placement="houlsby", modules_to_save=["encoder.layer.2"])
    model = get_peft_model(base(), config)
    assert torch.equal(logits(model), logits(base()))
    layer = sum(p.numel() for p in base().bert.encoder.layer[2].parameters())
    assert model.get_nb_trainable_parameters()[0] == layer + 2 * 2 * (2 * M * D + D + M)
    model.add_adapter(
        "other", BottleneckAdapterConfig(bottleneck_size=M, layers_to_transform=[0], target_modules=["0.output.dense"])
    )
    with pytest.raises(ValueError, match=r"trains a copy of bert\.encoder\.layer\.2 whole"):
        model.add_adapter("third", BottleneckAdapterConfig(bottleneck_size=M))
    assert list(model.peft_config) == ["default", "other"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bottleneck_size": 0}, ValueError, "bottleneck_size must be at least 1, got 0"),
        ({"bottleneck_size": 2.5}, TypeError, "bottleneck_size must be a whole number, got 2.5"),
        ({"bottleneck_size": True}, TypeError, "bottleneck_size must be a whole number, got True"),
        ({"scaling": "4"}, TypeError, "scaling must be a number, got '4'"),
        ({"placement": "lora"}, ValueError, "placement must be one of houlsby, pfeiffer, parallel; got 'lora'"),
        ({"non_linearity": "rleu"}, ValueError, "non_linearity must be 'identity' or one of .*relu.*; got 'rleu'"),
        ({"non_linearity": "prelu"}, ValueError, "'prelu' has parameters of its own"),
        ({"task_type": "SEQ"}, ValueError, "Invalid task type: 'SEQ'"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        BottleneckAdapterConfig(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers_to_transform": [1, 3]}, ValueError, r"names \[3\], but the model has layers 0 to 2"),
        ({"target_modules": ["nowhere"]}, ValueError, "nowhere.*not found in the base model"),
        ({"target_modules": ["word_embeddings"]}, TypeError, "stand behind nn.Linear, got Embedding"),
        (
            {"placement": "parallel", "target_modules": ["attention.output.dense"]},
            ValueError,
            r"layer\.0\.attention\.output\.dense is not the last layer of a feed-forward network",
        ),
    ],
)
def test_bad_targets(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        get_peft_model(base(), BottleneckAdapterConfig(**options))


def test_layers_of_other_kinds_are_refused() -> None:
    model = GPT2Model(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=30))
    with pytest.raises(ValueError, match=r"no feed-forward network of linear layers.*Name the layers to adapt"):
        get_peft_model(model, BottleneckAdapterConfig())
