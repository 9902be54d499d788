"""Question answering: enumeration of all spans over the tokenizer's own windows is the oracle."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    BertTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForQuestionAnswering,
    pipeline,
)
from transformers.pipelines.pt_utils import KeyDataset

from hf_nlpnotes.models.chinesebert import ChineseBertForQuestionAnswering
from hf_nlpnotes.models.joint_span import JointSpanForQuestionAnswering
from hf_nlpnotes.pipelines import ExtractiveQuestionAnsweringPipeline, QuestionAnsweringPipeline
from hf_nlpnotes.question_answering import features as features_module

QUESTION, CONTEXT = "谁今晚出战？", "国足今晚在北京出战，对阵上海队。"
LONG = "国足今晚在北京出战，对阵上海队。market价格上涨，iphone12发布；天气很好。" * 4
QUESTIONS = ["谁今晚出战", "什么价格", "手机发布", "天气"]


def bert(folder: Path, **options: Any) -> tuple[Any, Any]:
    tokenizer = BertTokenizer(vocab=str(folder / "vocab.txt"), model_max_length=64, **options)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    return BertForQuestionAnswering(config), tokenizer


@pytest.fixture(scope="module", params=["bert", "padded-left", "chinesebert", "joint"])
def parts(request: pytest.FixtureRequest, tiny_chinesebert_folder: Path) -> tuple[Any, Any]:
    """A random model with strong opinions, and its tokenizer."""
    torch.manual_seed(2)
    if request.param in ("chinesebert", "joint"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder, model_max_length=64)
        if request.param == "joint":
            model = JointSpanForQuestionAnswering.from_encoder(tiny_chinesebert_folder, pair_size=8)
        else:
            model = ChineseBertForQuestionAnswering.from_pretrained(tiny_chinesebert_folder)
    else:
        side = "left" if request.param == "padded-left" else "right"
        model, tokenizer = bert(tiny_chinesebert_folder, padding_side=side)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "glyph" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model.eval(), tokenizer


@pytest.fixture
def answer(parts: tuple[Any, Any]) -> ExtractiveQuestionAnsweringPipeline:
    model, tokenizer = parts
    return ExtractiveQuestionAnsweringPipeline(model, tokenizer, device="cpu")


def enumerated(
    parts: tuple[Any, Any], question: str, context: str, max_answer_len: int, doc_stride: int
) -> tuple[dict[tuple[int, int], float], list[float]]:
    """The score of every span of characters, and of "no answer" in every window, by the model alone."""
    model, tokenizer = parts
    second = tokenizer.padding_side == "right"
    encoded = tokenizer(
        *((question, context) if second else (context, question)),
        truncation="only_second" if second else "only_first",
        max_length=64,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    spans: dict[tuple[int, int], float] = {}
    nulls = []
    offsets = encoded["offset_mapping"]
    for window, ids in enumerate(encoded["input_ids"]):
        inputs = {name: torch.tensor([encoded[name][window]]) for name in tokenizer.model_input_names}
        with torch.no_grad():
            output = model(**inputs)
        of_context = [owner == int(second) for owner in encoded.sequence_ids(window)]
        allowed = np.array(of_context)
        cls = ids.index(tokenizer.cls_token_id)
        allowed[cls] = True
        if "span_logits" in output:
            scores = np.exp(output.span_logits[0].double().numpy())
            scores = np.triu(scores * np.outer(allowed, allowed))
            null = scores[cls, cls]
            scores[cls], scores[:, cls] = 0, 0
            total = scores.sum() + null
            scores, null = scores / total, null / total
        else:
            logits = [np.where(allowed, part[0].double().numpy(), -np.inf) for part in output.to_tuple()]
            first, last = (np.exp(part) / np.exp(part).sum() for part in logits)
            scores, null = np.outer(first, last), first[cls] * last[cls]
        nulls.append(float(null))
        for first_token, last_token in zip(*np.triu_indices(len(ids)), strict=True):
            is_short = last_token - first_token < max_answer_len
            if is_short and of_context[first_token] and of_context[last_token]:
                place = offsets[window][first_token][0], offsets[window][last_token][1]
                spans[place] = max(spans.get(place, 0), float(scores[first_token, last_token]))
    return spans, nulls


def ranked(spans: dict[tuple[int, int], float]) -> list[float]:
    return sorted(spans.values(), reverse=True)


@pytest.mark.parametrize("max_answer_len", [3, 128])
@pytest.mark.parametrize("context", [CONTEXT, LONG])
def test_answers_are_the_best_of_all_spans(answer, parts, context, max_answer_len):
    spans, _ = enumerated(parts, QUESTION, context, max_answer_len, 16)
    options = {"max_answer_len": max_answer_len, "doc_stride": 16, "align_to_words": False}
    found = answer(question=QUESTION, context=context, top_k=25, **options)
    assert [one["score"] for one in found] == pytest.approx(ranked(spans)[:25], rel=1e-3)
    for one in found:
        assert one["score"] == pytest.approx(spans[one["start"], one["end"]], rel=1e-3)
    best = answer(question=QUESTION, context=context, **options)
    assert best == found[0]


def test_every_answer_is_its_piece_of_the_context(answer):
    for align in (True, False):
        found = answer(question=QUESTION, context=LONG, top_k=60, align_to_words=align)
        assert len(found) == 60
        assert all(LONG[one["start"] : one["end"]] == one["answer"] != "" for one in found)
        assert len({(one["start"], one["end"]) for one in found}) == 60
        scores = [one["score"] for one in found]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        cut = [one for one in found if one["answer"][0] in "arket" and LONG[one["start"] - 1] in "market"]
        assert not (align and cut)


def test_there_are_as_many_answers_as_asked_for_where_there_are(answer):
    # Three characters: six spans; the last word has two pieces, and is one.
    assert len(answer("谁", "国足晚", top_k=20)) == 6
    assert [one["answer"] for one in answer("谁", "hi", top_k=20)] == ["hi"]
    assert len(answer("谁", "hi", top_k=20, align_to_words=False)) == 3


def test_batches_and_order_do_not_change_answers(answer):
    questions = [{"question": q, "context": c} for c in (CONTEXT, LONG, "天气很好") for q in QUESTIONS]
    one_by_one = [answer(question, top_k=4) for question in questions]
    for order in (questions, questions[::-1]):
        found = answer(order, top_k=4, batch_size=5)
        for expected, got in zip(one_by_one if order is questions else one_by_one[::-1], found, strict=True):
            assert [one["score"] for one in got] == pytest.approx([one["score"] for one in expected], rel=1e-3)
            assert got[0]["answer"] == expected[0]["answer"]
    padded = answer(questions[0], top_k=4, padding="max_length")
    assert [one["score"] for one in padded] == pytest.approx([one["score"] for one in one_by_one[0]], rel=1e-3)


@pytest.fixture(scope="module")
def plain(tiny_chinesebert_folder: Path) -> QuestionAnsweringPipeline:
    torch.manual_seed(0)
    model, tokenizer = bert(tiny_chinesebert_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return QuestionAnsweringPipeline(model, tokenizer, device="cpu")


MANY = {"question": QUESTIONS[:2], "context": [CONTEXT, LONG]}
ROWS = [{"question": q, "context": c, "id": 1} for q, c in zip(*MANY.values(), strict=True)]


def test_one_question_in_all_its_forms(plain):
    expected = plain(question=QUESTION, context=CONTEXT)
    assert list(expected) == ["score", "start", "end", "answer"]
    for arguments in ([{"question": QUESTION, "context": CONTEXT, "id": 7}], [QUESTION, CONTEXT]):
        assert plain(*arguments) == expected
    assert plain(QUESTION, context=CONTEXT) == expected
    assert plain(question=QUESTION, context=CONTEXT, top_k=1) == expected
    assert plain(question=QUESTION, context=CONTEXT, top_k=2)[0] == expected


def test_many_questions_in_all_their_forms(plain):
    expected = [plain(row) for row in ROWS]
    for form in (ROWS, tuple(ROWS), MANY, KeyDataset([{"row": row} for row in ROWS], "row"), Dataset.from_list(ROWS)):
        assert_same(list(plain(form)), expected)
    assert_same(plain(*ROWS), expected)
    assert_same(plain(**MANY), expected)
    assert_same(plain(*MANY.values()), expected)
    assert_same(list(plain(row for row in ROWS)), expected)
    both = [plain(question=question, context=CONTEXT) for question in QUESTIONS]
    assert_same(plain(question=QUESTIONS, context=CONTEXT), both)
    assert_same(plain(question=QUESTION, context=[CONTEXT, LONG]), [plain(QUESTION, one) for one in (CONTEXT, LONG)])


def assert_same(found: list[Any], expected: list[Any]) -> None:
    assert [(one["start"], one["end"]) for one in found] == [(one["start"], one["end"]) for one in expected]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], rel=1e-3)


def test_the_type_of_a_result_depends_on_the_form_alone(plain):
    assert type(plain(ROWS[:1])) is list
    assert type(plain(question=[QUESTION], context=CONTEXT)[0]) is dict
    assert type(plain([])) is list
    # One span only, and asked for several: still a list.
    assert [one["answer"] for one in plain("谁", "hi", top_k=3)] == ["hi"]
    assert type(plain("谁", "hi", threshold=1.0)) is list
    assert type(plain(ROWS[:1], top_k=3)[0]) is list


def test_a_stream_is_read_as_it_is_answered(plain):
    read = []

    def rows() -> Iterator[dict[str, str]]:
        for number in range(200):
            read.append(number)
            yield {"question": QUESTION, "context": "国足" * (1 + number % 3)}

    stream = plain(rows())
    next(stream)
    assert len(read) == 1
    stream = plain(rows(), batch_size=2)
    read.clear()
    next(stream)
    assert len(read) == 32


def test_options_are_of_the_pipeline_or_the_call(plain, parts):
    few = QuestionAnsweringPipeline(plain.model, plain.tokenizer, device="cpu", top_k=3, max_answer_len=2)
    assert len(few(QUESTION, CONTEXT)) == 3
    assert max(one["end"] - one["start"] for one in few(QUESTION, CONTEXT)) <= 2
    assert type(few(QUESTION, CONTEXT, top_k=1)) is dict
    assert len(few(QUESTION, CONTEXT)) == 3


def test_each_context_is_tokenised_once(plain, monkeypatch):
    seen: list[str] = []
    tokenize = features_module.tokenize_once

    def spy(tokenizer: Any, texts: Any, **options: Any) -> Any:
        seen.extend(texts)
        return tokenize(tokenizer, texts, **options)

    monkeypatch.setattr(features_module, "tokenize_once", spy)
    monkeypatch.setattr("hf_nlpnotes.pipelines._qa_windows._CHUNK", 3)
    rows = [{"question": question, "context": context} for question in QUESTIONS for context in (CONTEXT, LONG)]
    plain(rows, batch_size=4)
    assert (seen.count(CONTEXT), seen.count(LONG)) == (1, 1)


def test_no_answer_competes_by_its_score(answer, parts):
    spans, nulls = enumerated(parts, QUESTION, LONG, 128, 16)
    options = {"doc_stride": 16, "align_to_words": False, "handle_impossible_answer": True}
    found = answer(question=QUESTION, context=LONG, top_k=10**4, **options)
    (null,) = [one for one in found if not one["answer"]]
    assert null == {"score": pytest.approx(min(nulls), rel=1e-3), "start": 0, "end": 0, "answer": ""}
    better = sum(score > null["score"] for score in spans.values())
    assert found.index(null) == pytest.approx(better, abs=2)


def test_no_answer_by_a_threshold_of_logits(plain, parts):
    model, tokenizer = plain.model, plain.tokenizer
    with torch.no_grad():
        output = model(**tokenizer(QUESTION, CONTEXT, return_tensors="pt"))
    spans, (null,) = enumerated((model, tokenizer), QUESTION, CONTEXT, 128, 16)
    difference = math.log(null) - math.log(max(spans.values()))
    assert output.start_logits.shape[0] == 1
    for threshold, is_impossible in ((difference - 0.01, True), (difference + 0.01, False)):
        options = {"handle_impossible_answer": True, "null_score_diff_threshold": threshold}
        one = plain(QUESTION, CONTEXT, align_to_words=False, **options)
        assert (one["answer"] == "") == is_impossible
        several = plain(QUESTION, CONTEXT, top_k=3, align_to_words=False, **options)
        assert len(several) == 3
        assert [not other["answer"] for other in several] == [is_impossible, False, False]


def test_thresholds_of_long_texts_are_those_of_the_postprocessing(plain):
    """As `postprocess_predictions` decides with `version_2_with_negative`."""
    from hf_nlpnotes.question_answering import postprocess_predictions, prepare_validation_features

    examples = {
        "id": [*range(len(QUESTIONS) * 2)],
        "question": QUESTIONS * 2,
        "context": [CONTEXT] * len(QUESTIONS) + [LONG] * len(QUESTIONS),
    }
    features = prepare_validation_features(examples, plain.tokenizer, max_length=64, doc_stride=16)
    with torch.no_grad():
        inputs = {name: torch.from_numpy(features[name]) for name in plain.tokenizer.model_input_names}
        output = plain.model(**inputs)
    logits = output.start_logits.numpy(), output.end_logits.numpy()
    decided = set()
    for threshold in np.linspace(-4, 4, 9).tolist():
        expected = postprocess_predictions(
            examples, features, logits, True, max_answer_length=30, null_score_diff_threshold=threshold
        )
        found = plain(
            question=examples["question"],
            context=examples["context"],
            handle_impossible_answer=True,
            null_score_diff_threshold=threshold,
            max_answer_len=30,
            doc_stride=16,
            align_to_words=False,
            batch_size=8,
        )
        assert [bool(one["answer"]) for one in found] == [bool(expected[key]) for key in examples["id"]]
        decided |= {bool(one["answer"]) for one in found}
    assert decided == {True, False}


def test_all_answers_above_a_threshold_that_do_not_overlap(plain, parts):
    spans, _ = enumerated((plain.model, plain.tokenizer), QUESTION, LONG, 128, 16)
    options = {"doc_stride": 16, "align_to_words": False}
    for threshold in (1e-4, 1e-3, 1e-2):
        kept: list[tuple[int, int]] = []
        for (start, end), score in sorted(spans.items(), key=lambda item: -item[1]):
            if score >= threshold and all(end <= a or b <= start for a, b in kept):
                kept.append((start, end))
        found = plain(QUESTION, LONG, threshold=threshold, **options)
        assert [(one["start"], one["end"]) for one in found] == kept
        assert plain(QUESTION, LONG, threshold=threshold, top_k=2, **options) == found[:2]
    assert plain(QUESTION, LONG, threshold=1.0) == []


class Pointing(BertForQuestionAnswering):
    """Answers begin at 你 and end at 们."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
        output = super().forward(input_ids, attention_mask=attention_mask, return_dict=True)
        output.start_logits = 50.0 * (input_ids == self.config.first)
        output.end_logits = 50.0 * (input_ids == self.config.last)
        return output


