"""The prompt pipeline: the stock model's logits by brute force, and the stock pipelines' manners, are the oracles."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    T5Config,
    T5ForConditionalGeneration,
    TextClassificationPipeline,
    ZeroShotClassificationPipeline,
    pipeline,
)
from transformers.pipelines.pt_utils import KeyDataset

import hf_nlpnotes
from hf_nlpnotes.pipelines import ZeroShotPromptPipeline
from hf_nlpnotes.prompting import CONTENT_FREE_TEXTS, READY_LABEL_WORDS
from hf_nlpnotes.prompting.static_prior import combine, static_similarity

TEMPLATE = "下面报道一则{label}新闻。{text}"
LABELS = ["体育", "财经", "房产市场", "球"]
WORDS = {"体育": ["体育", "足球", "球"], "财经": {"财经": 3, "市场行业": 1}, "教育": "学校"}
TEXTS = ["国足今晚出战", "银行业绩长，股票涨", "，", "手机", "[MASK]球队[SEP]", "新" * 500]


@pytest.fixture(scope="module", params=["bert", "chinesebert"])
def parts(request: pytest.FixtureRequest, tiny_chinesebert_folder: Path) -> tuple[Any, Any]:
    """A random model with strong opinions, and its tokenizer."""
    if request.param == "chinesebert":
        model = AutoModelForMaskedLM.from_pretrained(tiny_chinesebert_folder)
        tokenizer = AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
        assert type(tokenizer).__name__ == "ChineseBertTokenizer"
    else:
        tokenizer = BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"))
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
        model = BertForMaskedLM(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def pipe(parts: tuple[Any, Any]) -> ZeroShotPromptPipeline:
    model, tokenizer = parts
    return ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, template=TEMPLATE, device="cpu")


def by_label(answer: dict[str, Any]) -> dict[str, float]:
    return dict(zip(answer["labels"], answer["scores"], strict=True))


def assert_same(first: list[Any], second: list[Any], tolerance: float = 1e-5) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert by_label(one) == pytest.approx(by_label(other), abs=tolerance)


def written_prompt(tokenizer: Any, text: str, masks: int, room: int) -> dict[str, torch.Tensor]:
    """The prompt through the stock tokenizer. Special tokens in the text are put in letter by letter."""
    before = tokenizer("下面报道一则" + tokenizer.mask_token * masks + "新闻。", add_special_tokens=True)
    inside = tokenizer("，" + text, add_special_tokens=False, split_special_tokens=True)
    return {
        name: torch.tensor([[*before[name][:-1], *inside[name][1 : 1 + room], before[name][-1]]])
        for name in tokenizer.model_input_names
    }


def brute_force(parts: tuple[Any, Any], text: str, words: dict[str, dict[str, float]]) -> torch.Tensor:
    """Label scores: weighted mean over words of the mean log-probability of the word's tokens, one word at a time."""
    model, tokenizer = parts
    spelled = {w: tokenizer(w, add_special_tokens=False)["input_ids"] for own in words.values() for w in own}
    longest = max(map(len, spelled.values()))
    room = model.config.max_position_embeddings - len("下面报道一则新闻。") - longest - 2
    scores = []
    for own in words.values():
        score = 0.0
        for word, weight in own.items():
            ids = spelled[word]
            with torch.no_grad():
                logits = model(**written_prompt(tokenizer, text, len(ids), room)).logits[0]
            log_probs = logits.double().log_softmax(dim=-1)
            score += weight * sum(float(log_probs[7 + k, i]) for k, i in enumerate(ids)) / len(ids)
        scores.append(score / sum(own.values()))
    return torch.tensor(scores, dtype=torch.float64)


def test_scores_are_mean_log_probabilities(parts: tuple[Any, Any], pipe: ZeroShotPromptPipeline) -> None:
    for text, answer in zip(TEXTS, pipe(TEXTS, LABELS, calibration="none", batch_size=4), strict=True):
        expected = brute_force(parts, text, {label: {label: 1} for label in LABELS}).softmax(0)
        assert by_label(answer) == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)


def test_words_and_weights(parts: tuple[Any, Any], pipe: ZeroShotPromptPipeline) -> None:
    words = {"财经": {"财经": 3, "市场行业": 1}, "球": {"球": 1}, "体育": {"体育": 1, "足球": 1, "球": 1}}
    answer = pipe(TEXTS[0], list(words), verbalizer=WORDS, calibration="none")
    expected = brute_force(parts, TEXTS[0], words).softmax(0)
    assert by_label(answer) == pytest.approx(dict(zip(words, expected.tolist(), strict=True)), abs=1e-5)


@pytest.mark.parametrize("calibration", ["contextual", "domain", "batch"])
def test_calibration_takes_out_the_mean(
    parts: tuple[Any, Any], pipe: ZeroShotPromptPipeline, calibration: str
) -> None:
    """Labels of one length, where centred logits and log-probabilities are the same after the softmax."""
    labels = {"体育": {"体育": 1}, "财经": {"财经": 1, "银行": 2}, "教育": {"教育": 1}}
    reference = {"contextual": CONTENT_FREE_TEXTS, "domain": ("",), "batch": TEXTS}[calibration]
    bias = torch.stack([brute_force(parts, text, labels) for text in reference]).mean(dim=0)
    answers = pipe(TEXTS, list(labels), verbalizer={"财经": labels["财经"]}, calibration=calibration)
    for text, answer in zip(TEXTS, answers, strict=True):
        expected = (brute_force(parts, text, labels) - bias).softmax(0)
        assert by_label(answer) == pytest.approx(dict(zip(labels, expected.tolist(), strict=True)), abs=1e-5)


