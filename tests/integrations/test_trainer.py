"""The stock Trainer: columns, accumulation, resuming, evaluation, adapters."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hf_nlpnotes.models.chinesebert import (
    ChineseBertForMaskedLM,
    ChineseBertForSequenceClassification,
    ChineseBertForTokenClassification,
)

TEXTS = [
    "我喜欢猫",
    "国足今晚出战",
    "股票涨跌",
    "北京大学老师开心",
    "手机芯片公司发布新电影",
    "难过",
    "酒店服务很好",
    "天气真好",
]


@pytest.fixture
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


def make_dataset(tokenizer):
    data = Dataset.from_dict({"text": TEXTS, "labels": [0, 1, 2, 1, 0, 2, 1, 0]})
    return data.map(lambda rows: tokenizer(rows["text"]), batched=True)


def make_arguments(folder, **options):
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "optim": "adamw_torch",
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**defaults, **options})


def load(folder, **options):
    torch.manual_seed(0)
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **options}
    return ChineseBertForSequenceClassification.from_pretrained(folder, num_labels=3, **options)


def test_pinyin_reaches_the_model(tokenizer, tiny_chinesebert_folder, tmp_path):
    """The Trainer drops the columns that `forward` does not name."""
    trainer = Trainer(
        model=load(tiny_chinesebert_folder),
        args=make_arguments(tmp_path),
        train_dataset=make_dataset(tokenizer),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch) == {"input_ids", "pinyin_ids", "token_type_ids", "attention_mask", "labels"}
    assert batch["pinyin_ids"].any()


@pytest.mark.parametrize("clipping", [0.0, 0.1])
def test_accumulation_changes_nothing(clipping, tokenizer, tiny_chinesebert_folder, tmp_path):
    weights = []
    for size, steps in [(8, 1), (2, 4), (1, 8)]:
        model = load(tiny_chinesebert_folder)
        Trainer(
            model=model,
            args=make_arguments(
                tmp_path,
                per_device_train_batch_size=size,
                gradient_accumulation_steps=steps,
                max_grad_norm=clipping,
                optim="sgd",
                learning_rate=0.5,
            ),
            train_dataset=make_dataset(tokenizer),
            data_collator=DataCollatorWithPadding(tokenizer),
        ).train()
        weights.append({name: parameter.detach() for name, parameter in model.named_parameters()})
    for others in weights[1:]:
        for name, expected in weights[0].items():
            torch.testing.assert_close(others[name], expected, rtol=1e-4, atol=1e-5, msg=name)


def test_accumulation_counts_tags_not_texts(tokenizer, tiny_chinesebert_folder, tmp_path):
    """Texts of unequal length: a mean of means is not the mean over all tags."""
    rows = [tokenizer(text) for text in TEXTS]
    random = np.random.default_rng(0)
    data = Dataset.from_list(
        [{**row, "labels": random.integers(0, 3, len(row["input_ids"])).tolist()} for row in rows]
    )
    weights = []
    for size, steps in [(8, 1), (2, 4)]:
        model = ChineseBertForTokenClassification.from_pretrained(
            tiny_chinesebert_folder, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
        torch.manual_seed(0)
        torch.nn.init.normal_(model.classifier.weight)
        arguments = make_arguments(
            tmp_path,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            optim="sgd",
            max_grad_norm=0.0,
        )
        Trainer(
            model=model,
            args=arguments,
            train_dataset=data,
            data_collator=DataCollatorForTokenClassification(tokenizer),
        ).train()
        weights.append({name: parameter.detach() for name, parameter in model.named_parameters()})
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=1e-4, atol=1e-5, msg=name)


class StopAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def test_resuming_restores_every_weight(tokenizer, tiny_chinesebert_folder, tmp_path):
    """Stopped after step 3 of 8 and resumed, against the same training without a stop."""
    data, collator = make_dataset(tokenizer), DataCollatorWithPadding(tokenizer)
    arguments = {"num_train_epochs": 4, "seed": 5}
    straight = load(tiny_chinesebert_folder, hidden_dropout_prob=0.1)
    Trainer(straight, make_arguments(tmp_path / "a", **arguments), collator, data).train()
    stopped = load(tiny_chinesebert_folder, hidden_dropout_prob=0.1)
    Trainer(stopped, make_arguments(tmp_path / "b", **arguments), collator, data, callbacks=[StopAt(3)]).train()
    resumed = load(tiny_chinesebert_folder, hidden_dropout_prob=0.1)
    with torch.no_grad():
        for parameter in resumed.parameters():  # whatever is not restored stays wrong
            parameter.add_(1.0)
    trainer = Trainer(resumed, make_arguments(tmp_path / "b", **arguments), collator, data)
    trainer.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-3"))
    for name, tensor in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    state = json.loads((tmp_path / "b" / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["global_step"] == 3


def test_evaluation_and_prediction(tokenizer, tiny_chinesebert_folder, tmp_path):
    model, data = load(tiny_chinesebert_folder), make_dataset(tokenizer)
    trainer = Trainer(
        model=model,
        args=make_arguments(tmp_path, per_device_eval_batch_size=3, eval_strategy="epoch"),
        train_dataset=data,
        eval_dataset=data,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda pair: {"accuracy": float((pair.predictions.argmax(-1) == pair.label_ids).mean())},
    )
    trainer.train()
    predictions = trainer.predict(data)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.enable_grad():  # the fusion itself, not the folded table
        expected = model(**inputs).logits.detach().numpy()
    np.testing.assert_allclose(predictions.predictions, expected, rtol=0, atol=1e-5)
    assert predictions.metrics["test_accuracy"] == float(np.mean(expected.argmax(-1) == np.array(data["labels"])))


# PEFT reads an attribute that transformers renamed.
old_name_in_peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@old_name_in_peft
def test_lora_finds_its_layers(tokenizer, tiny_chinesebert_folder, tmp_path):
    model = get_peft_model(load(tiny_chinesebert_folder), LoraConfig(task_type="SEQ_CLS", r=2))
    adapted = {name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "lora_A")}
    assert adapted == {"query", "value"}
    Trainer(
        model=model,
        args=make_arguments(tmp_path),
        train_dataset=make_dataset(tokenizer),
        data_collator=DataCollatorWithPadding(tokenizer),
    ).train()
    model.save_pretrained(tmp_path / "adapter")
    again = PeftModel.from_pretrained(load(tiny_chinesebert_folder), tmp_path / "adapter")
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(**inputs).logits, model.eval()(**inputs).logits, rtol=0, atol=1e-6)


@old_name_in_peft
def test_lora_on_the_fusion_is_not_folded_away(tiny_chinesebert_folder, tokenizer):
    model = ChineseBertForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        before = model(**inputs).logits
    adapted = get_peft_model(model, LoraConfig(target_modules=["map_fc"], r=2, init_lora_weights=False)).eval()
    with torch.no_grad():
        after = adapted(**inputs).logits
        merged = adapted.merge_and_unload()(**inputs).logits
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(merged, after, rtol=0, atol=1e-5)