@pytest.fixture(scope="module")
def pointing(tiny_chinesebert_folder: Path) -> QuestionAnsweringPipeline:
    model, tokenizer = bert(tiny_chinesebert_folder)
    model = Pointing(model.config)
    model.config.first, model.config.last = tokenizer.convert_tokens_to_ids(["你", "们"])
    return QuestionAnsweringPipeline(model, tokenizer, device="cpu")


@pytest.mark.parametrize("length", [2, 16, 40])
def test_long_answers_are_within_reach(pointing, length):
    wanted = "你" + "好" * (length - 2) + "们"
    found = pointing("谁", f"是的是{wanted}有的")
    assert (found["answer"], found["start"]) == (wanted, 3)
    assert found["score"] == pytest.approx(1)
    in_v4 = pointing("谁", f"是的是{wanted}有的", compatibility="v4")
    assert (in_v4["answer"] == wanted) == (length <= 15)


def test_an_answer_in_any_window(pointing):
    for place in (0, 50, 150, 295):
        text = "好" * place + "你他们" + "好" * (297 - place)
        found = pointing("谁", text)
        assert (found["answer"], found["start"]) == ("你他们", place)


def test_equal_texts_at_two_places_are_two_answers_except_in_v4(pointing):
    text = "你们是" + "好" * 60 + "，你们来"
    found = pointing("谁", text, top_k=2)
    assert [(one["start"], one["answer"]) for one in found] == [(0, "你们"), (64, "你们")]
    assert all(one["score"] <= 1 for one in found)
    merged = pointing("谁", text, top_k=1, compatibility="v4")
    assert merged["answer"] == "你们"
    assert merged["score"] > 1.5


