from types import MappingProxyType
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from hf_nlpnotes.prompting import (
    CALIBRATIONS,
    Verbalizer,
    group_words,
    label_prior_tensor,
    mask_positions,
    mean_bias,
    prior_bias,
)
from hf_nlpnotes.prompting.word_scorer import WordScorer


def test_the_methods() -> None:
    assert CALIBRATIONS == ("none", "contextual", "domain", "batch", "prior")


def test_one_content_free_text_gives_the_papers_formula() -> None:
    """Zhao et al.: W p with W = diag(p_cf)^-1, normalised."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]], dtype=torch.float64)
    content_free = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64)
    calibrated = (p.log() - mean_bias(content_free.log())).softmax(dim=1)
    expected = p / content_free
    torch.testing.assert_close(calibrated, expected / expected.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("labels", [2, 7])
@pytest.mark.parametrize("texts", [2, 50])
@pytest.mark.parametrize("scale", [0.1, 3, 50])
def test_prior_matching_reaches_the_prior(labels: int, texts: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(labels * texts)
    scores = torch.randn(texts, labels, generator=generator, dtype=torch.float64) * scale
    prior = torch.rand(labels, generator=generator, dtype=torch.float64) + 0.1
    bias = prior_bias(scores, prior)
    torch.testing.assert_close((scores - bias).softmax(dim=1).mean(dim=0), prior / prior.sum(), atol=1e-8, rtol=0)
    assert (scores - bias).mean().item() == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("wanted", [[0.8, 0.2], [1 / 3, 1 / 2, 1 / 6]])
def test_one_text_in_closed_form(wanted: list[float]) -> None:
    """softmax(s - b) = prior, so b is s - log(prior) up to a constant. Of three labels the first is right at once."""
    scores = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)[:, : len(wanted)]
    prior = torch.tensor(wanted, dtype=torch.float64)
    expected = scores[0] - prior.log()
    torch.testing.assert_close(
        prior_bias(scores, prior), expected - expected.mean() + scores.mean(), atol=1e-7, rtol=0
    )


def test_a_sample_that_has_the_prior_needs_no_step() -> None:
    assert prior_bias(torch.zeros(3, 2), torch.ones(2), tolerance=0, max_steps=1).tolist() == [0, 0]


@pytest.mark.parametrize("method", ["mean", "prior"])
def test_a_constant_for_a_label_is_taken_out(method: str) -> None:
    scores = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shifted = scores + torch.tensor([3.0, -5.0, 0.0, 1.0], dtype=torch.float64)
    prior = torch.tensor([0.4, 0.3, 0.2, 0.1])
    first, second = (mean_bias(s) if method == "mean" else prior_bias(s, prior) for s in (scores, shifted))
    torch.testing.assert_close((scores - first).softmax(dim=1), (shifted - second).softmax(dim=1), atol=1e-7, rtol=0)


def test_a_prior_out_of_reach_is_an_error() -> None:
    with pytest.raises(ValueError, match="after 3 steps: give more texts"):
        prior_bias(torch.randn(5, 3) * 1000, torch.tensor([1e-6, 0.5, 0.5]), max_steps=3)


def test_label_priors() -> None:
    labels = ["a", "b"]
    assert label_prior_tensor(None, labels).tolist() == [0.5, 0.5]
    assert label_prior_tensor({"b": 3, "a": 1}, labels).tolist() == [0.25, 0.75]
    assert label_prior_tensor([1, 4], labels).tolist() == [0.2, 0.8]
    assert label_prior_tensor(MappingProxyType({"b": 3, "a": 1}), labels).tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("prior", "what"),
    [
        ({"a": 1}, r"none for \['b'\]"),
        ({"a": 1, "b": 1, "c": 1}, r"\['c'\] are no labels"),
        ([1], "1 values for 2 labels"),
        ([1, 0], r"positive, got \[1, 0\]"),
        ([1, float("inf")], "positive"),
    ],
)
def test_wrong_priors_are_named(prior: object, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        label_prior_tensor(prior, ["a", "b"])  # type: ignore[arg-type]


# A language of four topics. The label words of a topic have one token and two tokens; its texts have words of the
# topic among words that mean nothing.
MASK, COLON, NOISE, TOPICS, TOPIC_WORDS = 4, 5, range(6, 12), 4, 6
LABEL_WORDS: dict[str, tuple[int, ...]] = {
    **{f"one-{topic}": (12 + topic,) for topic in range(TOPICS)},
    **{f"two-{topic}": (16 + topic, 20 + (topic + 1) % TOPICS) for topic in range(TOPICS)},
}
VERBALIZER = Verbalizer.of({f"topic-{topic}": [f"one-{topic}", f"two-{topic}"] for topic in range(TOPICS)})
GROUPS = group_words(VERBALIZER, LABEL_WORDS.__getitem__)
VOCABULARY = 24 + TOPICS * TOPIC_WORDS


def sample_texts(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of six tokens, half of them noise, and their topics in turn."""
    generator = torch.Generator().manual_seed(seed)
    topics = torch.arange(count) % TOPICS
    words = 24 + topics[:, None] * TOPIC_WORDS + torch.randint(TOPIC_WORDS, (count, 6), generator=generator)
    noise = torch.randint(NOISE.start, NOISE.stop, (count, 6), generator=generator)
    return torch.where(torch.rand(count, 6, generator=generator) < 0.5, noise, words), topics


