"""The bias of a calibration is measured once, and again when anything that it depends on has changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_nlpnotes.pipelines import ZeroShotPromptPipeline
from hf_nlpnotes.prompting import CONTENT_FREE_TEXTS

TEXT, LABELS, OTHERS = "国足今晚出战", ["体育", "财经"], ["教育", "房产", "体育"]
FREE = len(CONTENT_FREE_TEXTS)


@pytest.fixture
def pipe(tiny_chinesebert_folder: Path) -> ZeroShotPromptPipeline:
    model = AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    pipe = ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, device="cpu", batch_size=4)
    pipe(TEXT, LABELS)  # the first call also looks for the fastest way
    return pipe


@contextmanager
def counted(model: Any) -> Iterator[list[int]]:
    """Prompts that the model reads, a number for each forward pass."""
    rows: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _m, _a, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    try:
        yield rows
    finally:
        hook.remove()


def fresh(pipe: Any, *args: Any, **options: Any) -> Any:
    """The answer of a pipeline that remembers nothing."""
    made = ZeroShotPromptPipeline(model=pipe.model, tokenizer=pipe.tokenizer, device="cpu", batch_size=4)
    return made(*args, **options)


def test_a_second_call_measures_nothing(pipe: Any) -> None:
    with counted(pipe.model) as rows:
        answer = pipe("银行业绩", LABELS)
        assert sum(rows) == 1
        assert list(pipe(iter(["股票", "球队", "手机"] * 50), LABELS))[-1]["sequence"] == "手机"
        assert sum(rows) == 151
    assert answer == fresh(pipe, "银行业绩", LABELS)


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"candidate_labels": OTHERS}, FREE),
        ({"calibration": "domain"}, 1),
        ({"calibration": "batch", "calibration_texts": ["国", "足"]}, 2),
        ({"calibration_texts": ["国", "足"]}, 2),
        ({"calibration": "prior", "calibration_texts": ["国", "足"], "label_prior": [1, 3]}, 2),
        ({"template": "{text}这是{label}。"}, FREE),
        ({"verbalizer": {"体育": "球队"}}, FREE),
        ({"max_length": 20}, FREE),
    ],
)
def test_other_options_have_a_bias_of_their_own(pipe: Any, options: dict[str, Any], texts: int) -> None:
    options = {"candidate_labels": LABELS, **options}
    with counted(pipe.model) as rows:
        answer = pipe(TEXT, **options)
        assert sum(rows) == texts + 1
        assert pipe(TEXT, **options) == answer
        pipe(TEXT, LABELS)
        assert sum(rows) == texts + 3
    assert answer == fresh(pipe, TEXT, **options)


def test_only_new_label_sets_are_measured(pipe: Any) -> None:
    texts = [TEXT] * 3
    with counted(pipe.model) as rows:
        answers = pipe(texts, [LABELS, OTHERS, ["球队", "银行"]])
        assert sum(rows) == FREE + 3
        assert pipe(texts, [["球队", "银行"], OTHERS, LABELS]) == answers[::-1]
        assert sum(rows) == FREE + 6


def step(model: Any) -> None:
    """One of training."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.tensor([[2, 7, 8, 3]])).logits.square().mean().backward()
    optimizer.step()


@torch.no_grad()
def write(model: Any) -> None:
    model.get_output_embeddings().weight[7, 3] += 1


def write_unseen(model: Any) -> None:
    """As merging an adapter does, which no version counts."""
    model.base_model.encoder.layer[0].attention.self.query.weight.data *= 1.5


@pytest.mark.parametrize("change", [step, write, write_unseen])
def test_changed_weights_are_measured_anew(pipe: Any, change: Callable[[Any], None]) -> None:
    change(pipe.model)
    with counted(pipe.model) as rows:
        answer = pipe(TEXT, LABELS)
        assert sum(rows) == FREE + 1
        pipe(TEXT, LABELS)
        assert sum(rows) == FREE + 2
    assert answer == fresh(pipe, TEXT, LABELS)


def test_another_model_is_measured_anew(pipe: Any) -> None:
    pipe.model = copy.deepcopy(pipe.model)
    with counted(pipe.model) as rows:
        pipe(TEXT, LABELS)
    assert rows[-2:] == [1, FREE]  # after some that find the fastest way


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_an_adapter_that_is_switched_is_measured_anew(pipe: Any) -> None:
    import peft

    pipe.model.add_adapter(peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))
    with_adapter = pipe(TEXT, LABELS)
    pipe.model.disable_adapters()
    with counted(pipe.model) as rows:
        without = pipe(TEXT, LABELS)
    assert sum(rows) == FREE + 1
    assert without == fresh(pipe, TEXT, LABELS) != with_adapter


def test_with_dropout_nothing_is_remembered(pipe: Any) -> None:
    pipe.model.train()
    with counted(pipe.model) as rows:
        pipe(TEXT, LABELS)
        pipe(TEXT, LABELS)
    assert sum(rows) == 2 * (FREE + 1)