def test_a_long_question_is_cut_to_leave_room(pointing):
    assert pointing("好" * 200, "是你他们的" + "好" * 100)["answer"] == "你他们"
    assert pointing("好" * 30, "是你他们的", max_question_len=5)["answer"] == "你他们"


def test_compatibility_gives_a_single_answer_without_its_list(plain):
    v4 = QuestionAnsweringPipeline(plain.model, plain.tokenizer, device="cpu", compatibility="v4")
    assert type(v4(ROWS[:1])) is dict
    assert type(v4(ROWS[:1], top_k=2)) is list
    assert [type(one) for one in v4(ROWS)] == [dict, dict]


def test_a_peft_model_answers(plain):
    from peft import LoraConfig, get_peft_model

    model, _ = plain.model, plain.tokenizer
    expected = plain(QUESTION, LONG)
    adapted = get_peft_model(
        BertForQuestionAnswering(model.config), LoraConfig(task_type="QUESTION_ANS", target_modules=["query"])
    )
    adapted.base_model.model.load_state_dict(model.state_dict(), strict=False)
    found = QuestionAnsweringPipeline(adapted, plain.tokenizer, device="cpu")(QUESTION, LONG)
    assert found.keys() == expected.keys()


def test_half_precision(plain):
    model = BertForQuestionAnswering(plain.model.config)
    model.load_state_dict(plain.model.state_dict())
    half = QuestionAnsweringPipeline(model.to(torch.bfloat16), plain.tokenizer, device="cpu")
    expected = plain(QUESTION, CONTEXT)
    assert half(QUESTION, CONTEXT)["score"] == pytest.approx(expected["score"], rel=0.2)


