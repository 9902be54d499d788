"""Words and sentences of lower-case English; what is expected is what NLTK 3.10 gives, odd cuts included."""

import pytest

from hf_nlpnotes.question_answering.english_words import words
from hf_nlpnotes.question_answering.sentence_ends import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nba", "nba"),
        ("cannot", "can not"),
        ("i'm gonna go, it's done", "i 'm gon na go , it 's done"),
        ("they don't", "they do n't"),
        ("'tis the dogs' home", "' tis the dogs ' home"),
        ('"a" said "b"', "`` a '' said `` b ''"),
        ("f(x) = <y>", "f ( x ) = < y >"),
        ("$3,000.50 & 5%", "$ 3,000.50 & 5 %"),
        ("yes!?", "yes ! ?"),
        ("wait...", "wait ..."),
        ("v2.0", "v2.0"),
        ("the end.", "the end ."),
        ("the u.s. dollar", "the u.s. dollar"),
        ("the u.s.", "the u.s ."),
        ("we left. they stayed.", "we left . they stayed ."),
        ("no. 5. of all", "no . 5. of all"),
        (" \t", ""),
    ],
)
def test_words(text, expected):
    assert words(text) == expected.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one. two? three! four", ["one.", "two?", "three!", "four"]),
        ('he said "one." then left', ['he said "one."', "then left"]),
        ("dr. who met mr. x", ["dr. who met mr. x"]),
        ("j. smith", ["j. smith"]),
        ("the anti-u.s. mood", ["the anti-u.s. mood"]),
        ("in 1950. administrators came", ["in 1950.", "administrators came"]),
        ("in 1950. people came", ["in 1950. people came"]),
        ("so . . . it goes", ["so .", ".", ".", "it goes"]),
        ("version 1.5 is out", ["version 1.5 is out"]),
        ("blank  ", ["blank"]),
        ("  ", []),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected
