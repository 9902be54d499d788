"""The words' own rows of the output embedding: what is computed, and that it stays right when the model changes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from hf_nlpnotes.prompting import (
    PromptEncoder,
    Template,
    Verbalizer,
    WordGroup,
    group_words,
    mask_logits,
    mask_positions,
    word_scores,
)
from hf_nlpnotes.prompting.predictions import scoring_path
from hf_nlpnotes.prompting.word_scorer import SCORINGS, WordScorer

VOCABULARY = 211  # a size that nothing else has
GROUPS = (WordGroup(1, (0, 3), ((7,), (9,))), WordGroup(2, (2, 1), ((8, 8), (7, 10))))
ONE_LENGTH = (WordGroup(2, (0, 1, 2), ((8, 8), (7, 10), (11, 7))),)


def tiny_bert(seed: int = 0, vocab_size: int = VOCABULARY) -> Any:
    torch.manual_seed(seed)
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=40,
            initializer_range=0.5,
        )
    ).eval()
    torch.nn.init.normal_(model.cls.predictions.bias)
    return model


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(0))
    label_mask = torch.zeros_like(ids)
    label_mask[0, 4] = label_mask[1, 1] = label_mask[1, 2] = 1
    ids[label_mask.bool()] = 4
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, *mask_positions(label_mask)


class _Shapes(TorchDispatchMode):
    """Shapes of all tensors that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        parts = result if isinstance(result, (tuple, list)) else [result]
        self.seen += [tuple(part.shape) for part in parts if isinstance(part, torch.Tensor)]
        return result

    def scored(self) -> list[tuple[int, ...]]:
        """Tensors with a score for each vocabulary entry, somewhere."""
        return [s for s in self.seen if s and s[-1] == VOCABULARY and len(s) > 1 and 0 not in s and s[0] != 16]


def test_what_is_computed() -> None:
    """No (batch, length, vocabulary) ever, and not even (masks, vocabulary) for centred scores."""
    model = tiny_bert()
    inputs, positions, counts = batch()
    scorer = WordScorer(model, GROUPS, 4)
    with torch.no_grad():
        scorer(inputs, positions, counts)  # the comparison with the whole model happens here
        with _Shapes() as centred:
            scorer.centred(inputs, positions, counts)
        with _Shapes() as log_probs:
            scorer.log_probs(inputs, positions, counts)
        with _Shapes() as stock:
            model(**inputs)
    assert not centred.scored()
    assert {shape[:-1] for shape in log_probs.scored()} <= {(1,), (2,)}, "the masks of the rows that need them"
    assert (2, 12, VOCABULARY) in stock.scored(), "the watch can see"


@pytest.mark.parametrize("kind", ["log_probs", "centred"])
def test_each_method_gives_its_part(kind: str) -> None:
    model = tiny_bert()
    inputs, positions, counts = batch()
    expected = word_scores(mask_logits(model, inputs, positions), counts, GROUPS, 4)
    scorer = WordScorer(model, GROUPS, 4)
    both = scorer(inputs, positions, counts)
    torch.testing.assert_close(getattr(both, kind), getattr(expected, kind), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        getattr(scorer, kind)(inputs, positions, counts), getattr(both, kind), atol=1e-6, rtol=0
    )