def test_prior_calibration_reaches_the_prior(pipe: ZeroShotPromptPipeline) -> None:
    prior = {"体育": 0.1, "财经": 0.2, "房产市场": 0.3, "球": 0.4}
    answers = pipe(TEXTS, LABELS, calibration="prior", label_prior=prior)
    for label, share in prior.items():
        assert sum(by_label(answer)[label] for answer in answers) / len(TEXTS) == pytest.approx(share, abs=1e-6)


def test_prior_calibration_on_given_texts_is_that_of_each_label_set(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    own = [["体育", "财经"], ["教育", "房产"], ["财经", "学校"]]
    options = {"calibration": "prior", "label_prior": [0.8, 0.2], "calibration_texts": TEXTS}
    expected = []
    for labels in own:
        pipe = ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, template=TEMPLATE, device="cpu")
        expected.append(pipe(TEXTS[0], labels, **options))
        answers = [by_label(answer) for answer in pipe(TEXTS, labels, **options)]
        assert sum(answer[labels[0]] for answer in answers) / len(TEXTS) == pytest.approx(0.8, abs=1e-4)
    for batch_size in (1, 4):
        pipe = ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, template=TEMPLATE, device="cpu")
        assert_same(pipe(TEXTS[:1] * 3, own, batch_size=batch_size, **options), expected)


def test_calibration_on_given_texts(pipe: ZeroShotPromptPipeline) -> None:
    whole = pipe(TEXTS, LABELS, calibration="batch")
    single = pipe(TEXTS[1], LABELS, calibration="batch", calibration_texts=TEXTS)
    assert_same([single], [whole[1]])
    assert_same(
        [pipe(TEXTS[1], LABELS, calibration="domain")],
        [pipe(TEXTS[1], LABELS, calibration="contextual", calibration_texts=[""])],
    )


ALL = ["none", "contextual", "domain", "batch", "prior"]


@pytest.mark.parametrize("calibration", ALL)
def test_batching_and_order_change_nothing(pipe: ZeroShotPromptPipeline, calibration: str) -> None:
    reference = pipe(TEXTS, LABELS, calibration=calibration)
    for size in (2, 5, 64):
        assert_same(pipe(TEXTS, LABELS, calibration=calibration, batch_size=size), reference)
    assert_same(pipe(TEXTS[::-1], LABELS, calibration=calibration, batch_size=3)[::-1], reference)
    assert_same(pipe(TEXTS, LABELS[::-1], calibration=calibration), reference)
    assert_same(pipe(TEXTS, ",".join(LABELS), calibration=calibration), reference)


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(
    parts: tuple[Any, Any], pipe: ZeroShotPromptPipeline
) -> None:
    reference = pipe(TEXTS, LABELS, batch_size=6)
    parts[1].padding_side = "left"
    try:
        assert_same(pipe(TEXTS, LABELS, batch_size=6), reference)
    finally:
        parts[1].padding_side = "right"


@pytest.mark.parametrize("calibration", ALL)
@pytest.mark.parametrize("labels", [["体育", "财经"], LABELS], ids=["one length", "three lengths"])
def test_a_constant_in_the_output_bias_is_calibrated_away(
    parts: tuple[Any, Any], pipe: ZeroShotPromptPipeline, calibration: str, labels: list[str]
) -> None:
    model, tokenizer = parts
    before = pipe(TEXTS, labels, calibration=calibration)
    token = tokenizer.convert_tokens_to_ids("育")
    bias = model.get_output_embeddings().bias
    try:
        with torch.no_grad():
            bias[token] += 4
        after = pipe(TEXTS, labels, calibration=calibration)
    finally:
        with torch.no_grad():
            bias[token] -= 4
    if calibration == "none":
        with pytest.raises(AssertionError):
            assert_same(before, after)
    else:
        assert_same(before, after)


def test_calibration_restores_accuracy_under_an_injected_bias(tiny_chinesebert_folder: Path) -> None:
    """A masked LM trained to read the topic off the text, then pushed towards one label."""
    tokenizer = BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config)
    topics = {"体育": "球队足篮赛", "财经": "银行市场股", "教育": "学生老师考"}
    generator = torch.Generator().manual_seed(0)

    def sample(topic: str) -> str:
        return "".join(topics[topic][i] for i in torch.randint(5, (4,), generator=generator).tolist())

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        rows = [(topic, sample(topic)) for topic in topics for _ in range(8)]
        batch = tokenizer([f"[MASK][MASK]：{text}" for _, text in rows], return_tensors="pt")
        labels = torch.full_like(batch["input_ids"], -100)
        labels[:, 1:3] = torch.tensor([tokenizer(topic, add_special_tokens=False)["input_ids"] for topic, _ in rows])
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        model.get_output_embeddings().bias[tokenizer.convert_tokens_to_ids("财")] += 30
    pipe = ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, template="{label}：{text}", device="cpu")
    rows = [(topic, sample(topic)) for topic in topics for _ in range(20)]

    def accuracy(calibration: str) -> float:
        answers = pipe([text for _, text in rows], list(topics), calibration=calibration, batch_size=20)
        hits = [answer["labels"][0] == topic for (topic, _), answer in zip(rows, answers, strict=True)]
        return sum(hits) / len(hits)

    assert accuracy("none") < 0.4
    for calibration in ("batch", "prior"):
        assert accuracy(calibration) > 0.95
    for calibration in ("contextual", "domain"):
        assert accuracy(calibration) > 0.6  # the prompt without a text was never trained


