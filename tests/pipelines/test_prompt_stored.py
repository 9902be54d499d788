"""Prompts stored beside a model or alone, uploaded, trained, adapted: the same given by hand is the oracle."""

import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, pipeline

import hf_nlpnotes
from hf_nlpnotes.pipelines import ZeroShotPromptPipeline
from hf_nlpnotes.prompting import PromptConfig, PromptForSequenceClassification
from hf_nlpnotes.prompting.adapters import PeftModelForPrompts

TEMPLATE = "下面报道一则{label}新闻。{text}"
LABELS = ["体育", "财经", "房产市场", "球"]
WORDS = {"体育": ["体育", "足球", "球"], "财经": {"财经": 3, "市场行业": 1}, "教育": "学校"}
TEXTS = ["国足今晚出战", "银行业绩长，股票涨", "，", "手机", "[MASK]球队[SEP]", "新" * 500]


@pytest.fixture(scope="module")
def opinionated_folder(tiny_chinesebert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random ChineseBERT with strong opinions."""
    folder = tmp_path_factory.mktemp("opinionated")
    model = AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_chinesebert_folder).save_pretrained(folder)
    return folder


def assert_same(first: list[Any], second: list[Any], tolerance: float = 1e-5) -> None:
    one, other = (
        [dict(zip(answer["labels"], answer["scores"], strict=True)) for answer in answers]
        for answers in (first, second)
    )
    assert one == [pytest.approx(answer, abs=tolerance) for answer in other]


def test_a_stored_prompt_is_read_with_the_model(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_chinesebert_folder, folder)
    plain = pipeline("zero-shot-prompt", model=str(folder), device="cpu")
    templates = {"{text}，{label}": 2.0, "{label}：{text:head}": 1.0}
    options = {"template": templates, "verbalizer": WORDS, "calibration": "domain", "max_length": 40}
    PromptConfig(**options).save_pretrained(folder)
    stored = pipeline("zero-shot-prompt", model=str(folder), device="cpu")
    assert stored(TEXTS, top_k=None) == plain(TEXTS, top_k=None, **options)
    # What is given by hand goes first.
    assert_same(stored(TEXTS, LABELS, calibration="none"), plain(TEXTS, LABELS, **{**options, "calibration": "none"}))
    made = pipeline("zero-shot-prompt", model=str(folder), device="cpu", template="{label}{text}")
    assert made(TEXTS, top_k=None) == plain(TEXTS, top_k=None, **{**options, "template": "{label}{text}"})
    # From elsewhere; and a bias belongs to the prompt that it was measured with.
    biased = PromptConfig(**options, bias={"体育": 3.0, "财经": 0.0, "教育": -3.0})
    biased.save_pretrained(tmp_path / "prompt")
    other = pipeline("zero-shot-prompt", model=str(folder), prompt=str(tmp_path / "prompt"), device="cpu")
    assert other(TEXTS) == plain(TEXTS, **options, bias=biased.bias)
    assert other(TEXTS, calibration="domain") == plain(TEXTS, **options)
    with pytest.raises(
        ValueError, match=r"for the model 'bert-base-chinese', and the pipeline has .*replace\(model=None"
    ):
        ZeroShotPromptPipeline(
            model=plain.model, tokenizer=plain.tokenizer, prompt=biased.replace(model="bert-base-chinese")
        )
    again = tmp_path / "again"
    again.mkdir()
    (again / "prompt.json").write_text('{"template": "{text}"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"again/prompt.json: No '\{label\}'"):
        pipeline("zero-shot-prompt", model=str(folder), prompt=str(again), device="cpu")


def test_the_folder_of_a_loaded_model_may_be_gone(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_chinesebert_folder, folder)
    model, tokenizer = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, device="cpu")("国足", LABELS)
    shutil.rmtree(folder)
    assert ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, device="cpu")("国足", LABELS) == expected


def test_what_is_uploaded_is_the_whole_pipeline(
    tiny_chinesebert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = []

    def push_to_hub(self: Any, repo_id: str, **options: Any) -> None:
        self.save_pretrained(tmp_path / "uploaded")
        uploads.append((type(self), repo_id, options))

    for pushing in (PreTrainedModel, PreTrainedTokenizerBase, ZeroShotPromptPipeline):
        monkeypatch.setattr(pushing, "push_to_hub", push_to_hub)
    pipe = pipeline("zero-shot-prompt", model=str(tiny_chinesebert_folder), device="cpu", template=TEMPLATE)
    pipe.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="someone/something", private=True)
    assert uploads == [(ZeroShotPromptPipeline, "someone/something", {"private": True})]
    assert (tmp_path / "uploaded" / "prompt.json").is_file()
    pipe.save_pretrained(tmp_path / "again")
    assert len(uploads) == 1


def test_a_prompt_brings_its_model(opinionated_folder: Path, tmp_path: Path) -> None:
    """`pipeline(prompt=FOLDER)` without a model, which then is the default one, makes place for the prompt's."""
    options: dict[str, Any] = {"template": TEMPLATE, "verbalizer": WORDS, "calibration": "domain"}
    plain = pipeline("zero-shot-prompt", model=str(opinionated_folder), device="cpu", **options)
    expected = plain(TEXTS, top_k=None)

    PromptConfig(**options, model=str(opinionated_folder)).save_pretrained(tmp_path / "named")
    named = pipeline("zero-shot-prompt", prompt=str(tmp_path / "named"), device="cpu")
    assert named.model.name_or_path == str(opinionated_folder)
    assert named(TEXTS, top_k=None) == expected
    same = opinionated_folder / ".." / opinionated_folder.name  # written in another way
    made = pipeline("zero-shot-prompt", model=str(same), prompt=str(tmp_path / "named"), device="cpu")
    assert made(TEXTS, top_k=None) == expected

    shutil.copytree(opinionated_folder, tmp_path / "beside")
    PromptConfig(**options).save_pretrained(tmp_path / "beside")
    beside = pipeline("zero-shot-prompt", prompt=str(tmp_path / "beside"), device="cpu")
    assert beside.model.name_or_path == str(tmp_path / "beside")
    assert beside(TEXTS, top_k=None) == expected

    # One that names no model suits any.
    PromptConfig(**options).save_pretrained(tmp_path / "any")
    default = pipeline("zero-shot-prompt", prompt=str(tmp_path / "any"), device="cpu")
    assert default.model.name_or_path == hf_nlpnotes.EMBEDDED_MODEL
    other = pipeline("zero-shot-prompt", model=str(opinionated_folder), prompt=str(tmp_path / "any"), device="cpu")
    assert other(TEXTS, top_k=None) == expected

    (tmp_path / "lost").mkdir()
    PromptConfig(**options, model=str(tmp_path / "nowhere")).save_pretrained(tmp_path / "lost")
    with pytest.raises(OSError, match="nowhere"):
        pipeline("zero-shot-prompt", prompt=str(tmp_path / "lost"), device="cpu")
    with pytest.raises(ValueError, match=r"config\.json"):  # transformers' own; the docs say what to write instead
        pipeline("zero-shot-prompt", model=str(tmp_path / "named"), device="cpu")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_a_trained_prompt_is_a_model(opinionated_folder: Path, tmp_path: Path) -> None:
    config = PromptConfig(template=TEMPLATE, verbalizer=WORDS)
    model = PromptForSequenceClassification.from_pretrained(opinionated_folder, config=config)
    examples = [{"text": text} for text in TEXTS]
    model.calibrate(examples)
    model.train()  # as a Trainer leaves it

    def answers(pipe: Any) -> torch.Tensor:
        found = [{one["label"]: one["score"] for one in answer} for answer in pipe(TEXTS, top_k=None)]
        return torch.tensor([[answer[label] for label in WORDS] for answer in found])

    made = pipeline("zero-shot-prompt", model=model, device="cpu")
    torch.testing.assert_close(answers(made), model.predict(examples).softmax(dim=1), atol=1e-5, rtol=0)
    other = pipeline("zero-shot-prompt", model=model, device="cpu", template="{label}{text}")
    assert not torch.allclose(answers(other), answers(made), atol=1e-3)

    adapted = PeftModelForPrompts(model, peft.LoraConfig(r=2, init_lora_weights=False))
    expected = adapted.predict(examples).softmax(dim=1)
    torch.testing.assert_close(
        answers(pipeline("zero-shot-prompt", model=adapted, device="cpu")), expected, atol=1e-5, rtol=0
    )
    adapted.save_pretrained(tmp_path)
    again = pipeline("zero-shot-prompt", prompt=str(tmp_path), device="cpu")
    torch.testing.assert_close(answers(again), expected, atol=1e-5, rtol=0)

    fresh = PromptForSequenceClassification.from_pretrained(opinionated_folder, config=config)
    tuned = PeftModelForPrompts(fresh, peft.PromptTuningConfig(num_virtual_tokens=3))
    with pytest.raises(ValueError, match=r"3 virtual tokens.*predict"):
        pipeline("zero-shot-prompt", model=tuned, device="cpu")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_an_adapter_of_peft_may_be_around_the_model(opinionated_folder: Path) -> None:
    """Its weights merged into the model's own are the oracle."""
    tokenizer = AutoTokenizer.from_pretrained(opinionated_folder)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(
        AutoModelForMaskedLM.from_pretrained(opinionated_folder),
        peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False),
    )
    found = ZeroShotPromptPipeline(model=adapted, tokenizer=tokenizer, device="cpu")(TEXTS, LABELS)
    merged = adapted.merge_and_unload()
    assert_same(found, ZeroShotPromptPipeline(model=merged, tokenizer=tokenizer, device="cpu")(TEXTS, LABELS), 1e-4)


