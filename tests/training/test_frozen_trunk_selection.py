"""Cached outputs under a selection of layers: right where the selection needs the last one alone, else refused."""

import pytest
import torch
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

from hf_nlpnotes.models.layer_selection import LayerSelectionForSequenceClassification
from hf_nlpnotes.training.frozen_trunk import FeatureExtraction

TEXTS = ["我喜欢猫", "国足今晚出战北京", "股票", "天气真好"]


def train(folder, output, selection, **options):
    set_seed(0)
    model = LayerSelectionForSequenceClassification.from_encoder(
        folder, selection=selection, token_pooling="mean", num_labels=2
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [{**tokenizer(text), "labels": number % 2} for number, text in enumerate(TEXTS)]
    arguments = TrainingArguments(
        output_dir=str(output), per_device_train_batch_size=2, num_train_epochs=3, learning_rate=0.01,
        report_to="none", save_strategy="no", use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    Trainer(
        model, arguments, DataCollatorWithPadding(tokenizer), rows, callbacks=[FeatureExtraction(**options)]
    ).train()
    return model.state_dict()


def test_the_last_layer_alone(tiny_chinesebert_folder, tmp_path):
    plain = train(tiny_chinesebert_folder, tmp_path, "top")
    exact = train(tiny_chinesebert_folder, tmp_path, "top", cache="memory")
    assert all(torch.equal(exact[name], value) for name, value in plain.items())
    close = train(tiny_chinesebert_folder, tmp_path, "top", cache="memory", exact=False)
    for name, value in plain.items():
        torch.testing.assert_close(close[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("exact", [True, False])
def test_a_mix_needs_what_is_not_cached(tiny_chinesebert_folder, tmp_path, exact):
    with pytest.raises(ValueError, match="cache=None"):
        train(tiny_chinesebert_folder, tmp_path, "mix", cache="memory", exact=exact)
