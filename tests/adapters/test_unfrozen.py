"""Layers of the base model that were unfrozen are saved with the adapter, and come back."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from hf_nlpnotes.adapters import BottleneckAdapterConfig, save_unfrozen_layers, unfrozen, unfrozen_parameters

# peft 0.21 asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

IDS = torch.arange(2, 22).view(2, 10)
LABELS = torch.tensor([0, 1])
METHODS: dict[str, Any] = {
    "bottleneck": lambda **o: BottleneckAdapterConfig(
        bottleneck_size=3, placement="houlsby", task_type="SEQ_CLS", **o
    ),
    "lora": lambda **o: LoraConfig(r=2, target_modules=["query", "value", "output.dense"], task_type="SEQ_CLS", **o),
    "ia3": lambda **o: IA3Config(task_type="SEQ_CLS", **o),
    "prefix": lambda **o: PrefixTuningConfig(num_virtual_tokens=3, task_type="SEQ_CLS", **o),
}


def base() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=16,
    )
    return BertForSequenceClassification(config).eval()


def adapted(method: str, **options: Any) -> PeftModel:
    torch.manual_seed(1)
    model = get_peft_model(base(), METHODS[method](**options))
    if method != "bottleneck":
        save_unfrozen_layers(model)
    return model


def layer(model: PeftModel, number: int) -> nn.Module:
    return model.get_base_model().bert.encoder.layer[number]


def unfreeze(model: PeftModel, number: int, trainable: bool = True) -> None:
    for name, parameter in layer(model, number).named_parameters():
        if not any(word in name for word in ("bottleneck", "lora", "ia3")):
            parameter.requires_grad_(trainable)


def train(model: PeftModel, steps: int = 3) -> None:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=LABELS).loss.backward()
        optimizer.step()
    model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
    return found


@pytest.mark.parametrize("method", METHODS)
def test_unfrozen_layers_come_back(method: str, tmp_path: Path) -> None:
    model = adapted(method)
    assert unfrozen_parameters(model) == {}
    unfreeze(model, 2)
    expected = {f"bert.encoder.layer.2.{name}" for name, _ in base().bert.encoder.layer[2].named_parameters()}
    prefix = "base_model." if method == "prefix" else "base_model.model."
    found = {name.removeprefix(prefix).replace("base_layer.", "") for name in unfrozen_parameters(model)}
    assert found == expected
    train(model)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base(), str(tmp_path))  # the stock call, nothing else
    assert torch.equal(logits(loaded), logits(model))
    assert not list(tmp_path.glob("*.tmp"))
    # It was the unfrozen layer that made the difference.
    before = dict(base().bert.encoder.layer[2].named_parameters())
    after = {name.replace("base_layer.", ""): p for name, p in layer(loaded, 2).named_parameters()}
    assert all(not torch.equal(after[name], value) for name, value in before.items() if "key.bias" not in name)


@pytest.mark.parametrize("method", ["bottleneck", "lora"])
def test_a_layer_that_was_frozen_again_is_saved(method: str, tmp_path: Path) -> None:
    """As in chain-thaw: one layer after the other, and the last one alone is trainable at the end."""
    model = adapted(method)
    for number in (1, 2):
        unfreeze(model, number)
        train(model)
        unfreeze(model, number, False)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base(), str(tmp_path))), logits(model))
    saved = [key for key in load_file(tmp_path / "adapter_model.safetensors") if key.endswith("LayerNorm.weight")]
    assert {key.split(".layer.")[1][0] for key in saved} == {"1", "2"}


@pytest.mark.parametrize("method", ["bottleneck", "lora"])
def test_loaded_and_trained_on(method: str, tmp_path: Path) -> None:
    """What a checkpoint brought along stays in the next one, also when it stays frozen."""
    first = adapted(method)
    unfreeze(first, 1)
    train(first)
    first.save_pretrained(tmp_path / "first")
    second = adapted(method)
    second.load_adapter(str(tmp_path / "first"), "default", is_trainable=True)
    train(second)
    second.save_pretrained(tmp_path / "second")
    assert torch.equal(logits(PeftModel.from_pretrained(base(), str(tmp_path / "second"))), logits(second))
    if method == "bottleneck":  # from_pretrained notes it too
        third = PeftModel.from_pretrained(base(), str(tmp_path / "first"))
        third.save_pretrained(tmp_path / "third")
        assert torch.equal(logits(PeftModel.from_pretrained(base(), str(tmp_path / "third"))), logits(first))


def test_without_the_call_peft_loses_them(tmp_path: Path) -> None:
    """The reason for all this: when PEFT saves them by itself, the call can go."""
    model = get_peft_model(base(), METHODS["lora"]())
    unfreeze(model, 2)
    train(model)
    model.save_pretrained(tmp_path)
    assert (logits(PeftModel.from_pretrained(base(), str(tmp_path))) - logits(model)).abs().max() > 1e-5


class TestInterrupted:
    """However far saving gets, the folder holds the adapter of before or the new one, never one without its layers."""

    @staticmethod
    def trained() -> PeftModel:
        model = adapted("lora")
        unfreeze(model, 2)
        train(model)
        return model

    def test_at_every_write(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[bool] = []

        def look() -> None:
            path = tmp_path / "adapter_model.safetensors"
            if path.is_file():
                seen.append(any("layer.2.attention.output.LayerNorm" in name for name in load_file(path)))

        for module, name in (
            (peft.peft_model, "safe_save_file"),
            (unfrozen, "save_file"),
            (os, "replace"),
            (peft.PeftConfig, "save_pretrained"),
        ):
            function = getattr(module, name)

            def watched(*args: Any, function: Any = function, **kwargs: Any) -> Any:
                try:
                    look()
                    return function(*args, **kwargs)
                finally:
                    look()

            monkeypatch.setattr(module, name, watched)
        for _ in range(2):  # into a new folder, and over what is there
            self.trained().save_pretrained(tmp_path)
        assert len(seen) > 4
        assert all(seen)

    @pytest.mark.parametrize("failing", ["PEFT's writing", "ours"])
    def test_by_the_user(self, failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model = self.trained()
        model.save_pretrained(tmp_path / "old")
        before = {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()}
        train(model)

        def interrupted(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        if failing == "ours":
            monkeypatch.setattr(unfrozen, "save_file", interrupted)
        else:
            monkeypatch.setattr(peft.PeftConfig, "save_pretrained", interrupted)
        for name in ("old", "new"):
            with pytest.raises(KeyboardInterrupt):
                model.save_pretrained(tmp_path / name)
        assert {path.name: path.read_bytes() for path in (tmp_path / "old").iterdir()} == before
        assert list((tmp_path / "new").iterdir()) == []

    def test_by_another_format(self, tmp_path: Path) -> None:
        for arguments, options in (((False,), {}), ((), {"safe_serialization": False})):
            with pytest.raises(ValueError, match="saved in safetensors alone"):
                self.trained().save_pretrained(tmp_path, *arguments, **options)
            assert list(tmp_path.iterdir()) == []


def test_a_named_adapter_and_a_written_card(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = get_peft_model(base(), METHODS["lora"](), adapter_name="mine")
    save_unfrozen_layers(model)
    unfreeze(model, 2)
    train(model)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nWritten by hand.\n")
    model.save_pretrained(tmp_path)
    assert "Written by hand." in (tmp_path / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "mine"]
    assert torch.equal(logits(PeftModel.from_pretrained(base(), str(tmp_path / "mine"))), logits(model))


@pytest.mark.parametrize("method", ["bottleneck", "lora"])
def test_tied_parameters_are_saved(method: str, tmp_path: Path) -> None:
    """One tensor under two names: safetensors writes no aliases."""
    torch.manual_seed(0)
    plain = BertForMaskedLM(base().config).eval()
    model = get_peft_model(copy.deepcopy(plain), replace(METHODS[method](), task_type=None))
    if method == "lora":
        save_unfrozen_layers(model)
    embeddings = model.get_base_model().bert.embeddings.word_embeddings.weight
    embeddings.requires_grad_(True)
    with torch.no_grad():
        embeddings += 0.1
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(plain, str(tmp_path)).get_base_model()
    assert torch.equal(loaded.bert.embeddings.word_embeddings.weight, embeddings)
    assert loaded.cls.predictions.decoder.weight is loaded.bert.embeddings.word_embeddings.weight


def test_nothing_unfrozen_saves_what_peft_saves(tmp_path: Path) -> None:
    ours = adapted("lora")
    stock = get_peft_model(base(), METHODS["lora"]())
    stock.load_state_dict(ours.state_dict())
    ours.save_pretrained(tmp_path / "ours")
    stock.save_pretrained(tmp_path / "stock")
    a, b = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "stock"))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_state_of_the_whole_model_unfreezes_nothing() -> None:
    model = adapted("bottleneck")
    model.load_state_dict(model.state_dict())
    assert unfrozen_parameters(model) == {}
    logits(model.train())
    assert unfrozen_parameters(model) == {}


def test_evaluation_is_no_training() -> None:
    model = adapted("bottleneck")
    unfreeze(model, 0)
    logits(model.eval())
    model.train()
    with torch.no_grad():
        model(input_ids=IDS)
    unfreeze(model, 0, False)
    assert unfrozen_parameters(model) == {}


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_note_for_themselves(how: Callable[[PeftModel], PeftModel], tmp_path: Path) -> None:
    model = adapted("lora")
    twin = how(model)
    unfreeze(twin, 2)
    train(twin)
    unfreeze(twin, 2, False)
    assert len(unfrozen_parameters(twin)) > 0
    assert unfrozen_parameters(model) == {}
    twin.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(base(), str(tmp_path))), logits(twin))


@pytest.mark.parametrize("method", ["bottleneck", "lora", "ia3"])
def test_whole_layers_as_modules_to_save(method: str, tmp_path: Path) -> None:
    """PEFT's own way: a copy for each adapter, switched with it."""
    model = adapted(method, modules_to_save=["encoder.layer.2"])
    plain = logits(base())
    torch.testing.assert_close(logits(model.eval()), plain)
    assert unfrozen_parameters(model) == {}
    train(model)
    trained = logits(model)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), plain)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base(), str(tmp_path))
    assert torch.equal(logits(loaded), trained)
    copied = dict(layer(loaded, 2).modules_to_save["default"].named_parameters())  # type: ignore[union-attr, index]
    assert not any("bottleneck" in name or "lora" in name or "ia3" in name for name in copied)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"takes a PeftModel, got BertForSequenceClassification: call get_peft_model"):
        save_unfrozen_layers(base())  # type: ignore[arg-type]
    for method in ("bottleneck", "lora"):
        model = adapted(method)
        model.add_adapter("other", METHODS[method]())
        unfreeze(model, 0)
        with pytest.raises(ValueError, match=r"the adapters \['default', 'other'\], which all share them"):
            model.save_pretrained(tmp_path)
        assert not list(tmp_path.rglob("*.safetensors"))
    model = adapted("lora")
    unfreeze(model, 0)
    model.merge_adapter()
    with pytest.raises(ValueError, match=r"cannot be told from merged adapters: call unmerge_adapter\(\)"):
        model.save_pretrained(tmp_path)
