"""Scores of label words: the stock model's logits, all of them, are the oracle."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from hf_nlpnotes.model_inputs import accepted_inputs, longest_input
from hf_nlpnotes.prompting import WordGroup, mask_logits, mask_positions, word_scores
from hf_nlpnotes.prompting.predictions import scoring_path

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "initializer_range": 0.5,
}
MODELS = {
    "albert": (AlbertForMaskedLM, AlbertConfig, {"embedding_size": 8}),
    "bert": (BertForMaskedLM, BertConfig, {}),
    "deberta-v2": (
        DebertaV2ForMaskedLM,
        DebertaV2Config,
        {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    ),
    "distilbert": (
        DistilBertForMaskedLM,
        DistilBertConfig,
        {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2},
    ),
    "electra": (ElectraForMaskedLM, ElectraConfig, {"embedding_size": 8}),
    "modernbert": (ModernBertForMaskedLM, ModernBertConfig, {"pad_token_id": 0}),
    "roberta": (RobertaForMaskedLM, RobertaConfig, {"pad_token_id": 1}),
    "xlm-roberta": (XLMRobertaForMaskedLM, XLMRobertaConfig, {"pad_token_id": 1}),
}


def tiny(name: str) -> Any:
    model_class, config_class, extra = MODELS[name]
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, **extra})).eval()
    bias = model.get_output_embeddings().bias
    if bias is not None:
        torch.nn.init.normal_(bias)
    return model


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Three rows of unequal length with one, three and two masks."""
    lengths, masks = [12, 9, 12], [[4], [1, 2, 3], [9, 10]]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 50, (3, 12), generator=generator)
    attention, label_mask = torch.ones_like(ids), torch.zeros_like(ids)
    for row, (length, places) in enumerate(zip(lengths, masks, strict=True)):
        ids[row, length:] = 1
        attention[row, length:] = 0
        label_mask[row, places] = 1
    inputs = {"input_ids": ids, "attention_mask": attention, "token_type_ids": torch.zeros_like(ids)}
    return inputs, label_mask


class _Watch:
    """The largest number of positions that the vocabulary was scored at."""

    def __init__(self, model: Any) -> None:
        self.positions: list[int] = []
        self.handle = model.get_output_embeddings().register_forward_hook(
            lambda _m, _a, output: self.positions.append(output.shape[-2])
        )


@pytest.mark.parametrize("name", MODELS)
def test_logits_at_the_masks_are_the_stock_models(name: str) -> None:
    model = tiny(name)
    inputs, label_mask = batch()
    inputs = accepted_inputs(model, inputs)
    positions, counts = mask_positions(label_mask)
    with torch.no_grad():
        expected = model(**inputs).logits
        mask_logits(model, inputs, positions)  # the comparison of both ways happens here
        watch = _Watch(model)
        found = mask_logits(model, inputs, positions)
    assert watch.positions == [3], "the head is given the masks only"
    for row in range(3):
        places = label_mask[row].nonzero().squeeze(1)
        assert counts[row] == len(places)
        torch.testing.assert_close(found[row, : len(places)], expected[row, places], atol=1e-5, rtol=0)


def test_a_head_that_looks_at_neighbours_is_run_in_full() -> None:
    model = tiny("bert")
    transform = model.cls.predictions.transform
    transform.register_forward_hook(lambda _m, _a, output: output.cumsum(dim=1))
    inputs, label_mask = batch()
    positions, _ = mask_positions(label_mask)
    with torch.no_grad():
        expected = model(**inputs).logits
        found = mask_logits(model, inputs, positions)
    assert scoring_path(model, inputs, positions) == "full"
    torch.testing.assert_close(found[1, :3], expected[1, 1:4], atol=1e-5, rtol=0)


def test_dropout_does_not_spoil_the_comparison_and_stays_on() -> None:
    model = tiny("bert").train()
    inputs, label_mask = batch()
    with torch.no_grad():
        assert scoring_path(model, inputs, mask_positions(label_mask)[0]) == "rows"
    assert all(module.training for module in model.modules())


