"""Adapters on prompted models: where the masks are read, what is trained, and what comes back from disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import (
    LoraConfig,
    MultitaskPromptTuningConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
)
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    Trainer,
    TrainingArguments,
)

from hf_nlpnotes.prompting.adapters import PeftModelForPrompts
from hf_nlpnotes.prompting.config import PROMPT_FILE, PromptConfig
from hf_nlpnotes.prompting.model import PromptForSequenceClassification

# peft 0.21 asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

PROMPT = PromptConfig(
    template=["{text}这是{label}评。", "{label}：{text}"], verbalizer={"差评": ["差"], "好评": ["好", "满意"]}
)
TEXTS = ["酒店很好", "难过", "喜欢，开心，推荐", "房间不干净，服务差"]
DATA = [{"text": text, "label": i % 2} for i, text in enumerate(TEXTS)]
COUNT = 5
METHODS: dict[str, Any] = {
    "lora": lambda: LoraConfig(r=4, target_modules=["query", "value"], lora_alpha=32),
    "prompt tuning": lambda: PromptTuningConfig(num_virtual_tokens=COUNT),
    "p-tuning": lambda: PromptEncoderConfig(num_virtual_tokens=COUNT, encoder_hidden_size=16),
    "prefix tuning": lambda: PrefixTuningConfig(num_virtual_tokens=COUNT),
    "projected prefix": lambda: PrefixTuningConfig(
        num_virtual_tokens=COUNT, prefix_projection=True, encoder_hidden_size=16
    ),
}


@pytest.fixture(scope="module")
def roberta_folder(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose positions are counted from the padding token's number."""
    folder = tmp_path_factory.mktemp("roberta")
    tokens = AutoTokenizer.from_pretrained(tiny_chinesebert_folder).get_vocab()
    tokens |= {"[PAD]": 1, "[UNK]": 0}
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=66,
        pad_token_id=1,
    )
    RobertaForMaskedLM(config).save_pretrained(folder)
    BertTokenizer(vocab=tokens).save_pretrained(folder)
    return folder


