"""Tests of windows whose edges cut spans."""

import pytest
import torch
from transformers import AutoTokenizer

from hf_nlpnotes.layers.crf import ConditionalRandomField
from hf_nlpnotes.tagging import (
    allowed_transitions,
    is_legal,
    prepare_tagging_features,
    scheme_labels,
    spans_to_tags,
    tags_to_spans,
)

TEXT = "他们在北京上海广州深圳学习中国银行大楼吃饭喜欢猫狗"


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)


def features(tokenizer, scheme, spans, **options):
    labels = scheme_labels(["LOC"], scheme)
    examples = {"tokens": [list(TEXT)], "tags": [spans_to_tags(spans, len(TEXT), scheme)]}
    ids = {label: number for number, label in enumerate(labels)}
    return labels, prepare_tagging_features(examples, tokenizer, ids, scheme=scheme, **options)


@pytest.mark.parametrize("scheme", ["IOB2", "BIOES", "BMESO", "BILOU", "IOE2", "IOB1"])
def test_every_window_is_legal_where_cut_spans_are_ignored(tokenizer, scheme):
    spans = [("LOC", 3, 5), ("LOC", 5, 11), ("LOC", 13, 19)]
    labels, found = features(tokenizer, scheme, spans, max_length=10, overlap=3, cut_spans="ignore")
    assert len(found["labels"]) > 3
    crf = ConditionalRandomField(len(labels), allowed_transitions(labels, scheme))
    for units, row in zip(found["word_units"], found["labels"], strict=True):
        kept = [(unit, labels[label]) for unit, label in zip(units, row, strict=True) if label != -100]
        places, tags = [unit for unit, _ in kept], [tag for _, tag in kept]
        assert places == list(range(places[0], places[-1] + 1))
        assert is_legal(tags, scheme)
        crf(torch.zeros(1, len(row), len(labels)), torch.tensor([row]))  # refuses what its constraints forbid


def test_spans_that_fit_into_the_overlap_are_whole_in_some_window(tokenizer):
    spans = [("LOC", 3, 5), ("LOC", 7, 9), ("LOC", 13, 16), ("LOC", 22, 24)]
    labels, found = features(tokenizer, "BIOES", spans, max_length=10, overlap=3, cut_spans="ignore")
    seen = set()
    for units, row in zip(found["word_units"], found["labels"], strict=True):
        kept = [(unit, labels[label]) for unit, label in zip(units, row, strict=True) if label != -100]
        seen |= {
            (start + kept[0][0], end + kept[0][0]) for _, start, end in tags_to_spans([t for _, t in kept], "BIOES")
        }
    assert seen == {(start, end) for _, start, end in spans}


def test_without_it_every_token_keeps_its_label(tokenizer):
    _, found = features(tokenizer, "BIOES", [("LOC", 3, 19)], max_length=10, overlap=3)
    assert sum(label == -100 for row in found["labels"] for label in row) == 2 * len(found["labels"])


def test_an_unknown_way_is_refused(tokenizer):
    with pytest.raises(ValueError, match="cut_spans must be 'keep' or 'ignore', got 'drop'"):
        features(tokenizer, "IOB2", [], cut_spans="drop")