def test_answers_have_the_form_of_zero_shot_classification(parts: tuple[Any, Any]) -> None:
    tokenizer = parts[1]
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=3, label2id={"entailment": 0, "neutral": 1, "contradiction": 2},
    )  # fmt: skip
    stock_tokenizer = BertTokenizer(vocab=tokenizer.get_vocab())
    stock = ZeroShotClassificationPipeline(
        model=BertForSequenceClassification(config).eval(), tokenizer=stock_tokenizer, device="cpu"
    )
    ours = ZeroShotPromptPipeline(model=parts[0], tokenizer=tokenizer, device="cpu")

    def shape(value: Any) -> Any:
        if isinstance(value, list):
            return [shape(item) for item in value]
        return {key: sorted(v) if key == "labels" else type(v) for key, v in value.items()}

    for labels in (["体育", "财经"], "体育, 财经,", ["体育"]):
        for inputs in ("国足", ["国足"], ["国足", "出战"], KeyDataset([{"t": "国足"}, {"t": "出战"}], "t")):
            found, expected = ours(inputs, labels), stock(inputs, labels)
            assert isinstance(found, (dict, list)) == isinstance(expected, (dict, list))
            if not isinstance(found, (dict, list)):
                found, expected = list(found), list(expected)
            assert shape(found) == shape(expected)
            for answer in found if isinstance(found, list) else [found]:
                assert answer["scores"] == sorted(answer["scores"], reverse=True)
                assert sum(answer["scores"]) == pytest.approx(1) or labels == ["体育"]
                assert all(0 <= score <= 1 for score in answer["scores"])
                assert all(type(score) is float for score in answer["scores"])


@pytest.mark.parametrize("calibration", ["contextual", "batch"])
def test_everything_that_can_be_iterated(pipe: ZeroShotPromptPipeline, calibration: str) -> None:
    expected = pipe(TEXTS, LABELS, calibration=calibration)
    data = Dataset.from_dict({"text": TEXTS, "id": list(range(len(TEXTS)))})

    def generate() -> Iterator[str]:
        yield from TEXTS

    lazy = [generate(), iter(TEXTS), KeyDataset(data, "text"), data]
    for inputs in lazy:
        answers = pipe(inputs, LABELS, calibration=calibration, batch_size=2)
        assert not isinstance(answers, list)
        assert_same(list(answers), expected)
    for inputs in (tuple(TEXTS), data["text"]):
        answers = pipe(inputs, LABELS, calibration=calibration)
        assert isinstance(answers, list)
        assert_same(answers, expected)
    assert pipe([], LABELS, calibration=calibration) == []


def test_any_columns(pipe: ZeroShotPromptPipeline) -> None:
    template = "{问题}？{label}，{答案}"
    rows = [{"问题": "国足今晚", "答案": "出战", "id": 5}, {"问题": "", "答案": "好" * 300, "id": 6}]
    answers = pipe(rows, ["是", "不"], template=template, batch_size=2)
    assert [answer["sequence"] for answer in answers] == rows
    assert_same([pipe(rows[1], ["是", "不"], template=template)], answers[1:])


def test_a_stored_verbalizer_answers_as_text_classification(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    pipe = ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, verbalizer=WORDS, device="cpu")
    best = pipe("国足")
    full = by_label(pipe("国足", list(WORDS)))
    assert best == [{"label": max(full, key=full.__getitem__), "score": pytest.approx(max(full.values()))}]
    assert pipe(["国足"]) == best
    top = pipe("国足", top_k=2)
    assert [answer["label"] for answer in top] == sorted(full, key=full.__getitem__, reverse=True)[:2]
    assert pipe(["国足"], top_k=2) == [top]


def test_options_of_the_constructor_and_the_call_are_the_same(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    options = {"template": "{text}，{label}", "calibration": "domain", "candidate_labels": LABELS, "max_length": 20}
    stored = ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, device="cpu", **options)
    plain = ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, device="cpu")
    assert_same(stored(TEXTS), plain(TEXTS, **options))
    assert_same(stored(TEXTS, calibration="none"), plain(TEXTS, **{**options, "calibration": "none"}))
    assert_same(stored(TEXTS), plain(TEXTS, **options))


def test_ready_words_are_those_that_the_vocabulary_can_spell(
    parts: tuple[Any, Any], pipe: ZeroShotPromptPipeline
) -> None:
    def spelled(word: str) -> bool:
        return parts[1].unk_token_id not in parts[1](word, add_special_tokens=False)["input_ids"]

    words = {label: [word for word in READY_LABEL_WORDS[label] if spelled(word)] for label in ("体育", "房产")}
    assert 0 < len(words["体育"]) < len(READY_LABEL_WORDS["体育"])
    labels = ["房产", "体育", "手机"]  # the last is not a known topic
    assert_same(pipe(TEXTS, labels, verbalizer="ready"), pipe(TEXTS, labels, verbalizer=words))


