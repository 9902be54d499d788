"""Tags and spans: what is written is read back, and any tags are read or refused."""

import pytest
from hardening_inputs import refused, strange_text
from hypothesis import given
from hypothesis import strategies as st

from hf_nlpnotes.tagging import (
    classification_report,
    detect_scheme_in,
    is_legal,
    repair_tags,
    spans_to_tags,
    tags_to_spans,
    words_to_tags,
)
from hf_nlpnotes.tagging.schemes import SCHEMES, convert_tags

ANY_LENGTH = [name for name, scheme in SCHEMES.items() if scheme.prefixed]
types = strange_text.filter(lambda name: name != "O")


@st.composite
def sentences(draw):
    """Flat spans and the length of their sentence."""
    spans, place = [], 0
    for _ in range(draw(st.integers(0, 5))):
        start = place + draw(st.integers(0, 2))
        place = start + draw(st.integers(1, 4))
        spans.append((draw(types), start, place))
    return spans, place + draw(st.integers(0 if spans else 1, 2))


@pytest.mark.parametrize("scheme", ANY_LENGTH)
@given(sentence=sentences())
def test_spans_are_read_back_from_their_tags(scheme, sentence):
    spans, length = sentence
    tags = spans_to_tags(spans, length, scheme)
    assert len(tags) == length
    assert is_legal(tags, scheme)
    for illegal in ("error", "repair", "drop"):
        assert [tuple(span) for span in tags_to_spans(tags, scheme, illegal=illegal)] == spans


@given(sentence=sentences(), route=st.lists(st.sampled_from(ANY_LENGTH), min_size=2, max_size=5))
def test_tags_come_back_from_any_chain_of_schemes(sentence, route):
    spans, length = sentence
    tags = first = spans_to_tags(spans, length, route[0])
    for source, target in zip(route, [*route[1:], route[0]], strict=True):
        tags = convert_tags(tags, source, target)
    assert tags == first


any_tags = st.lists(st.sampled_from(["O", "B", "I-x", "B-x", "E-y", "S-y", "M", "L-", "U-x", "-", ""]) | strange_text)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(tags=any_tags)
def test_any_tags_are_read_or_refused(scheme, tags):
    for illegal in ("error", "repair", "drop"):
        spans = refused(lambda how=illegal: tags_to_spans(tags, scheme, illegal=how))
        for span in spans or ():
            assert 0 <= span.start < span.end <= len(tags)
    repaired = refused(repair_tags, tags, scheme)
    if repaired is not None:
        assert is_legal(repaired, scheme)
        assert repaired == repair_tags(repaired, scheme)


@pytest.mark.filterwarnings("ignore:not tags of a span:UserWarning")  # said of letters that the default does not know
@given(true=st.lists(any_tags, max_size=3), found=st.lists(any_tags, max_size=3))
def test_any_tags_are_scored_or_refused(true, found):
    for mode in (None, "strict"):
        refused(lambda how=mode: classification_report(true, found, mode=how, scheme="IOB2" if how else None))
    refused(detect_scheme_in, true)


@given(words=st.lists(strange_text.filter(lambda word: word and not word.isspace()), min_size=1))
def test_words_are_cut_where_they_were_joined(words):
    tags = words_to_tags(words)
    text = "".join(words)
    assert [text[start:end] for _, start, end in tags_to_spans(tags, "BMES")] == words
