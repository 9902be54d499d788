"""Schemes against enumeration: all short tag sequences, all flat span sets."""

from itertools import pairwise, product

import numpy as np
import pytest
from seqeval.scheme import BILOU, IOB2, IOBES, IOE2, Tokens

from hf_nlpnotes.tagging import (
    SCHEMES,
    Span,
    allowed_transitions,
    convert_tags,
    detect_scheme,
    detect_scheme_in,
    find_violations,
    get_scheme,
    is_legal,
    repair_tags,
    scheme_labels,
    spans_to_tags,
    tags_to_spans,
    validate_tags,
)

PREFIXED = [name for name, scheme in SCHEMES.items() if scheme.prefixed]
TYPES = ("A", "B")


def flat_span_sets(length, begin=0):
    """Every set of flat spans of two types in a sentence."""
    if begin == length:
        yield []
        return
    for rest in flat_span_sets(length, begin + 1):
        yield rest
    for end in range(begin + 1, length + 1):
        for rest in flat_span_sets(length, end):
            for name in TYPES:
                yield [Span(name, begin, end), *rest]


SETS = [
    spans for length in (1, 2, 3, 4) for spans in map(tuple, flat_span_sets(length)) for spans in [(length, spans)]
]


class TestWritingAndReading:
    @pytest.mark.parametrize("scheme", PREFIXED)
    def test_every_set_of_spans_comes_back(self, scheme):
        for length, spans in SETS:
            tags = spans_to_tags(spans, length, scheme)
            for illegal in ("error", "repair", "drop"):
                assert tags_to_spans(tags, scheme, illegal=illegal) == list(spans), tags

    @pytest.mark.parametrize("scheme", PREFIXED)
    def test_the_legal_sequences_are_those_that_some_spans_write(self, scheme):
        written = {tuple(spans_to_tags(spans, length, scheme)) for length, spans in SETS}
        labels = scheme_labels(TYPES, scheme)
        legal = {tags for length in (1, 2, 3, 4) for tags in product(labels, repeat=length) if is_legal(tags, scheme)}
        # IOE1 and IOB1 have no tag for a beginning that is not needed, so both sides are one and the same.
        assert legal == written

    @pytest.mark.parametrize(("scheme", "peer"), [("IOB2", IOB2), ("IOE2", IOE2), ("BIOES", IOBES), ("BILOU", BILOU)])
    def test_dropping_reads_what_seqeval_reads_strictly(self, scheme, peer):
        for tags in product(scheme_labels(TYPES, scheme), repeat=3):
            expected = [(entity.tag, entity.start, entity.end) for entity in Tokens(list(tags), peer).entities]
            assert tags_to_spans(tags, scheme, illegal="drop") == expected, tags

    @pytest.mark.parametrize("scheme", PREFIXED)
    def test_repair_gives_legal_tags_and_leaves_legal_ones_alone(self, scheme):
        for tags in product(scheme_labels(TYPES, scheme), repeat=3):
            repaired = repair_tags(tags, scheme)
            assert is_legal(repaired, scheme)
            assert tags_to_spans(repaired, scheme) == tags_to_spans(tags, scheme, illegal="repair")
            if is_legal(tags, scheme):
                assert repaired == list(tags)

    def test_bare_prefixes_have_no_type(self):
        assert tags_to_spans(["B", "E", "S"], "BMES") == [("", 0, 2), ("", 2, 3)]
        assert convert_tags(["B", "M", "E", "S"], "BMES", "BIO") == ["B", "I", "I", "B"]

    @pytest.mark.parametrize("scheme", PREFIXED)
    def test_untyped_spans_come_back_too(self, scheme):
        """The type of O is the empty string as well, and yet it is no span's neighbour."""
        for length, spans in SETS:
            untyped = [Span("", span.start, span.end) for span in spans]
            tags = spans_to_tags(untyped, length, scheme)
            for illegal in ("error", "repair", "drop"):
                assert tags_to_spans(tags, scheme, illegal=illegal) == untyped, tags

    def test_single_tags_are_a_span_each(self):
        assert tags_to_spans(["NN", "VV", "O"], "POS") == [("NN", 0, 1), ("VV", 1, 2)]
        assert spans_to_tags([("NN", 0, 1)], 2, "POS") == ["NN", "O"]
        with pytest.raises(ValueError, match="several tokens"):
            spans_to_tags([("NN", 0, 2)], 2, "POS")


class TestTransitions:
    @pytest.mark.parametrize("scheme", [*PREFIXED, "SINGLE"])
    def test_paths_along_them_are_the_legal_sequences(self, scheme):
        labels = scheme_labels(TYPES, scheme)
        allowed = allowed_transitions(labels, scheme)
        for ids in product(range(len(labels)), repeat=3):
            path = allowed.start[ids[0]] and allowed.end[ids[-1]]
            path = path and all(allowed.transitions[a, b] for a, b in pairwise(ids))
            assert bool(path) == is_legal([labels[i] for i in ids], scheme)

    def test_the_arrays_are_boolean_and_in_the_order_of_the_labels(self):
        allowed = allowed_transitions(["I-A", "O", "B-A"])
        assert allowed.transitions.dtype == np.bool_
        assert allowed.transitions.tolist() == [[True, True, True], [False, True, True], [True, True, True]]
        assert allowed.start.tolist() == [False, True, True]
        assert allowed.end.tolist() == [True, True, True]

    def test_a_set_without_outside_is_refused_where_it_is_needed(self):
        with pytest.raises(ValueError, match=r"no 'O' among the 2 labels .* require_outside=False"):
            allowed_transitions(["B-A", "I-A"])
        with pytest.raises(ValueError, match="no 'O'"):
            allowed_transitions(["B", "M", "E", "S"], "BMESO")
        assert allowed_transitions(["B", "I"], require_outside=False).start.tolist() == [True, False]
        assert allowed_transitions(["B", "M", "E", "S"], "BMES").end.tolist() == [False, False, True, True]

    @pytest.mark.parametrize(
        ("labels", "scheme", "message"),
        [
            (["O", "B-A", "E-A"], "IOB2", "tag 'E-A' is not a tag of IOB2"),
            (["O", "I-A"], "IOB2", "no legal sentence can begin with what must stand before I-A"),
            (["O", "B-A", "I-A"], "BIOES", "no legal sentence can end with what must stand after B-A, I-A"),
            (["O", "O"], "IOB2", "labels given twice: O"),
            ([], "IOB2", "labels is empty"),
        ],
    )
    def test_labels_that_do_not_fit_are_refused(self, labels, scheme, message):
        with pytest.raises(ValueError, match=message):
            allowed_transitions(labels, scheme)


