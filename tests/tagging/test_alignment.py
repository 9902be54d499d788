"""Alignment against what the characters say, and windows against the whole."""

import random
from itertools import pairwise

import numpy as np
import pytest

from hf_nlpnotes.tagging import (
    Misalignment,
    Span,
    align_spans,
    align_word_tags,
    is_legal,
    merge_windows,
    prepare_tagging_features,
    spans_to_tags,
    tags_to_spans,
    token_offsets,
    word_units,
)

# Three words in five sub-words between two special tokens.
WORDS = ["unbelievable", "猫", "Washington"]
WORD_IDS = [None, 0, 0, 0, 1, 2, 2, None]
OFFSETS = [(0, 0), (0, 2), (2, 9), (9, 12), (0, 1), (0, 4), (4, 10), (0, 0)]


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


class TestWords:
    def test_offsets_count_through_the_sentence(self):
        assert token_offsets(WORD_IDS, OFFSETS, WORDS) == [
            None,
            (0, 2),
            (2, 9),
            (9, 12),
            (12, 13),
            (13, 17),
            (17, 23),
            None,
        ]

    def test_each_way_labels_what_it_says(self):
        tags = ["O", "B-A", "I-A"]
        ways = {
            "first": [None, "O", None, None, "B-A", "I-A", None, None],
            "all": [None, "O", "O", "O", "B-A", "I-A", "I-A", None],
            "none": [None, None, None, None, "B-A", None, None, None],
        }
        for subwords, expected in ways.items():
            assert align_word_tags(WORD_IDS, OFFSETS, WORDS, tags, subwords=subwords) == expected
            units = word_units(WORD_IDS, OFFSETS, subwords, words=WORDS)
            assert [unit < 0 for unit in units] == [tag is None for tag in expected]

    def test_all_sub_words_are_written_in_the_scheme(self):
        tags = align_word_tags(WORD_IDS, OFFSETS, WORDS, ["S-A", "S-A", "O"], "BIOES", subwords="all")
        assert tags == [None, "B-A", "I-A", "E-A", "S-A", "O", "O", None]
        tags = align_word_tags(WORD_IDS, OFFSETS, WORDS, ["I-A", "B-A", "O"], "IOB1", subwords="all")
        assert tags == [None, "I-A", "I-A", "I-A", "B-A", "O", "O", None]

    def test_a_window_within_a_word_has_none_of_its_beginning(self):
        part = slice(2, 6)
        assert align_word_tags(WORD_IDS[part], OFFSETS[part], WORDS, ["B-A", "O", "O"]) == [None, None, "O", "O"]
        tags = align_word_tags(WORD_IDS[part], OFFSETS[part], WORDS, ["S-A", "O", "S-B"], "BIOES", subwords="all")
        assert tags == ["I-A", "E-A", "O", "B-B"]

    @pytest.mark.parametrize(
        ("words", "tags", "message"),
        [
            ([], [], "sentence is empty"),
            (WORDS, ["O"], "1 tags for 3 words"),
            (["a", "", "b"], ["O"] * 3, "word 1 is empty"),
            (WORDS, ["O", "Q-A", "O"], "tag 'Q-A' is not a tag of IOB2"),
            (WORDS[:2], ["O", "O"], "word id 2 for 2 words"),
        ],
    )
    def test_what_does_not_fit(self, words, tags, message):
        with pytest.raises(ValueError, match=message):
            align_word_tags(WORD_IDS, OFFSETS, words, tags)

    def test_unknown_ways(self):
        with pytest.raises(ValueError, match="subwords must be one of first, all, none"):
            align_word_tags(WORD_IDS, OFFSETS, WORDS, ["O"] * 3, subwords="last")
        with pytest.raises(ValueError, match="7 word ids for 8 offsets"):
            token_offsets(WORD_IDS[:-1], OFFSETS, WORDS)