def test_half_precision_uses_the_same_path() -> None:
    model = tiny("bert").to(torch.bfloat16)
    inputs, label_mask = batch()
    with torch.no_grad():
        logits = mask_logits(model, inputs, mask_positions(label_mask)[0])
    assert scoring_path(model, inputs, mask_positions(label_mask)[0]) == "rows"
    assert logits.dtype == torch.float32


def test_a_model_without_a_language_modelling_head_is_named() -> None:
    model = BertForSequenceClassification(BertConfig(**SIZES)).eval()
    inputs, label_mask = batch()
    with pytest.raises(ValueError, match="load it with AutoModelForMaskedLM"):
        mask_logits(model, inputs, mask_positions(label_mask)[0])


def test_word_scores_are_mean_log_probabilities() -> None:
    logits = torch.randn(3, 3, 50, generator=torch.Generator().manual_seed(0)) * 5
    counts = torch.tensor([1, 3, 2])
    groups = [
        WordGroup(1, (0, 3), ((7,), (9,))),
        WordGroup(2, (2,), ((8, 8),)),
        WordGroup(3, (1,), ((1, 2, 3),)),
        WordGroup(4, (4,), ((1, 2, 3, 4),)),
    ]
    scores = word_scores(logits, counts, groups, 5)
    for group in groups:
        for word, ids in zip(group.positions, group.token_ids, strict=True):
            for row in range(3):
                log_prob = centred = 0.0
                if counts[row] == len(ids):
                    for k, token in enumerate(ids):
                        distribution = logits[row, k].double()
                        log_prob += float(distribution.softmax(0)[token].log()) / len(ids)
                        centred += float(distribution[token] - distribution.mean()) / len(ids)
                assert scores.log_probs[row, word] == pytest.approx(log_prob, abs=1e-5)
                assert scores.centred[row, word] == pytest.approx(centred, abs=1e-5)


def test_mask_positions_follow_the_padding_side() -> None:
    label_mask = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 1, 0]])
    positions, counts = mask_positions(label_mask)
    assert counts.tolist() == [2, 1, 3, 2]
    assert positions.tolist() == [[2, 3, 0], [1, 0, 0], [0, 1, 2], [0, 3, 0]]
    places = list(range(1, 512, 3))
    long = torch.zeros(1, 512, dtype=torch.long).index_fill(1, torch.tensor(places), 1)
    assert mask_positions(long)[0].tolist() == [places]


class _Tokenizer:
    def __init__(self, length: float) -> None:
        self.model_max_length = length


@pytest.mark.parametrize(
    ("name", "limit", "expected"),
    [("bert", 1e30, 40), ("bert", 25, 25), ("roberta", 1e30, 38), ("roberta", 39, 38), ("xlm-roberta", 30, 30)],
)
def test_the_longest_input(name: str, limit: float, expected: int) -> None:
    model = tiny(name)
    assert longest_input(model, _Tokenizer(limit)) == expected
    ids = torch.full((1, expected), 7)
    with torch.no_grad():
        model(input_ids=ids)
    if expected < limit:
        with pytest.raises((IndexError, RuntimeError)), torch.no_grad():
            model(input_ids=torch.full((1, expected + 1), 7))


@pytest.mark.parametrize("config", [{}, {"max_position_embeddings": 0}, {"max_position_embeddings": -1}])
def test_a_table_of_no_positions_is_no_limit(config: dict[str, int]) -> None:
    """Models with relative positions alone write 0, -1 or nothing there."""
    model = torch.nn.Module()
    model.config = SimpleNamespace(**config)
    assert longest_input(model, _Tokenizer(1e30)) is None
    assert longest_input(model, _Tokenizer(25)) == 25


def test_inputs_are_those_of_the_model_itself() -> None:
    """Whatever is around it: a compiled model and PEFT's have a `forward` of their own, which names few inputs."""
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    bert = BertForMaskedLM(config)
    inputs = {name: torch.zeros(1, 2, dtype=torch.long) for name in ("input_ids", "token_type_ids", "pinyin_ids")}
    import peft

    compiled = torch.compile(bert, backend="eager")
    adapted = peft.get_peft_model(BertForMaskedLM(config), peft.LoraConfig(r=2, target_modules=["query"]))
    for model in (bert, compiled, adapted, torch.compile(adapted, backend="eager")):
        assert list(accepted_inputs(model, inputs)) == ["input_ids", "token_type_ids"]