@pytest.mark.parametrize(
    ("inputs", "options", "error", "what"),
    [
        ("国足", {"candidate_labels": []}, ValueError, "no label"),
        ("国足", {"candidate_labels": ""}, ValueError, "no label"),
        ("国足", {}, ValueError, "No labels: give candidate_labels"),
        ("国足", {"verbalizer": "ready"}, ValueError, "No labels: give candidate_labels"),
        ("国足", {"candidate_labels": ["体育", "体育"]}, ValueError, "'体育' is given twice"),
        ("国足", {"candidate_labels": ["体育", ""]}, ValueError, "label '' is empty"),
        ("国足", {"candidate_labels": ["体育", "鼯鼠"]}, ValueError, "cannot spell the label word '鼯鼠'"),
        ("国足", {"candidate_labels": {"体育": "足球"}}, TypeError, "candidate_labels is a list"),
        ("国足", {"candidate_labels": 3}, TypeError, "got 3"),
        ("国足", {"template": "{text}"}, ValueError, "No '{label}'"),
        ("国足", {"template": "{label}{text}{label}"}, ValueError, "A second '{label}'"),
        (
            "国足",
            {"template": "{label}{a}{b}"},
            ValueError,
            r"columns \['a', 'b'\], and the input is one text, '国足'",
        ),
        (
            {"a": "国足"},
            {"template": "{label}{b}"},
            ValueError,
            r"slot 'b', and the input has only the columns \['a'\]",
        ),
        ("", {}, ValueError, "text '' is empty, and there is nothing to classify: leave such texts out"),
        (["国足", " \n"], {}, ValueError, r"text ' \\n' is empty"),
        ({"a": "", "b": " "}, {"template": "{a}{label}{b}"}, ValueError, "is empty"),
        ("国足", {"template": "{label}{text:tial}"}, ValueError, "Unknown option 'tial'"),
        ("国足", {"template": []}, ValueError, "no template"),
        ("国足", {"template": {"{label}{text}": 0}}, ValueError, "must be positive"),
        ("国足", {"template": "{soft:3}{label}{text}"}, ValueError, "train it with PromptForSequenceClassification"),
        ("国足", {"template": "{demos:1}{label}{text}"}, ValueError, "give demonstrations="),
        (
            "国足",
            {"template": "{demos:1}{label}{text}", "demonstrations": [{"text": "球"}]},
            ValueError,
            "Demonstration number 0 has no 'label'",
        ),
        (
            "国足",
            {"template": "{demos:2}{label}{text}", "demonstrations": [{"text": "球", "label": "体育"}]},
            ValueError,
            "shows 2 demonstrations, and 1 of the 1",
        ),
        (
            "国足",
            {"template": "{demos:1}{label}{text}", "demonstrations": [{"text": "球", "label": "教育"}]},
            ValueError,
            "shows 1 demonstrations, and 0 of the 1",
        ),
        ("国足", {"multi_label": True, "calibration": "none"}, ValueError, "choose calibration='contextual'"),
        ("国足", {"multi_label": True, "prior_weight": 1}, ValueError, "leave out prior_weight=1"),
        ("国足", {"multi_label": "yes"}, ValueError, "True or False, got 'yes'"),
        ("国足", {"prior_weight": -1}, ValueError, "from 0 on, got -1"),
        ("国足", {"scoring": "fast"}, ValueError, "scoring must be one of parallel, .*got 'fast'"),
        ("国足", {"hierarchy": ""}, ValueError, "between the levels of a label"),
        (
            "国足",
            {"hierarchy": "/", "candidate_labels": ["体育", "体育/足球"]},
            ValueError,
            "beginning of '体育/足球'",
        ),
        (
            "国足",
            {"hierarchy": "/", "candidate_labels": ["体育", "体育/足球/中超"]},
            ValueError,
            "'体育' is the beginning of '体育/足球/中超'",
        ),
        ("国足", {"hierarchy": "/", "candidate_labels": ["体育/"]}, ValueError, "a level without a name"),
        (["国足"] * 2, {"candidate_labels": [["体育"]]}, ValueError, "1 lists of labels for 2 texts"),
        (["国足"] * 2, {"candidate_labels": [["体育"], []]}, ValueError, "no label"),
        (["国足"] * 2, {"candidate_labels": [["体育"], "财经"], "template": "{label}{text}"}, TypeError, "a mixture"),
        (["国足"] * 2, {"candidate_labels": [["体育"], ["财经"]], "calibration": "batch"}, ValueError, "same labels"),
        (["国足"] * 2, {"candidate_labels": [["体育"], ["财经"]], "prior_weight": 1}, ValueError, "same labels"),
        ("国足", {"bias": {"体育": 1.0}}, ValueError, "no value for the label '财经'"),
        ("国足", {"bias": {"体育": 1.0, "财经": "x"}}, TypeError, "bias is one number a label, got"),
        (["国足"] * 2, {"calibration": "prior", "label_prior": "ab"}, TypeError, "one number a label, got"),
        ("国足", {"batch_size": 0.5}, ValueError, "batch_size must be a positive whole number, got 0.5"),
        ("国足", {"batch_size": 0}, ValueError, "batch_size must be a positive whole number, got 0"),
        ({"text": None}, {}, TypeError, "column 'text' holds None"),
        (None, {}, TypeError, "got NoneType: None"),
        (["国足", None], {}, TypeError, "got NoneType: None"),
        (b"abc", {}, TypeError, "got bytes"),
        (5, {}, TypeError, "got int: 5"),
        ("国足", {"calibration": "best"}, ValueError, "calibration must be one of none, contextual.*got 'best'"),
        ("国足", {"calibration": "batch"}, ValueError, "there is 1: give a list of texts"),
        ("国足", {"calibration_texts": "无"}, ValueError, "calibration_texts is a list"),
        ("国足", {"calibration_texts": [5]}, TypeError, "calibration_texts holds 5"),
        ("国足", {"calibration_texts": [{"title": "无"}]}, ValueError, "has the slot 'text', and a text of calib"),
        ("国足", {"verbalizer": "best"}, ValueError, "verbalizer is 'ready' or a mapping.*got 'best'"),
        ("国足", {"template": "下" * 64 + "{label}{text}"}, ValueError, "more than the .* that the model reads"),
        ("国足", {"max_length": 5}, ValueError, "more than the 5 that the model reads"),
        ("国足", {"max_length": 0}, ValueError, "max_length must be a positive whole number, got 0"),
        ("国足", {"rerank": -1}, ValueError, "rerank must be a positive whole number, or 0 for none, got -1"),
        ("国足", {"rerank": 2, "multi_label": True}, ValueError, "multi_label=True judges each label by itself"),
        ("国足", {"rerank": 2, "hierarchy": "/"}, ValueError, "hierarchy='/' decides level by level"),
        ("国足", {"rerank": 2, "prior_weight": 1}, ValueError, "prior_weight=1 weighs the scores of all labels"),
        ("国足", {"top_k": True}, ValueError, "top_k must be a positive whole number, got True"),
        ("国足", {"tempalte": "x"}, TypeError, "no option 'tempalte'; there are: candidate_labels, labels_column"),
        ("国足", {"hypothesis_template": "这是{}"}, TypeError, "no option 'hypothesis_template'"),
        (["国足", "出战"], {"calibration": "prior", "label_prior": [1, 2, 3]}, ValueError, "3 values for 2 labels"),
    ],
)
def test_errors_name_the_value_and_the_way_out(
    pipe: ZeroShotPromptPipeline, inputs: Any, options: dict[str, Any], error: type[Exception], what: str
) -> None:
    defaults = {} if "No labels" in what else {"candidate_labels": ["体育", "财经"]}
    template = options.get("template", "")
    length = 200 if len(template) > 60 and "chinesebert" in type(pipe.model).__name__.lower() else 0
    if length:
        options = {**options, "template": "下" * length + "{label}{text}"}
    with pytest.raises(error, match=what):
        pipe(inputs, **{**defaults, **options})