class TestSpans:
    @pytest.mark.parametrize("scheme", ["IOB1", "IOB2", "IOE1", "IOE2", "BIOES", "BILOU", "BMES"])
    def test_one_token_a_character_is_the_scheme_itself(self, scheme):
        rng = random.Random(0)
        for _ in range(200):
            length = rng.randrange(1, 9)
            cuts = sorted(rng.sample(range(length + 1), rng.randrange(0, length + 2) if length else 0))
            spans = [Span(rng.choice("AB"), a, b) for a, b in pairwise(cuts) if rng.random() < 0.7]
            found = align_spans([(i, i + 1) for i in range(length)], spans, scheme)
            assert found == (spans_to_tags(spans, length, scheme), [])

    def test_edges_inside_of_a_token_are_reported(self):
        tokens = [None, (0, 3), (3, 6), (7, 9), None]
        found = align_spans(tokens, [("A", 0, 4), ("B", 7, 9)])
        assert found.tags == [None, "B-A", "I-A", "B-B", None]
        assert found.misaligned == [Misalignment(Span("A", 0, 4), 2, 3, 6)]

    def test_two_spans_in_one_token_are_both_reported_and_the_first_has_it(self):
        found = align_spans([(0, 4), (4, 6)], [("A", 0, 2), ("B", 2, 6)], "BIOES")
        assert found.tags == ["S-A", "S-B"]
        assert [(m.span.type, m.token) for m in found.misaligned] == [("A", 0), ("B", 0)]

    def test_a_span_without_a_token_is_reported(self):
        found = align_spans([(0, 1), (3, 4)], [("A", 1, 3)])
        assert found == (["O", "O"], [Misalignment(Span("A", 1, 3), -1, 1, 3)])

    def test_spans_behind_a_space_do_not_touch_tokens_before_it(self):
        # "New York Paris": two spans of one type with only a space between them.
        tokens = [(0, 3), (4, 8), (9, 14)]
        assert align_spans(tokens, [("A", 0, 8), ("A", 9, 14)], "IOB1").tags == ["I-A", "I-A", "B-A"]
        assert align_spans(tokens, [("A", 0, 8), ("A", 9, 14)], "IOE1").tags == ["I-A", "E-A", "I-A"]

    def test_a_window_begins_and_ends_in_the_middle_of_spans(self):
        tokens = [None, (2, 3), (3, 4), (4, 5), None]
        assert align_spans(tokens, [("A", 0, 3), ("B", 4, 9)], "BIOES").tags == [None, "E-A", "O", "B-B", None]
        assert align_spans(tokens, [("A", 0, 9)], "BIOES").tags == [None, "I-A", "I-A", "I-A", None]

    def test_nested_spans_are_refused(self):
        with pytest.raises(ValueError, match="nested in"):
            align_spans([(0, 5)], [("A", 0, 5), ("B", 1, 2)])


class TestWindows:
    def windows(self, length=23, size=9, overlap=4):
        """Windows over a document of one token a unit, a special token at either side."""
        step = size - overlap
        begins = range(0, length - overlap, step)
        return [[-1, *range(begin, min(begin + size, length)), -1] for begin in begins]

    def test_scores_that_agree_come_back(self):
        whole = np.random.default_rng(0).normal(size=(23, 5))
        units = self.windows()
        scores = [np.array([whole[unit] if unit >= 0 else np.full(5, 99.0) for unit in window]) for window in units]
        for overlap in ("mean", "max_context"):
            merged = merge_windows(scores, units, 23, overlap=overlap)
            np.testing.assert_allclose(merged.scores, whole, atol=1e-12)
            assert merged.covered.all()

    def test_the_mean_is_over_all_tokens_of_a_unit(self):
        merged = merge_windows([[[1.0], [3.0]], [[8.0]]], [[0, 0], [0]], 2)
        assert merged.scores.tolist() == [[4.0], [0.0]]
        assert merged.covered.tolist() == [True, False]

    @pytest.mark.parametrize("overlap", [3, 4])
    def test_most_context_takes_the_middle_and_the_first_among_equals(self, overlap):
        units = self.windows(overlap=overlap)
        scores = [np.full((len(window), 1), float(place)) for place, window in enumerate(units)]
        chosen = merge_windows(scores, units, 23, overlap="max_context").scores[:, 0]
        for unit in range(23):
            places = [(min(w.index(unit), len(w) - 1 - w.index(unit)), -p) for p, w in enumerate(units) if unit in w]
            lengths = {len(w) for w in units if unit in w}
            if len(lengths) == 1:  # among windows of one length only the shorter side counts
                assert chosen[unit] == -max(places)[1]

    def test_what_does_not_fit(self):
        for scores, units, message in (
            ([], [], "at least one"),
            ([[[1.0]]], [[0], [1]], "1 windows of scores and 2 of units"),
            ([[[1.0]]], [[0, 1]], "window 0 has scores of shape"),
            ([[[1.0]]], [[5]], "window 0 has units 5 to 5: expected -1 to 1"),
        ):
            with pytest.raises(ValueError, match=message):
                merge_windows(scores, units, 2)
        with pytest.raises(ValueError, match="overlap must be"):
            merge_windows([[[1.0]]], [[0]], 1, overlap="max")


