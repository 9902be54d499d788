"""A masked language model with planted knowledge: which words it expects where is written into it by hand."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertTokenizer, PreTrainedModel

SPORT, MONEY = "体育", "财经"
CUES = {SPORT: "足篮国战", MONEY: "银市价司"}
"""Characters whose texts are of this label."""

PLANTED = {SPORT: ["赛", "球队", "日本"], MONEY: ["涨", "业绩", "股票"]}
"""Words that the model expects in texts of this label."""


class PlantedModel(PreTrainedModel):
    """The logits at a mask are a fixed bias of each token, plus 4 for the planted tokens of the text's label.

    The label of a text is told by its first cue. A planted word's first token is expected at the first mask, its
    second at the second. The bias makes 的 the most likely token everywhere. Without 新 or 下 in the prompt, or with
    我, the model expects nothing in particular: a bad template.
    """

    config_class = BertConfig
    base_model_prefix = ""
    main_input_name = "input_ids"

    def __init__(self, config: BertConfig, tokenizer: Any) -> None:
        super().__init__(config)
        generator = torch.Generator().manual_seed(0)
        size = len(tokenizer)
        self.embedding = nn.Embedding(size, config.hidden_size)
        self.bias = nn.Parameter(torch.randn(size, generator=generator))
        self.mask = tokenizer.mask_token_id

        def ids(text: str) -> list[int]:
            return list(tokenizer.convert_tokens_to_ids(list(text)))

        with torch.no_grad():
            self.bias[ids("的")] += 7
        self.cues = {label: set(ids(cues)) for label, cues in CUES.items()}
        self.first = {label: ids([word[0] for word in words]) for label, words in PLANTED.items()}
        self.second = {label: ids([w[1] for w in words if len(w) > 1]) for label, words in PLANTED.items()}
        self.asked, self.spoilt = set(ids("新下")), set(ids("我"))

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def get_output_embeddings(self) -> None:
        return None

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        logits = self.bias.expand(*input_ids.shape, -1).clone()
        for row, (ids, seen) in enumerate(zip(input_ids.tolist(), attention_mask.tolist(), strict=True)):
            ids = [i for i, s in zip(ids, seen, strict=True) if s]
            cues = [label for i in ids for label, own in self.cues.items() if i in own]
            if not cues or not self.asked & set(ids) or self.spoilt & set(ids):
                continue
            for position, token in enumerate(ids):
                if token == self.mask:
                    expected = self.second if ids[position - 1] == self.mask else self.first
                    logits[row, position, expected[cues[0]]] += 4
        return SimpleNamespace(logits=logits)


@pytest.fixture(scope="module")
def bert_tokenizer(tiny_chinesebert_folder: Path) -> Any:
    return BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"))


@pytest.fixture(scope="module")
def planted_model(bert_tokenizer: Any) -> Any:
    return PlantedModel(BertConfig(vocab_size=len(bert_tokenizer), hidden_size=16), bert_tokenizer).eval()


@pytest.fixture(scope="module")
def planted_examples() -> tuple[list[str], list[str]]:
    """Forty texts with their labels; twice as many of one label."""
    fillers = ["今天是很好", "他说也去吃饭", "一个老师", "有人喜欢猫和狗", "大学考试题目"]
    rows = [
        (filler + cue + "了", label)
        for label, cues in CUES.items()
        for cue in (cues if label == SPORT else cues[:2])
        for filler in fillers
    ]
    return [text for text, _ in rows], [label for _, label in rows]
