"""Causal language models in the prompt pipeline: a whole forward pass a word, without a cache, is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, pipeline

from hf_nlpnotes.pipelines import ZeroShotPromptPipeline
from hf_nlpnotes.prompting import CONTENT_FREE_TEXTS, PromptConfig

TEXTS = ["the team won the final match", "国足今晚出战", "<|end|> shares fell", "final " * 300]
LABELS = ["sports", "finance", "体育", "sports team"]
TEMPLATE = "{text} This is about {label}."
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 96},
    "qwen3": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 96},
}


@pytest.fixture(scope="module", params=SIZES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random causal model with strong opinions, and its byte-level tokenizer."""
    folder = tmp_path_factory.mktemp(request.param)
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<|end|>"]
    )
    core.train_from_iterator(["this is about sports", "about finance", "the sports team", "final match"], trainer)
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>").save_pretrained(folder)
    config = AutoConfig.for_model(
        request.param, vocab_size=core.get_vocab_size(), **SIZES[request.param], bos_token_id=0, eos_token_id=0
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return pipeline("zero-shot-prompt", model=str(folder), device="cpu", template=TEMPLATE)


def log_likelihood(pipe: Any, text: str, word: str, template: str = TEMPLATE) -> float:
    """Of the prompt from the label on; a text that is too long loses its end, as many tokens for every word."""
    before, after = template.split("{label}")
    before = before.replace("{text}", text)
    encoded = pipe.tokenizer(before + word + after, return_offsets_mapping=True, split_special_tokens=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    # The space before the word belongs to it, also where it is a token of its own (" 体育").
    start = next(i for i, (_, end) in enumerate(offsets) if end > len(before.rstrip()))
    with torch.no_grad():
        logits = pipe.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(dim=-1)
    return sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids)))


def scores(pipe: Any, text: str, words: list[str]) -> torch.Tensor:
    return torch.tensor([log_likelihood(pipe, text, word) for word in words], dtype=torch.float64)


def by_label(answer: dict[str, Any]) -> dict[str, float]:
    return dict(zip(answer["labels"], answer["scores"], strict=True))


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("calibration", ["none", "contextual", "domain"])
def test_scores_are_log_likelihoods(pipe: Any, calibration: str, batch_size: int) -> None:
    free = {"none": (), "contextual": CONTENT_FREE_TEXTS, "domain": ("",)}[calibration]
    bias = sum((scores(pipe, text, LABELS) for text in free), torch.zeros(4)) / max(len(free), 1)
    texts = TEXTS[:3]
    answers = pipe(texts, LABELS, calibration=calibration, batch_size=batch_size)
    for text, answer in zip(texts, answers, strict=True):
        assert answer["sequence"] == text
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
        expected = (scores(pipe, text, LABELS) - bias).softmax(0)
        assert by_label(answer) == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)


def test_words_weights_and_templates(pipe: Any) -> None:
    words = {"运动": {"sports": 3, "team": 1}, "财经": ["finance"]}
    (answer,) = pipe([TEXTS[0]], verbalizer=words, calibration="none", top_k=None)
    one = scores(pipe, TEXTS[0], ["sports", "team", "finance"])
    expected = torch.stack([0.75 * one[0] + 0.25 * one[1], one[2]]).softmax(0).tolist()
    assert {a["label"]: a["score"] for a in answer} == pytest.approx(dict(zip(words, expected, strict=True)), abs=1e-5)
    templates = [TEMPLATE, "{text} Topic: {label}"]
    both = by_label(pipe(TEXTS[0], LABELS, template=templates, calibration="none"))
    other = torch.tensor([log_likelihood(pipe, TEXTS[0], word, templates[1]) for word in LABELS]).double()
    expected = ((scores(pipe, TEXTS[0], LABELS) + other) / 2).softmax(0).tolist()
    assert both == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-5)