def test_wrong_options_are_told_when_the_pipeline_is_made(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    for options, what in [
        ({"template": "新闻{text}"}, "No '{label}'"),
        ({"verbalizer": {"体育": ["鼯鼠"]}}, "鼯鼠"),
        ({"candidate_labels": ["体育", "体育"]}, "twice"),
        ({"calibration": "best"}, "calibration"),
    ]:
        with pytest.raises(ValueError, match=what):
            ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, device="cpu", **options)


def test_a_model_that_is_no_masked_lm_is_named(parts: tuple[Any, Any]) -> None:
    _, tokenizer = parts
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    bert = BertTokenizer(vocab=tokenizer.get_vocab())
    pipe = ZeroShotPromptPipeline(model=BertForSequenceClassification(config), tokenizer=bert, device="cpu")
    with pytest.raises(ValueError, match="load it with AutoModelForMaskedLM"):
        pipe("国足", ["体育", "财经"])


def test_the_encoder_runs_once_a_text_and_length(pipe: ZeroShotPromptPipeline) -> None:
    pipe(TEXTS, LABELS, calibration="none")  # the first call may compare two ways
    rows: list[int] = []
    hook = pipe.model.base_model.register_forward_hook(lambda _m, _a, output: rows.append(len(output[0])))
    try:
        pipe(TEXTS, ["体育", "财经", "房产", "教育"], calibration="none", batch_size=4)
        assert sum(rows) == len(TEXTS)
        rows.clear()
        pipe(TEXTS, LABELS, calibration="none", batch_size=4)
        assert sum(rows) == 3 * len(TEXTS)
    finally:
        hook.remove()


def test_an_official_chinesebert_is_not_taken_for_a_plain_bert(tiny_chinesebert_folder: Path) -> None:
    """What AutoModel makes of an official folder: a BERT, with the architecture that the folder names."""
    tokenizer = BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"))
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    config.architectures = ["GlyceBertForMaskedLM"]
    with pytest.raises(ValueError, match="hf-nlpnotes convert-chinesebert SRC DST"):
        ZeroShotPromptPipeline(model=BertForMaskedLM(config), tokenizer=tokenizer)


def test_encoder_decoders_with_and_without_masks(tiny_chinesebert_folder: Path) -> None:
    tokenizer = BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"))
    sizes = {"vocab_size": len(tokenizer), "d_model": 8, "decoder_start_token_id": 0}
    t5 = T5ForConditionalGeneration(T5Config(d_kv=8, d_ff=8, num_layers=1, num_heads=1, **sizes))
    with pytest.raises(ValueError, match=r"T5ForConditionalGeneration writes another text .*\(AutoModelForMaskedLM\)"):
        ZeroShotPromptPipeline(model=t5, tokenizer=tokenizer)
    ends = {"layers": 1, "attention_heads": 1, "ffn_dim": 8}
    both = {f"{end}_{name}": value for name, value in ends.items() for end in ("encoder", "decoder")}
    bart = BartForConditionalGeneration(BartConfig(max_position_embeddings=32, **both, **sizes))
    answer = ZeroShotPromptPipeline(model=bart, tokenizer=tokenizer)("国足今晚出战", ["体育", "财经"])
    assert sorted(answer["labels"]) == ["体育", "财经"]


def test_the_default_is_the_embedded_model() -> None:
    pipe = pipeline("zero-shot-prompt", device="cpu")
    assert isinstance(pipe, ZeroShotPromptPipeline)
    assert pipe.model.name_or_path == hf_nlpnotes.EMBEDDED_MODEL
    answer = pipe("国足今晚出战", candidate_labels=["体育", "财经"])
    assert answer["sequence"] == "国足今晚出战"
    assert sorted(answer["labels"]) == ["体育", "财经"]


def test_the_embedded_model_knows_topics_and_opinions() -> None:
    """Titles and reviews that it has not seen, through the ready words: most are right, far from chance."""
    pipe = pipeline("zero-shot-prompt", model=hf_nlpnotes.EMBEDDED_MODEL, verbalizer="ready", device="cpu")
    titles = {
        "主队加时赛绝杀对手，时隔十年再夺联赛冠军": "体育",
        "中锋砍下三十分，球队迎来五连胜": "体育",
        "央行下调贷款利率，多家银行跟进": "财经",
        "基金公司上调收益预期，投资者信心回升": "财经",
        "高考分数线今日公布，考生可上网查询成绩": "教育",
        "大学扩大招生，学校新建三个专业": "教育",
        "这部电影上映三天，导演和主演到场与观众见面": "娱乐",
        "歌手举办演唱会，多位明星到场": "娱乐",
    }
    answers = pipe(list(titles), ["体育", "财经", "教育", "娱乐"])
    assert sum(answer["labels"][0] == titles[answer["sequence"]] for answer in answers) >= 7
    reviews = {
        "书很快就收到了，包装完好，孩子非常喜欢": "好评",
        "房间很干净，前台态度也好，下次还住这里": "好评",
        "屏幕用了两天就坏了，客服一直不回复，后悔买了": "差评",
        "房间又小又脏，隔音很差，再也不来了": "差评",
    }
    answers = pipe(list(reviews), ["好评", "差评"], template="{text}总之是{label}。")
    assert sum(answer["labels"][0] == reviews[answer["sequence"]] for answer in answers) >= 3