def test_a_progress_bar(plain, capsys):
    rows = ROWS * 3
    plain(rows)
    assert "answer" not in capsys.readouterr().err  # short work, and no terminal
    plain(rows, progress_bar=True, batch_size=2)
    shown = capsys.readouterr().err
    assert "answer: 100%" in shown
    plain(rows, progress_bar=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ([], {}, ValueError, "No question"),
        ([], {"question": QUESTION}, ValueError, "question"),
        ([QUESTION], {}, TypeError, "call with question"),
        ([{"question": QUESTION}], {}, ValueError, "no 'context'"),
        ([[{"query": QUESTION}]], {}, ValueError, "no 'question', only"),
        ([[QUESTION]], {}, TypeError, "expected a mapping"),
        ([{"question": " ", "context": CONTEXT}], {}, ValueError, "question is empty"),
        (
            [],
            {"question": [QUESTION, QUESTION], "context": [CONTEXT, "\n"]},
            ValueError,
            "context of input 1 is empty",
        ),
        ([], {"question": [QUESTION], "context": [CONTEXT, CONTEXT]}, ValueError, "1 questions and 2 contexts"),
        ([], {"question": QUESTION, "context": None}, ValueError, "question"),
        ([], {"question": 3, "context": CONTEXT}, TypeError, "question is a text"),
        ([], {"question": [3], "context": CONTEXT}, TypeError, "question of input 0 is a text"),
        ([QUESTION, CONTEXT, CONTEXT], {}, TypeError, "Input 0"),
        ([QUESTION, CONTEXT], {"topk": 3}, TypeError, "Unknown option 'topk'"),
        ([QUESTION, CONTEXT], {"top_k": 0}, ValueError, "top_k must be a positive whole number, got 0"),
        ([QUESTION, CONTEXT], {"max_answer_len": 1.5}, ValueError, "max_answer_len"),
        ([QUESTION, CONTEXT], {"threshold": 2}, ValueError, "threshold"),
        ([QUESTION, CONTEXT], {"doc_stride": -1}, ValueError, "doc_stride"),
        ([QUESTION, CONTEXT], {"doc_stride": 62}, ValueError, "leaves no room"),
        ([QUESTION, CONTEXT], {"max_seq_len": 65}, ValueError, "the model takes 64 tokens"),
        ([QUESTION, CONTEXT], {"max_question_len": 60}, ValueError, "max_question_len"),
        ([QUESTION, CONTEXT], {"null_score_diff_threshold": 0.0}, ValueError, "handle_impossible_answer=True"),
        ([QUESTION, CONTEXT], {"compatibility": "v3"}, ValueError, "compatibility must be 'v4'"),
        ([QUESTION, CONTEXT], {"compatibility": "v4", "threshold": 0.5}, ValueError, "leave it out"),
        ([QUESTION, CONTEXT], {"padding": "most"}, ValueError, "padding"),
        ([QUESTION, CONTEXT], {"batch_size": 0}, ValueError, "batch_size"),
        (["好" * 70, CONTEXT * 4], {"compatibility": "v4"}, ValueError, "leaves 0 tokens of a window of 64"),
    ],
)
def test_what_cannot_be_answered_is_told(plain, arguments, options, error, message):
    with pytest.raises(error, match=message):
        plain(*arguments, **options)


