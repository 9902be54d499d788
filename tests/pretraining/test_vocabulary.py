"""The vocabulary: what is in it, in which order, and that BERT's tokenizer reads texts back with it."""

import pytest
from tokenizers import BertWordPieceTokenizer

from hf_nlpnotes.pretraining.vocabulary import SPECIAL_TOKENS, build_vocabulary

TEXTS = ["我喜欢猫，我也喜欢 Python 3。"] * 10 + ["他说：python 和 pythonic 不同！"] * 10 + ["罕"]


def test_order_and_thresholds():
    vocabulary = build_vocabulary(TEXTS, 200, min_han_count=10, min_symbol_count=10)
    assert tuple(vocabulary[:5]) == SPECIAL_TOKENS
    assert len(set(vocabulary)) == len(vocabulary) <= 200
    assert "罕" not in vocabulary
    assert {"，", "。", "：", "！"} <= set(vocabulary)
    # 我, 喜 and 欢 stand twenty times, all others ten.
    han = [token for token in vocabulary if "\u4e00" <= token <= "\u9fff"]
    assert set(han[:3]) == {"我", "喜", "欢"}
    assert han[3:] == sorted(han[3:])


def test_words_become_pieces_and_nothing_is_unknown(tmp_path):
    vocabulary = build_vocabulary(TEXTS, 200)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"), lowercase=True)
    tokens = tokenizer.encode("我也喜欢PYTHON zx9", add_special_tokens=False).tokens
    assert tokens == ["我", "也", "喜", "欢", "python", "z", "##x", "##9"]


def test_independent_of_the_order_of_texts():
    assert build_vocabulary(TEXTS, 120) == build_vocabulary(reversed(TEXTS), 120)


def test_the_same_each_time():
    """Many pieces are equally frequent here; a hash table's order would show within a few calls."""
    texts = [f"第{number}次 v{number * 7}.{number}x" for number in range(3000)]
    first = build_vocabulary(texts, 400)
    assert len(first) == 400
    assert all(build_vocabulary(texts, 400) == first for _ in range(4))


@pytest.mark.parametrize(("texts", "size", "message"), [(["abc"] * 9, 200, "no Han"), (TEXTS, 50, "size=50")])
def test_errors(texts, size, message):
    with pytest.raises(ValueError, match=message):
        build_vocabulary(texts, size)
