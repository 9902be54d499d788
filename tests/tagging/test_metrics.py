"""Span scores against seqeval itself, on drawn tags of every kind."""

import random

import numpy as np
import pytest
import seqeval.scheme
from seqeval.metrics import accuracy_score as their_accuracy
from seqeval.metrics import classification_report as their_report
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as their_scores

from hf_nlpnotes.tagging import accuracy_score, classification_report, count_spans, precision_recall_f1, span_scores
from hf_nlpnotes.tagging.chunks import default_reading, detect_strict_scheme
from hf_nlpnotes.tagging.tag_codes import encode_tags

# The peer warns of what it divides by nothing and of tags that it does not know; ours of the latter.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ill-defined"),
    pytest.mark.filterwarnings("ignore:.*seems not to be NE tag"),
    pytest.mark.filterwarnings("ignore:not tags of a span"),
    pytest.mark.filterwarnings("ignore:Mean of empty slice"),
    pytest.mark.filterwarnings("ignore:invalid value encountered"),
]

FEW, MANY = ("PER", "LOC"), tuple(f"T{number}" for number in range(12))
HUGE = tuple(f"T{number}" for number in range(300))


def draw(prefixes, types, seed, sentences=60, bare=()):
    """Two corpora of the same lengths, empty sentences among them, that agree in most places."""
    rng = random.Random(seed)
    labels = ["O", *(f"{prefix}-{name}" for name in types for prefix in prefixes), *bare]
    true = [[rng.choice(labels) for _ in range(rng.randrange(12))] for _ in range(sentences)]
    pred = [[tag if rng.random() < 0.7 else rng.choice(labels) for tag in sentence] for sentence in true]
    return labels, true, pred