def test_a_stream_tells_when_it_comes_to_it(plain):
    stream = plain(row for row in [ROWS[0], {"question": "", "context": CONTEXT}])
    next(stream)
    with pytest.raises(ValueError, match="question of input 1 is empty"):
        next(stream)


def test_models_and_tokenizers_that_will_not_do(plain, tiny_chinesebert_folder):
    model = AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)
    with pytest.raises(TypeError, match="no start_logits"):
        QuestionAnsweringPipeline(model, AutoTokenizer.from_pretrained(tiny_chinesebert_folder), device="cpu")(
            QUESTION, CONTEXT
        )
    with pytest.raises(ValueError, match="fast tokenizer"):
        QuestionAnsweringPipeline(plain.model, None)
    broken = BertForQuestionAnswering(plain.model.config)
    torch.nn.init.constant_(broken.qa_outputs.bias, math.nan)
    with pytest.raises(ValueError, match="NaN"):
        QuestionAnsweringPipeline(broken, plain.tokenizer, device="cpu")(QUESTION, CONTEXT)


def test_pipelines_by_name(plain):
    for task in ("question-answering", "extractive-question-answering"):
        made = pipeline(task, model=plain.model, tokenizer=plain.tokenizer, device="cpu", top_k=2)
        assert len(made(QUESTION, CONTEXT)) == 2