@pytest.mark.parametrize("template", [TEMPLATE, {"{text}，{label}": 2, "{label}：{text}": 1}])
def test_a_stored_second_look_is_taken_everywhere(opinionated_folder: Path, tmp_path: Path, template: Any) -> None:
    """The pipeline's own, given by hand, is the oracle; two labels of several words, of one and two tokens."""
    words = {"体育": ["体育", "足球", "球"], "财经": {"财经": 3, "股票": 1}, "教育": "校", "房产": "房间"}
    options: dict[str, Any] = {"template": template, "verbalizer": words}
    config = PromptConfig(**options, rerank=2)
    examples = [{"text": text} for text in TEXTS]

    def answers(pipe: Any, **called: Any) -> torch.Tensor:
        found = [{one["label"]: one["score"] for one in answer} for answer in pipe(TEXTS, top_k=None, **called)]
        return torch.tensor([[answer[label] for label in words] for answer in found])

    model = PromptForSequenceClassification.from_pretrained(opinionated_folder, config=config)
    model.calibrate(examples)
    assert model.prompt.bias == pytest.approx(  # of the first look
        dict(zip(words, (model._predict(examples, 4, None).mean(dim=0) + model.label_bias).tolist(), strict=True))
    )
    plain = pipeline("zero-shot-prompt", model=str(opinionated_folder), device="cpu", batch_size=4)
    expected = answers(plain, **options, bias=model.prompt.bias, rerank=2)
    assert not torch.allclose(expected, answers(plain, **options, bias=model.prompt.bias), atol=1e-2)
    torch.testing.assert_close(model.predict(examples, 2).softmax(dim=1), expected, atol=1e-5, rtol=0)
    assert model.predict([]).shape == (0, 4)

    model.save_pretrained(tmp_path)
    assert PromptConfig.from_pretrained(tmp_path).rerank == 2
    again = PromptForSequenceClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(again.predict(examples).softmax(dim=1), expected, atol=1e-5, rtol=0)
    made = pipeline("zero-shot-prompt", model=str(tmp_path), device="cpu")
    torch.testing.assert_close(answers(made), expected, atol=1e-5, rtol=0)
    without = answers(plain, **options, bias=model.prompt.bias)
    torch.testing.assert_close(answers(made, rerank=0), without, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"rerank=0 turns off"):
        made(TEXTS, multi_label=True)
    # Training sees the first look: what Trainer evaluates is without.
    batch = again.data_collator()(examples)
    torch.testing.assert_close(again(**batch).logits.softmax(dim=1), without, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_a_second_look_reads_soft_tokens_and_no_virtual_ones(opinionated_folder: Path) -> None:
    words = {"体育": "体育", "财经": "财经", "教育": "校"}
    config = PromptConfig(template="{text}这是{label}。", verbalizer=words, rerank=2)
    soft = config.replace(template="{text}{soft:这是}{label}。")  # begins as these words
    examples = [{"text": text} for text in TEXTS]
    model = PromptForSequenceClassification.from_pretrained(opinionated_folder, config=config)
    other = PromptForSequenceClassification.from_pretrained(opinionated_folder, config=soft)
    torch.testing.assert_close(other.predict(examples), model.predict(examples), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="take LoRA, or leave rerank=2"):
        PeftModelForPrompts(model, peft.PrefixTuningConfig(num_virtual_tokens=2))
