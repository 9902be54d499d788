"""Layers that the checkpoint lacks are trained and saved, since the next process draws others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from hf_nlpnotes.adapters import BottleneckAdapterConfig, new_layers

# peft 0.21 asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

IDS = torch.arange(5, 25).view(2, 10)
POOLER = ["bert.pooler.dense"]


def base(folder: Path, seed: int) -> Any:
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS, pinyin_ids=IDS % 4).logits
    return found


def test_what_is_new(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    model = base(tiny_chinesebert_folder, 0)
    assert new_layers(model) == [*POOLER, "classifier"]
    assert new_layers(model, but=["classifier", "score"]) == POOLER
    assert new_layers(AutoModelForTokenClassification.from_pretrained(tiny_chinesebert_folder)) == ["classifier"]
    assert new_layers(AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)) == []
    assert new_layers(type(model)(model.config)) == []  # not from a checkpoint
    model.save_pretrained(tmp_path)
    assert new_layers(base(tmp_path, 0)) == []
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
    RobertaForMaskedLM(RobertaConfig(**sizes)).save_pretrained(tmp_path / "roberta")
    roberta = RobertaForSequenceClassification.from_pretrained(tmp_path / "roberta")
    assert new_layers(roberta) == ["classifier.dense", "classifier.out_proj"]
    assert new_layers(roberta, but=["classifier"]) == []
    assert new_layers(roberta, but=["lassifier"]) == ["classifier.dense", "classifier.out_proj"]


@pytest.mark.parametrize("method", ["bottleneck", "lora"])
def test_an_adapter_meets_its_own_pooler(method: str, tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    model = base(tiny_chinesebert_folder, 0)
    config: Any = BottleneckAdapterConfig(bottleneck_size=4, task_type="SEQ_CLS")
    if method == "lora":
        config = LoraConfig(task_type="SEQ_CLS", modules_to_save=new_layers(model))
    model = get_peft_model(model, config).eval()
    assert any("pooler" in name for name, parameter in model.named_parameters() if parameter.requires_grad)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base(tiny_chinesebert_folder, 1), str(tmp_path))
    assert torch.equal(logits(loaded), logits(model))
    assert (logits(base(tiny_chinesebert_folder, 1)) - logits(model)).abs().max() > 1e-4


def test_every_adapter_has_its_own(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    model = get_peft_model(
        base(tiny_chinesebert_folder, 0), BottleneckAdapterConfig(bottleneck_size=4, task_type="SEQ_CLS")
    ).eval()
    first = logits(model)
    model.add_adapter("other", BottleneckAdapterConfig(bottleneck_size=4, task_type="SEQ_CLS"))
    assert set(model.peft_config["other"].modules_to_save) == {*POOLER, "classifier", "score"}
    model.set_adapter("other")
    for name, parameter in model.named_parameters():
        if ".other." in name:
            nn.init.normal_(parameter)
    second = logits(model)
    assert (second - first).abs().max() > 1e-2
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base(tiny_chinesebert_folder, 1), str(tmp_path / "other"))
    assert torch.equal(logits(loaded), second)