def test_ranking_of_words_of_one_length_needs_no_normaliser() -> None:
    model = tiny_bert()
    inputs, positions, counts = batch()
    rows = counts == 2
    scorer = WordScorer(model, ONE_LENGTH, 3)
    with torch.no_grad():
        expected = scorer.log_probs(inputs, positions, counts)[rows].softmax(dim=1)
        with _Shapes() as shapes:
            found = scorer.ranking(inputs, positions, counts)[rows].softmax(dim=1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert not shapes.scored()


@pytest.mark.parametrize("scoring", SCORINGS)
def test_ranking_of_words_of_several_lengths_is_by_log_probability(scoring: str) -> None:
    model = tiny_bert()
    inputs, positions, counts = batch()
    scorer = WordScorer(model, GROUPS, 4, scoring)
    torch.testing.assert_close(
        scorer.ranking(inputs, positions, counts), scorer.log_probs(inputs, positions, counts), atol=0, rtol=0
    )


@pytest.mark.parametrize("how", ["step", "data", "load", "bias", "resize", "tie"])
def test_a_changed_model_is_read_anew(how: str) -> None:
    """Among others its mean row, which is kept between calls."""
    model = tiny_bert()
    inputs, positions, counts = batch()
    scorer = WordScorer(model, GROUPS, 4)
    with torch.no_grad():
        before = scorer.centred(inputs, positions, counts)
        weight = model.get_output_embeddings().weight
        if how == "step":
            weight.add_(torch.randn_like(weight))
        elif how == "data":
            weight.data += torch.randn_like(weight)
        elif how == "load":
            model.load_state_dict(tiny_bert(1).state_dict())
        elif how == "bias":
            model.get_output_embeddings().bias[8] += 3
        elif how == "resize":
            model.resize_token_embeddings(VOCABULARY + 20, mean_resizing=False)
        else:
            model.cls.predictions.decoder.weight = torch.nn.Parameter(torch.randn_like(weight))
        after = scorer(inputs, positions, counts)
        expected = word_scores(
            model(**inputs).logits.gather(
                1, positions[:, :, None].expand(-1, -1, len(model.get_output_embeddings().weight))
            ),
            counts,
            GROUPS,
            4,
        )
    assert not torch.allclose(before, after.centred, atol=1e-4)
    torch.testing.assert_close(after.centred, expected.centred, atol=1e-5, rtol=0)
    torch.testing.assert_close(after.log_probs, expected.log_probs, atol=1e-5, rtol=0)


def test_gradients_are_those_of_the_whole_model() -> None:
    model = tiny_bert()
    inputs, positions, counts = batch()
    gradients = []
    for scores in (
        WordScorer(model, GROUPS, 4)(inputs, positions, counts),
        word_scores(mask_logits(model, inputs, positions), counts, GROUPS, 4),
    ):
        model.zero_grad()
        (scores.centred + 0.5 * scores.log_probs).square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
@pytest.mark.parametrize(("targets", "path"), [(["query"], "rows"), (["query", "decoder"], "masks")])
def test_adapters(targets: list[str], path: str) -> None:
    """An adapter in the encoder changes nothing; one on the output embedding is not in its weight."""
    model = get_peft_model(tiny_bert(), LoraConfig(target_modules=targets, r=2)).eval()
    inputs, positions, counts = batch()
    with torch.no_grad():
        WordScorer(model, GROUPS, 4)(inputs, positions, counts)  # the adapter does nothing yet
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        found = WordScorer(model, GROUPS, 4)(inputs, positions, counts)
        logits = model(**inputs).logits
        expected = word_scores(logits.gather(1, positions[:, :, None].expand(-1, -1, VOCABULARY)), counts, GROUPS, 4)
    assert scoring_path(model, inputs, positions) == path
    torch.testing.assert_close(found.log_probs, expected.log_probs, atol=1e-5, rtol=0)


def test_half_precision_scores_are_in_float32() -> None:
    model = tiny_bert()
    inputs, positions, counts = batch()
    with torch.no_grad():
        expected = WordScorer(model, GROUPS, 4)(inputs, positions, counts)
        found = WordScorer(model.to(torch.bfloat16), GROUPS, 4)(inputs, positions, counts)
    assert found.centred.dtype == found.log_probs.dtype == torch.float32
    torch.testing.assert_close(found.centred, expected.centred, atol=0.2, rtol=0.05)


def test_an_unknown_scoring_is_named() -> None:
    with pytest.raises(ValueError, match="parallel, left-to-right, max-first, got 'sideways'"):
        WordScorer(tiny_bert(), GROUPS, 4, "sideways")


@pytest.mark.parametrize(
    ("task", "table", "number"), [("iflytek", "iflytek_labels", 119), ("csldcp", "label_des2tag", 67)]
)
def test_long_names_of_real_labels(tmp_path: Path, data_folder: Path, task: str, table: str, number: int) -> None:
    """Names of 1 to 13 characters, many with a common beginning: each has a score of its own, and the right one."""
    names_file = data_folder / "classification" / "fewclue" / task / "label_names.json"
    if not names_file.is_file():
        pytest.skip(f"{names_file} is absent")
    names = list(json.loads(names_file.read_text(encoding="utf-8"))[table])
    assert len(names) == number
    characters = dict.fromkeys("".join(names).lower())
    vocabulary = tmp_path / "vocab.txt"
    pieces = [f"##{character}" for character in characters if character.isascii()]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "：", *characters, *pieces]
    vocabulary.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(vocab=str(vocabulary))
    model = tiny_bert(vocab_size=len(tokenizer))
    encoder = PromptEncoder(Template("{label}：{text}"), tokenizer)
    groups = group_words(Verbalizer.of(names), encoder.word_ids)
    scorer = WordScorer(model, groups, number)
    found, expected = torch.zeros(number), torch.zeros(number, dtype=torch.float64)
    text = {"text": "".join(names[:3])}
    spelled = set()
    for group, encoding in zip(groups, encoder.encode(text, [group.num_masks for group in groups]), strict=True):
        tensors = {name: torch.tensor([values]) for name, values in encoding.items()}
        positions, counts = mask_positions(tensors.pop("label_mask"))
        with torch.no_grad():
            found += scorer.log_probs(tensors, positions, counts)[0]
            logits = model(**tensors).logits[0].double().log_softmax(dim=-1)
        for place, ids in zip(group.positions, group.token_ids, strict=True):
            spelled.add(ids)
            expected[place] = sum(logits[1 + k, i] for k, i in enumerate(ids)) / len(ids)
            assert tokenizer.decode(ids).replace(" ", "").lower() == names[place].lower()
    assert len(spelled) == number
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    assert len(set(found.tolist())) == number