def prompts(texts: torch.Tensor, num_masks: int) -> torch.Tensor:
    """[CLS] [MASK]… : text [SEP]."""
    edge = torch.ones(len(texts), 1, dtype=torch.long)
    return torch.cat([edge * 2, edge.expand(-1, num_masks) * MASK, edge * COLON, texts, edge * 3], dim=1)


def label_scores(model: Any, texts: torch.Tensor, kind: str = "centred") -> torch.Tensor:
    scorer = WordScorer(model, GROUPS, len(LABEL_WORDS))
    total = torch.zeros(len(texts), len(LABEL_WORDS))
    for group in GROUPS:
        ids = prompts(texts, group.num_masks)
        with torch.no_grad():
            total += getattr(scorer, kind)({"input_ids": ids}, *mask_positions((ids == MASK).long()))
    return total.double() @ VERBALIZER.weight_matrix()


def calibrated(model: Any, texts: torch.Tensor, method: str) -> torch.Tensor:
    scores = label_scores(model, texts)
    if method == "prior":
        return scores - prior_bias(scores, label_prior_tensor(None, VERBALIZER.labels))
    if method == "batch":
        return scores - mean_bias(scores)
    noise = torch.randint(NOISE.start, NOISE.stop, (5, 6), generator=torch.Generator().manual_seed(9))
    return scores - mean_bias(label_scores(model, noise[: 1 if method == "domain" else 5]))


def tiny_bert() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, max_position_embeddings=16, **sizes)).eval()


@pytest.fixture(scope="module")
def trained() -> Any:
    """A masked language model that has learnt the language; an eighth of its texts says nothing about the label."""
    model = tiny_bert()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=300)
    for step in range(300):
        texts, topics = sample_texts(64, seed=step)
        texts[:8] = texts[:8] % len(NOISE) + NOISE.start
        kind = "one" if step % 2 else "two"
        words = torch.tensor([LABEL_WORDS[f"{kind}-{topic}"] for topic in topics.tolist()])
        ids = prompts(texts, words.shape[1])
        labels = torch.full_like(ids, -100)
        labels[ids == MASK] = words.flatten()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model


def accuracy(scores: torch.Tensor, topics: torch.Tensor) -> float:
    return (scores.argmax(dim=1) == topics).double().mean().item()


@pytest.mark.parametrize("method", ["contextual", "domain", "batch", "prior"])
def test_calibration_restores_a_model_with_a_label_bias(trained: Any, method: str) -> None:
    texts, topics = sample_texts(200, seed=1000)
    assert accuracy(label_scores(trained, texts, "log_probs"), topics) > 0.95, "the model has learnt its language"
    bias = trained.get_output_embeddings().bias
    whole = bias.detach().clone()
    try:
        with torch.no_grad():
            bias[LABEL_WORDS["one-2"][0]] += 60
            bias[LABEL_WORDS["two-1"][1]] += 25
        assert accuracy(label_scores(trained, texts, "log_probs"), topics) < 0.4
        assert accuracy(label_scores(trained, texts), topics) < 0.4
        assert accuracy(calibrated(trained, texts, method), topics) > 0.95
    finally:
        with torch.no_grad():
            bias.copy_(whole)


@pytest.mark.parametrize("method", ["contextual", "domain", "batch", "prior"])
@pytest.mark.parametrize("token", sorted({token for word in LABEL_WORDS.values() for token in word}))
def test_a_constant_in_the_output_bias_leaves_calibrated_scores_unchanged(method: str, token: int) -> None:
    """Labels of words of one and of two tokens: each length is compared with content-free prompts of that length."""
    model, (texts, _) = tiny_bert(), sample_texts(8, seed=1)
    with torch.no_grad():
        before, raw = calibrated(model, texts, method), label_scores(model, texts)
        model.get_output_embeddings().bias[token] += 3.0
        after, raw_after = calibrated(model, texts, method), label_scores(model, texts)
    assert (raw - raw_after).abs().max() > 0.1
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
