"""Words read token by token: loops over the stock model's logits, one row at a time, are the oracle."""

from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_nlpnotes.prompting import WordGroup, WordScores, mask_positions
from hf_nlpnotes.prompting.reranking import best, pseudo_log_likelihood, rerank
from hf_nlpnotes.prompting.sequential import Order, sequential_scores

MASK = 4
WORDS: list[tuple[int, ...]] = [(7,), (8, 9), (10, 11, 12), (8, 10), (10, 12, 12), (13,), (9, 9)]
KINDS = [(0,), (1, 0), (1, 1, 1), (0, 1), (0, 0, 1), (1,), (1, 0)]  # something else that is read about each token


def group(length: int, *, features: bool) -> WordGroup:
    places = tuple(i for i, word in enumerate(WORDS) if len(word) == length)
    extra = {"token_type_ids": tuple(KINDS[i] for i in places)} if features else {}
    return WordGroup(length, places, tuple(WORDS[i] for i in places), extra)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForMaskedLM(BertConfig(vocab_size=50, max_position_embeddings=40, initializer_range=0.6, **sizes))
    torch.nn.init.normal_(model.cls.predictions.bias)
    return model.eval()


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Two texts in three rows each, with one, two and three masks; the shorter ones are padded."""
    generator = torch.Generator().manual_seed(0)
    rows, masks = [], []
    for length in (8, 5):
        text = torch.randint(14, 50, (length,), generator=generator).tolist()
        for count in (1, 2, 3):
            rows.append([2, *text[:3], *[MASK] * count, *text[3:], 3])
            masks.append([0] * 4 + [1] * count + [0] * (len(text) - 2))
    width = max(map(len, rows))
    pad = [width - len(row) for row in rows]
    return {
        "input_ids": torch.tensor([row + [0] * n for row, n in zip(rows, pad, strict=True)]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * n for row, n in zip(rows, pad, strict=True)]),
        "token_type_ids": torch.zeros(len(rows), width, dtype=torch.long),
    }, torch.tensor([row + [0] * n for row, n in zip(masks, pad, strict=True)])


def stock(model: Any, inputs: dict[str, torch.Tensor], row: int, filled: dict[int, tuple[int, int]]) -> torch.Tensor:
    """Logits of one row with tokens and their kinds filled in, (length, vocabulary)."""
    one = {name: value[row : row + 1].clone() for name, value in inputs.items()}
    for place, (token, kind) in filled.items():
        one["input_ids"][0, place], one["token_type_ids"][0, place] = token, kind
    with torch.no_grad():
        return model(**one).logits[0].double()


def brute_force(model: Any, inputs: Any, row: int, word: tuple[int, ...], kinds: Any, how: str) -> tuple[float, float]:
    """Mean log-probability and mean centred logit of a word's tokens."""
    todo, filled, total = list(range(len(word))), {}, [0.0, 0.0]
    while todo:
        context = filled
        if how == "pseudo":
            context = {4 + k: (word[k], kinds[k]) for k in range(len(word)) if k != todo[0]}
        logits = stock(model, inputs, row, context)
        values = {k: logits[4 + k].log_softmax(0)[word[k]].item() for k in todo}
        chosen = max(todo, key=values.__getitem__) if how == "max-first" else todo[0]
        total[0] += values[chosen]
        total[1] += (logits[4 + chosen, word[chosen]] - logits[4 + chosen].mean()).item()
        filled[4 + chosen] = (word[chosen], kinds[chosen])
        todo.remove(chosen)
    return total[0] / len(word), total[1] / len(word)


def check(model: Any, scores: WordScores, inputs: Any, counts: torch.Tensor, how: str, *, features: bool) -> None:
    for row, count in enumerate(counts.tolist()):
        for place, word in enumerate(WORDS):
            kinds = KINDS[place] if features else [0] * len(word)
            expected = brute_force(model, inputs, row, word, kinds, how) if len(word) == count else (0.0, 0.0)
            found = scores.log_probs[row, place].item(), scores.centred[row, place].item()
            assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("order", ["left-to-right", "max-first"])
@pytest.mark.parametrize("features", [False, True])
@pytest.mark.parametrize("max_rows", [3, 64])
def test_token_by_token(model: Any, order: Order, features: bool, max_rows: int) -> None:
    inputs, label_mask = batch()
    groups = [group(length, features=features) for length in (1, 2, 3)]
    with torch.no_grad():
        scores = sequential_scores(
            model, inputs, *mask_positions(label_mask), groups, len(WORDS), order, max_rows=max_rows
        )
    check(model, scores, inputs, label_mask.sum(dim=1), order, features=features)


def test_the_orders_differ(model: Any) -> None:
    inputs, label_mask = batch()
    groups = [group(length, features=False) for length in (1, 2, 3)]
    with torch.no_grad():
        one, other = (
            sequential_scores(model, inputs, *mask_positions(label_mask), groups, len(WORDS), order).log_probs
            for order in ("left-to-right", "max-first")
        )
    assert (one - other).abs().max() > 0.01


@pytest.mark.parametrize("features", [False, True])
def test_pseudo_log_likelihood(model: Any, features: bool) -> None:
    inputs, label_mask = batch()
    groups = [group(length, features=features) for length in (1, 2, 3)]
    with torch.no_grad():
        scores = pseudo_log_likelihood(model, inputs, *mask_positions(label_mask), groups, len(WORDS), max_rows=5)
    check(model, scores, inputs, label_mask.sum(dim=1), "pseudo", features=features)


def test_pseudo_log_likelihood_of_chosen_words(model: Any) -> None:
    inputs, label_mask = batch()
    groups = [group(length, features=False) for length in (1, 2, 3)]
    arguments = (model, inputs, *mask_positions(label_mask), groups, len(WORDS))
    chosen = [{0, 1}, {3, 6}, set(), {5}, {1, 2}, {2, 4}]
    with torch.no_grad():
        everything, some = pseudo_log_likelihood(*arguments), pseudo_log_likelihood(*arguments, words=chosen)
    for row, words in enumerate(chosen):
        for place in range(len(WORDS)):
            expected = everything.log_probs[row, place] if place in words else 0
            assert some.log_probs[row, place].item() == pytest.approx(float(expected), abs=1e-6)


def test_an_empty_group_of_rows(model: Any) -> None:
    inputs, label_mask = batch()
    scores = sequential_scores(model, inputs, *mask_positions(label_mask), [WordGroup(4, (0,), ((1, 2, 3, 4),))], 1)
    assert not scores.log_probs.any()


def test_the_best() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]])
    assert best(scores, 2).tolist() == [[False, True, True], [True, True, False]]
    assert best(scores, 9).all()


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "2"])
def test_how_many_is_a_whole_number(k: object) -> None:
    with pytest.raises(ValueError, match="positive whole number"):
        best(torch.zeros(1, 2), k)


def test_the_rest_stays_below_the_best_in_its_order() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(50, 9, generator=generator), torch.randn(50, 9, generator=generator) * 5
    chosen = best(first, 4)
    final = rerank(first, second, chosen)
    for a, b, c, mask in zip(first, second, final, chosen, strict=True):
        top = [i for i in b.argsort(descending=True).tolist() if mask[i]]
        rest = [i for i in a.argsort(descending=True).tolist() if not mask[i]]
        assert c.argsort(descending=True).tolist() == top + rest
    torch.testing.assert_close(rerank(first, second, torch.ones_like(chosen)), second)
