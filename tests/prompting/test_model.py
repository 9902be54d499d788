"""The prompted model: its scores and loss, what it writes and reads, and how the stock Trainer trains it."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    Trainer,
    TrainingArguments,
    pipeline,
)

from hf_nlpnotes._compat import CHECKPOINTING
from hf_nlpnotes.prompting import Verbalizer
from hf_nlpnotes.prompting.config import PROMPT_FILE, PromptConfig
from hf_nlpnotes.prompting.model import PromptForSequenceClassification

PROMPT = PromptConfig(
    template={"{text}这是{label}评。": 2, "{label}：{text}": 1},
    verbalizer={"差评": {"差": 3, "难过": 1}, "好评": ["好", "满意", "推荐"]},
)
SIMPLE = PromptConfig(template="{text}这是{label}评。", verbalizer={"差评": "差", "好评": "好"})
GOOD, BAD = ["酒店很好", "喜欢，开心", "推荐，干净", "服务满意"], ["酒店不好", "难过", "差，不干净", "不满意，不推荐"]
DATA = [{"text": text, "label": label} for pair in zip(BAD, GOOD, strict=True) for label, text in enumerate(pair)]
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def load(folder: Path, prompt: PromptConfig = SIMPLE, **options: Any) -> Any:
    return PromptForSequenceClassification.from_pretrained(folder, config=prompt, **NO_DROPOUT, **options)


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        **{
            "num_train_epochs": 4,
            "per_device_train_batch_size": 4,
            "learning_rate": 5e-3,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "save_strategy": "no",
            **options,
        },
    )


@pytest.fixture(scope="module")
def bert_folder(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain BERT with the same vocabulary."""
    folder = tmp_path_factory.mktemp("bert")
    tokens = AutoTokenizer.from_pretrained(tiny_chinesebert_folder).get_vocab()
    tokenizer = BertTokenizer(vocab=tokens, model_max_length=64)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokens), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["tiny_chinesebert_folder", "bert_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def by_hand(folder: Path, prompt: PromptConfig, text: str) -> list[float]:
    """Label scores from the stock model's logits, one prompt and word at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder)
    verbalizer = Verbalizer.of(prompt.verbalizer)
    scores = [0.0] * len(verbalizer.labels)
    for template, share in prompt.templates:
        for label, (words, weights) in enumerate(zip(verbalizer.words, verbalizer.weights, strict=True)):
            for word, weight in zip(words, weights, strict=True):
                ids = tokenizer(word, add_special_tokens=False)["input_ids"]
                filled = template.fill({"text": text}, tokenizer.mask_token * len(ids))
                inputs = tokenizer(filled, return_tensors="pt")
                masks = inputs["input_ids"][0] == tokenizer.mask_token_id
                logits = model(**inputs).logits[0, masks].detach()
                centred = [logits[k, i] - logits[k].mean() for k, i in enumerate(ids)]
                scores[label] += share * weight * float(sum(centred)) / len(ids)
    return scores


def test_scores_are_those_of_the_stock_model_word_by_word(folder: Path) -> None:
    prompt = PROMPT.replace(bias=[0.25, -0.5])
    model = load(folder, prompt)
    examples = [*DATA, {"text": ""}, {"text": "[MASK]银行[SEP]行长"}]
    expected = torch.tensor([by_hand(folder, prompt, example["text"]) for example in DATA])
    expected -= torch.tensor([0.25, -0.5])
    found = model.predict(examples)
    torch.testing.assert_close(found[: len(DATA)], expected, rtol=1e-5, atol=1e-5)
    # Neither padding nor the neighbours in a batch have a say.
    torch.testing.assert_close(model.predict(examples, batch_size=1), found, rtol=1e-5, atol=1e-5)
    assert not model.training


def test_loss_is_the_cross_entropy_of_the_scores(folder: Path) -> None:
    model = load(folder, PROMPT)
    batch = model.data_collator()(DATA)
    output = model(**batch)
    expected = nn.functional.cross_entropy(output.logits, torch.tensor([example["label"] for example in DATA]))
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-6)
    # A part of a batch of 32 examples has its share of the loss.
    assert model(**batch, num_items_in_batch=32).loss.item() == pytest.approx(expected.item() * 8 / 32, rel=1e-6)
    assert model(**batch, num_items_in_batch=torch.tensor(32)).loss.item() == pytest.approx(expected.item() / 4)
    assert model(**{**batch, "labels": None}).loss is None


def test_gradients_are_those_of_the_stock_model(folder: Path) -> None:
    model, stock = load(folder), AutoModelForMaskedLM.from_pretrained(folder, **NO_DROPOUT)
    batch = model.data_collator()(DATA)
    model(**batch).loss.backward()
    inputs = {name: value[:, 0] for name, value in batch.items() if name not in ("mask_positions", "labels")}
    logits = stock(**inputs).logits[torch.arange(len(DATA)), batch["mask_positions"][:, 0, 0]]
    words = model.tokenizer.convert_tokens_to_ids(["差", "好"])
    nn.functional.cross_entropy(logits[:, words], batch["labels"]).backward()
    expected = {name: parameter.grad for name, parameter in stock.named_parameters()}
    for name, parameter in model.masked_lm.named_parameters():
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        wanted = torch.zeros_like(parameter) if expected[name] is None else expected[name]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6, msg=name)


def test_calibration_centres_the_labels(folder: Path) -> None:
    model = load(folder, PROMPT)
    before = model.predict(DATA)
    bias = model.calibrate(DATA)
    torch.testing.assert_close(bias, before.mean(dim=0))
    torch.testing.assert_close(model.predict(DATA), before - bias, rtol=1e-4, atol=1e-5)
    model.calibrate(DATA)  # a second time changes nothing
    torch.testing.assert_close(model.label_bias, bias)
    with pytest.raises(ValueError, match="no example"):
        model.calibrate([])


# ------------------------------------------------------------------------------------------------ saving and loading


def test_the_masked_language_model_is_saved_unchanged(folder: Path, tmp_path: Path) -> None:
    model = load(folder, PROMPT)
    model.calibrate(DATA)
    model.save_pretrained(tmp_path)
    stock = AutoModelForMaskedLM.from_pretrained(folder)
    stock.save_pretrained(tmp_path / "stock")
    weights, expected = load_file(tmp_path / "model.safetensors"), load_file(tmp_path / "stock" / "model.safetensors")
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    plain, information = AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(plain) is type(stock)
    assert not any(information.values())
    assert type(AutoModel.from_pretrained(tmp_path)) is type(AutoModel.from_pretrained(folder))
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [type(stock).__name__]
    again = PromptForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again.predict(DATA), model.predict(DATA))
    assert PromptConfig.from_pretrained(tmp_path).bias == dict(
        zip(["差评", "好评"], model.label_bias.tolist(), strict=True)
    )


def test_a_folder_with_the_prompt_alone(folder: Path, tmp_path: Path) -> None:
    PROMPT.replace(model=str(folder)).save_pretrained(tmp_path)
    model = PromptForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(model.predict(DATA), load(folder, PROMPT).predict(DATA))
    # Saved, it is whole.
    model.save_pretrained(tmp_path / "whole")
    assert PromptConfig.from_pretrained(tmp_path / "whole").model is None
    PROMPT.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has no weights, and its prompt\.json does not name a model: add"):
        PromptForSequenceClassification.from_pretrained(tmp_path)


def test_a_fresh_process_loads_it(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    model = load(tiny_chinesebert_folder, PROMPT)
    model.save_pretrained(tmp_path)
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from hf_nlpnotes.prompting.model import PromptForSequenceClassification\n"
        "model = PromptForSequenceClassification.from_pretrained(sys.argv[1])\n"
        "print(model.predict([{'text': '酒店很好'}]).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == model.predict([{"text": "酒店很好"}]).tolist()


def test_half_precision_weights_are_trained_in_single_precision(bert_folder: Path, tmp_path: Path) -> None:
    AutoModelForMaskedLM.from_pretrained(bert_folder).half().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert_folder).save_pretrained(tmp_path)
    assert load(tmp_path).dtype == torch.float32
    assert load(tmp_path, dtype="auto").dtype == torch.float16


def test_scores_stay_in_single_precision_when_the_network_does_not(bert_folder: Path) -> None:
    """As under `bf16_full_eval`; and the label bias, which is saved, is not rounded."""
    model = load(bert_folder, PROMPT.replace(bias=[0.1234567, -1.7654321]))
    loaded = load(bert_folder, PROMPT.replace(bias=[0.1234567, -1.7654321]), dtype=torch.bfloat16)
    stored = model.stored_prompt()
    assert model.to(torch.bfloat16) is model
    assert model.masked_lm.dtype == torch.bfloat16
    assert model.predict(DATA).dtype == model(**model.data_collator()(DATA)).logits.dtype == torch.float32
    torch.testing.assert_close(model.predict(DATA), loaded.predict(DATA))
    assert model.stored_prompt() == stored


def test_predicting_leaves_every_module_as_it_was(bert_folder: Path) -> None:
    model = load(bert_folder).train()
    model.masked_lm.base_model.encoder.eval()  # frozen, say
    before = [module.training for module in model.modules()]
    model.predict(DATA)
    assert [module.training for module in model.modules()] == before
    assert len(set(before)) == 2


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batches_of_nothing(bert_folder: Path, batch_size: int) -> None:
    model = load(bert_folder)
    for ask in (model.predict, model.calibrate):
        with pytest.raises(ValueError, match=f"batch_size must be a positive whole number, got {batch_size}"):
            ask(DATA, batch_size=batch_size)


def test_revision_and_subfolder_are_those_of_the_prompt(
    bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say where the prompt is; the model that it names lies elsewhere."""
    SIMPLE.replace(model=str(bert_folder)).save_pretrained(tmp_path / "prompts" / "one")
    asked = []

    def watched(name: str, original: Any) -> Any:
        def from_pretrained(source: Any, **options: Any) -> Any:
            asked.append((name, str(source), options.get("revision"), options.get("trust_remote_code")))
            return original(source, **options)

        return staticmethod(from_pretrained)

    for auto in (AutoModelForMaskedLM, AutoTokenizer):
        monkeypatch.setattr(auto, "from_pretrained", watched(auto.__name__, auto.from_pretrained))
    model = PromptForSequenceClassification.from_pretrained(
        tmp_path / "prompts", subfolder="one", revision="trial", trust_remote_code=False
    )
    assert model.prompt.template == SIMPLE.template
    assert asked == [(name, str(bert_folder), None, False) for name in ("AutoModelForMaskedLM", "AutoTokenizer")]
    asked.clear()
    load(bert_folder, revision="trial")
    assert [(name, revision) for name, _, revision, _ in asked] == [
        ("AutoModelForMaskedLM", "trial"),
        ("AutoTokenizer", "trial"),
    ]


def test_bad_models(bert_folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert_folder)
    with pytest.raises(ValueError, match=r"BertModel has no language modelling head.*AutoModelForMaskedLM"):
        PromptForSequenceClassification(AutoModel.from_pretrained(bert_folder), SIMPLE, tokenizer)
    with pytest.raises(OSError, match=PROMPT_FILE):
        PromptForSequenceClassification.from_pretrained(bert_folder)
    with pytest.raises(TypeError, match="config is a PromptConfig, got BertConfig"):
        PromptForSequenceClassification.from_pretrained(bert_folder, config=BertConfig())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no verbalizer"):
        load(bert_folder, PromptConfig(template="{label}：{text}"))
    model = load(bert_folder)
    with pytest.raises(ValueError, match=r"make batches with model\.data_collator"):
        model(**tokenizer("好", return_tensors="pt"))
    with pytest.raises(ValueError, match="1 rows an example, and the prompt 4"):
        load(bert_folder, PROMPT)(**model.data_collator()(DATA))
    long = {name: value.repeat(1, 1, 20) for name, value in model.data_collator()(DATA).items() if value.dim() == 3}
    with pytest.raises(ValueError, match=r"and the model takes 64: make batches with"):
        model(**long)


# ------------------------------------------------------------------------------------------------------------ Trainer


def test_the_stock_trainer_lowers_the_loss(folder: Path, tmp_path: Path) -> None:
    """With its defaults: columns that no template names are dropped, the others are kept."""
    data = Dataset.from_list([{**example, "number": i} for i, example in enumerate(DATA)])
    model = load(folder, PROMPT)
    trainer = Trainer(
        model,
        arguments(tmp_path, num_train_epochs=40, learning_rate=2e-3),
        model.data_collator(),
        data,
        eval_dataset=data,
        compute_metrics=lambda outputs: {"accuracy": (outputs.predictions.argmax(1) == outputs.label_ids).mean()},
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] / 2
    assert after["eval_accuracy"] == 1
    labels = torch.tensor(data["label"])
    expected = nn.functional.cross_entropy(model.predict(DATA), labels).item()
    assert after["eval_loss"] == pytest.approx(expected, rel=1e-4)
    assert trainer.predict(data).predictions.shape == (len(DATA), 2)


def test_examples_encoded_before_training_train_the_same(folder: Path, tmp_path: Path) -> None:
    found = []
    for encoded in (False, True):
        model = load(folder, PROMPT)
        collator = model.data_collator()
        data = Dataset.from_list(DATA)
        if encoded:
            data = data.map(collator.encode, remove_columns="text")
        Trainer(model, arguments(tmp_path, max_steps=3), collator, data).train()
        found.append(model.predict(DATA))
    assert torch.equal(*found)


def test_a_killed_run_resumes_as_if_nothing_had_happened(folder: Path, tmp_path: Path) -> None:
    whole = load(folder, PROMPT, tie_word_embeddings=True)
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3}
    Trainer(whole, arguments(tmp_path, **options), whole.data_collator(), DATA).train()
    # From the start, in a new model, and from the checkpoint's own folder.
    for start in (folder, tmp_path / "checkpoint-3"):
        resumed = load(start, PROMPT)
        trainer = Trainer(resumed, arguments(tmp_path, **options), resumed.data_collator(), DATA)
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
        for (name, expected), found in zip(whole.named_parameters(), resumed.parameters(), strict=True):
            assert torch.equal(expected, found), name
    with pytest.raises(RuntimeError, match="unexpected weights"):
        whole.load_state_dict({"no_such_weight": torch.zeros(1)})


