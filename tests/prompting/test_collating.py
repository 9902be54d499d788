"""Batches of prompts: what is in them, and what bad examples are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from hf_nlpnotes.prompting import PromptEncoder, Template
from hf_nlpnotes.prompting.collating import DataCollatorForPrompts
from hf_nlpnotes.prompting.config import PromptConfig

PROMPT = PromptConfig(
    template=["{text}这是{label}评。", "{label}：{text}"], verbalizer={"差评": "差", "好评": ["好", "满意"]}
)


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


def test_a_batch_is_the_encoded_prompts_side_by_side(tokenizer: Any) -> None:
    texts = ["酒店很好", "房间不干净，服务也不好"]
    batch = DataCollatorForPrompts(PROMPT, tokenizer)([{"text": text, "label": i} for i, text in enumerate(texts)])
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "pinyin_ids", "mask_positions", "labels"}
    assert batch["labels"].tolist() == [0, 1]
    assert batch["input_ids"].shape[:2] == batch["mask_positions"].shape[:2] == (2, 4)  # 2 templates of 2 lengths
    for i, text in enumerate(texts):
        row = 0
        for source in PROMPT.template:
            for expected in PromptEncoder(Template(source), tokenizer).encode({"text": text}, [1, 2]):
                length = len(expected["input_ids"])
                for name in ("input_ids", "token_type_ids", "pinyin_ids", "attention_mask"):
                    found = batch[name][i, row].tolist()
                    padding = tokenizer.pad_token_id if name == "input_ids" else 0
                    assert found == expected[name] + [padding] * (len(found) - length), name
                places = [place for place, is_mask in enumerate(expected["label_mask"]) if is_mask]
                assert batch["mask_positions"][i, row].tolist() == [*places, -1, -1][:2]
                row += 1


def test_examples_that_were_encoded_before_give_the_same_batch(tokenizer: Any) -> None:
    collator = DataCollatorForPrompts(PROMPT, tokenizer, pad_to_multiple_of=8)
    examples = [{"text": "很好", "label": 1, "id": "a"}, {"text": "房间太差", "label": 0, "id": "b"}]
    raw = collator(examples)
    before = collator([{**example, **collator.encode(example)} for example in examples])
    assert raw.keys() == before.keys()
    assert all(torch.equal(raw[name], before[name]) for name in raw)
    assert raw["input_ids"].shape[2] % 8 == 0


@pytest.mark.parametrize("label", [{"label": 1}, {"labels": 1}, {"label_ids": torch.tensor(1)}, {"label": "好评"}])
def test_labels(label: dict[str, Any], tokenizer: Any) -> None:
    batch = DataCollatorForPrompts(PROMPT, tokenizer)([{"text": "好", **label}])
    assert batch["labels"].tolist() == [1]
    assert batch["labels"].dtype == torch.int64


def test_without_labels(tokenizer: Any) -> None:
    assert "labels" not in DataCollatorForPrompts(PROMPT, tokenizer)([{"text": "好"}])


def test_long_texts_leave_room_for_template_and_masks(tokenizer: Any) -> None:
    batch = DataCollatorForPrompts(PROMPT, tokenizer, max_length=20)([{"text": "好" * 1000}])
    assert batch["input_ids"].shape == (1, 4, 20)
    assert (batch["input_ids"] == tokenizer.mask_token_id).sum(dim=2).tolist() == [[1, 2, 1, 2]]


@pytest.mark.parametrize(
    ("example", "error", "message"),
    [
        ({"sentence": "好"}, ValueError, r"slot 'text'.*\['sentence'\].*remove_unused_columns=False"),
        ({"text": None}, TypeError, "'text' holds None, expected a string"),
        ({"text": "好", "label": 2}, ValueError, "label 2 is out of range: .* 2 labels"),
        ({"text": "好", "label": -1}, ValueError, "out of range"),
        ({"text": "好", "label": "中评"}, ValueError, "'中评' is none of"),
        ({"text": "好", "label": 0.5}, TypeError, "whole number or a name, got 0.5"),
    ],
)
def test_bad_examples(example: dict[str, Any], error: type[Exception], message: str, tokenizer: Any) -> None:
    with pytest.raises(error, match=message):
        DataCollatorForPrompts(PROMPT, tokenizer)([example])


def test_bad_prompts(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="no verbalizer"):
        DataCollatorForPrompts(PromptConfig(template="{label}：{text}"), tokenizer)
    with pytest.raises(ValueError, match="cannot spell the label word '囍'"):
        DataCollatorForPrompts(PROMPT.replace(verbalizer=["囍"]), tokenizer)
    with pytest.raises(ValueError, match="more than the 5 that the model reads"):
        DataCollatorForPrompts(PROMPT, tokenizer, max_length=5)
    with pytest.raises(TypeError, match="takes a PromptConfig, got str"):
        DataCollatorForPrompts("{label}：{text}", tokenizer)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="some have none"):
        DataCollatorForPrompts(PROMPT, tokenizer)([{"text": "好", "label": 0}, {"text": "好"}])
    with pytest.raises(ValueError, match="shows demonstrations: give the prompt some"):
        DataCollatorForPrompts(PROMPT.replace(template="{demos:2}{label}：{text}"), tokenizer)
    nearest = PROMPT.replace(template="{demos:1,nearest}{label}：{text}", demonstrations=[{"text": "好", "label": 1}])
    with pytest.raises(ValueError, match="nearest demonstrations, by vectors that training changes"):
        DataCollatorForPrompts(nearest, tokenizer)


def test_demonstrations_of_the_training_texts(tokenizer: Any) -> None:
    """Each text sees others, one of each label with its main word, and never itself."""
    texts = ["酒店很好", "喜欢", "开心", "难过", "不干净", "不满意"]
    rows = [{"text": text, "label": int(i < 3)} for i, text in enumerate(texts)]
    config = PROMPT.replace(template="{demos:2}{text}这是{label}评。", demonstrations=rows)
    collator = DataCollatorForPrompts(config, tokenizer)
    shown = {}
    for row in rows:
        encoded = collator.encode(row)
        prompt = tokenizer.decode(encoded["input_ids"][0]).replace(" ", "")
        *examples, last = prompt.removeprefix("[CLS]").removesuffix("[SEP]").split("[SEP]")
        assert last == f"{row['text']}这是[MASK]评。"
        words = {1: "好", 0: "差"}
        written = {f"{other['text']}这是{words[other['label']]}评。": other for other in rows}
        shown[row["text"]] = [written[example]["text"] for example in examples]
        assert sorted(written[example]["label"] for example in examples) == [0, 1]
        assert row["text"] not in shown[row["text"]]
        assert collator.encode(row) == encoded  # whenever it is asked
    assert len({tuple(some) for some in shown.values()}) > 3
