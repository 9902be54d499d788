"""Soft tokens: they begin as their words, are trained, and come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, Trainer, TrainingArguments

from hf_nlpnotes.prompting.config import PromptConfig
from hf_nlpnotes.prompting.model import PromptForSequenceClassification
from hf_nlpnotes.prompting.soft_prompts import SOFT_FILE, SoftPrompt, prepended, with_embeddings

WORDS = {"差评": "差", "好评": "好"}
SOFT = PromptConfig(template=["{soft:这是}{text}{soft:2}{label}评。", "{text}{soft:吗}{label}"], verbalizer=WORDS)
DATA = [{"text": text, "label": i % 2} for i, text in enumerate(["难过", "喜欢，开心", "房间不干净", "推荐"])]


def load(folder: Path, prompt: PromptConfig) -> Any:
    torch.manual_seed(0)
    return PromptForSequenceClassification.from_pretrained(
        folder, config=prompt, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )


def arguments(output: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(output),
        max_steps=4,
        per_device_train_batch_size=2,
        learning_rate=0.02,
        save_strategy="steps",
        save_steps=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def test_untrained_soft_words_are_the_written_ones(tiny_chinesebert_folder: Path) -> None:
    written = PromptConfig(template=["这是{text}，{label}评。", "{text}吗{label}"], verbalizer=WORDS)
    soft = written.replace(template=["{soft:这是}{text}，{label}{soft:评。}", "{text}{soft:吗}{label}"])
    found, expected = (load(tiny_chinesebert_folder, prompt).predict(DATA) for prompt in (soft, written))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_soft_tokens_without_words_begin_in_the_vocabulary(tiny_chinesebert_folder: Path) -> None:
    model = load(tiny_chinesebert_folder, SOFT)
    soft = model.soft_prompt.soft_tokens.detach()
    assert soft.shape == (5, 32)
    ids = torch.arange(model.config.vocab_size)[None]
    table = model.masked_lm.base_model.get_fused_embeddings(ids, torch.zeros_like(ids))[0]
    distances = (soft[2:4, None] - table).abs().amax(dim=2).min(dim=1).values
    assert distances.max() < 1e-5


def test_special_tokens_among_initial_words_are_text(tiny_chinesebert_folder: Path) -> None:
    written = PromptConfig(template="{text}[SEP]这是{label}", verbalizer=WORDS)
    soft = written.replace(template="{text}{soft:[SEP]这}{soft:是}{label}")
    model = load(tiny_chinesebert_folder, soft)
    assert len(model.soft_prompt.soft_tokens) == len(model.templates[0].encoder.soft_tokens) > 3
    expected = load(tiny_chinesebert_folder, written).predict(DATA)
    torch.testing.assert_close(model.predict(DATA), expected, rtol=1e-5, atol=1e-5)


def test_places_of_soft_tokens(tiny_chinesebert_folder: Path) -> None:
    model = load(tiny_chinesebert_folder, SOFT)
    index = model.data_collator()(DATA)["soft_index"]
    # 难过: [CLS] s0 s1 难 过 s2 s3 [MASK] 评 。 [SEP]; and [CLS] 难 过 s4 [MASK] [SEP]
    assert index[0, 0].tolist()[:11] == [-1, 0, 1, -1, -1, 2, 3, -1, -1, -1, -1]
    assert index[0, 1].tolist()[:6] == [-1, -1, -1, 4, -1, -1]
    assert set(index[0, :, 11:].flatten().tolist()) <= {-1}


def test_each_soft_token_is_read_in_its_place(tiny_chinesebert_folder: Path) -> None:
    """Against the stock model, on embeddings put together by hand."""
    model = load(tiny_chinesebert_folder, SOFT.replace(template="{text}{soft:2}{label}"))
    with torch.no_grad():
        model.soft_prompt.soft_tokens.normal_(generator=torch.Generator().manual_seed(1))
    tokenizer, stock = model.tokenizer, AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    inputs = tokenizer("喜欢，开心我我[MASK]", return_tensors="pt")
    with torch.no_grad():
        fused = stock.base_model.get_fused_embeddings(inputs["input_ids"], inputs["pinyin_ids"])
        fused[0, 6:8] = model.soft_prompt.soft_tokens
        logits = stock(inputs_embeds=fused).logits[0, 8]
    expected = (logits - logits.mean())[tokenizer.convert_tokens_to_ids(["差", "好"])]
    torch.testing.assert_close(model.predict([{"text": "喜欢，开心"}])[0], expected, rtol=1e-5, atol=1e-5)


def test_trained_soft_tokens_lie_beside_the_weights(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    model = load(tiny_chinesebert_folder, SOFT)
    start = model.soft_prompt.soft_tokens.detach().clone()
    Trainer(model, arguments(tmp_path), model.data_collator(), DATA).train()
    assert (model.soft_prompt.soft_tokens - start).abs().max() > 1e-3
    checkpoint = tmp_path / "checkpoint-4"
    assert load_file(checkpoint / SOFT_FILE).keys() == {"soft_tokens"}
    assert not any("soft" in name for name in load_file(checkpoint / "model.safetensors"))
    loaded = PromptForSequenceClassification.from_pretrained(checkpoint)
    assert torch.equal(loaded.predict(DATA), model.predict(DATA))


def test_resuming(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    """The Trainer reads a checkpoint's weights, not what lies beside them: the model has to come from there."""
    whole = load(tiny_chinesebert_folder, SOFT)
    Trainer(whole, arguments(tmp_path), whole.data_collator(), DATA).train()
    middle = str(tmp_path / "checkpoint-2")
    resumed = PromptForSequenceClassification.from_pretrained(
        middle, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    Trainer(resumed, arguments(tmp_path), resumed.data_collator(), DATA).train(resume_from_checkpoint=middle)
    assert torch.equal(resumed.soft_prompt.soft_tokens, whole.soft_prompt.soft_tokens)
    assert torch.equal(resumed.predict(DATA), whole.predict(DATA))
    for wrong in (
        load(tiny_chinesebert_folder, SOFT),
        PromptForSequenceClassification.from_pretrained(tmp_path / "checkpoint-4"),
    ):
        with pytest.raises(ValueError, match=r"from_pretrained\(CHECKPOINT\), then resume from it"):
            Trainer(wrong, arguments(tmp_path), wrong.data_collator(), DATA).train(resume_from_checkpoint=middle)


def test_a_file_of_another_template(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    load(tiny_chinesebert_folder, SOFT).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"'soft_tokens' with shape \(5, 32\), and the prompt needs it with shape \(1"
    ):
        load(tmp_path, SOFT.replace(template="{soft:1}{text}{label}"))
    save_file({"other": torch.zeros(1)}, tmp_path / SOFT_FILE)
    with pytest.raises(ValueError, match="'soft_tokens' not at all"):
        PromptForSequenceClassification.from_pretrained(tmp_path)


def test_templates_without_soft_tokens_have_none(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    model = load(tiny_chinesebert_folder, PromptConfig(template="{text}{label}", verbalizer=WORDS))
    assert model.soft_prompt is None
    model.save_pretrained(tmp_path)
    assert not (tmp_path / SOFT_FILE).exists()
    prompt = PromptConfig(template="{text}{label}", verbalizer=WORDS)
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    templates = [template for template, _ in prompt.templates]
    assert SoftPrompt.for_templates(templates, model.masked_lm, tokenizer) is None


def test_prepending() -> None:
    inputs = {
        "inputs_embeds": torch.ones(2, 3, 4),
        "attention_mask": torch.ones(2, 3).long(),
        "token_type_ids": torch.ones(2, 3).long(),
    }
    longer = prepended(inputs, torch.zeros(2, 2, 4))
    assert longer["inputs_embeds"][:, :, 0].tolist() == [[0, 0, 1, 1, 1]] * 2
    assert longer["attention_mask"].tolist() == [[1] * 5] * 2
    assert longer["token_type_ids"].tolist() == [[0, 0, 1, 1, 1]] * 2


def test_models_without_embeddings_as_input() -> None:
    class Model(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return input_ids

    with pytest.raises(ValueError, match="Model takes no inputs_embeds"):
        with_embeddings(Model(), {}, torch.zeros(1, 1, 1))
