"""Strange texts through the tokenizer and every pipeline: offsets point into the string that was given."""

import pytest
import torch
from hardening_inputs import refused, strange_text
from hypothesis import given
from transformers import (
    AutoModel,
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    AutoTokenizer,
    pipeline,
)
from transformers.utils import logging

from hf_nlpnotes.attention import capture_attention, head_view

LABELS = dict(enumerate(["O", "B-PER", "I-PER"]))
HALF = "国\ud800足"


@pytest.fixture(scope="module")
def tokenizer(tiny_chinesebert_folder):
    return AutoTokenizer.from_pretrained(tiny_chinesebert_folder, model_max_length=64)


@pytest.fixture(scope="module")
def calls(tiny_chinesebert_folder, tokenizer):
    """Each pipeline and the attention page, as functions of a text that give (text, start, end)."""
    torch.manual_seed(0)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the heads are random, and transformers says so at length
    folder = tiny_chinesebert_folder
    answerer = AutoModelForQuestionAnswering.from_pretrained(folder)
    tagger = AutoModelForTokenClassification.from_pretrained(folder, id2label=LABELS)
    encoder = AutoModel.from_pretrained(folder)
    logging.set_verbosity(verbosity)
    classify = pipeline("zero-shot-prompt", model=str(folder))
    answer = pipeline("question-answering", model=answerer, tokenizer=tokenizer)
    tag = pipeline("sequence-tagging", model=tagger, tokenizer=tokenizer)

    scripts = head_view(capture_attention(encoder, tokenizer, "国足")).html.count("<script")

    def classified(text):
        result = classify(text, candidate_labels=["体育", "财经"])
        assert result["sequence"] == text
        assert abs(sum(result["scores"]) - 1) < 1e-5
        return []

    def answered(text):
        found = answer(question="谁？", context=text, top_k=3)
        return [
            (each["answer"], each["start"], each["end"]) for each in ([found] if isinstance(found, dict) else found)
        ]

    def tagged(text):
        return [(each["word"], each["start"], each["end"]) for each in tag(text)]

    def attended(text):
        maps = capture_attention(encoder, tokenizer, text, truncation=True)
        assert head_view(maps).html.count("<script") == scripts
        spans = zip(maps.tokens.segments, maps.tokens.spans, strict=True)
        return [(text[start:end], start, end) for segment, (start, end) in ((s, p) for s, p in spans if p is not None)]

    return {"classify": classified, "answer": answered, "tag": tagged, "attend": attended}


@given(text=strange_text, other=strange_text)
def test_offsets_of_tokens_point_into_the_text(tokenizer, text, other):
    rows = tokenizer([text, other], [other, text], return_offsets_mapping=True)
    alone = tokenizer(text, return_offsets_mapping=True)
    for number, texts in enumerate([(text, other), (other, text)]):
        places = zip(rows.sequence_ids(number), rows["offset_mapping"][number], strict=True)
        for sequence, (start, end) in places:
            assert sequence is None or 0 <= start <= end <= len(texts[sequence])
    assert len(alone["pinyin_ids"]) == len(alone["input_ids"])
    pieces = tokenizer.convert_ids_to_tokens(alone["input_ids"])
    for piece, row, (start, end) in zip(pieces, alone["pinyin_ids"], alone["offset_mapping"], strict=True):
        if row:
            assert end - start == 1
            assert piece in {text[start:end], "[UNK]"}


@pytest.mark.parametrize("name", ["classify", "answer", "tag", "attend"])
@given(text=strange_text)
def test_a_pipeline_gives_spans_of_the_text_or_refuses_it(calls, name, text):
    for word, start, end in refused(calls[name], text) or ():
        assert 0 <= start <= end <= len(text)
        assert word == text[start:end]


@pytest.mark.parametrize("name", ["classify", "answer", "tag", "attend"])
def test_half_of_a_surrogate_pair_is_named_with_its_place(calls, name):
    with pytest.raises(ValueError, match=r"half of a surrogate pair, '\\ud800', as its character 1"):
        calls[name](HALF)


@pytest.mark.parametrize("form", [HALF, [HALF], [["国", HALF]]])
def test_the_tokenizer_names_it_too(tokenizer, form):
    with pytest.raises(ValueError, match=r"half of a surrogate pair"):
        tokenizer(form, is_split_into_words=isinstance(form, list) and isinstance(form[0], list))


@pytest.mark.parametrize("name", ["classify", "answer", "tag", "attend"])
def test_messages_show_the_beginning_of_a_long_text(calls, name):
    with pytest.raises(ValueError, match="empty") as caught:
        calls[name](" " * 100_000)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["classify", "answer", "tag", "attend"])
@pytest.mark.parametrize("piece", ["国", "a", "\u0301", "\x00", "👨\u200d👩\u200d👧"])
def test_a_long_text_is_read_or_refused(calls, name, piece):
    text = "国" + piece * 2000
    for word, start, end in refused(calls[name], text) or ():
        assert word == text[start:end]