class TestFeatures:
    LABELS = ("O", "B-LOC", "I-LOC")

    def prepare(self, tokenizer, sentences, tags, **how):
        label2id = {label: number for number, label in enumerate(self.LABELS)}
        return prepare_tagging_features({"tokens": sentences, "tags": tags}, tokenizer, label2id, **how)

    @pytest.mark.parametrize("subwords", ["first", "all"])
    def test_no_word_is_lost_in_windows_and_the_spans_come_back(self, tokenizer, subwords):
        rng = random.Random(0)
        words = [
            [rng.choice(["北京", "我", "abc12", "上海银行"]) for _ in range(rng.randrange(1, 40))] for _ in range(8)
        ]
        spans = [[Span("LOC", 0, 1), *([Span("LOC", 3, 12)] if len(row) > 12 else [])] for row in words]
        tags = [spans_to_tags(each, len(row)) for each, row in zip(spans, words, strict=True)]
        features = self.prepare(tokenizer, words, tags, subwords=subwords, max_length=20, overlap=6)
        assert len(features["input_ids"]) > len(words)
        assert "pinyin_ids" in features
        assert max(map(len, features["input_ids"])) <= 20
        for row, (sentence, expected) in enumerate(zip(words, tags, strict=True)):
            windows = [w for w, example in enumerate(features["example"]) if example == row]
            scores = [np.eye(3)[np.maximum(features["labels"][w], 0)] for w in windows]
            merged = merge_windows(scores, [features["word_units"][w] for w in windows], len(sentence))
            assert merged.covered.all()
            if subwords == "first":
                found = [self.LABELS[label] for label in merged.scores.argmax(axis=1)]
                assert found == expected
                assert tags_to_spans(found) == spans[row]
            else:
                inside = merged.scores[:, 0] < 0.5
                assert inside.tolist() == [tag != "O" for tag in expected]

    def test_labels_of_one_window_are_legal(self, tokenizer):
        features = self.prepare(tokenizer, [["上海银行", "我"]], [["B-LOC", "O"]], subwords="all")
        labels = [self.LABELS[label] for label in features["labels"][0] if label != -100]
        assert labels == ["B-LOC", "I-LOC", "I-LOC", "I-LOC", "O"]
        assert is_legal(labels)

    @pytest.mark.parametrize(
        ("sentences", "tags", "how", "message"),
        [
            ([["我"], []], [["O"], []], {}, "sentence 1 is empty"),
            ([["我"], "我"], [["O"], ["O"]], {}, "sentence 1 is a string"),
            ([["我", "你"]], [["O"]], {}, "sentence 0: 1 tags for 2 words"),
            ([["我"]], [["B-PER"]], {}, "tag 'B-PER' is not among the model's labels"),
            ([["我"]], [["O"]], {"max_length": 10, "overlap": 8}, "expected 0 to 7"),
        ],
    )
    def test_what_does_not_fit(self, tokenizer, sentences, tags, how, message):
        with pytest.raises(ValueError, match=message):
            self.prepare(tokenizer, sentences, tags, **how)

    def test_without_tags_there_are_no_labels(self, tokenizer):
        features = prepare_tagging_features({"tokens": [["我"]]}, tokenizer, {"O": 0, "B-A": 1})
        assert "labels" not in features
        assert features["word_units"] == [[-1, 0, -1]]
