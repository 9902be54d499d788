"""Words of the user, found and forced by hand-made examples and by what must hold for any."""

from __future__ import annotations

import pytest
import torch

from hf_nlpnotes.tagging import Span, TagDecoder, UserDictionary, force_spans, scheme_labels


def units(text):
    return [(place, place + 1) for place in range(len(text))]


def test_the_longest_word_from_the_left():
    words = UserDictionary(["北京", "北京大学", "大学生", "生"])
    assert words.find("北京大学生", units("北京大学生")) == [Span("", 0, 4), Span("", 4, 5)]
    assert words.find("在北京", [(0, 1), (1, 2), (2, 3)]) == [Span("", 1, 3)]
    # A word that ends inside of a unit is none.
    assert words.find("北京大学生", [(0, 1), (1, 3), (3, 5)]) == []


def test_neighbours_that_make_up_a_word():
    words = UserDictionary({"北京大学": "ORG", "北京": ""})
    parts = [Span("A", 0, 2), Span("B", 2, 4), Span("C", 4, 5)]
    assert words.combine("北京大学生", parts) == [Span("ORG", 0, 4), Span("C", 4, 5)]
    # With something between them they are not neighbours; a span that is the word by itself stays as it is.
    assert words.combine("北京", [Span("A", 0, 2)]) == [Span("A", 0, 2)]
    assert words.combine("北京 大学", [Span("A", 0, 2), Span("B", 3, 5)]) == [Span("A", 0, 2), Span("B", 3, 5)]


@pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "BIOES", "BMESO", "BILOU"])
def test_forced_spans_come_out_whatever_the_logits_say(scheme):
    labels = scheme_labels(["A", "B"], scheme)
    decoder = TagDecoder.of(labels, scheme)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        logits = torch.randn(8, len(labels), generator=generator) * 10
        forced = force_spans(logits, [Span("A", 2, 5), Span("B", 6, 7)], decoder)
        types, starts, ends = decoder.spans(decoder.decode(forced, [8]).numpy(), [8])
        found = set(zip([decoder.types[t] for t in types], starts.tolist(), ends.tolist(), strict=True))
        assert {("A", 2, 5), ("B", 6, 7)} <= found
        assert logits.isfinite().all()  # the given ones are left as they were


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("北京", TypeError, "list of words"),
        ([], ValueError, "no words"),
        ([""], ValueError, "empty word"),
        ([3], TypeError, "strings"),
        ({"北京": None}, TypeError, "strings"),
    ],
)
def test_bad_dictionaries(words, error, message):
    with pytest.raises(error, match=message):
        UserDictionary(words)


def test_a_type_that_the_labels_have_not():
    with pytest.raises(ValueError, match="'C' needs the tag 'B-C'"):
        force_spans(torch.zeros(2, 3), [Span("C", 0, 1)], TagDecoder.of(["O", "B-A", "I-A"]))
