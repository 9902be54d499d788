"""Gold answers through tokens, labels and decoding: all come back whose edges are edges of tokens."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import hf_nlpnotes
from hf_nlpnotes.question_answering import (
    locate_answer,
    postprocess_predictions,
    prepare_train_features,
    prepare_validation_features,
)

QUESTIONS = 200


@pytest.fixture(scope="module")
def columns(data_folder):
    path = data_folder / "question_answering" / "cmrc2018_dev.squad.json"
    if not path.is_file():
        pytest.skip(f"no file {path}")
    rows = [
        (paragraph["context"], one)
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for one in paragraph["qas"]
    ][:QUESTIONS]
    answers = []
    for context, one in rows:
        span = locate_answer(context, one["answers"][0]["text"], one["answers"][0]["answer_start"])
        answers.append({"text": [context[span.start : span.end]], "answer_start": [span.start]})
    return {
        "id": [one["id"] for _, one in rows],
        "question": [one["question"] for _, one in rows],
        "context": [context for context, _ in rows],
        "answers": answers,
    }


def unigram(texts, longest):
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=4000,
        max_piece_length=longest,
        special_tokens=["<s>", "<pad>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B <s>", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="<s>", pad_token="<pad>", unk_token="<unk>")


@pytest.mark.parametrize("kind", ["chinesebert", "characters", "pieces"])
def test_gold_answers_come_back(columns, kind):
    if kind == "chinesebert":
        tokenizer = AutoTokenizer.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL)
    else:
        tokenizer = unigram(sorted(set(columns["context"])), 1 if kind == "characters" else 8)
    labels = prepare_train_features(columns, tokenizer, 128, 40)
    features = prepare_validation_features(columns, tokenizer, 128, 40)
    rows = np.arange(len(features["example_id"]))
    start, end = np.zeros((2, len(rows), 128), dtype=np.float32)
    start[rows, labels["start_positions"]] = end[rows, labels["end_positions"]] = 10
    found = postprocess_predictions(columns, features, (start, end), max_answer_length=100)

    edges = {name: (set(), set()) for name in columns["id"]}
    for name, pairs in zip(features["example_id"], features["offset_mapping"], strict=True):
        for side in (0, 1):
            edges[name][side].update(pairs[:, side].tolist())
    came_back = 0
    for name, answer in zip(columns["id"], columns["answers"], strict=True):
        text, begin = answer["text"][0], answer["answer_start"][0]
        if begin in edges[name][0] and begin + len(text) in edges[name][1] and len(text) <= 40:
            assert found[name] == text
            came_back += 1
    assert came_back > (0.4 if kind == "pieces" else 0.9) * QUESTIONS
