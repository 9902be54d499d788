"""Glyph tables: drawing against Pillow's own output and hand-built fonts, packing against bit arithmetic, files."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="drawing glyphs needs Pillow")
from PIL import Image, ImageDraw, ImageFont

from hf_nlpnotes.models.chinesebert.glyphs_chinesebert import (
    GlyphFont,
    binarize,
    glyph_coverage,
    is_drawable,
    load_glyphs,
    pack_bits,
    read_glyph_font,
    render_glyphs,
    save_glyphs,
    unpack_bits,
    vocabulary_digest,
)

SIZE = 24
EXAMPLE = Path(__file__).parents[3] / "examples" / "render_glyphs.py"


@pytest.fixture(scope="session")
def latin_font(tmp_path_factory):
    """Pillow's built-in font (Aileron), written to a file: Latin only, so every ideograph is missing."""
    font = ImageFont.load_default(SIZE)
    if not isinstance(font, ImageFont.FreeTypeFont):
        pytest.skip("this Pillow was built without FreeType")
    path = tmp_path_factory.mktemp("fonts") / "latin.ttf"
    path.write_bytes(font.font_bytes)
    return path


@pytest.fixture(scope="session")
def block_font(tmp_path_factory):
    """A font with two ideographs as known rectangles: 口 fills the em square's middle, 一 a bar; .notdef is a box."""
    fonttools = pytest.importorskip("fontTools.fontBuilder", reason="building a font needs fontTools")
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    def box(left, bottom, right, top):
        pen = TTGlyphPen(None)
        pen.moveTo((left, bottom))
        for point in ((left, top), (right, top), (right, bottom)):
            pen.lineTo(point)
        pen.closePath()
        return pen.glyph()

    builder = fonttools.FontBuilder(2400, isTTF=True)  # 100 units a pixel at 24 pixels
    glyphs = {".notdef": box(300, 0, 900, 1200), "mouth": box(400, 0, 2000, 1600), "one": box(200, 700, 2200, 900)}
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap({ord("口"): "mouth", ord("一"): "one"})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics({name: (2400, glyph.xMin) for name, glyph in glyphs.items()})
    builder.setupHorizontalHeader(ascent=2000, descent=-400)
    builder.setupNameTable(
        {
            "familyName": {"en": "Block", "zh-Hans": "方块"},
            "styleName": "Regular",
            "fullName": {"en": "Block Regular"},
            "licenseDescription": "Public domain.\nSecond line.",
        }
    )
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path_factory.mktemp("fonts") / "block.ttf"
    builder.save(path)
    return path


# -- which tokens get a picture ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["猫", "a", "。", "〇", "𠀀", "5", "é"])
def test_single_visible_characters_are_drawable(token):
    assert is_drawable(token)


@pytest.mark.parametrize("token", ["[PAD]", "[CLS]", "##a", "cat", "", " ", "\u3000", "\u200b", "\n", "\ufffe"])
def test_special_tokens_word_pieces_spaces_and_controls_are_not(token):
    assert not is_drawable(token)


# -- drawing ----------------------------------------------------------------------------------------------------------


def test_rows_follow_the_vocabulary_and_only_single_characters_have_ink(latin_font):
    tokens = ["[PAD]", "a", "##a", "cat", "", "b", " "]
    glyphs = render_glyphs(tokens, [latin_font, latin_font])
    assert glyphs.dtype == np.bool_
    assert glyphs.shape == (7, 2, SIZE, SIZE)
    assert glyphs.any(axis=(1, 2, 3)).tolist() == [False, True, False, False, False, True, False]
    assert (glyphs[:, 0] == glyphs[:, 1]).all()


def test_pixels_are_those_of_the_outline(block_font):
    glyphs = render_glyphs(["口", "一"], [block_font])[:, 0]
    # The box of both together, rows 4 to 20 once centred, is the box of 口: 16 x 16 pixels in the middle.
    mouth = np.zeros((SIZE, SIZE), dtype=bool)
    mouth[4:20, 4:20] = True
    one = np.zeros((SIZE, SIZE), dtype=bool)
    one[11:13, 2:22] = True  # keeps its place in the em square: 7 to 9 pixels above the baseline, which lies at 20
    np.testing.assert_array_equal(glyphs[0], mouth)
    np.testing.assert_array_equal(glyphs[1], one)