def test_texts_may_have_their_own_labels(pipe: ZeroShotPromptPipeline) -> None:
    own = [
        ["体育", "财经"],
        ["房产市场", "球", "体育"],
        ["教育"],
        ["教育", "体育"],
        ["球", "社会"],
        ["财经", "房产市场"],
    ]
    expected = [pipe(text, labels) for text, labels in zip(TEXTS, own, strict=True)]
    assert_same(pipe(TEXTS, own), expected)
    assert_same(pipe(TEXTS, own, batch_size=4), expected)
    assert_same(list(pipe(iter(TEXTS), own, batch_size=2)), expected)
    data = Dataset.from_dict({"text": TEXTS, "choices": own})
    assert_same(pipe(data["text"], data["choices"], batch_size=3), expected)
    assert_same(list(pipe(data, labels_column="choices", batch_size=3)), expected)
    rows = [{"text": text, "choices": "，".join(labels)} for text, labels in zip(TEXTS, own, strict=True)]
    assert_same(pipe(rows, labels_column="choices"), expected)
    assert_same([pipe(TEXTS[1], [own[1]])], expected[1:2])
    for labels, count in ((own[:-1], "more"), ([*own, ["球"]], "fewer")):
        with pytest.raises(ValueError, match=f"{len(labels)} lists of labels, and there are {count} texts"):
            list(pipe(iter(TEXTS), labels))
    listed = "{options}，{label}：{text}"
    single = [pipe(text, labels, template=listed) for text, labels in zip(TEXTS, own, strict=True)]
    assert_same(pipe(TEXTS, own, template=listed, batch_size=4), single)


def test_several_labels_are_judged_one_by_one(parts: tuple[Any, Any], pipe: ZeroShotPromptPipeline) -> None:
    """The sigmoid of the label's score beyond its mean score on texts without content, by brute force."""
    labels = {label: {label: 1} for label in ("体育", "财经", "教育")}

    def centred(text: str) -> torch.Tensor:
        model, tokenizer = parts
        room = model.config.max_position_embeddings - len("下面报道一则新闻。") - 4
        with torch.no_grad():
            logits = model(**written_prompt(tokenizer, text, 2, room)).logits[0].double()
        logits = logits - logits.mean(dim=1, keepdim=True)
        ids = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in labels]
        return torch.stack([(logits[7, a] + logits[8, b]) / 2 for a, b in ids])

    bias = torch.stack([centred(text) for text in CONTENT_FREE_TEXTS]).mean(dim=0)
    answers = pipe(TEXTS, list(labels), multi_label=True, batch_size=3)
    for text, answer in zip(TEXTS, answers, strict=True):
        expected = (centred(text) - bias).sigmoid()
        assert by_label(answer) == pytest.approx(dict(zip(labels, expected.tolist(), strict=True)), abs=1e-4)
        assert answer["scores"] == sorted(answer["scores"], reverse=True)
    # Other labels have no say, and one label is judged in the same way.
    for label in labels:
        alone = pipe(TEXTS, [label])
        assert [by_label(one)[label] for one in alone] == pytest.approx(
            [by_label(one)[label] for one in answers], abs=1e-6
        )
    # (A text that is cut makes room for the longest word.)
    wide = pipe(TEXTS[:5], [*labels, "房产市场"], multi_label=True)
    assert [by_label(one)["体育"] for one in wide] == pytest.approx(
        [by_label(one)["体育"] for one in answers[:5]], abs=1e-6
    )


def test_label_paths_are_decided_level_by_level(pipe: ZeroShotPromptPipeline) -> None:
    paths = ["体育/足球", "体育/篮球", "财经", "教育/学校/老师", "教育/学校/学生", "教育/考试"]
    for calibration in ("none", "contextual", "batch"):
        options: dict[str, Any] = {"calibration": calibration, "batch_size": 4}
        answers = pipe(TEXTS, paths, hierarchy="/", **options)
        tops = pipe(TEXTS, ["体育", "财经", "教育"], **options)
        sports = pipe(TEXTS, ["足球", "篮球"], **options)
        kinds = pipe(TEXTS, ["学校", "考试"], **options)
        people = pipe(TEXTS, ["老师", "学生"], **options)
        for answer, top, sport, kind, person in zip(answers, tops, sports, kinds, people, strict=True):
            top, sport, kind, person = (by_label(level) for level in (top, sport, kind, person))
            expected = {
                "体育/足球": top["体育"] * sport["足球"],
                "体育/篮球": top["体育"] * sport["篮球"],
                "财经": top["财经"],
                "教育/学校/老师": top["教育"] * kind["学校"] * person["老师"],
                "教育/学校/学生": top["教育"] * kind["学校"] * person["学生"],
                "教育/考试": top["教育"] * kind["考试"],
            }
            assert by_label(answer) == pytest.approx(expected, abs=1e-5)
            assert sum(answer["scores"]) == pytest.approx(1)
    several = pipe(TEXTS[0], paths, hierarchy="/", multi_label=True)
    one = by_label(pipe(TEXTS[0], ["体育", "足球"], multi_label=True))
    assert by_label(several)["体育/足球"] == pytest.approx(one["体育"] * one["足球"], abs=1e-6)


