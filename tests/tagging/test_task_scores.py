"""Scores of partial matches, segmentation, parts of speech, roles and confusions, and the Trainer's function."""

import random
from itertools import product

import evaluate
import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_nlpnotes.evaluate_modules import module_path
from hf_nlpnotes.tagging import (
    TaggingMetrics,
    best_labels,
    classification_report,
    joint_scores,
    partial_matches,
    pos_accuracy,
    precision_recall_f1,
    scheme_labels,
    segmentation_scores,
    spans_to_tags,
    srl_scores,
    srl_scores_by_label,
    tags_to_spans,
    tags_to_words,
    type_confusion,
    words_to_spans,
    words_to_tags,
)

TEXT = "国足今晚出战"


def cuts(text):
    """Every way to cut a text into words."""
    for marks in product((False, True), repeat=len(text) - 1):
        ends = [i + 1 for i, mark in enumerate(marks) if mark]
        yield [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


def draw_tags(seed, sentences=40):
    rng = random.Random(seed)
    labels = ["O", "O", "B-A", "I-A", "B-B", "I-B"]
    return [[rng.choice(labels) for _ in range(8)] for _ in range(sentences)]


class TestPartialMatches:
    @pytest.mark.parametrize("min_overlap", [1.0, 50.0, 100.0])
    def test_all_schemas_are_nervaluates(self, min_overlap):
        evaluator = pytest.importorskip("nervaluate", reason="nervaluate needs Python 3.11").Evaluator
        true, pred = draw_tags(0), draw_tags(1)
        peer = evaluator(true, pred, tags=["A", "B"], loader="list", min_overlap_percentage=min_overlap).evaluate()
        spans = [[tags_to_spans(tags, illegal="repair") for tags in side] for side in (true, pred)]
        found = partial_matches(*spans, min_overlap=min_overlap)
        for schema, expected in peer["overall"].items():
            assert found.overall[schema].as_dict() == vars(expected)
        for name, by_schema in peer["entities"].items():
            for schema, expected in by_schema.items():
                assert found.by_type[name][schema].as_dict() == vars(expected)

    def test_the_nearest_of_a_type_is_taken_and_else_the_first(self):
        nearest = partial_matches([[("A", 0, 2), ("A", 2, 8)]], [[("A", 1, 8), ("A", 0, 1)]])
        assert nearest.overall["ent_type"].correct == 2
        first = partial_matches([[("A", 0, 2), ("A", 2, 4)]], [[("B", 1, 3), ("A", 2, 4)]])
        assert (first.overall["strict"].incorrect, first.overall["strict"].correct) == (1, 1)

    def test_types_choose_what_counts(self):
        found = partial_matches([[("A", 0, 1), ("B", 2, 3)]], [[("A", 0, 1)]], types=["A"])
        assert found.overall["strict"].as_dict()["possible"] == 1
        assert found.by_type.keys() == {"A"}

    def test_bad_input(self):
        with pytest.raises(ValueError, match="1 sentences and pred 0"):
            partial_matches([[]], [])
        with pytest.raises(ValueError, match="from 1 to 100; got 0"):
            partial_matches([[]], [[]], min_overlap=0)
        for spans in ([[("A", 1, 1)]], [[("A", 1, 2)]]), ([[("A", 1, 2)]], [[("A", 2, 1)]]):
            with pytest.raises(ValueError, match="has no token: expected start < end"):
                partial_matches(*spans)


class TestSegmentation:
    def test_words_and_tags_are_each_others_inverse(self):
        for words in cuts(TEXT):
            for scheme in ("BMES", "BIOES", "IOB2", "BILOU"):
                assert tags_to_words(TEXT, words_to_tags(words, scheme), scheme) == words

    def test_characters_outside_of_words_stand_alone(self):
        assert tags_to_words("abcde", ["O", "B", "E", "O", "O"], "BIOES") == ["a", "bc", "d", "e"]

    def test_scores_are_those_of_span_sets(self):
        vocabulary = {"国足", "今", "晚", "出战"}
        ways = list(cuts(TEXT))
        rng = random.Random(0)
        true, pred = rng.choices(ways, k=50), rng.choices(ways, k=50)
        scores = segmentation_scores(true, pred, vocabulary=vocabulary)
        pairs = [(set(words_to_spans(a)), set(words_to_spans(b))) for a, b in zip(true, pred, strict=True)]
        assert scores.correct == sum(len(a & b) for a, b in pairs)
        assert scores.precision == scores.correct / sum(len(b) for _, b in pairs)
        assert scores.recall == scores.correct / sum(len(a) for a, _ in pairs)
        assert scores.f1 == pytest.approx(2 * scores.correct / (scores.gold + scores.predicted))
        new = [
            (span in b)
            for words, (_, b) in zip(true, pairs, strict=True)
            for word, span in zip(words, words_to_spans(words), strict=True)
            if word not in vocabulary
        ]
        assert (scores.oov, scores.oov_correct) == (len(new), sum(new))
        known = scores.gold - len(new)
        assert scores.iv_recall == pytest.approx((scores.correct - sum(new)) / known)
        assert scores.gold == scores.correct + scores.deletions + scores.substitutions
        assert scores.predicted == scores.correct + scores.insertions + scores.substitutions

    def test_changes_pair_words_between_right_ones(self):
        scores = segmentation_scores([["ab", "c", "d", "ef"]], [["a", "bc", "d", "e", "f"]])
        assert (scores.substitutions, scores.insertions, scores.deletions) == (3, 1, 0)
        assert scores.oov_recall is None
        assert scores.as_dict()["oov_rate"] is None

    @pytest.mark.parametrize(
        ("true", "pred", "message"),
        [
            ([["a"]], [], "1 gold sentences and 0 predicted"),
            ([["ab"]], [["a", "c"]], "sentence 0 has other characters"),
            ([["a", ""]], [["a"]], "word 1 is empty"),
        ],
    )
    def test_bad_input(self, true, pred, message):
        with pytest.raises(ValueError, match=message):
            segmentation_scores(true, pred)

    def test_bad_kinds(self):
        with pytest.raises(TypeError, match="sentence 0 is a string"):
            segmentation_scores(["ab"], [["ab"]])
        with pytest.raises(ValueError, match="1 tags for 2 characters"):
            tags_to_words("ab", ["S"])
        with pytest.raises(ValueError, match="at least one token"):
            words_to_tags([])


class TestPartsOfSpeech:
    def test_accuracy_of_all_and_of_unknown_words(self):
        scores = pos_accuracy([["N", "V"], ["N"]], [["N", "N"], ["N"]], words=[["a", "b"], ["c"]], vocabulary={"a"})
        assert (scores.accuracy, scores.unknown_accuracy) == (2 / 3, 1 / 2)
        assert pos_accuracy([["N"]], [["V"]]).unknown_accuracy is None

    def test_joint_scores_want_both_ends_and_the_tag(self):
        true = [[("国足", "NR"), ("今晚", "NT"), ("出战", "VV")]]
        pred = [[("国足", "NR"), ("今晚", "AD"), ("出", "VV"), ("战", "VV")]]
        assert joint_scores(true, pred) == (1 / 4, 1 / 3, pytest.approx(2 / 7), 3)

    @pytest.mark.parametrize(
        ("true", "pred", "how", "message"),
        [
            ([["N"]], [["N", "V"]], {}, "sentence 0 has 1 words, 1 gold tags and 2 predicted"),
            ([["N"]], [], {}, "1 gold sentences and 0"),
            ([], [], {}, "no words"),
            ([["N"]], [["N"]], {"vocabulary": {"a"}}, "vocabulary needs words="),
        ],
    )
    def test_bad_input(self, true, pred, how, message):
        with pytest.raises(ValueError, match=message):
            pos_accuracy(true, pred, **how)
        with pytest.raises(ValueError, match="other characters"):
            joint_scores([[("a", "N")]], [[("b", "N")]])


class TestRoles:
    def test_continuations_are_one_argument_and_the_predicate_does_not_count(self):
        gold = {2: [("A0", 0, 2), ("V", 2, 3), ("A1", 3, 4), ("C-A1", 6, 8)], 5: [("A0", 0, 2)]}
        # The same pieces; a piece missing; the same argument of another predicate.
        assert srl_scores([gold], [gold]) == (1.0, 1.0, 1.0, 3)
        assert srl_scores([gold], [{2: [("A0", 0, 2), ("A1", 3, 4)]}]) == (1 / 2, 1 / 3, pytest.approx(0.4), 3)
        assert srl_scores([gold], [{4: [("A0", 0, 2)]}])[:3] == (0.0, 0.0, 0.0)
        assert srl_scores_by_label([gold], [gold])["A1"] == (1.0, 1.0, 1.0, 1)

    def test_order_does_not_matter_and_labels_can_be_left_out(self):
        frame = [("A1", 3, 4), ("A0", 0, 2)]
        assert srl_scores([{1: frame}], [{1: frame[::-1]}]).f1 == 1.0
        assert srl_scores([{1: frame}], [{}], exclude=("V", "A1")).support == 1
        with pytest.raises(ValueError, match="1 gold sentences and 0"):
            srl_scores([{}], [])


class TestConfusion:
    def test_each_boundary_is_counted_once(self):
        true = [[("A", 0, 2), ("B", 3, 4)], [("A", 0, 1)]]
        pred = [[("B", 0, 2), ("A", 3, 5)], [("A", 0, 1)]]
        found = type_confusion(true, pred)
        assert found.types == ("A", "B", "O")
        assert found.matrix.tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
        assert found["A", "B"] == 1
        assert str(found).splitlines()[1].split() == ["A", "1", "1", "0"]
        with pytest.raises(ValueError, match="2 sentences and pred 1"):
            type_confusion(true, pred[:1])


class TestTrainerFunction:
    LABELS = ("O", "B-A", "I-A", "B-B", "I-B")

    def predictions(self):
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(6, 9, 5)).astype(np.float32)
        gold = rng.integers(0, 5, (6, 9))
        gold[:, [0, 4, 8]] = -100
        strings = [
            [
                [self.LABELS[i] for i, g in zip(row, mask, strict=True) if g != -100]
                for row, mask in zip(ids, gold, strict=True)
            ]
            for ids in (gold, logits.argmax(-1))
        ]
        return logits, gold, strings

    def test_logits_and_ids_give_the_scores_of_strings(self):
        logits, gold, strings = self.predictions()
        expected = precision_recall_f1(*strings)
        metrics = TaggingMetrics(dict(enumerate(self.LABELS)), by_type=True)
        ids = best_labels(torch.from_numpy(logits), None).numpy()
        for predictions in (logits, (logits, "more"), ids):
            scores = metrics(EvalPrediction(predictions, gold))
            assert (scores["precision"], scores["recall"], scores["f1"]) == expected[:3]
            assert scores["f1_A"] == classification_report(*strings, output_dict=True)["A"]["f1-score"]

    @pytest.mark.parametrize("scheme", ["BILOU", "BMES", "IOE2", "IOB1"])
    def test_every_scheme_is_read_as_its_spans(self, scheme):
        # Two neighbouring spans of one token and one of three: seqeval's default reading merges the former in BILOU.
        gold, other = [("A", 0, 1), ("A", 1, 2), ("A", 3, 6)], [("A", 0, 1), ("A", 3, 6)]
        labels = scheme_labels(["A"], scheme)
        ids = [np.array([[labels.index(tag) for tag in spans_to_tags(spans, 6, scheme)]]) for spans in (gold, other)]
        scores = TaggingMetrics(labels)(EvalPrediction(ids[1], ids[0]))
        assert (scores["precision"], scores["recall"]) == (1.0, 2 / 3)

    def test_the_number_of_a_label_can_stand_for_what_is_left_out(self):
        metrics = TaggingMetrics(["O", "B-A", "I-A"], ignore_index=0)
        scores = metrics(EvalPrediction(np.array([[1, 2, 1, 1]]), np.array([[1, 2, 0, 0]])))
        assert scores == {"accuracy": 1.0, "precision": 1.0, "recall": 1.0, "f1": 1.0}

    def test_parts_of_speech_have_accuracy_alone(self):
        metrics = TaggingMetrics(["NN", "VV"])
        assert metrics(EvalPrediction(np.array([[0, 1, 1]]), np.array([[0, 0, -100]]))) == {"accuracy": 0.5}

    def test_best_labels_takes_the_first_of_a_tuple_and_leaves_ids(self):
        logits = torch.tensor([[[0.0, 1.0], [2.0, 1.0]]])
        assert best_labels((logits, logits)).tolist() == [[1, 0]]
        assert best_labels(torch.tensor([[1, 0]])).tolist() == [[1, 0]]


