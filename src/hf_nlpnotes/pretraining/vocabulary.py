"""A WordPiece vocabulary for Chinese: Han characters by frequency, subwords for everything else.

BERT's pre-tokenizer isolates every Han character, so merging algorithms have nothing to learn on them: the Han part
of a Chinese BERT vocabulary is a frequency list. Only runs of other letters and digits (``python``, ``2023``) are
worth subwords, learned here with WordPiece (Schuster & Nakajima 2012) as `tokenizers` implements it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LETTER_RUN = re.compile(r"[a-z0-9]+")


def is_han(character: str) -> bool:
    """Whether BERT treats `character` as a Chinese one (the main CJK blocks), that is, as a token of its own."""
    code = ord(character)
    return (
        0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x2EBEF
    )


def build_vocabulary(
    texts: Iterable[str], size: int = 8000, *, min_han_count: int = 5, min_symbol_count: int = 20
) -> list[str]:
    """Build a vocabulary for BERT's WordPiece tokenizer (lower-cased, accents stripped) from texts.

    Order: special tokens, ASCII characters, other symbols and Han characters by falling frequency (ties by code
    point), then continuation pieces and subwords. The result depends on the texts' content, not on their order.

    Args:
        texts: lines of text; read once.
        size: number of tokens wanted. What the characters leave over goes to subwords of letters and digits.
        min_han_count: Han characters that are rarer become ``[UNK]``.
        min_symbol_count: the same for characters that are neither Han nor ASCII.

    Raises:
        ValueError: the texts hold no Han character, or the characters alone need more than `size` tokens.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    characters: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    for text in texts:
        normalized = normalizer.normalize_str(text)
        characters.update(normalized)
        runs.update(_LETTER_RUN.findall(normalized))
    by_frequency = sorted(characters, key=lambda c: (-characters[c], c))
    han = [c for c in by_frequency if is_han(c) and characters[c] >= min_han_count]
    if not han:
        raise ValueError(
            f"the texts hold no Han character that stands {min_han_count} times or more: expected Chinese text in "
            "UTF-8; check the files, or lower min_han_count"
        )
    ascii_characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    symbols = [
        c
        for c in by_frequency
        if not is_han(c) and not c.isascii() and not c.isspace() and characters[c] >= min_symbol_count
    ]
    base = [*SPECIAL_TOKENS, *ascii_characters, *symbols, *han]
    base += [f"##{c}" for c in ascii_characters if c.isalnum()]
    if len(base) > size:
        raise ValueError(
            f"size={size} is too small: special tokens and characters alone need {len(base)}; raise size or "
            "min_han_count"
        )
    known = set(base)
    pieces = (piece for piece in _subwords(runs, size) if piece not in known)
    return base + [piece for piece, _ in zip(pieces, range(size - len(base)), strict=False)]


def _subwords(runs: Counter[str], size: int) -> list[str]:
    """WordPiece tokens of runs of letters and digits, in the order in which they were learned."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(vocab_size=size, min_frequency=5, show_progress=False)
    # Capped: the ranking of the most frequent runs matters little, and they all get a piece.
    repeated = (" ".join([run] * min(count, 2000)) for run, count in sorted(runs.items()))
    tokenizer.train_from_iterator(repeated, trainer)
    learned: dict[str, int] = tokenizer.get_vocab()
    return sorted(learned, key=learned.__getitem__)