class TestAgainstSeqeval:
    @pytest.mark.parametrize("types", [FEW, MANY, HUGE], ids=["few", "many", "huge"])
    @pytest.mark.parametrize("prefixes", ["BI", "IE", "BIES", "BILU", "BMES", "XB.I"])
    def test_the_default_report_is_theirs(self, prefixes, types):
        _, true, pred = draw(prefixes, types, seed=len(types))
        expected = their_report(true, pred, output_dict=True, zero_division=0)
        assert classification_report(true, pred, output_dict=True) == expected
        assert classification_report(true, pred, digits=3) == their_report(true, pred, digits=3, zero_division=0)

    def test_odd_tags_are_read_as_they_read_them(self):
        bare = ("B", "I", "B-", "X", ".", "PER", "O-PER", "B-PER-X", "BPER", "-")
        for seed in range(30):
            _, true, pred = draw("BIESX.", FEW, seed, sentences=5, bare=bare)
            if not any(true):
                continue
            expected = their_report(true, pred, output_dict=True, zero_division=0)
            assert classification_report(true, pred, output_dict=True) == expected

    @pytest.mark.parametrize("types", [FEW, MANY], ids=["few", "many"])
    @pytest.mark.parametrize(
        ("prefixes", "scheme"),
        [("BI", "IOB1"), ("BI", "IOB2"), ("IE", "IOE1"), ("IE", "IOE2"), ("BIES", "IOBES"), ("BILU", "BILOU")],
    )
    def test_the_strict_report_is_theirs(self, prefixes, scheme, types):
        peer = getattr(seqeval.scheme, scheme)
        for seed in range(5):
            _, true, pred = draw(prefixes, types, seed)
            how = {"mode": "strict", "output_dict": True, "zero_division": 0}
            expected = their_report(true, pred, scheme=peer, **how)
            assert classification_report(true, pred, scheme=scheme, **how) == expected
            assert classification_report(true, pred, scheme=peer, **how) == expected

    @pytest.mark.parametrize("zero_division", [0, 1])
    @pytest.mark.parametrize("average", ["micro", "macro", "weighted"])
    def test_averages_and_betas_are_theirs(self, average, zero_division):
        for true, pred in ([["B-A", "O"]], [["O", "B-B"]]), ([["O"]], [["B-A"]]), draw("BI", FEW, 1)[1:]:
            for beta in (0.5, 1.0, 2.0, float("inf")):
                options = {"average": average, "beta": beta, "zero_division": zero_division}
                expected = their_scores(true, pred, **options)
                assert tuple(span_scores(count_spans(true, pred), **options)) == expected

    def test_nothing_to_count_is_what_they_say(self):
        expected = their_report([["O"]], [["O"]], output_dict=True, zero_division=0)
        found = classification_report([["O"]], [["O"]], output_dict=True)
        np.testing.assert_equal(found, expected)
        assert "nan" in classification_report([["O"]], [["O"]])  # theirs fails here

    @pytest.mark.parametrize(
        "prefixes", ["BI", "B", "IE", "E", "BIES", "BE", "S", "BILU", "U", "BL", "BIL"], ids=lambda p: p
    )
    @pytest.mark.parametrize("outside", [[], ["O"]], ids=["without-O", "with-O"])
    def test_the_strict_scheme_is_told_as_they_tell_it(self, prefixes, outside):
        labels = [*outside, *(f"{prefix}-A" for prefix in prefixes)]
        try:
            expected = seqeval.scheme.auto_detect([labels]).__name__
        except ValueError:
            with pytest.raises(ValueError, match="cannot tell the scheme"):
                detect_strict_scheme(labels)
        else:
            assert detect_strict_scheme(labels) == {"IOBES": "BIOES"}.get(expected, expected)

    def test_dashes_at_the_ends_are_no_part_of_a_strict_type(self):
        true, pred = [["B-A-", "I-A", "B--A", "B-", "B"]], [["B-A", "I-A-", "B-A", "B", "O"]]
        how = {"mode": "strict", "output_dict": True, "zero_division": 0}
        expected = their_report(true, pred, scheme=seqeval.scheme.IOB2, **how)
        assert classification_report(true, pred, scheme="IOB2", **how) == expected

    def test_the_separators_of_sentences_are_no_outside_tag(self):
        # Single tags alone are BIOES to seqeval; together with O they are nothing.
        assert classification_report([["S-A"], ["S-A"]], [["S-A"], ["O"]], mode="strict", output_dict=True)["A"]
        with pytest.raises(ValueError, match="prefixes O, S"):
            classification_report([["S-A"], ["O"]], [["S-A"], ["O"]], mode="strict")

    def test_suffixes_stand_behind(self):
        _, true, pred = draw("BIES", FEW, 3)
        turned = [[["-".join(reversed(tag.split("-"))) for tag in tags] for tags in side] for side in (true, pred)]
        assert classification_report(*turned, suffix=True) == classification_report(true, pred)
        assert classification_report(*turned, suffix=True, digits=2) == their_report(
            *turned, suffix=True, zero_division=0
        )

    def test_accuracy_counts_tokens(self):
        _, true, pred = draw("BI", FEW, 4)
        assert accuracy_score(true, pred) == their_accuracy(true, pred)

    def test_spans_of_a_corpus_are_their_entities(self):
        _, true, _ = draw("BIESX", FEW, 5)
        coded = encode_tags(true, true)
        chunks = default_reading(coded.labels)(coded.true)
        sentence = np.cumsum([1, *(len(tags) + 1 for tags in true)])
        found = set(zip((chunks.type_names[t] for t in chunks.types), chunks.starts, chunks.ends, strict=True))
        expected = set()
        for begin, tags in zip(sentence, true, strict=False):
            expected |= {(name, begin + start, begin + end + 1) for name, start, end in get_entities([*tags, "O"])}
        assert found == expected