@pytest.fixture(params=["tiny_chinesebert_folder", "roberta_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def load(folder: Path, prompt: PromptConfig | None = PROMPT, **options: Any) -> Any:
    return PromptForSequenceClassification.from_pretrained(
        folder, config=prompt, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options
    )


def adapted(folder: Path, method: str, prompt: PromptConfig = PROMPT) -> PeftModelForPrompts:
    torch.manual_seed(0)
    return PeftModelForPrompts(load(folder, prompt), METHODS[method]())


def train(model: Any, output: Path, steps: int, **resume: Any) -> None:
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=2,
        learning_rate=0.02,
        lr_scheduler_type="constant",
        save_strategy="steps",
        save_steps=3,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Trainer(model, arguments, model.data_collator(), Dataset.from_list(DATA)).train(**resume)


@pytest.mark.parametrize("method", ["prompt tuning", "p-tuning"])
def test_masks_are_read_behind_the_virtual_tokens(folder: Path, method: str) -> None:
    """Against the stock model, run by hand on embeddings with the virtual tokens before them."""
    model = adapted(folder, method)
    batch = model.data_collator()(DATA)
    found = model.eval()(**batch).logits
    stock = AutoModelForMaskedLM.from_pretrained(folder)
    expected = torch.zeros(len(DATA), 2)
    table = stock.get_output_embeddings()
    assert table is not None
    words = {0: [[["差"], []], [["好"], ["满", "意"]]], 1: [[["差"], []], [["好"], ["满", "意"]]]}
    with torch.no_grad():
        virtual = model.get_prompt(1)
        for i in range(len(DATA)):
            for row in range(4):  # two templates of two lengths
                real = int(batch["attention_mask"][i, row].sum())
                inputs = {"input_ids": batch["input_ids"][i, row, :real][None]}
                if "pinyin_ids" in batch:
                    fused = stock.base_model.get_fused_embeddings(
                        inputs["input_ids"], batch["pinyin_ids"][i, row, :real][None]
                    )
                else:
                    fused = stock.get_input_embeddings()(inputs["input_ids"])
                logits = stock(inputs_embeds=torch.cat([virtual, fused], dim=1)).logits[0]
                masks = (inputs["input_ids"][0] == model.prompted.tokenizer.mask_token_id).nonzero().flatten()
                centred = logits - logits.mean(dim=1, keepdim=True)
                length = row % 2
                assert len(masks) == length + 1
                for label, share in ((0, 1.0), (1, 0.5)):
                    word = words[row // 2][label][length]
                    ids = model.prompted.tokenizer.convert_tokens_to_ids(word)
                    if ids:
                        scores = [centred[masks[k] + COUNT, i] for k, i in enumerate(ids)]
                        expected[i, label] += 0.5 * share * torch.stack(scores).mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_neighbours_and_padding_have_no_say(folder: Path, method: str) -> None:
    model = adapted(folder, method)
    torch.testing.assert_close(model.predict(DATA), model.predict(DATA, batch_size=1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_only_the_adapter_is_trained_and_it_comes_back(folder: Path, method: str, tmp_path: Path) -> None:
    before = load(folder)
    untrained = before.predict(DATA)
    model = adapted(folder, method)
    bias = model.calibrate(DATA)
    if method != "lora":  # which begins as nothing
        with model.disable_adapter():
            torch.testing.assert_close(model.predict(DATA), untrained - bias, rtol=1e-5, atol=1e-5)
    start = model.predict(DATA)
    train(model, tmp_path, 6)
    trained = model.predict(DATA)
    assert (trained - start).abs().max() > 1e-5
    with model.disable_adapter():
        torch.testing.assert_close(model.predict(DATA), untrained - bias, rtol=1e-5, atol=1e-5)

    saved = tmp_path / "checkpoint-6"
    assert (saved / PROMPT_FILE).is_file()
    assert not (saved / "model.safetensors").exists()
    for trainable in (True, False):
        loaded = load(saved, None, is_trainable=trainable)
        assert type(loaded) is PeftModelForPrompts
        torch.testing.assert_close(loaded.predict(DATA), trained, rtol=1e-5, atol=1e-6)

    # Resumed from the middle, in a new model or in the loaded one, it ends in the same place.
    middle = tmp_path / "checkpoint-3"
    for resumed in (adapted(folder, method), load(middle, None)):
        train(resumed, tmp_path, 6, resume_from_checkpoint=str(middle))
        torch.testing.assert_close(resumed.predict(DATA), trained, rtol=1e-6, atol=1e-6)


def test_lora_is_stored_for_the_masked_language_model_itself(folder: Path, tmp_path: Path) -> None:
    model = adapted(folder, "lora")
    train(model, tmp_path, 2)
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        folder
    )
    inputs = model.prompted.tokenizer("酒店[MASK]", return_tensors="pt")
    expected = model.prompted.masked_lm(**inputs).logits
    torch.testing.assert_close(AutoModelForMaskedLM.from_pretrained(tmp_path / "saved")(**inputs).logits, expected)
    stock = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(folder), str(tmp_path / "saved"))
    torch.testing.assert_close(stock(**inputs).logits, expected)


def test_lora_with_soft_tokens(folder: Path, tmp_path: Path) -> None:
    prompt = PROMPT.replace(template="{soft:2}{text}{soft:这是}{label}评。")
    model = adapted(folder, "lora", prompt)
    start = model.soft_prompt.soft_tokens.detach().clone()
    train(model, tmp_path, 6)
    assert (model.soft_prompt.soft_tokens - start).abs().max() > 1e-3
    loaded = load(tmp_path / "checkpoint-6", None)
    assert torch.equal(loaded.soft_prompt.soft_tokens, model.soft_prompt.soft_tokens)
    torch.testing.assert_close(loaded.predict(DATA), model.predict(DATA), rtol=1e-6, atol=1e-6)
    resumed = adapted(folder, "lora", prompt)
    train(resumed, tmp_path, 6, resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert torch.equal(resumed.soft_prompt.soft_tokens, model.soft_prompt.soft_tokens)


@pytest.mark.parametrize("method", ["prompt tuning", "prefix tuning"])
def test_long_texts_leave_room_for_virtual_tokens(folder: Path, method: str) -> None:
    model = adapted(folder, method)
    limit = model.prompted.longest_input
    batch = model.data_collator()([{"text": "好" * 1000}])
    assert batch["input_ids"].shape[2] == limit - COUNT
    model(**batch)
    with pytest.raises(ValueError, match=rf"{limit} tokens and 5 virtual ones, and the model takes {limit}"):
        model(**load(folder).data_collator()([{"text": "好" * 1000}]))
    with pytest.raises(ValueError, match="more than the 3 that the model reads"):
        PeftModelForPrompts(load(folder), PrefixTuningConfig(num_virtual_tokens=limit - 3))


def test_bad_adapters(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    model = load(tiny_chinesebert_folder)
    with pytest.raises(TypeError, match="takes a PromptForSequenceClassification, got ChineseBertForMaskedLM"):
        PeftModelForPrompts(model.masked_lm, METHODS["lora"]())
    with pytest.raises(ValueError, match="MULTITASK_PROMPT_TUNING has not been made to work with prompts: take LoRA"):
        PeftModelForPrompts(model, MultitaskPromptTuningConfig(num_virtual_tokens=3))
    config = DistilBertConfig(
        vocab_size=len(model.tokenizer), dim=32, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=64
    )
    distilbert = PromptForSequenceClassification(DistilBertForMaskedLM(config), PROMPT, model.tokenizer)
    sizes: Any = {"num_layers": 1, "num_attention_heads": 2, "token_dim": 32}
    with pytest.raises(ValueError, match="DistilBertForMaskedLM does not read what PREFIX_TUNING adds: take LoRA"):
        PeftModelForPrompts(distilbert, PrefixTuningConfig(num_virtual_tokens=3, **sizes))
    # What PEFT itself saves of p-tuning is the outcome, which cannot be trained further.
    tuned = adapted(tiny_chinesebert_folder, "p-tuning")
    tuned.save_pretrained(tmp_path)
    (tmp_path / "soft_prompt.safetensors").unlink()
    with pytest.raises(ValueError, match="needed to train its adapter further: load it with is_trainable=False"):
        PromptForSequenceClassification.from_pretrained(tmp_path)
    assert PeftConfig.from_pretrained(str(tmp_path)).peft_type == "P_TUNING"
    PromptForSequenceClassification.from_pretrained(tmp_path, is_trainable=False)