def sentencepiece_like(special: dict[str, str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=list(special.values()), unk_token="<unk>")
    tokenizer.train_from_iterator([WORDS, LONG] * 20, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    return tokenizer


def byte_level(special: dict[str, str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=list(special.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ids, trim_offsets=False, add_prefix_space=False)
    return tokenizer


WORDS = "The quick brown fox, who is 12 years old, does not jump over the lazy dog. "


@pytest.mark.parametrize("make", [sentencepiece_like, byte_level])
@pytest.mark.parametrize("context", [WORDS * 5, LONG])
def test_other_kinds_of_tokens(make, context):
    """Pieces with blanks in them, characters of several tokens, and a Chinese sentence that is one word."""
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    special |= {"cls_token": "<s>", "sep_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=make(special), **special)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        pad_token_id=tokenizer.pad_token_id,
    )
    answer = QuestionAnsweringPipeline(RobertaForQuestionAnswering(config), tokenizer, device="cpu")
    found = answer("who is", context, top_k=100, batch_size=4)
    assert len(found) == len({(one["start"], one["end"]) for one in found}) == 100
    for one in found:
        assert context[one["start"] : one["end"]] == one["answer"] == one["answer"].strip() != ""
        around = f" {context} "[one["start"]] + one["answer"][0], one["answer"][-1] + f" {context} "[one["end"] + 1]
        assert not any(pair.isascii() and pair.isalnum() for pair in around)
    if context is LONG:  # version 4 gave the words of the tokenizer
        assert min(len(one["answer"]) for one in found) <= 3