def test_words_of_label_paths(pipe: ZeroShotPromptPipeline) -> None:
    words = {"体育": ["体育", "球队"], "体育/足球": ["足球", "球"], "体育/篮球": "篮", "财经": "银行"}
    answer = pipe("国足", verbalizer=words, hierarchy="/", top_k=None)
    assert {row["label"] for row in answer} == {"体育/足球", "体育/篮球", "财经"}
    top = by_label(pipe("国足", ["体育", "财经"], verbalizer={"体育": ["体育", "球队"], "财经": "银行"}))
    found = {row["label"]: row["score"] for row in answer}
    assert found["财经"] == pytest.approx(top["财经"], abs=1e-5)
    assert found["体育/足球"] + found["体育/篮球"] == pytest.approx(top["体育"], abs=1e-5)


def test_templates_vote(pipe: ZeroShotPromptPipeline) -> None:
    """The mean of the scores is the geometric mean of the shares."""
    templates = ["{label}：{text}", "{text}，{label}", "{options}{text:head}是{label}"]
    for calibration in ("none", "contextual"):
        options: dict[str, Any] = {"calibration": calibration, "batch_size": 3}
        each = [pipe(TEXTS, LABELS, template=template, **options) for template in templates]
        for weights in ([1, 1, 1], [3, 1, 2]):
            given = templates if weights == [1, 1, 1] else dict(zip(templates, weights, strict=True))
            together = pipe(TEXTS, LABELS, template=given, **options)
            for i, answer in enumerate(together):
                logs = torch.tensor([[by_label(one[i])[label] for label in LABELS] for one in each]).double().log()
                share = torch.tensor(weights).double() / sum(weights)
                expected = (share @ logs).softmax(dim=0)
                assert by_label(answer) == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-4)


DEMONSTRATIONS = [
    {"text": "足球队", "label": "体育"},
    {"text": "银行股票", "label": "财经"},
    {"text": "篮球赛", "label": "体育"},
    {"text": "市场", "label": "财经"},
]


@pytest.mark.parametrize("slot", ["{demos:2}", "{demos:2,seed=3}", "{demos:2,nearest}"])
def test_demonstrations(pipe: ZeroShotPromptPipeline, slot: str) -> None:
    options: dict[str, Any] = {"template": slot + "{label}：{text}", "demonstrations": DEMONSTRATIONS}
    reference = pipe(TEXTS, ["体育", "财经"], **options)
    assert_same(pipe(TEXTS, ["财经", "体育"], batch_size=4, **options), reference)
    assert_same(pipe(TEXTS[::-1], ["体育", "财经"], batch_size=5, **options)[::-1], reference)
    with pytest.raises(AssertionError):
        assert_same(pipe(TEXTS, ["体育", "财经"], template="{label}：{text}"), reference)
    # The words of the verbalizer stand in the demonstrations.
    other = pipe(TEXTS, ["体育", "财经"], verbalizer={"体育": {"球": 1, "足": 2}}, **options)
    with pytest.raises(AssertionError):
        assert_same(other, reference)


def test_the_static_prior_has_its_weight(pipe: ZeroShotPromptPipeline) -> None:
    texts = TEXTS[:2] + TEXTS[3:]
    network = pipe(texts, LABELS)
    assert_same(pipe(texts, LABELS, prior_weight=0), network)
    scores = torch.tensor([[by_label(answer)[label] for label in LABELS] for answer in network]).double().log()
    similarity = static_similarity(pipe.model, pipe.tokenizer, texts, LABELS)
    expected = combine(scores, similarity, 2.0).softmax(dim=1)
    answers = pipe(texts, LABELS, prior_weight=2.0, batch_size=3)
    for answer, row in zip(answers, expected.tolist(), strict=True):
        assert by_label(answer) == pytest.approx(dict(zip(LABELS, row, strict=True)), abs=1e-4)


@pytest.mark.parametrize("scoring", ["left-to-right", "max-first"])
def test_words_token_by_token(pipe: ZeroShotPromptPipeline, scoring: str) -> None:
    parallel = pipe(TEXTS, ["球", "足", "篮"])
    assert_same(pipe(TEXTS, ["球", "足", "篮"], scoring=scoring), parallel)
    reference = pipe(TEXTS, LABELS, scoring=scoring)
    assert_same(pipe(TEXTS, LABELS, scoring=scoring, batch_size=4), reference)
    with pytest.raises(AssertionError):
        assert_same(pipe(TEXTS, LABELS), reference)


def pseudo_log_likelihoods(parts: tuple[Any, Any], text: str, *, centred: bool) -> torch.Tensor:
    """Of all labels: each label written into the prompt, one of its tokens masked at a time."""
    model, tokenizer = parts
    spelled = [tokenizer(label, add_special_tokens=False)["input_ids"] for label in LABELS]
    room = model.config.max_position_embeddings - len("下面报道一则新闻。") - max(map(len, spelled)) - 2
    scores = []
    for label, ids in zip(LABELS, spelled, strict=True):
        masked, score = written_prompt(tokenizer, text, len(ids), room), 0.0
        written = tokenizer(f"下面报道一则{label}新闻。")
        for k, token in enumerate(ids):
            one = {name: value.clone() for name, value in masked.items()}
            for other in {*range(len(ids))} - {k}:
                for name, values in one.items():  # the pinyin of a written token, too
                    values[0, 7 + other] = written[name][7 + other]
            with torch.no_grad():
                logits = model(**one).logits[0, 7 + k].double()
            score += float(logits[token] - (logits.mean() if centred else logits.logsumexp(0))) / len(ids)
        scores.append(score)
    return torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_the_best_are_looked_at_again(parts: tuple[Any, Any], pipe: ZeroShotPromptPipeline, k: int) -> None:
    for text, answer in zip(TEXTS, pipe(TEXTS, LABELS, calibration="none", rerank=k, batch_size=4), strict=True):
        first = brute_force(parts, text, {label: {label: 1} for label in LABELS}).tolist()
        second = pseudo_log_likelihoods(parts, text, centred=False).tolist()
        order = sorted(range(len(LABELS)), key=lambda i: -first[i])
        top, rest = order[:k], order[k:]
        final = {i: second[i] for i in top}
        for i in rest:
            final[i] = min(second[j] for j in top) + first[i] - first[top[-1]]
        expected = torch.tensor([final[i] for i in range(len(LABELS))]).softmax(0)
        assert by_label(answer) == pytest.approx(dict(zip(LABELS, expected.tolist(), strict=True)), abs=1e-5)


