"""Static plots: what is drawn where, and that every label has a glyph."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from hf_nlpnotes.attention import (
    AttentionMaps,
    LayerAttention,
    TokenSequence,
    attention_rollout,
    plot_head,
    plot_heads,
    plot_rollout,
)
from hf_nlpnotes.attention.fonts import NoFontError, families_for

WEIGHTS = np.random.default_rng(0).dirichlet(np.full(4, 0.5), size=(2, 3, 4)).astype(np.float32)


def maps_of(tokens: tuple[str, ...] = ("[CLS]", "a", "$b$", "c"), weights: np.ndarray = WEIGHTS) -> AttentionMaps:
    nothing = (None,) * 4
    sequence = TokenSequence(("a", "bc"), tokens, tokens, (None, 0, 1, 1), nothing, nothing, nothing)
    layers = tuple(LayerAttention(f"l{i}", "encoder", layer) for i, layer in enumerate(weights))
    return AttentionMaps("M", "m", layers, sequence)


def image(figure: matplotlib.figure.Figure, place: int = 0) -> np.ndarray:
    return np.asarray(figure.axes[place].images[0].get_array())


@pytest.fixture(scope="module")
def han_font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A font with the characters 国 and 足 alone, as squares."""
    path = tmp_path_factory.mktemp("fonts") / "two.ttf"
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    names = [".notdef", "guo", "zu"]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord("国"): "guo", ord("足"): "zu"})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Two Characters", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200)
    builder.setupPost()
    builder.save(path)
    return path


def test_one_head_with_its_tokens(tmp_path: Path) -> None:
    figure = plot_head(maps_of(), layer=-1, head=2)
    axes = figure.axes[0]
    np.testing.assert_array_equal(image(figure), WEIGHTS[1, 2])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["[CLS]", "a", r"\$b\$", "c"]
    assert axes.get_title() == "layer 1 head 2"
    assert [line.get_xdata()[0] for line in axes.lines if line.get_xdata()[0] > 1] == [1.5]  # type: ignore[index]  # the second text begins
    figure.savefig(tmp_path / "head.svg")
    assert (tmp_path / "head.svg").stat().st_size > 1000


def test_all_heads_in_their_places() -> None:
    figure = plot_heads(maps_of())
    assert len(figure.axes) == 6
    for place in range(6):
        np.testing.assert_array_equal(image(figure, place), WEIGHTS[place // 3, place % 3])
    assert len(plot_heads(maps_of(), [1]).axes) == 3


def test_layers_with_fewer_heads_leave_places_empty() -> None:
    maps = maps_of()
    fewer = LayerAttention("l1", "encoder", WEIGHTS[1, :1])
    figure = plot_heads(AttentionMaps("M", "m", (maps[0], fewer), maps.tokens))
    assert [bool(axes.images) for axes in figure.axes] == [True, True, True, True, False, False]


def test_rollout() -> None:
    np.testing.assert_allclose(image(plot_rollout(maps_of())), attention_rollout(maps_of())[-1])
    np.testing.assert_allclose(image(plot_rollout(maps_of(), 0)), attention_rollout(maps_of())[0])


def test_a_font_with_the_characters_is_used(han_font: Path, tmp_path: Path) -> None:
    """Warnings are errors here: matplotlib warns of every glyph that it lacks."""
    figure = plot_head(maps_of(("[CLS]", "国", "足", "a")), 0, 0, font=han_font)
    label = figure.axes[0].get_yticklabels()[1]
    assert label.get_fontfamily() == ["DejaVu Sans", "Two Characters"]
    figure.savefig(tmp_path / "head.png")


def test_a_font_without_them_is_refused(han_font: Path) -> None:
    with pytest.raises(NoFontError, match=r"no font has 队: .*two\.ttf lacks some of them"):
        families_for(["国足队"], han_font)
    with pytest.raises(FileNotFoundError, match="is not a file"):
        families_for(["国"], "absent.ttf")


def test_without_any_font_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_nlpnotes.attention.fonts._installed", list)
    assert families_for(["plain"]) == ["DejaVu Sans"]
    with pytest.raises(NoFontError, match="no font has 国 足: install one with Chinese"):
        families_for(["足国"])


def test_layers_and_heads_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="layer 2: there are 2, 0 to 1"):
        plot_head(maps_of(), 2, 0)
    with pytest.raises(ValueError, match="head 3: there are 3, 0 to 2"):
        plot_head(maps_of(), 0, 3)
    with pytest.raises(ValueError, match="layers are empty"):
        plot_heads(maps_of(), [])