@pytest.fixture
def compute(tmp_path):
    def loaded(name, **columns):
        return evaluate.load(module_path(name), cache_dir=str(tmp_path), keep_in_memory=True).compute(**columns)

    return loaded


class TestModules:
    @pytest.mark.filterwarnings("ignore:.*ill-defined")
    def test_span_f1_has_what_seqevals_module_has(self, compute):
        true, pred = draw_tags(0), draw_tags(1)
        scores = compute("span_f1", predictions=pred, references=true)
        report = classification_report(true, pred, output_dict=True)
        assert scores["overall_f1"] == report["micro avg"]["f1-score"]
        assert scores["A"] == {
            "precision": report["A"]["precision"],
            "recall": report["A"]["recall"],
            "f1": report["A"]["f1-score"],
            "number": report["A"]["support"],
        }
        assert 0 < scores["overall_accuracy"] < 1
        strict = compute("span_f1", predictions=pred, references=true, mode="strict", scheme="IOB2")
        assert strict["overall_f1"] != scores["overall_f1"]

    def test_word_segmentation(self, compute):
        scores = compute("word_segmentation", predictions=[["国足", "今", "晚"]], references=[["国足", "今晚"]])
        assert (scores["precision"], scores["recall"]) == (1 / 3, 1 / 2)