class TestDetection:
    @pytest.mark.parametrize("scheme", PREFIXED)
    def test_a_full_label_set_names_its_scheme(self, scheme):
        alike = {"IOB1": "IOB2", "IOE1": "IOE2", "BMESO": "BMES"}
        assert detect_scheme(scheme_labels(TYPES, scheme)) == alike.get(scheme, scheme)

    @pytest.mark.parametrize("scheme", ["IOB1", "IOE1", "IOB2", "IOE2", "BIOES", "BILOU", "BMES"])
    def test_sentences_tell_the_rest(self, scheme):
        spans = [Span("A", 0, 2), Span("A", 2, 3), Span("B", 4, 7)]
        assert detect_scheme_in([spans_to_tags(spans, 8, scheme), ["O"]]) == scheme

    def test_a_type_without_a_beginning_is_iob1(self):
        assert detect_scheme(["O", "B-A", "I-A", "I-B"]) == "IOB1"

    def test_labels_without_prefixes_are_single_tags(self):
        assert detect_scheme(["NN", "M", "P", "VV"]) == "SINGLE"
        assert detect_scheme(["B", "Ba", "I", "Is"]) == "SINGLE"  # a prefix ends at the hyphen

    def test_a_mixture_fits_nothing(self):
        with pytest.raises(ValueError, match="fit no tagging scheme: B-A, X-A"):
            detect_scheme(["B-A", "X-A"])
        with pytest.raises(ValueError, match="no label of a span"):
            detect_scheme(["O"])
        with pytest.raises(ValueError, match="sentence 1 breaks first: I-A cannot follow O, position 1"):
            detect_scheme_in([["B-A", "B-B"], ["O", "I-A", "B-B"]])


class TestBadInput:
    def test_illegal_tags_are_named_with_their_place(self):
        with pytest.raises(ValueError, match=r"not legal IOB2: I-A cannot follow O, position 1"):
            tags_to_spans(["O", "I-A"])
        with pytest.raises(ValueError, match=r"B-A cannot end a sentence, position 2"):
            validate_tags(["O", "B-A"], "BIOES")
        assert [violation.position for violation in find_violations(["I-A", "O", "I-B"])] == [0, 2]
        with pytest.raises(ValueError, match=r"position 1\. Pass"):
            validate_tags(["O", "I-A"])
        with pytest.raises(ValueError, match=r"position 0 \(2 places in all\)\. Pass"):
            validate_tags(["I-A", "O", "I-B"])

    @pytest.mark.parametrize(
        ("spans", "message"),
        [
            ([("A", 0, 3), ("B", 1, 2)], "nested in"),
            ([("A", 0, 3), ("B", 1, 3)], "nested in"),
            ([("A", 0, 2), ("B", 0, 3)], "nested in"),
            ([("A", 0, 2), ("B", 1, 3)], "overlapping"),
            ([("A", 1, 1)], "does not lie in a sentence of 4 tokens"),
            ([("A", 2, 5)], "does not lie in a sentence of 4 tokens"),
        ],
    )
    def test_spans_that_are_not_flat_or_not_inside_are_refused(self, spans, message):
        with pytest.raises(ValueError, match=message):
            spans_to_tags(spans, 4)

    def test_empty_sentences_unknown_tags_and_schemes_are_refused(self):
        with pytest.raises(ValueError, match="sentence is empty"):
            tags_to_spans([])
        with pytest.raises(ValueError, match="at least one token"):
            spans_to_tags([], 0)
        with pytest.raises(ValueError, match="tag 'Q-A' is not a tag of IOB2"):
            tags_to_spans(["Q-A"])
        with pytest.raises(ValueError, match="tag 'BA' is not a tag of IOB2"):
            tags_to_spans(["BA"])
        with pytest.raises(ValueError, match="no tagging scheme 'BOI'"):
            get_scheme("BOI")
        with pytest.raises(ValueError, match="illegal must be"):
            tags_to_spans(["O"], illegal="ignore")

    def test_one_sentence_at_a_time(self):
        with pytest.raises(TypeError, match="got list"):
            tags_to_spans([["O", "B-A"]])
        with pytest.raises(TypeError, match="got tuple"):
            tags_to_spans([("O", "B-A")])
        with pytest.raises(TypeError, match="got int: 7"):
            tags_to_spans([7], "POS")
        with pytest.raises(TypeError, match="got one string"):
            tags_to_spans("O")
        with pytest.raises(TypeError, match="must be a name or a Scheme"):
            get_scheme(None)