def test_the_label_may_come_first(pipe: Any) -> None:
    """The channel model: how well the label explains the text."""
    answer = pipe(TEXTS[0], LABELS[:2], template="About {label}: {text}", calibration="none")
    first = [log_likelihood(pipe, TEXTS[0], word, "About {label}: " + TEXTS[0]) for word in LABELS[:2]]
    expected = torch.tensor(first, dtype=torch.float64).softmax(0).tolist()
    assert by_label(answer) == pytest.approx(dict(zip(LABELS, expected, strict=False)), abs=1e-5)
    with pytest.raises(ValueError, match=r"put \{label\} last"):
        pipe(TEXTS[0], LABELS[:2], template="About {label}: {text}", multi_label=True)


def test_everything_else_is_as_with_masks(pipe: Any) -> None:
    reference = [by_label(answer) for answer in pipe(TEXTS, LABELS)]
    for other in (
        pipe(TEXTS[::-1], LABELS[::-1], batch_size=4)[::-1],
        list(pipe(iter(TEXTS), LABELS)),
        pipe(TEXTS, [LABELS, LABELS[::-1], LABELS, LABELS]),
        [pipe(text, ",".join(LABELS)) for text in TEXTS],
    ):
        for one, expected in zip(other, reference, strict=True):
            assert by_label(one) == pytest.approx(expected, abs=1e-5)
    (several,) = pipe(TEXTS[:1], LABELS, multi_label=True)
    bias = sum(scores(pipe, text, LABELS) for text in CONTENT_FREE_TEXTS) / len(CONTENT_FREE_TEXTS)
    expected = dict(zip(LABELS, (scores(pipe, TEXTS[0], LABELS) - bias).sigmoid().tolist(), strict=True))
    assert by_label(several) == pytest.approx(expected, abs=1e-5)
    assert sum(pipe(TEXTS[0], ["a/sports", "a/team", "finance"], hierarchy="/")["scores"]) == pytest.approx(1)
    assert len(pipe(TEXTS, LABELS, calibration="batch")) == 4


def test_demonstrations_stand_before_the_text(pipe: Any) -> None:
    rows = [{"text": "match", "label": "sports"}, {"text": "shares", "label": "finance"}]
    options: dict[str, Any] = {"demonstrations": rows, "calibration": "none", "template": "{demos:2}" + TEMPLATE}
    found = by_label(pipe(TEXTS[0], LABELS[:2], **options))
    orders = [[f"{r['text']} This is about {r['label']}.\n\n" for r in order] for order in (rows, rows[::-1])]
    expected = [scores(pipe, "".join(order) + TEXTS[0], LABELS[:2]).softmax(0).tolist() for order in orders]
    assert any(found == pytest.approx(dict(zip(LABELS, one, strict=False)), abs=1e-5) for one in expected)


def test_a_stored_prompt_names_a_causal_model(folder: Path, pipe: Any, tmp_path: Path) -> None:
    words = {"运动": "sports", "财经": "finance"}
    PromptConfig(template=TEMPLATE, verbalizer=words, model=str(folder)).save_pretrained(tmp_path)
    made = pipeline("zero-shot-prompt", prompt=str(tmp_path), device="cpu")
    assert type(made.model) is type(pipe.model)
    assert made(TEXTS) == pipe(TEXTS, verbalizer=words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scoring": "max-first"}, "scoring='max-first' is about several masks"),
        ({"rerank": 2}, "rerank=2 masks one token"),
        ({"template": "{text}{soft:2}{label}"}, "soft tokens, which are for masked"),
        ({"max_length": 3}, "take .* tokens more than the 3"),
        ({"candidate_labels": ["a", "a"]}, "given twice"),
    ],
)
def test_errors_name_the_value_and_the_way_out(pipe: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(TEXTS[0], **{"candidate_labels": LABELS, **options})


def test_the_prefix_is_read_once_a_text(pipe: ZeroShotPromptPipeline) -> None:
    read: list[tuple[int, ...]] = []
    hook = pipe.model.register_forward_pre_hook(
        lambda _m, _a, inputs: read.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    try:
        pipe([TEXTS[0], TEXTS[1]], LABELS, calibration="none")
    finally:
        hook.remove()
    assert [rows for rows, _ in read] == [1, 4, 1, 4]
