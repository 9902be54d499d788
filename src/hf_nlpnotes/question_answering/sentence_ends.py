"""Where sentences end in lower-case English: Punkt (Kiss and Strunk 2006, Computational Linguistics 32), no model.

NLTK's Punkt decides by three tables learned from newspaper text: abbreviations, collocations, and in which spellings
each of 20,000 words was seen. The CMRC 2018 scorer lower-cases its text first, and then nearly all of that is idle: no
word is capitalised, so that no abbreviation ends a sentence, and a word in lower case begins none after an initial or
a number, whatever the tables say about it, save four. What is left is the list of abbreviations.

`sentences` agrees with `nltk.sent_tokenize` on lower-case text; on other text it does not.
"""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterator

# The abbreviations of NLTK's English model (Apache-2.0), without their last period.
_NAMED = """
    a.a a.c a.d a.g a.h a.m a.m.e a.s a.t adm ala ariz aug ave b.f b.v bros c c.i.t c.o.m.b c.v calif chg cie co
    col colo conn corp cos ct d d.c d.h d.w dec dr e e.f e.h e.l e.m f f.g f.j feb fla fri ft g g.d g.f g.k ga gen
    h h.c h.f h.m i.m.s ill inc j.b j.c j.j j.k j.p j.r jan jr k kan ky l l.a l.f l.p lt ltd m m.b.a m.d.c m.j maj
    messrs mg mich minn mr mrs ms n n.c n.d n.h n.j n.m n.v n.y nev nov oct ok okla ore p p.a.m p.m pa ph.d prof r
    r.a r.h r.i r.j r.k r.t rep reps s s.a s.a.y s.c s.g s.p.a s.s sen sep sept sr st sw t t.j tenn tues u.k u.n
    u.s u.s.a u.s.s.r v va vs vt w w.c w.r w.va w.w wash wed wis yr
"""
ABBREVIATIONS = frozenset(_NAMED.split()) | {". . "}  # the last is an ellipsis with blanks

# Words that the model saw begin sentences in lower case and never saw capitalised.
LOWER_CASE_STARTERS = frozenset({"administrators", "b-week", "r-revised", "z-holiday"})

# What ends a word beside white space: closing and opening marks, and the other two ends of a sentence.
_AFTER_WORD = r"""[)";}\]*:@'({\[‘’“”«»!?]"""
_SEVERAL = r"-{2,}|\.{2,}|(?:\.\s){2,}\."
_WORD = re.compile(
    rf"""{_SEVERAL}
    | (?=[^("`{{\[:;&#*@)}}\]\-,]) \S+? (?=\s | $ | {_AFTER_WORD} | {_SEVERAL} | ,(?=$|\s|{_AFTER_WORD}|{_SEVERAL}))
    | \S""",
    re.VERBOSE,
)
_CANDIDATE = re.compile(rf"[.?!](?=(?P<after>{_AFTER_WORD}|\s+(?P<next>\S+)))")
_CLOSING = re.compile(r"""["')\]}‘’“”«»]+?(?:\s+|(?=--)|$)""", re.MULTILINE)
_INITIAL = re.compile(r"[^\W\d]\.")
_NUMBER = re.compile(r"-?[.,]?\d[\d,.-]*\.?")


def sentences(text: str) -> list[str]:
    """Split lower-case text into sentences; closing quotes and brackets stay with the sentence that they close.

    Example:
        >>> sentences('he was born in the u.s. in 1950. "home" is no. 5. there')
        ['he was born in the u.s. in 1950.', '"home" is no.', '5. there']
    """
    if _CANDIDATE.search(text) is None:
        return [text.rstrip()] if text.strip() else []
    found = []
    skip = 0  # characters of the next sentence that the one before it has taken
    spans = list(_spans(text))
    for (start, end), following in zip(spans, [*spans[1:], None], strict=True):
        start += skip
        skip = 0
        closing = _CLOSING.match(text[slice(*following)]) if following else None
        if following and closing:
            end, skip = following[0] + len(closing.group().rstrip()), closing.end()
        if closing or text[start:end]:
            found.append(text[start:end])
    return found


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Sentences as half-open spans, before closing marks are handed back to the sentence that they close."""
    start = 0
    for candidate, context in _contexts(text):
        if _has_end(context):
            yield start, candidate.end()
            start = candidate.start("next") if candidate["next"] else candidate.end()
    yield start, len(text.rstrip())


def _contexts(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Each place where a sentence may end, with the word before it and what follows; the last of those in one word."""
    previous: re.Match[str] | None = None
    word = end = 0
    for candidate in _CANDIDATE.finditer(text):
        space = max(text.rfind(mark, end, candidate.start()) for mark in string.whitespace)
        # White space right at the border does not count: the reference takes index 0 for "none".
        start = space + 1 if space > end else word
        if previous and end <= start:
            yield previous, text[word : previous.end("after")]
        previous, word, end = candidate, start, candidate.start()
    if previous:
        yield previous, text[word : previous.end("after")]


def _has_end(context: str) -> bool:
    """Whether a sentence ends within the context, before its last word."""
    words = [word for line in context.split("\n") for word in _WORD.findall(line)]
    return any(_ends(word, following) for word, following in itertools.pairwise(words))


def _ends(word: str, following: str) -> bool:
    """Whether a sentence ends with a word that another follows."""
    if not _may_end(word):
        return False
    initial = _INITIAL.fullmatch(word) is not None
    if word.endswith(".") and (initial or _NUMBER.fullmatch(word)):
        if following in tuple(";:,.!?"):
            return False
        bare = following[:-1] if len(following) > 1 and following.endswith(".") and _may_end(following) else following
        if following[0].islower() and bare not in LOWER_CASE_STARTERS:
            return False
        # A few letters, such as 𝐀, are upper case and have no lower case: an initial before them is part of a name.
        return not (initial and following[0].isupper())
    return True


def _may_end(word: str) -> bool:
    """Whether a word by itself looks like the end of a sentence: it ends with a period and is no abbreviation."""
    if word in (".", "?", "!"):
        return True
    if not word.endswith(".") or word.endswith(".."):
        return False
    return word[:-1].rpartition("-")[2] not in ABBREVIATIONS
