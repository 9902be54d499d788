"""The stream holds the lines' tokens, words and readings; lines are held out and thinned out as they should be."""

import pytest
from tokenizers import BertWordPieceTokenizer

from hf_nlpnotes.pretraining.packing import (
    encode_lines,
    is_held_out,
    thin_out,
    word_starts,
)

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"我喜欢猫。", "py", "##thon"]


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=True)


def cut(text):
    """Segment 喜欢 and runs of letters as words, all else as single characters."""
    words = []
    for character in text:
        joins = words and (words[-1] + character == "喜欢" or (words[-1] + character).isascii())
        if joins:
            words[-1] += character
        else:
            words.append(character)
    return words


def test_stream(tokenizer):
    stream = encode_lines(["我喜欢Python", "罕猫。"], tokenizer, cut, read=lambda line: range(1, len(line) + 1))
    assert [TOKENS[i] for i in stream.input_ids] == [*"我喜欢", "py", "##thon", "[SEP]", "[UNK]", *"猫。", "[SEP]"]
    assert stream.continues_word.tolist() == [False, False, True, False, True, False, False, False, False, False]
    # Tokens of one character have its reading, an unknown one too; pieces of two and more have none.
    assert stream.pinyin_ids.tolist() == [1, 2, 3, 0, 0, 0, 1, 2, 3, 0]


def test_without_segmenter_only_pieces_continue(tokenizer):
    stream = encode_lines(["我喜欢Python"], tokenizer)
    assert stream.continues_word.tolist() == [False, False, False, False, True, False]
    assert stream.pinyin_ids is None
    assert len(encode_lines([], tokenizer)) == 0


def test_word_starts_refuses_lossy_segmenters():
    assert word_starts("我喜欢", cut).tolist() == [True, True, False]
    with pytest.raises(ValueError, match="cover 2 of 3"):
        word_starts("我喜欢", lambda text: [text[:2]])


def test_held_out_is_a_function_of_the_line():
    lines = [f"第{i}行" for i in range(20_000)]
    held = [line for line in lines if is_held_out(line)]
    # Binomial with p = 0.01: 200 ± 4 standard deviations.
    assert abs(len(held) - 200) < 4 * 14.1
    assert held == [line for line in reversed(lines) if is_held_out(line)][::-1]


def test_thin_out_keeps_blocks():
    lines = [str(i) for i in range(1000)]
    kept = thin_out(lines, 0.3, block=10)
    assert 150 < len(kept) < 450
    starts = [int(line) for line in kept[::10]]
    assert all(start % 10 == 0 for start in starts)
    assert thin_out(lines, 1.0) == lines
    with pytest.raises(ValueError, match="share=2"):
        thin_out(lines, 2)