class TestIds:
    @pytest.mark.parametrize("types", [FEW, MANY, HUGE], ids=["few", "many", "huge"])
    @pytest.mark.parametrize("mode", [None, "strict"])
    def test_ids_give_what_strings_give(self, types, mode):
        labels, true, pred = draw("BI", types, 6)
        ids = [[[labels.index(tag) for tag in tags] for tags in side] for side in (true, pred)]
        expected = classification_report(true, pred, mode=mode, output_dict=True)
        assert classification_report(*ids, mode=mode, output_dict=True, labels=labels) == expected
        assert classification_report(*ids, mode=mode, output_dict=True, labels=dict(enumerate(labels))) == expected

    def test_ignored_positions_are_taken_out(self):
        labels, true, pred = draw("BIES", FEW, 7)
        width = 2 * max(map(len, true)) + 2
        gold, predicted = (
            np.full((len(true), width), -100),
            np.random.default_rng(0).integers(-100, 9, (len(true), width)),
        )
        for row, (tags, others) in enumerate(zip(true, pred, strict=True)):
            # Every other position, and none at the front: special tokens, sub-words, padding.
            gold[row, 1 : 2 * len(tags) : 2] = [labels.index(tag) for tag in tags]
            predicted[row, 1 : 2 * len(tags) : 2] = [labels.index(tag) for tag in others]
        expected = classification_report(true, pred, output_dict=True)
        assert classification_report(gold, predicted, output_dict=True, labels=labels) == expected
        assert accuracy_score(gold, predicted, labels=labels) == accuracy_score(true, pred)

    def test_labels_without_outside_and_unused_foreign_labels(self):
        ids = np.array([[0, 1, 0, 1]])
        assert count_spans(ids, ids, labels=["B-A", "I-A"]).gold.tolist() == [2]
        strict = count_spans(ids, ids, labels=["B-A", "I-A", "E-A"], mode="strict", scheme="IOB2")
        assert strict.correct.tolist() == [2]
        with pytest.raises(ValueError, match="tag 'E-A' is not a tag of IOB2"):
            count_spans(ids + 1, ids + 1, labels=["B-A", "I-A", "E-A"], mode="strict", scheme="IOB2")

    def test_strict_bmes_is_bioes_with_another_letter(self):
        _, true, pred = draw("BIES", FEW, 8)
        turned = [[[tag.replace("I-", "M-") for tag in tags] for tags in side] for side in (true, pred)]
        expected = classification_report(true, pred, "BIOES", "strict")
        assert classification_report(*turned, "BMES", "strict") == expected
        assert classification_report(*turned, None, "strict") == expected


class TestBadInput:
    @pytest.mark.parametrize(
        ("true", "pred", "message"),
        [
            ([["O"]], [["O"], ["O"]], "1 sentences and y_pred 2"),
            ([["O", "O"], ["O"]], [["O", "O"], []], "sentence 1 has 1 tags in y_true and 0 in y_pred"),
            ([[]], [[]], "no tokens in 1 sentences"),
            ([], [], "no tokens in 0 sentences"),
            ([[""]], [["O"]], "an empty string is not a tag"),
        ],
    )
    def test_corpora_that_do_not_fit(self, true, pred, message):
        with pytest.raises(ValueError, match=message):
            classification_report(true, pred)

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            (["O", "B-A"], "one list of tags a sentence, got strings"),
            ([[0, 1]], "For label ids pass labels="),
            ([[["O"]]], "every tag must be a string"),
        ],
    )
    def test_what_is_not_tags(self, tags, message):
        with pytest.raises(TypeError, match=message):
            classification_report(tags, tags)

    @pytest.mark.parametrize(
        ("true", "pred", "message"),
        [
            ([[0, 3]], [[0, 0]], "y_true has the id 3: expected 0 to 2"),
            ([[0, 1]], [[0, -1]], "y_pred has the id -1: expected 0 to 2"),
            ([[0, -1]], [[0, 1]], "y_true has the id -1: expected 0 to 2"),
            ([[-100]], [[0]], "no token is left"),
            ([[0, 1]], [[0]], "y_true has the shape"),
            ([[[0.0, 1.0]]], [[0]], "Of logits take the argmax"),
        ],
    )
    def test_ids_that_do_not_fit(self, true, pred, message):
        with pytest.raises(ValueError, match=message):
            classification_report(np.array(true), np.array(pred), labels=["O", "B-A", "I-A"])

    def test_strings_with_labels_and_wrong_options(self):
        with pytest.raises(TypeError, match="expected integer label ids"):
            classification_report([["O"]], [["O"]], labels=["O"])
        with pytest.raises(ValueError, match="mode must be None or 'strict'"):
            classification_report([["O"]], [["O"]], mode="exact")
        with pytest.raises(ValueError, match="average must be one of"):
            precision_recall_f1([["O"]], [["O"]], average="samples")
        with pytest.raises(ValueError, match="tag 'E-A' is not a tag of IOB2"):
            classification_report([["E-A"]], [["O"]], "IOB2", "strict")
        with pytest.raises(ValueError, match="cannot tell the scheme of tags with the prefixes I, O"):
            classification_report([["I-A", "O"]], [["O", "O"]], mode="strict")


def test_tags_that_the_default_reading_does_not_know_are_said():
    with pytest.warns(UserWarning, match=r"not tags of a span in the default reading: U-A\. .* reads BILOU"):
        classification_report([["U-A"]], [["O"]])
    with pytest.warns(UserWarning, match="recall: no gold spans"):
        classification_report([["O"]], [["B-A"]], zero_division="warn")