def test_accumulation_does_not_change_the_gradient(folder: Path, tmp_path: Path) -> None:
    found = []
    for batch, accumulation in ((8, 1), (3, 3)):
        model = load(folder)
        options = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 2}
        Trainer(
            model, arguments(tmp_path, optim="sgd", learning_rate=0.1, **options), model.data_collator(), DATA
        ).train()
        found.append(model.predict(DATA))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_the_signature_names_the_columns(bert_folder: Path) -> None:
    model = load(bert_folder, SIMPLE.replace(template="{premise}{label}{hypothesis}"))
    names = list(inspect.signature(model.forward).parameters)
    assert {"premise", "hypothesis", "input_ids", "token_type_ids", "mask_positions", "labels"} <= set(names)
    # What the Trainer takes for labels is read from the class.
    assert [name for name in inspect.signature(type(model).forward).parameters if "label" in name] == ["labels"]


def test_gradient_checkpointing(folder: Path, tmp_path: Path) -> None:
    found = []
    for checkpointing in (False, True):
        model = load(folder)
        Trainer(
            model,
            arguments(tmp_path, max_steps=2, **{CHECKPOINTING: checkpointing}),
            model.data_collator(),
            DATA,
        ).train()
        found.append(model.predict(DATA))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


def test_what_is_trained_is_what_the_pipeline_answers(folder: Path, tmp_path: Path) -> None:
    """From the folder alone: templates with weights, words of several lengths with weights, the label bias."""
    model = load(folder, PROMPT)
    model.calibrate(DATA)
    Trainer(model, arguments(tmp_path, max_steps=4), model.data_collator(), DATA).train()
    model.save_pretrained(tmp_path)
    classify = pipeline("zero-shot-prompt", model=str(tmp_path))  # type: ignore[call-overload]
    expected = model.predict(DATA).softmax(dim=1)
    for example, scores in zip(DATA, expected, strict=True):
        answer = {one["label"]: one["score"] for one in classify(example["text"], top_k=2)}
        assert [answer[label] for label in PROMPT.labels] == pytest.approx(scores.tolist(), abs=1e-5)


