"""Words in place of tokens, against sums and means written out."""

import numpy as np
import pytest

from hf_nlpnotes.attention import AttentionMaps, LayerAttention, TokenSequence, head_view, merge_words

WORDS = (None, 0, 0, 1, None, 2, 2, None)
GROUPS = [[0], [1, 2], [3], [4], [5, 6], [7]]


@pytest.fixture
def maps() -> AttentionMaps:
    tokens = ("[CLS]", "国", "足", "赢", "[SEP]", "play", "ing", "[SEP]")
    pieces = ("[CLS]", "国", "足", "赢", "[SEP]", "play", "##ing", "[SEP]")
    segments = (None, 0, 0, 0, None, 1, 1, None)
    spans = (None, (0, 1), (1, 2), (2, 3), None, (0, 4), (4, 7), None)
    pinyin = (None, "guó", "zú", "yíng", None, None, None, None)
    sequence = TokenSequence(("国足赢", "playing"), tokens, pieces, segments, spans, WORDS, pinyin)
    weights = np.random.default_rng(0).dirichlet(np.ones(8), size=(2, 8))
    vectors = np.zeros((2, 8, 3))
    return AttentionMaps("M", "m", (LayerAttention("a", "encoder", weights, vectors, vectors, scaling=1.0),), sequence)


def test_rows_are_means_and_columns_sums(maps: AttentionMaps) -> None:
    merged = merge_words(maps)
    for head in range(2):
        for row, rows in enumerate(GROUPS):
            for column, columns in enumerate(GROUPS):
                expected = np.mean([sum(maps[0].weights[head, i, j] for j in columns) for i in rows])
                assert merged[0].weights[head, row, column] == pytest.approx(expected, rel=1e-5)
    assert np.allclose(merged[0].weights.sum(-1), 1)
    assert not merged[0].has_scores


def test_words_have_the_texts_spelling(maps: AttentionMaps) -> None:
    tokens = merge_words(maps).tokens
    assert tokens.tokens == ("[CLS]", "国足", "赢", "[SEP]", "playing", "[SEP]")
    assert tokens.pieces[4] == "play ##ing"
    assert tokens.spans == (None, (0, 2), (2, 3), None, (0, 7), None)
    assert tokens.segments == (None, 0, 0, None, 1, None)
    assert tokens.pinyin[1] == "guó zú"


def test_cross_attention_merges_both_sides(maps: AttentionMaps) -> None:
    decoder = TokenSequence.of_positions(3)
    cross = LayerAttention("c", "cross", maps[0].weights[:, :3])
    merged = merge_words(AttentionMaps("M", "m", (maps[0], cross), maps.tokens, decoder))
    assert merged[1].weights.shape == (2, 3, 6)
    assert merged.decoder_tokens is not None
    assert merged.decoder_tokens.tokens == ("0", "1", "2")


def test_a_page_of_words(maps: AttentionMaps) -> None:
    assert '"国足"' in head_view(maps, words=True).html
    assert '"国足"' not in head_view(maps).html
