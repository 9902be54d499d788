"""A WordPiece vocabulary for Chinese: Han characters by frequency, subwords for everything else.

BERT's pre-tokenizer isolates every Han character, so merging algorithms have nothing to learn on them: the Han part
of a Chinese BERT vocabulary is a frequency list. Only runs of other letters and digits (``python``, ``2023``) are
worth subwords, learned here by byte-pair merges (Sennrich et al. 2016) as `tokenizers` implements them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

_MIN_PIECE_COUNT = 5
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
    """WordPiece tokens of runs of letters and digits, by how often they are used.

    Byte-pair merges are learned, the runs are cut by them, and each piece counts at the begin of a run or, with
    ``##``, inside. The library's WordPiece trainer would do it at once, but it numbers continuing pieces in the order
    of a hash table, so that two processes with the same text come to different vocabularies.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=_MIN_PIECE_COUNT, show_progress=False)
    by_name = sorted(runs)
    # Capped: the ranking of the most frequent runs matters little, and they all get a piece.
    tokenizer.train_from_iterator((" ".join([run] * min(runs[run], 2000)) for run in by_name), trainer)
    counts: Counter[str] = Counter()
    for run, encoding in zip(by_name, tokenizer.encode_batch(by_name), strict=True):
        for position, piece in enumerate(encoding.tokens):
            counts[f"##{piece}" if position else piece] += runs[run]
    frequent = (piece for piece, count in counts.items() if count >= _MIN_PIECE_COUNT)
    return sorted(frequent, key=lambda piece: (-counts[piece], piece))