def test_a_prompt_with_demonstrations_is_trained_and_comes_back(folder: Path, tmp_path: Path) -> None:
    prompt = SIMPLE.replace(template="{demos:2}{text}这是{label}评。", demonstrations=DATA)
    model = load(folder, prompt)
    model.calibrate(DATA)
    labels = torch.tensor([example["label"] for example in DATA])
    before = nn.functional.cross_entropy(model.predict(DATA), labels)
    Trainer(model, arguments(tmp_path, num_train_epochs=40, learning_rate=2e-3), model.data_collator(), DATA).train()
    expected = model.predict(DATA)
    assert nn.functional.cross_entropy(expected, labels) < before * 0.8
    model.save_pretrained(tmp_path / "saved")
    assert len(json.loads((tmp_path / "saved" / PROMPT_FILE).read_text(encoding="utf-8"))["demonstrations"]) == 8
    again = PromptForSequenceClassification.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again.predict(DATA), expected, atol=1e-5, rtol=0)
    unseen = [{"text": "服务也很好"}, {"text": "真差"}]
    expected = torch.cat([expected, model.predict(unseen)]).softmax(dim=1)
    answers = pipeline("zero-shot-prompt", model=str(tmp_path / "saved"), device="cpu")(  # type: ignore[call-overload]
        DATA + unseen, top_k=None
    )
    for row, answer in zip(expected.tolist(), answers, strict=True):
        found = {one["label"]: one["score"] for one in answer}
        assert found == pytest.approx(dict(zip(prompt.labels, row, strict=True)), abs=1e-5)
