r"""Words of lower-case English as the Penn Treebank has them: what the CMRC 2018 scorer takes between Han characters.

The scorer calls `nltk.word_tokenize`, which needs NLTK and a downloaded model. `words` gives the same words without
either, for text in lower case and without the marks that the scorer has removed before (`-:_*^/\~`+=` and Chinese
punctuation). The rules are the Treebank's: quotes become `` or '', punctuation stands alone, `n't` and `'s` are words,
and a period stands alone only where it ends a sentence.
"""

from __future__ import annotations

import re

from .sentence_ends import sentences

# In the order in which they apply: what an earlier rule has set apart, a later one sees with blanks around it.
_RULES = [
    # Opening quotes.
    (r"[«‘„]", r" \g<0> "),
    (r'^"', " `` "),
    (r"([ (\[{<])(?:\"|'{2})", r"\1 `` "),
    (r"(?i)(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)", "' "),
    # Punctuation. A period counts at the end only, with the brackets and quotes that close it.
    (r"""([^.])(\.)([\])}>"'»”’ ]*)\s*$""", r"\1 \2 \3 "),
    (r",(\D)", r" , \1"),  # takes the next character with it, so that the second of two commas stays where it is
    (r",$", " , "),
    (r"\.{2,}", r" \g<0> "),
    (r"[;@#$%&‒-―?!]", r" \g<0> "),
    (r"([^'])' ", r"\1 ' "),
    (r"[\[\](){}<>]", r" \g<0> "),
    (r"^|$", " "),
    # Closing quotes.
    (r"»", " » "),
    (r"''|\"", " '' "),
    (r"\s+", " "),
    # Clitics and contractions.
    (r"(?i)([^' ])('[smd]|') ", r"\1 \2 "),
    (r"([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
    (r"(?i)\b(can)(not)\b", r" \1 \2 "),
    (r"(?i)\b(d)('ye)\b", r" \1 \2 "),
    (r"(?i)\b(gim|lem)(me)\b", r" \1 \2 "),
    (r"(?i)\b(gon)(na)\b", r" \1 \2 "),
    (r"(?i)\b(got)(ta)\b", r" \1 \2 "),
    (r"(?i)\b(more)('n)\b", r" \1 \2 "),
    (r"(?i)\b(wan)(na)(?=\s)", r" \1 \2 "),
    (r"(?i) ('t)(is)\b", r" \1 \2 "),
    (r"(?i) ('t)(was)\b", r" \1 \2 "),
]
_COMPILED = [(re.compile(pattern), replacement) for pattern, replacement in _RULES]
_CONTRACTED = frozenset({"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"})


def words(text: str) -> list[str]:
    r"""Split lower-case text into words and punctuation.

    Example:
        >>> words("it's \"3,000\" u.s. dollars (or 5 %), isn't it?")
        ['it', "'s", '``', '3,000', "''", 'u.s.', 'dollars', '(', 'or', '5', '%', ')', ',', 'is', "n't", 'it', '?']
    """
    if text.isascii() and text.isalnum() and text not in _CONTRACTED:
        return [text]
    found: list[str] = []
    for sentence in sentences(text):
        for pattern, replacement in _COMPILED:
            sentence = pattern.sub(replacement, sentence)
        found.extend(sentence.split())
    return found
