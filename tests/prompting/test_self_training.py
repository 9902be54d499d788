"""Self-training: which texts are taken, what each generation learns from, and that a seed decides everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from hf_nlpnotes.prompting.config import PromptConfig
from hf_nlpnotes.prompting.model import PromptForSequenceClassification
from hf_nlpnotes.prompting.self_training import Generation, choose, self_train

PROMPT = PromptConfig(template="{text}这是{label}评。", verbalizer={"差评": "差", "好评": "好"})
# The label is whether 猫 or 狗 occurs; three labelled texts a label say so.
LABELLED = [{"text": f"{animal}{word}", "label": label} for word in "吃喜人" for label, animal in enumerate("猫狗")]
FREE = [
    {"text": f"{word}{animal}", "truth": label} for word in "我你他她在有会说" for label, animal in enumerate("猫狗")
]


def load(folder: Path) -> Any:
    return PromptForSequenceClassification.from_pretrained(folder, config=PROMPT)


def arguments(folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=30,
        per_device_train_batch_size=3,
        learning_rate=2e-3,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )


def test_the_surest_texts_of_each_label_are_taken() -> None:
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.45, 0.55], [0.1, 0.9]])
    even = torch.tensor([0.5, 0.5])
    assert choose(probabilities, even, 2) == [(0, 0), (5, 1)]
    assert choose(probabilities, even, 4) == [(0, 0), (2, 1), (3, 0), (5, 1)]
    assert choose(probabilities, torch.tensor([0.25, 0.75]), 4) == [(0, 0), (2, 1), (4, 1), (5, 1)]
    assert choose(probabilities, even, 100, min_confidence=0.75) == [(0, 0), (2, 1), (5, 1)]
    # A label that no text is taken for leaves its places empty.
    assert choose(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), even, 2) == [(0, 0)]
    # Equally sure texts are taken in their order.
    assert choose(torch.tensor([[0.5, 0.5]] * 3), torch.tensor([1.0, 0.0]), 2) == [(0, 0), (1, 0)]


def test_generations_grow_from_the_same_weights(tiny_chinesebert_folder: Path) -> None:
    model = load(tiny_chinesebert_folder)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[list[dict[str, Any]]] = []

    def train(trained: Any, examples: list[dict[str, Any]], generation: int) -> None:
        assert trained is model
        assert generation == len(seen)
        assert all(torch.equal(value, start[name]) for name, value in trained.state_dict().items())
        assert trained.label_bias.tolist() == [0, 0]
        seen.append(examples)
        trained.calibrate(FREE)
        torch.nn.init.normal_(trained.masked_lm.cls.predictions.bias)

    records = self_train(model, FREE, train, LABELLED[:2], generations=3, growth=2.0)
    assert records[0] == Generation(0)
    assert [record.number for record in records] == [0, 1, 2, 3]
    assert seen[0] == LABELLED[:2]
    for record, examples in zip(records[1:], seen[1:], strict=True):
        assert examples[:2] == LABELLED[:2]
        # Two examples become four, eight, sixteen; half of the new ones are for each label, where there are as many.
        half = (2 * 2**record.number - 2) / 2
        assert all(record.labels.count(label) <= half for label in (0, 1))
        assert [(e["text"], e["label"]) for e in examples[2:]] == [
            (FREE[place]["text"], label) for place, label in zip(record.added, record.labels, strict=True)
        ]
        assert record.confidence is None or 0.5 <= record.confidence <= 1


def test_it_learns_what_the_labelled_texts_mean(tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    """By the stock Trainer; twice, to the same weights, and from another seed to others."""
    results = []
    for seed in (1, 1, 2):
        model = load(tiny_chinesebert_folder)
        records = self_train(model, FREE, arguments(tmp_path), LABELLED, generations=1, growth=2.0, seed=seed)
        results.append((model.predict(FREE), records))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert not torch.equal(results[0][0], results[2][0])
    truth = torch.tensor([example["truth"] for example in FREE])
    assert (results[0][0].argmax(dim=1) == truth).float().mean() > 0.8


def test_without_labelled_texts_the_model_itself_begins(tiny_chinesebert_folder: Path) -> None:
    model = load(tiny_chinesebert_folder)
    model.calibrate(FREE)
    expected = model.predict(FREE).argmax(dim=1).tolist()
    numbers: list[int] = []
    records = self_train(model, FREE, lambda *args: numbers.append(args[2]), generations=1, growth=4.0)
    assert numbers == [1]  # nothing to learn from at first
    assert [expected[place] for place in records[1].added] == list(records[1].labels)
    assert len(records[1].added) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unlabelled": []}, "no unlabelled text"),
        ({"generations": 0}, "generations must be"),
        ({"growth": 1.0}, "growth must be above 1"),
        ({"min_confidence": 1.0}, "probability below 1"),
        ({"label_shares": [1.0]}, "one positive number for each of"),
        ({"label_shares": [1.0, 0.0]}, "one positive number"),
        ({"labelled": [{"text": "好"}]}, "have no label: give each a column 'label'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, tiny_chinesebert_folder: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"unlabelled": FREE, "train": arguments(tmp_path), **options}
    with pytest.raises(ValueError, match=message):
        self_train(load(tiny_chinesebert_folder), **given)
