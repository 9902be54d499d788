import pytest
import torch

from hf_nlpnotes.prompting import CALIBRATIONS, label_prior_tensor, mean_bias, prior_bias


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
    assert abs(bias.mean()) < 1e-9


def test_two_labels_in_closed_form() -> None:
    """One text, two labels: softmax(s - b) = prior, so b is s - log(prior) up to a constant."""
    scores, prior = torch.tensor([[2.0, -1.0]], dtype=torch.float64), torch.tensor([0.8, 0.2], dtype=torch.float64)
    expected = scores[0] - prior.log()
    torch.testing.assert_close(prior_bias(scores, prior), expected - expected.mean(), atol=1e-7, rtol=0)


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