def test_ink_is_pillows_own_drawing_moved_into_the_cell(latin_font):
    font = ImageFont.truetype(str(latin_font), SIZE, layout_engine=ImageFont.Layout.BASIC)
    for char in "aAgjQ05%@":
        big = Image.new("L", (4 * SIZE, 4 * SIZE))
        ImageDraw.Draw(big).text((SIZE, 2 * SIZE), char, fill=255, font=font, anchor="ls")
        drawn = Image.fromarray(render_glyphs([char], [latin_font], antialias=True)[0, 0])
        np.testing.assert_array_equal(np.asarray(drawn.crop(drawn.getbbox())), np.asarray(big.crop(big.getbbox())))


def test_narrow_characters_are_centred(latin_font):
    drawn = render_glyphs(["i", "I", "o"], [latin_font])[:, 0]
    for picture in drawn:
        columns = picture.any(axis=0).nonzero()[0]
        assert abs(columns[0] - (SIZE - 1 - columns[-1])) <= 2


def test_without_antialias_is_the_threshold_of_with(latin_font):
    tokens = list("abc%")
    grey = render_glyphs(tokens, [latin_font], antialias=True)
    assert grey.dtype == np.uint8
    assert len(np.unique(grey)) > 2
    np.testing.assert_array_equal(render_glyphs(tokens, [latin_font]), grey >= 128)
    np.testing.assert_array_equal(binarize(grey, 1), grey > 0)


def test_size(latin_font):
    assert render_glyphs(["a"], [latin_font], size=12).shape == (1, 1, 12, 12)


# -- missing characters -----------------------------------------------------------------------------------------------


def test_a_missing_character_is_blank_not_tofu(latin_font, block_font):
    assert not render_glyphs(["猫"], [latin_font, block_font]).any()


def test_fallback_takes_the_first_font_that_has_it(latin_font, block_font):
    glyphs = render_glyphs(["口", "a"], [latin_font, block_font], missing="fallback")
    mouth = render_glyphs(["口"], [block_font])[0, 0]
    letter = render_glyphs(["a"], [latin_font])[0, 0]
    for layer in range(2):
        np.testing.assert_array_equal(glyphs[0, layer], mouth)
        np.testing.assert_array_equal(glyphs[1, layer], letter)


def test_error_names_font_and_character(latin_font, block_font):
    with pytest.raises(ValueError, match=r"Block Regular has no glyph for 'a' \(U\+0061\).*fallback"):
        render_glyphs(["a"], [latin_font, block_font], missing="error")


def test_coverage_against_the_fonts_own_character_map(latin_font, block_font):
    fonttools = pytest.importorskip("fontTools.ttLib")
    tokens = ["[PAD]", *map(chr, range(0x21, 0x7F)), *"ßéØŁ一口猫，。□■", "##口"]
    coverage = glyph_coverage(tokens, [latin_font, block_font])
    for font, lacking in zip((latin_font, block_font), coverage.missing, strict=True):
        mapped = fonttools.TTFont(font).getBestCmap()
        assert list(lacking) == [token for token in tokens if is_drawable(token) and ord(token) not in mapped]
    assert coverage.drawable == len(tokens) - 2
    assert coverage.fractions[1] == pytest.approx(2 / coverage.drawable)
    assert "猫" in coverage.missing_everywhere
    assert "口" not in coverage.missing_everywhere
    assert "Block Regular, lacks" in str(coverage)


# -- fonts ------------------------------------------------------------------------------------------------------------


def test_name_and_licence_are_the_fonts_own(block_font):
    assert read_glyph_font(block_font) == GlyphFont("Block Regular", "Public domain.", "block.ttf", 0)


def test_a_face_of_a_collection(tmp_path, block_font, latin_font):
    fonttools = pytest.importorskip("fontTools.ttLib")
    collection = fonttools.TTCollection()
    collection.fonts = [fonttools.TTFont(latin_font), fonttools.TTFont(block_font)]
    path = tmp_path / "both.ttc"
    collection.save(path)
    expected = render_glyphs(["口"], [block_font])
    np.testing.assert_array_equal(render_glyphs(["口"], [(path, 1)]), expected)
    np.testing.assert_array_equal(render_glyphs(["口"], [f"{path}#1"]), expected)
    assert not render_glyphs(["口"], [path]).any()
    assert read_glyph_font(f"{path}#1").name == "Block Regular"
    with pytest.raises(ValueError, match="face 2"):
        render_glyphs(["口"], [(path, 2)])


