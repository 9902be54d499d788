"""Constrained decoding against enumeration of all legal sequences, and spans against the scheme's own reading."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch

from hf_nlpnotes.layers import ConditionalRandomField
from hf_nlpnotes.tagging import (
    SCHEMES,
    TagDecoder,
    allowed_transitions,
    constrained_decode,
    is_legal,
    repair_tags,
    scheme_labels,
    tagger_options,
    tags_to_spans,
)

LABELS = scheme_labels(["A"], "BIOES")


def random_stream(lengths, labels, seed=0):
    return torch.randn(sum(lengths), len(labels), generator=torch.Generator().manual_seed(seed)) * 3


def legal_sequences(labels, scheme, length):
    every = itertools.product(range(len(labels)), repeat=length)
    return [path for path in every if is_legal([labels[tag] for tag in path], scheme)]


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "SINGLE"])
def test_the_best_legal_sequence(scheme):
    labels = scheme_labels(["A"], scheme)
    decoder = TagDecoder.of(labels, scheme)
    lengths = [1, 4, 2, 5, 3, 4] * 5
    stream = random_stream(lengths, labels)
    found = decoder.decode(stream, lengths).split(lengths)
    illegal = 0
    for logits, tags in zip(stream.split(lengths), found, strict=True):
        paths = legal_sequences(labels, scheme, len(logits))
        best = max(paths, key=lambda path: sum(logits[t, tag].item() for t, tag in enumerate(path)))
        assert tuple(tags.tolist()) == best
        illegal += tuple(logits.argmax(-1).tolist()) != best
    assert 0 < illegal < len(lengths)


def test_n_best_and_their_probabilities():
    decoder = TagDecoder.of(LABELS)
    (logits,) = random_stream([4], LABELS).split(4)
    paths = legal_sequences(LABELS, "BIOES", 4)
    scores = torch.stack([sum(logits[t, tag] for t, tag in enumerate(path)) for path in paths])
    ranked = sorted(zip(paths, scores.softmax(0).tolist(), strict=True), key=lambda pair: -pair[1])[:6]
    found = decoder.n_best(logits, 6)
    assert [tags for tags, _ in found] == [list(path) for path, _ in ranked]
    assert [share for _, share in found] == pytest.approx([share for _, share in ranked], rel=1e-5)
    assert len(decoder.n_best(logits, 10_000)) == len(paths)
    assert [tags for tags, _ in decoder.n_best(logits, 1)] == [list(ranked[0][0])]


@pytest.mark.parametrize("constrained", [True, False])
def test_one_label_alone(constrained):
    decoder = TagDecoder.of(["S"], "BMES", constrained=constrained)
    assert decoder.decode(torch.zeros(3, 1), [1, 2]).tolist() == [0, 0, 0]
    assert decoder.n_best(torch.zeros(2, 1), 3) == [([0, 0], 1.0)]


def test_with_a_crf():
    torch.manual_seed(0)
    crf = ConditionalRandomField(len(LABELS))
    for parameter in crf.parameters():
        torch.nn.init.normal_(parameter)
    constrained = ConditionalRandomField(len(LABELS), allowed_transitions(LABELS, "BIOES"))
    constrained.load_state_dict(crf.state_dict())
    lengths = [3, 1, 6, 2]
    stream = random_stream(lengths, LABELS)
    rows = [row[None] for row in stream.split(lengths)]
    for options, reference in (({}, constrained), ({"constrained": False}, crf)):
        decoder = TagDecoder.of(LABELS, "BIOES", crf=crf, **options)
        assert [row.tolist() for row in decoder.decode(stream, lengths).split(lengths)] == [
            reference.decode(row)[0] for row in rows
        ]
        for mine, row in zip(decoder.probabilities(stream, lengths).split(lengths), rows, strict=True):
            torch.testing.assert_close(mine, reference.marginals(row)[0], rtol=1e-5, atol=1e-6)
        tags = decoder.decode(stream, lengths)
        shares = [decoder.probabilities(stream, lengths)[place, tag] for place, tag in enumerate(tags.tolist())]
        torch.testing.assert_close(decoder.tag_probabilities(stream, tags, lengths), torch.stack(shares))
        for logits, row in zip(stream.split(lengths), rows, strict=True):
            expected = reference.n_best(row, k=4)[0]
            found = decoder.n_best(logits, 4)
            assert [path for path, _ in found] == [one.tags for one in expected]
            assert [share for _, share in found] == pytest.approx(
                [math.exp(one.log_probability) for one in expected], rel=1e-4
            )


def test_greedy_takes_each_token_s_best():
    stream = random_stream([30], LABELS)
    decoder = TagDecoder.of(LABELS, constrained=False)
    assert torch.equal(decoder.decode(stream, [30]), stream.argmax(-1))
    torch.testing.assert_close(decoder.probabilities(stream, [30]), stream.softmax(-1))
    tags = torch.arange(30) % len(LABELS)
    shares = stream.softmax(-1)[torch.arange(30), tags]
    torch.testing.assert_close(decoder.tag_probabilities(stream, tags, [30]), shares)


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_spans_are_those_of_the_scheme(scheme):
    labels = ["O", "A", "B"] if scheme == "SINGLE" else scheme_labels(["A", "B"], scheme)
    decoder = TagDecoder.of(labels, scheme)
    generator = random.Random(0)
    sentences = [generator.choices(labels, k=generator.randint(1, 9)) for _ in range(300)]
    sentences += [repair_tags(sentence, scheme) for sentence in sentences]
    lengths = [len(sentence) for sentence in sentences]
    ids = np.array([labels.index(tag) for sentence in sentences for tag in sentence])
    types, starts, ends = decoder.spans(ids, lengths)
    begin, found = 0, list(zip([decoder.types[t] for t in types], starts.tolist(), ends.tolist(), strict=True))
    expected = []
    for sentence in sentences:
        spans = tags_to_spans(sentence, scheme, illegal="repair")
        expected += [(span.type, begin + span.start, begin + span.end) for span in spans]
        begin += len(sentence)
    assert found == expected


def test_spans_beside_sentences_without_a_position():
    decoder = TagDecoder.of(["O", "B-A", "I-A"])
    types, starts, ends = decoder.spans(np.array([1, 2, 2]), [0, 2, 0, 1, 0])
    assert [types.tolist(), starts.tolist(), ends.tolist()] == [[0, 0], [0, 2], [2, 3]]


def test_nothing_has_no_spans():
    found = TagDecoder.of(LABELS).spans(np.zeros(0, np.int64), [])
    assert [part.tolist() for part in found] == [[], [], []]


def test_batches_with_a_mask():
    logits = random_stream([24], LABELS).view(3, 8, -1)
    mask = torch.tensor([[0, 1, 1, 0, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1, 0], [1, 0, 0, 0, 0, 0, 0, 0]])
    found = constrained_decode(logits, LABELS, "BIOES", mask)
    assert [len(row) for row in found] == [4, 6, 1]
    assert found[0] == constrained_decode(logits[:1, mask[0] == 1], LABELS)[0]
    labels = torch.where(mask == 1, 0, -100)
    labels[2] = -100
    tags = TagDecoder.of(LABELS).best_tags((logits, None), labels)
    assert [row[row >= 0].tolist() for row in tags] == [*found[:2], []]
    assert torch.equal(tags == -100, labels == -100)


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda d: d.decode(torch.zeros(3, 2), [3]), r"\(positions, 5\)"),
        (lambda d: d.decode(torch.zeros(3, 5), [2]), "sum to 2"),
        (lambda d: d.decode(torch.zeros(3, 5), [3, 0]), "sentence 1 is empty"),
        (lambda d: d.decode(torch.full((3, 5), torch.nan), [3]), "not finite"),
        (lambda d: d.n_best(torch.zeros(3, 5), 0), "at least 1"),
        (lambda _: TagDecoder.of(LABELS, crf=ConditionalRandomField(2)), "2 tags"),
        (lambda _: TagDecoder.of(LABELS, "BILOU"), "BILOU"),
        (lambda _: TagDecoder.of(["B", "E"]).decode(torch.zeros(3, 2), [3]), "no legal sequence of 3"),
        (lambda _: constrained_decode(torch.zeros(2, 5), LABELS), "batch, seq, labels"),
        (lambda _: constrained_decode(torch.zeros(1, 2, 5), LABELS, mask=torch.zeros(1, 3)), r"shape \(1, 2\)"),
        (lambda _: constrained_decode(torch.zeros(1, 2, 5), LABELS, mask=torch.zeros(1, 2)), "empty"),
    ],
)
def test_bad_input(work, message):
    with pytest.raises(ValueError, match=message):
        work(TagDecoder.of(LABELS))


def test_options_of_a_tagger():
    options = tagger_options(LABELS)
    assert options["id2label"][1] == "B-A"
    assert options["label2id"]["S-A"] == 4
    assert options["tagging_scheme"] == "BIOES"
    assert np.array_equal(options["constraints"].start, allowed_transitions(LABELS, "BIOES").start)
    assert tagger_options(LABELS, constrained=False)["constraints"] is None
    with pytest.raises(ValueError, match="BILOU"):
        tagger_options(LABELS, "BILOU")