@pytest.mark.parametrize("calibration", ["contextual", "batch"])
def test_the_second_look_is_calibrated_by_itself(
    parts: tuple[Any, Any], pipe: ZeroShotPromptPipeline, calibration: str
) -> None:
    scores = torch.stack([pseudo_log_likelihoods(parts, text, centred=True) for text in TEXTS])
    free = [pseudo_log_likelihoods(parts, text, centred=True) for text in CONTENT_FREE_TEXTS]
    bias = (scores if calibration == "batch" else torch.stack(free)).mean(dim=0)
    answers = pipe(TEXTS, LABELS, calibration=calibration, rerank=len(LABELS), batch_size=3)
    for answer, expected in zip(answers, (scores - bias).softmax(dim=1).tolist(), strict=True):
        assert by_label(answer) == pytest.approx(dict(zip(LABELS, expected, strict=True)), abs=1e-4)


def test_labels_of_several_words_are_looked_at_again(pipe: ZeroShotPromptPipeline) -> None:
    """One by one, in batches, from a generator, and with other labels for other texts."""
    options: dict[str, Any] = {"candidate_labels": list(WORDS), "verbalizer": WORDS}
    reference = pipe(TEXTS, rerank=2, **options)
    assert_same(pipe(TEXTS, rerank=2, batch_size=5, **options), reference)
    assert_same(list(pipe((text for text in TEXTS), rerank=2, **options)), reference)
    own = [["体育", "财经"], ["教育", "财经", "体育"]] * 3
    each = [pipe(text, labels, verbalizer=WORDS, rerank=2) for text, labels in zip(TEXTS, own, strict=True)]
    assert_same(pipe(TEXTS, own, verbalizer=WORDS, rerank=2, batch_size=4), each)


def test_a_given_bias_is_subtracted(pipe: ZeroShotPromptPipeline) -> None:
    plain = pipe(TEXTS, LABELS, bias=dict.fromkeys(LABELS, 0.0))
    shifted = pipe(TEXTS, LABELS, bias={**dict.fromkeys(LABELS, 5.0), "球": 4.0})
    for one, other in zip(plain, shifted, strict=True):
        odds = [by_label(a)["球"] / by_label(a)["体育"] for a in (one, other)]
        assert math.log(odds[1] / odds[0]) == pytest.approx(1, abs=1e-5)


def test_top_k_is_that_of_text_classification(parts: tuple[Any, Any]) -> None:
    model, tokenizer = parts
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=3,
    )  # fmt: skip
    stock_model = BertForSequenceClassification(config).eval()
    stock_tokenizer = BertTokenizer(vocab=tokenizer.get_vocab())

    def form(value: Any) -> Any:
        return [form(one) for one in value] if isinstance(value, list) else sorted(value)

    for made in ({}, {"top_k": 2}, {"top_k": None}):
        stock = TextClassificationPipeline(model=stock_model, tokenizer=stock_tokenizer, device="cpu", **made)
        ours = ZeroShotPromptPipeline(model=model, tokenizer=tokenizer, verbalizer=WORDS, device="cpu", **made)
        for called in ({}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}):
            for inputs in ("国足", ["国足"], ["国足", "出战"], {"text": "国足"}):
                assert form(ours(inputs, **called)) == form(stock(inputs, **called)), (made, called, inputs)


def test_columns_of_a_chat_are_columns(pipe: ZeroShotPromptPipeline) -> None:
    rows = [{"role": "我", "content": "国足今晚"}]
    assert pipe(rows, LABELS, template="{role}：{content}，{label}")[0]["sequence"] == rows[0]


def test_a_stream_is_read_a_few_batches_ahead(pipe: ZeroShotPromptPipeline) -> None:
    taken: list[int] = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            taken.append(number)
            yield "国足今晚"[: 1 + number % 4]

    answers = pipe(endless(), LABELS)
    assert next(answers)["sequence"] == "国"
    assert len(taken) == 1
    answers = pipe(endless(), LABELS, batch_size=2)
    assert [next(answers)["sequence"] for _ in range(70)] == ["国", "国足", "国足今", "国足今晚"] * 17 + ["国", "国足"]
    assert len(taken) <= 1 + 128


def test_batches_have_texts_of_one_length(pipe: ZeroShotPromptPipeline) -> None:
    texts = ["国" * (1 + 7 * (i % 4)) for i in range(16)]
    shapes: list[tuple[int, ...]] = []
    first_layer: Any = pipe.model.base_model.encoder.layer[0]  # the last one runs at the masks only
    hook = first_layer.register_forward_pre_hook(lambda _m, args: shapes.append(tuple(args[0].shape)))
    try:
        pipe(texts, ["体育", "财经"], calibration="none", batch_size=4)
    finally:
        hook.remove()
    assert len({length for _, length, _ in shapes[-4:]}) == 4
    assert all(rows == 4 for rows, _, _ in shapes[-4:])
