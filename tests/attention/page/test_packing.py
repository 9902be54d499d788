"""What is packed is read back with a decoder that shares no code with the package."""

import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hf_nlpnotes.attention import LayerAttention
from hf_nlpnotes.attention.page.packing import ALPHABET, base85, pack_vectors, pack_weights

DIGITS = "#$%'()*+,-./0123456789:;=?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[]^_`abcdefghijklmnopqrstuvwxyz{"


def unpacked(entry: dict[str, Any]) -> bytes:
    data = bytearray()
    for at in range(0, len(entry["data"]), 5):
        number = 0
        for char in entry["data"][at : at + 5]:
            number = number * 85 + DIGITS.index(char)
        data += number.to_bytes(4, "big")
    return zlib.decompress(bytes(data[: entry["size"]]))


def read_weights(entry: dict[str, Any], heads: int, rows: int, columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    raw = np.frombuffer(unpacked(entry), dtype=np.uint8)
    shifts, ranks = raw[: 2 * heads * rows].reshape(2, heads, rows)
    codes = raw[2 * heads * rows :].reshape(heads, columns, rows).swapaxes(1, 2)
    return codes / (255.0 * 2.0 ** shifts[..., None]), ranks


def test_digits_need_no_escapes() -> None:
    assert ALPHABET.tobytes().decode() == DIGITS
    assert len(set(DIGITS)) == 85
    assert not set(DIGITS) & set('&<>"\\\n ')


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 4, bytes(range(256)) + b"\x07"])
def test_base_85(data: bytes) -> None:
    written = base85(zlib.compress(data))
    assert unpacked({"data": written, "size": len(zlib.compress(data))}) == data


@pytest.mark.parametrize("keys", [1, 15, 128, 129, 700])
def test_weights_are_off_by_half_a_step(keys: int) -> None:
    generator = np.random.default_rng(keys)
    scores = generator.standard_normal((3, 20, keys)) * np.array([0.1, 1.0, 9.0])[:, None, None]
    weights = (np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)).astype(np.float32)
    found, ranks = read_weights(pack_weights(LayerAttention("a", "cross", weights)), *weights.shape)
    assert np.abs(found - weights).max() <= 1 / 510 + 1e-7
    if keys > 128:
        # An even row would be nothing but zeros and ones in steps of 1/255.
        assert np.abs(found - weights)[0].max() <= 1 / 510 / 2
    for place in np.ndindex(ranks.shape):
        looks_alike = np.flatnonzero(found[place] == found[place].max())
        assert looks_alike[ranks[place]] == weights[place].argmax()


def test_vectors_and_their_products() -> None:
    generator = np.random.default_rng(0)
    query, key = generator.standard_normal((2, 3, 7, 9)).astype(np.float32)
    query[1, 2] = 0
    layer = LayerAttention("a", "encoder", generator.dirichlet(np.ones(7), size=(3, 7)), query, key, scaling=0.5)
    entry = pack_vectors(layer)
    raw = unpacked(entry)
    products, raw = np.frombuffer(raw[: 4 * 21], dtype="<f4"), raw[4 * 21 :]
    best = layer.weights.argmax(-1)
    expected = [[layer.products()[head, row, best[head, row]] for row in range(7)] for head in range(3)]
    assert np.allclose(products.reshape(3, 7), expected, atol=1e-6)
    scales = np.frombuffer(raw[: 4 * 42], dtype="<f4")
    high = np.frombuffer(raw[4 * 42 : 4 * 42 + 378], dtype=np.uint8)
    pairs = np.frombuffer(raw[4 * 42 + 378 :], dtype=np.uint8)
    low = [pairs[place // 4] >> 2 * (place % 4) & 3 for place in range(378)]
    codes = (high.astype(int) * 4 + low).reshape(42, 9)
    found = (codes - 512) / 511 * scales[:, None]
    expected = np.concatenate([query.reshape(-1, 9), key.reshape(-1, 9)])
    assert (np.abs(found - expected) <= np.abs(expected).max(-1, keepdims=True) / 1022 + 1e-6).all()
    assert (entry["dim"], entry["scaling"]) == (9, 0.5)


@pytest.mark.parametrize("wrong", [np.nan, -0.1, 1.1])
def test_weights_that_are_none(wrong: float) -> None:
    weights = np.full((1, 2, 2), 0.5)
    weights[0, 1, 1] = wrong
    with pytest.raises(ValueError, match="'odd' are not numbers from 0 to 1"):
        pack_weights(LayerAttention("odd", "encoder", weights))


def test_vectors_that_are_missing_or_infinite() -> None:
    weights, vectors = np.full((1, 2, 2), 0.5), np.full((1, 2, 3), np.inf)
    with pytest.raises(ValueError, match="'odd' are not here"):
        pack_vectors(LayerAttention("odd", "encoder", weights))
    with pytest.raises(ValueError, match="'odd' are not finite"):
        pack_vectors(LayerAttention("odd", "encoder", weights, vectors, vectors, scaling=1.0))
