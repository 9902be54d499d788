"""Statistics of heads, against heads whose numbers are known and against loops written out."""

import numpy as np
import pytest
from scipy import stats

from hf_nlpnotes.attention import AttentionMaps, LayerAttention, TokenSequence, head_statistics
from hf_nlpnotes.attention.statistics import entropy, mean_distance, separators, share_at_offset, share_on

# [CLS] a b [SEP] c d e [SEP]
SEGMENTS = (None, 0, 0, None, 1, 1, 1, None)
COUNT = len(SEGMENTS)


def pair() -> TokenSequence:
    names = tuple(map(str, range(COUNT)))
    return TokenSequence(("ab", "cde"), names, names, SEGMENTS, (None,) * COUNT, (None,) * COUNT, (None,) * COUNT)


def random_weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.full(shape[-1], 0.3), size=shape[:-1])


def maps_of(weights: np.ndarray, tokens: TokenSequence | None = None) -> AttentionMaps:
    return AttentionMaps("M", "m", (LayerAttention("a", "encoder", weights),), tokens or pair())


def test_heads_whose_numbers_are_known() -> None:
    before = np.eye(COUNT, k=-1)
    before[0, 0] = 1
    uniform = np.full((COUNT, COUNT), 1 / COUNT)
    found = head_statistics(maps_of(np.stack([np.eye(COUNT), before, uniform])))[0]
    np.testing.assert_allclose(found.entropy, [0, 0, np.log(COUNT)], atol=1e-6)
    np.testing.assert_allclose(found.largest, [1, 1, 1 / COUNT], atol=1e-6)
    np.testing.assert_allclose(found.self_share, [1, 1 / COUNT, 1 / COUNT], atol=1e-6)  # type: ignore[arg-type]  # a self map
    np.testing.assert_allclose(found.previous_share, [0, 1, 1 / COUNT], atol=1e-6)  # type: ignore[arg-type]  # as above
    np.testing.assert_allclose(found.next_share, [0, 0, 1 / COUNT], atol=1e-6)  # type: ignore[arg-type]  # as above
    np.testing.assert_allclose(found.separator_share, [2 / 8, 1 / 8, 2 / 8], atol=1e-6)  # looked at by 4
    np.testing.assert_allclose(found.a_to_b, [0, 0, 3 / 8], atol=1e-6)  # type: ignore[arg-type]  # as above
    np.testing.assert_allclose(found.b_to_a, [0, 0, 2 / 8], atol=1e-6)  # type: ignore[arg-type]  # as above


def test_entropy_is_scipy_s() -> None:
    weights = random_weights(2, 3, 5, 7)
    np.testing.assert_allclose(entropy(weights), stats.entropy(weights, axis=-1).mean(-1), rtol=1e-12)


def test_distance_and_offsets_by_loops() -> None:
    weights = random_weights(2, 6, 6)
    for head in range(2):
        one = weights[head]
        distance = sum(one[i, j] * abs(i - j) for i in range(6) for j in range(6)) / one.sum()
        assert mean_distance(weights)[head] == pytest.approx(distance)
        assert share_at_offset(weights, -1)[head] == pytest.approx(np.mean([one[i, i - 1] for i in range(1, 6)]))
        assert share_at_offset(weights, 2)[head] == pytest.approx(np.mean([one[i, i + 2] for i in range(4)]))
    assert not share_at_offset(weights, 6).any()


def test_shares_by_loops() -> None:
    one = random_weights(1, 8, 8)
    found = head_statistics(maps_of(one))[0]
    from_a = [sum(one[0, i, j] for j in (4, 5, 6)) for i in (1, 2)]
    from_b = [sum(one[0, i, j] for j in (1, 2)) for i in (4, 5, 6)]
    assert found.a_to_b is not None
    assert found.b_to_a is not None
    assert found.a_to_b[0] == pytest.approx(np.mean(from_a), rel=1e-6)
    assert found.b_to_a[0] == pytest.approx(np.mean(from_b), rel=1e-6)
    assert found.first_share[0] == pytest.approx(one[0, :, 0].mean(), rel=1e-6)


def test_a_single_text_has_no_shares_between_texts() -> None:
    found = head_statistics(maps_of(random_weights(2, 4, 4), TokenSequence.of_positions(4)))[0]
    assert found.a_to_b is None
    assert found.b_to_a is None
    assert found.self_share is not None


def test_cross_attention_has_no_distances() -> None:
    layer = LayerAttention("a", "cross", random_weights(2, 3, 4))
    maps = AttentionMaps("M", "m", (layer,), TokenSequence.of_positions(4), TokenSequence.of_positions(3))
    found = head_statistics(maps)[0]
    assert found.distance is None
    assert found.previous_share is None
    assert found.entropy.shape == (2,)
    rows = found.rows()
    assert [row["head"] for row in rows] == [0, 1]
    assert rows[1]["kind"] == "cross"
    assert rows[1]["distance"] is None
    assert rows[1]["entropy"] == pytest.approx(found.entropy[1])


def test_separators_are_special_tokens_behind_the_beginning() -> None:
    assert separators(pair()) == (3, 7)
    assert separators(TokenSequence.of_positions(3)) == ()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(\.\.\., tokens, tokens\)"):
        mean_distance(random_weights(2, 3, 4))
    with pytest.raises(ValueError, match="queries are empty"):
        share_on(random_weights(2, 3, 4), [0], [])