def test_errors_name_what_is_wrong(tmp_path, latin_font):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ttf"):
        render_glyphs(["a"], [tmp_path / "nowhere.ttf"])
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(latin_font.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"broken\.ttf .*cannot be read as a font"):
        render_glyphs(["a"], [broken])
    with pytest.raises(ValueError, match="non-empty list"):
        render_glyphs(["a"], [])
    with pytest.raises(ValueError, match="non-empty list"):
        render_glyphs(["a"], str(latin_font))
    with pytest.raises(ValueError, match="size"):
        render_glyphs(["a"], [latin_font], size=0)
    with pytest.raises(ValueError, match="missing must be"):
        render_glyphs(["a"], [latin_font], missing="tofu")


def test_without_pillow_the_error_says_what_to_install(monkeypatch, latin_font):
    original = builtins.__import__

    def without_pillow(name, *args, **kwargs):
        if name.partition(".")[0] == "PIL":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(ImportError, match=r"pip install .*hf-nlpnotes\[glyphs\]"):
        render_glyphs(["a"], [latin_font])


# -- packing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3, 24, 24), (1, 1, 3, 3), (4, 2, 5, 5), (0, 3, 24, 24)])
def test_unpack_is_the_exact_inverse(shape):
    glyphs = np.random.default_rng(0).random(shape) < 0.5
    packed = pack_bits(glyphs)
    assert packed.dtype == np.uint8
    assert packed.shape == (shape[0], -(-shape[1] * shape[2] ** 2 // 8))
    np.testing.assert_array_equal(unpack_bits(packed, shape[1], shape[2]), glyphs)


def test_first_pixel_is_the_highest_bit():
    glyphs = np.zeros((1, 1, 4, 4), dtype=bool)
    glyphs[0, 0, 0, 0] = glyphs[0, 0, 3, 3] = True
    assert pack_bits(glyphs).tolist() == [[0b1000_0000, 0b0000_0001]]


def test_pack_takes_zeros_and_ones_of_any_type_and_refuses_grey():
    glyphs = np.random.default_rng(1).integers(0, 2, (3, 1, 8, 8))
    np.testing.assert_array_equal(pack_bits(glyphs), pack_bits(glyphs.astype(bool)))
    with pytest.raises(ValueError, match=r"0 to 255.*binarize"):
        pack_bits(np.array([0, 255, 0, 0], dtype=np.uint8).reshape(1, 1, 2, 2))
    with pytest.raises(ValueError, match="shape"):
        pack_bits(np.zeros((3, 24, 24), dtype=bool))
    with pytest.raises(ValueError, match=r"\(vocab, 216\).*\(2, 215\)"):
        unpack_bits(np.zeros((2, 215), dtype=np.uint8), 3)


# -- files ------------------------------------------------------------------------------------------------------------

ORIGIN = (GlyphFont("One", "OFL-1.1", "one.ttf"), GlyphFont("两", "", "two.ttc", 3))


@pytest.fixture(params=["bits", "uint8"])
def table(request):
    pixels = np.random.default_rng(2).integers(0, 256, (6, 2, 5, 5)).astype(np.uint8)
    return binarize(pixels) if request.param == "bits" else pixels


def test_file_round_trip(tmp_path, table):
    tokens = list("一二三四五六")
    saved = save_glyphs(tmp_path / "glyphs.npz", table, tokens, ORIGIN)
    loaded = load_glyphs(tmp_path / "glyphs.npz", tokens)
    assert loaded.pixels.dtype == table.dtype
    np.testing.assert_array_equal(loaded.pixels, table)
    assert loaded.fonts == saved.fonts == ORIGIN
    assert loaded.vocabulary == vocabulary_digest(tokens)
    assert [path.name for path in tmp_path.iterdir()] == ["glyphs.npz"]


def test_same_table_same_bytes(tmp_path, table):
    for name in "ab":
        save_glyphs(tmp_path / name, table, list("一二三四五六"), ORIGIN)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_another_vocabulary_is_noticed(tmp_path, table):
    save_glyphs(tmp_path / "g.npz", table, list("一二三四五六"), ORIGIN)
    with pytest.raises(ValueError, match="another vocabulary"):
        load_glyphs(tmp_path / "g.npz", list("一二三四六五"))


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "g.npz"
    save_glyphs(path, np.ones((2, 1, 3, 3), dtype=bool), ["一", "二"], ORIGIN[:1])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"g\.npz is not a whole glyph file"):
            load_glyphs(path)


def test_a_flipped_byte_is_noticed_or_harmless(tmp_path, table):
    path = tmp_path / "g.npz"
    save_glyphs(path, table, list("一二三四五六"), ORIGIN)
    whole = bytearray(path.read_bytes())
    for position in range(len(whole)):
        damaged = whole.copy()
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):  # any other error fails the test
            # What loads in spite of it differs in a byte of the archive's bookkeeping that nobody reads.
            assert (load_glyphs(path).pixels == table).all()


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "g.npz"
    for content in (b"", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x03\x04nonsense"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a whole glyph file"):
            load_glyphs(path)
    np.savez(path, header=np.frombuffer(json.dumps({"format": "x"}).encode(), dtype=np.uint8), data=np.zeros(1))
    with pytest.raises(ValueError, match="format 'x'"):
        load_glyphs(path)
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="not a whole glyph file"):
        load_glyphs(path)
    with pytest.raises(FileNotFoundError):
        load_glyphs(tmp_path / "absent.npz")


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    path = tmp_path / "g.npz"
    path.write_bytes(b"old")
    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        save_glyphs(path, np.ones((1, 1, 3, 3), dtype=bool), ["一"], ORIGIN[:1])
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["g.npz"]


