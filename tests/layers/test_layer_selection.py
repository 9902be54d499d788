"""Selections of layers: their short form, their numbers, and what they make of hidden states."""

import numpy as np
import pytest
import torch

from hf_nlpnotes.layers.layer_selection import LayerSelection

WRITTEN = [
    ("embeddings", (0,), None, "embeddings"),
    ("top", (4,), None, "top"),
    ("layer:-1", (4,), None, "top"),
    ("layer:0", (0,), None, "embeddings"),
    ("layer:3", (3,), None, "layer:3"),
    ("layer:-2", (3,), None, "layer:-2"),
    ("last:2:mean", (3, 4), "mean", "last:2:mean"),
    ("last:1", (4,), None, "top"),
    ("last:5:max", (0, 1, 2, 3, 4), "max", "last:5:max"),
    ("layers:4,0:concat", (0, 4), "concat", "layers:4,0:concat"),
    ("layers:1,-1:mix", (1, 4), "mix", "layers:1,-1:mix"),
    ("all:mean", (0, 1, 2, 3, 4), "mean", "all:mean"),
    ("mix", (0, 1, 2, 3, 4), "mix", "mix"),
    ("all:mix", (0, 1, 2, 3, 4), "mix", "mix"),
    (" Last:3:Mix ", (2, 3, 4), "mix", "last:3:mix"),
]


@pytest.mark.parametrize(("written", "indices", "combine", "canonical"), WRITTEN)
def test_the_short_form(written: str, indices: tuple[int, ...], combine: str | None, canonical: str) -> None:
    selection = LayerSelection.parse(written)
    assert selection.indices(4) == indices
    assert selection.combine == combine
    assert str(selection) == canonical
    assert LayerSelection.parse(canonical) == selection
    assert LayerSelection.parse(selection) is selection


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("topp", "is no selection of layers: expected 'embeddings'"),
        ("", "no selection"),
        ("layer", "no selection"),
        ("layer:x", "no selection"),
        ("layer:1:mean:max", "no selection"),
        ("last:0:mean", "no selection"),
        ("last:-2:mean", "no selection"),
        ("mix:3", "no selection"),
        ("last:4", "say how they are combined"),
        ("layers:1,2", "say how they are combined"),
        ("last:4:sum", "one of mean, max, concat, mix, got 'sum'"),
        ("all:", "one of mean, max, concat, mix, got ''"),
        ("layers:1,1:mean", "twice"),
        ("layers:,:mean", "no selection"),
    ],
)
def test_what_cannot_be_read(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerSelection.parse(written)


def test_bad_selections() -> None:
    with pytest.raises(TypeError, match="string or a LayerSelection, got 3"):
        LayerSelection.parse(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"whole numbers, got 1\.5"):
        LayerSelection((1.5,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="No layer"):
        LayerSelection(())
    with pytest.raises(ValueError, match="All layers"):
        LayerSelection(None)
    with pytest.raises(ValueError, match="selects layer 5, and the encoder has 4"):
        LayerSelection.parse("layer:5").indices(4)
    with pytest.raises(ValueError, match="selects layer -6"):
        LayerSelection.parse("layer:-6").indices(4)
    with pytest.raises(ValueError, match="twice in an encoder of 4 layers"):
        LayerSelection.parse("layers:4,-1:mean").indices(4)


def test_the_width() -> None:
    assert LayerSelection.parse("last:3:concat").width(4) == 3
    assert LayerSelection.parse("all:concat").width(4) == 5
    assert LayerSelection.parse("mix").width(4) == LayerSelection.parse("top").width(4) == 1


def test_what_it_makes_of_hidden_states() -> None:
    states = tuple(torch.randn(2, 3, 4) for _ in range(5))
    arrays = np.stack([state.numpy() for state in states])
    for written, expected in {
        "embeddings": arrays[0],
        "layer:2": arrays[2],
        "top": arrays[4],
        "last:3:mean": arrays[2:].mean(axis=0),
        "all:max": arrays.max(axis=0),
        "layers:3,1:concat": np.concatenate([arrays[1], arrays[3]], axis=-1),
    }.items():
        found = LayerSelection.parse(written).select(states)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7, err_msg=written)
    with pytest.raises(ValueError, match="call a ScalarMix"):
        LayerSelection.parse("mix").select(states)
