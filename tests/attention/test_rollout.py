"""Rollout by the paper's recurrence written in loops, flow by another library's algorithm and by cuts."""

from itertools import combinations

import networkx as nx
import numpy as np
import pytest

from hf_nlpnotes.attention import AttentionMaps, LayerAttention, TokenSequence, attention_flow, attention_rollout

LAYERS, HEADS, TOKENS = 3, 2, 4
WEIGHTS = np.random.default_rng(0).dirichlet(np.full(TOKENS, 0.3), size=(LAYERS, HEADS, TOKENS))


def maps_of(weights: np.ndarray = WEIGHTS, kind: str = "encoder") -> AttentionMaps:
    layers = tuple(LayerAttention("a", kind, layer) for layer in weights)  # type: ignore[arg-type]  # a literal
    tokens = TokenSequence.of_positions(weights.shape[-1])
    return AttentionMaps("M", "m", layers, tokens, tokens if kind == "cross" else None)


def mixed(layer: int, i: int, j: int) -> float:
    """The raw weight of the paper: the mean of the heads, half of it the residual connection."""
    mean = sum(WEIGHTS[layer, head, i, j] for head in range(HEADS)) / HEADS
    return 0.5 * float(mean) + 0.5 * (i == j)


def test_rollout_by_paths() -> None:
    """What arrives at a token is the sum over all paths down to it of the products of their weights."""
    rollout = attention_rollout(maps_of())
    assert rollout.shape == (LAYERS, TOKENS, TOKENS)

    def arriving(layer: int, i: int, j: int) -> float:
        if layer < 0:
            return float(i == j)
        return sum(mixed(layer, i, k) * arriving(layer - 1, k, j) for k in range(TOKENS))

    for layer in range(LAYERS):
        expected = [[arriving(layer, i, j) for j in range(TOKENS)] for i in range(TOKENS)]
        np.testing.assert_allclose(rollout[layer], expected, atol=1e-6)
        np.testing.assert_allclose(rollout[layer].sum(-1), 1)


def network(layer: int) -> nx.DiGraph:
    graph = nx.DiGraph()
    for level in range(layer + 1):
        for i in range(TOKENS):
            for j in range(TOKENS):
                graph.add_edge((level + 1, i), (level, j), capacity=mixed(level, i, j))
    return graph


@pytest.mark.parametrize("layer", [0, 1, -1])
def test_flow_is_networkx_s(layer: int) -> None:
    top = layer % LAYERS
    graph = network(top)
    expected = [[nx.maximum_flow_value(graph, (top + 1, i), (0, j)) for j in range(TOKENS)] for i in range(TOKENS)]
    np.testing.assert_allclose(attention_flow(maps_of(), layer=layer), expected, atol=1e-6)


def test_flow_is_the_smallest_cut() -> None:
    """Ford and Fulkerson: through two layers, over every set of middle positions on the source's side."""
    flow = attention_flow(maps_of(), layer=1, positions=[2])
    for token in range(TOKENS):
        cuts = []
        for size in range(TOKENS + 1):
            for source_side in combinations(range(TOKENS), size):
                upper = sum(mixed(1, 2, k) for k in range(TOKENS) if k not in source_side)
                cuts.append(upper + sum(mixed(0, k, token) for k in source_side))
        assert flow[0, token] == pytest.approx(min(cuts), abs=1e-6)


def test_without_the_residual_rollout_is_the_product() -> None:
    means = WEIGHTS.mean(1)
    np.testing.assert_allclose(attention_rollout(maps_of(), residual=0)[-1], means[2] @ means[1] @ means[0], atol=1e-6)


def test_weights_lost_to_a_sink_count_as_nothing() -> None:
    halved = WEIGHTS * 0.5
    np.testing.assert_allclose(attention_rollout(maps_of(halved)), attention_rollout(maps_of()), atol=1e-6)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="residual is 1"):
        attention_rollout(maps_of(), residual=1)
    with pytest.raises(ValueError, match="of kind cross"):
        attention_rollout(maps_of(kind="cross"))
    with pytest.raises(ValueError, match="layer 3: there are 3 layers"):
        attention_flow(maps_of(), layer=3)
    with pytest.raises(ValueError, match=r"positions are \[4\]"):
        attention_flow(maps_of(), positions=[4])
