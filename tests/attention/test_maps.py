"""The maps themselves: what they hold, what they refuse, how they are kept in a file."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hf_nlpnotes.attention import AttentionMaps, LayerAttention, TokenSequence


def layer(kind: str = "encoder", queries: int = 3, keys: int = 3, **options: Any) -> LayerAttention:
    weights = np.random.default_rng(0).dirichlet(np.ones(keys), size=(2, queries))
    return LayerAttention("block", kind, weights, **options)  # type: ignore[arg-type]  # wrong kinds are tried too


def maps(*layers: LayerAttention, decoder: int | None = None) -> AttentionMaps:
    own = None if decoder is None else TokenSequence.of_positions(decoder)
    return AttentionMaps("Model", "type", layers, TokenSequence.of_positions(3), own)


def test_arrays_are_float32_and_frozen() -> None:
    source = np.ones((2, 3, 3)) / 3
    made = LayerAttention("block", "encoder", source)
    assert made.weights.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        made.weights[0, 0, 0] = 1
    source[0, 0, 0] = 0.5  # what one gave stays one's own
    float32 = np.ones((2, 3, 3), dtype=np.float32)
    LayerAttention("block", "encoder", float32)
    float32[0, 0, 0] = 0.5


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_copies_are_frozen_too(again: Callable[[AttentionMaps], AttentionMaps]) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2, 3, 5)).astype(np.float32)
    made = maps(layer(query=vectors, key=vectors, scaling=0.5), layer())
    other = again(made)
    for ours, theirs in zip(made.layers, other.layers, strict=True):
        np.testing.assert_equal(vars(theirs), vars(ours))
        assert not theirs.weights.flags.writeable
    assert not other.layers[0].query.flags.writeable  # type: ignore[union-attr]  # it was given
    assert other.tokens == made.tokens


def test_scores_and_weights_by_the_formula() -> None:
    """Every term at once, against the formula written out for one query."""
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 4, 5))
    bias, sinks = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3))
    mask = np.where(rng.random((1, 3, 4)) < 0.3, -1e30, 0.0)
    made = LayerAttention(
        "block", "cross", np.ones((2, 3, 4)), query, key, None, 0.3, mask, bias, 2.0, sinks  # type: ignore[arg-type]  # float64
    )  # fmt: skip
    for head in range(2):
        for row in range(3):
            exponentials = [
                np.exp(2 * np.tanh(query[head, row] @ key[head, column] * 0.3 / 2) + bias[head, row, column])
                if mask[0, row, column] == 0
                else 0.0
                for column in range(4)
            ]
            expected = np.array(exponentials) / (sum(exponentials) + np.exp(sinks[head, row]))
            np.testing.assert_allclose(made.rebuilt()[head, row], expected, rtol=1e-5)


def test_a_row_with_nothing_to_look_at_is_zero() -> None:
    nothing = np.full((1, 3, 3), -np.inf)
    made = layer(query=np.ones((2, 3, 4)), key=np.ones((2, 3, 4)), scaling=1.0, mask=nothing)
    assert not made.rebuilt().any()


def test_without_queries_there_are_no_scores() -> None:
    assert not layer().has_scores
    with pytest.raises(ValueError, match="only its weights were captured"):
        layer().scores()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sideways"}, "kind is 'sideways'"),
        ({"query": np.ones((2, 3, 4))}, "give all three or none"),
        ({"query": np.ones((1, 3, 4)), "key": np.ones((2, 3, 4)), "scaling": 1.0}, "query of 'block'"),
        ({"mask": np.ones((2, 2, 3))}, "mask of 'block'"),
        ({"bias": np.ones((1, 3, 3))}, "bias of 'block'"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer(**options)


def test_weights_must_be_those_of_the_tokens() -> None:
    with pytest.raises(ValueError, match=r"are \(4, 4\), but the tokens \(3, 3\)"):
        maps(layer(queries=4, keys=4))
    with pytest.raises(ValueError, match="there are no layers"):
        maps()


def test_rows_and_columns_of_an_encoder_decoder() -> None:
    made = maps(layer(), layer("decoder", 5, 5), layer("cross", 5, 3), decoder=5)
    sizes = [(len(made.rows(i)), len(made.columns(i))) for i in range(3)]
    assert sizes == [(3, 3), (5, 5), (5, 3)]
    assert made.kinds == ("encoder", "decoder", "cross")
    with pytest.raises(ValueError, match="layers differ in shape"):
        made.weights()
    assert made.select(made.of_kind("cross")).weights().shape == (1, 2, 5, 3)
    assert made.select([-1])[0].kind == "cross"
    with pytest.raises(ValueError, match="layer 3: there are 3 layers, 0 to 2"):
        made.select([3])


def test_everything_is_kept_in_a_file(tmp_path: Path) -> None:
    options = {
        "query": np.ones((2, 3, 4)),
        "key": np.ones((2, 3, 4)),
        "value": np.ones((2, 3, 2)),
        "scaling": 0.5,
        "mask": np.zeros((1, 3, 3)),
        "bias": np.ones((2, 3, 3)),
        "softcap": 30.0,
        "sinks": np.ones((2, 3)),
    }
    layers = [layer(), layer(**options), *[layer() for _ in range(10)]]
    made = AttentionMaps("Model", "type", tuple(layers), TokenSequence.of_positions(3), TokenSequence.of_positions(2))
    path = made.save(tmp_path / "maps.bin")
    loaded = AttentionMaps.load(path)
    assert loaded.decoder_tokens == made.decoder_tokens
    assert len(loaded) == 12
    for name, value in options.items():
        np.testing.assert_array_equal(getattr(loaded[1], name), value)
        assert getattr(loaded[11], name) is None
    assert list(tmp_path.iterdir()) == [path]  # nothing temporary is left


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "maps.npz"
    maps(layer()).save(path)
    before = path.read_bytes()

    def broken(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", broken)
    with pytest.raises(OSError, match="disk full"):
        maps(layer()).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    other = tmp_path / "other.npz"
    np.savez(other, numbers=np.ones(3))
    text = tmp_path / "text.npz"
    text.write_text("hello")
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, **{"header.json": np.array([{"format": 1}], dtype=object)}, allow_pickle=True)
    for path in (other, text, pickled):
        with pytest.raises(ValueError, match="is not a file of attention maps"):
            AttentionMaps.load(path)
    with pytest.raises(FileNotFoundError):
        AttentionMaps.load(tmp_path / "absent.npz")


def test_a_file_of_a_later_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "maps.npz"
    with monkeypatch.context() as patch:
        patch.setattr("hf_nlpnotes.attention.maps.FORMAT", 2)
        maps(layer()).save(path)
    with pytest.raises(ValueError, match="expected format 1 or older"):
        AttentionMaps.load(path)


def test_tokens_are_checked_and_kept() -> None:
    tokens = TokenSequence(
        ("国",), ("[CLS]", "国"), ("[CLS]", "国"), (None, 0), (None, (0, 1)), (None, 0), (None, "guó")
    )
    assert TokenSequence.from_dict(tokens.to_dict()) == tokens
    assert tokens.of_segment(None) == (0,)
    assert not tokens.is_pair
    with pytest.raises(ValueError, match="pinyin has 1 entries, expected one a token: 2"):
        TokenSequence(("国",), ("a", "b"), ("a", "b"), (0, 0), (None, None), (None, None), (None,))