def test_save_checks_what_it_is_given(tmp_path, table):
    with pytest.raises(ValueError, match="6 rows and 2 layers, but 5 tokens and 2 fonts"):
        save_glyphs(tmp_path / "g.npz", table, list("一二三四五"), ORIGIN)
    with pytest.raises(TypeError, match="float"):
        save_glyphs(tmp_path / "g.npz", table.astype(np.float32), list("一二三四五六"), ORIGIN)
    assert not list(tmp_path.iterdir())


# -- where the tables go ----------------------------------------------------------------------------------------------


def test_a_model_keeps_the_bitmaps_as_packed_here(latin_font):
    import torch

    from hf_nlpnotes.models.chinesebert import ChineseBertConfig, ChineseBertModel

    tokens = ["[PAD]", "a", "b"]
    glyphs = render_glyphs(tokens, [latin_font, latin_font])
    config = ChineseBertConfig(
        vocab_size=3, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, glyph_fonts=2,
        glyph_storage="bits",
    )  # fmt: skip
    model = ChineseBertModel(config)
    model.set_glyphs(glyphs)
    table = model.embeddings.glyph_embeddings
    np.testing.assert_array_equal(table.embedding.weight.numpy(), pack_bits(glyphs))
    np.testing.assert_array_equal(table(torch.arange(3)).numpy(), glyphs.reshape(3, -1))


def test_example_renders_a_vocabulary(tmp_path, monkeypatch, capsys, latin_font, block_font):
    tokens = ["[PAD]", "a", "", "##b", "口", "猫", *"defghijklmnopqrstuvwxyz"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    arguments = ["--vocab", "vocab.txt", "--output", "glyphs.npz", "--sheet", "glyphs.png", "--columns", "10"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["render_glyphs.py", *arguments, "--fonts", str(latin_font), str(block_font)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    table = load_glyphs(tmp_path / "glyphs.npz", tokens)
    np.testing.assert_array_equal(table.pixels, render_glyphs(tokens, [latin_font, block_font], missing="fallback"))
    assert [font.file for font in table.fonts] == ["latin.ttf", "block.ttf"]
    printed = capsys.readouterr().out
    assert "26 characters" in printed
    assert "(29, 2, 24, 24) -> glyphs.npz" in printed
    with Image.open(tmp_path / "glyphs.png") as sheet:
        assert sheet.size == (2 * 10 * 26, 2 * 3 * 2 * 26)  # 26 characters in rows of 10, two fonts
        assert len(sheet.getcolors()) == 3
