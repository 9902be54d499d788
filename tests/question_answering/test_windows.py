"""Windows against the tokenizer's own, which encodes every pair of question and context afresh."""

from copy import deepcopy
from functools import cache

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hf_nlpnotes.question_answering import prepare_train_features, prepare_validation_features

CONTEXTS = [
    "国足今晚出战，对阵北京国安队。比赛在广州天河体育场举行，票价一百元，早已售完。" * 3,
    "The cat sat on the mat, and the naïve café-owner laughed: ha ha ha! \U0001f600 Then it rained.",
    "短文",
    "ａｂｃ mixed 中英 text with  two blanks\nand a line " * 4,
]
QUESTIONS = ["国足今晚对阵谁？", "  Where did the cat sit?", "短", "谁"]
PAIRS = [(0, 0), (3, 0), (1, 1), (2, 2), (0, 3), (1, 3), (3, 1)]
EXAMPLES = {
    "id": [f"q{number}" for number in range(len(PAIRS))],
    "question": [QUESTIONS[question] for question, _ in PAIRS],
    "context": [CONTEXTS[context] for _, context in PAIRS],
}


@cache
def byte_level():
    """As RoBERTa's: bytes, offsets trimmed, two separators between the texts."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CONTEXTS, trainer)
    # With add_prefix_space, tokenizers leaves the blank before the first token of every window in its offsets.
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>"
    )


@cache
def sentence_pieces():
    """As XLNet's: pieces with a mark for blanks, the classification token last."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<unk>", "<pad>", "<sep>", "<cls>"]
    trainer = trainers.UnigramTrainer(vocab_size=160, special_tokens=specials, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(CONTEXTS, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="$A <sep> <cls>:2",
        pair="$A <sep> $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", backend.token_to_id("<sep>")), ("<cls>", backend.token_to_id("<cls>"))],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<cls>", sep_token="<sep>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


@pytest.fixture(params=["chinesebert", "byte_level", "sentence_pieces"])
def tokenizer(request, tiny_chinesebert_folder):
    if request.param == "chinesebert":
        return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    return deepcopy({"byte_level": byte_level, "sentence_pieces": sentence_pieces}[request.param]())


def by_the_tokenizer(tokenizer, max_length, doc_stride, padding):
    right = tokenizer.padding_side == "right"
    questions = [question.lstrip() for question in EXAMPLES["question"]]
    texts = (questions, EXAMPLES["context"]) if right else (EXAMPLES["context"], questions)
    return tokenizer(
        *texts,
        truncation="only_second" if right else "only_first",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=padding,
    )


@pytest.mark.parametrize("sides", [("right", "right"), ("left", "right"), ("right", "left"), ("left", "left")])
@pytest.mark.parametrize(("max_length", "doc_stride"), [(64, 16), (48, 0), (60, 20), (128, 40)])
@pytest.mark.parametrize("padding", ["max_length", "longest", False])
def test_they_are_the_tokenizers_own(tokenizer, sides, max_length, doc_stride, padding):
    tokenizer.padding_side, tokenizer.truncation_side = sides
    expected = by_the_tokenizer(tokenizer, max_length, doc_stride, padding)
    features = prepare_validation_features(EXAMPLES, tokenizer, max_length, doc_stride, padding=padding)
    names = set(expected) - {"offset_mapping", "overflow_to_sample_mapping"}
    assert names == set(features) - {"offset_mapping", "example_id", "cls_index"}
    for name in names:
        ours = features[name] if padding is False else features[name].tolist()
        assert ours == expected[name], name
    samples = expected["overflow_to_sample_mapping"]
    assert features["example_id"] == [EXAMPLES["id"][sample] for sample in samples]
    context = 1 if sides[0] == "right" else 0
    for number, pairs in enumerate(features["offset_mapping"]):
        owners = expected.sequence_ids(number)
        for token, pair in enumerate(pairs):
            found = None if pair is None or pair[0] < 0 else tuple(pair)
            assert found == (expected["offset_mapping"][number][token] if owners[token] == context else None)
    for ids, place in zip(features["input_ids"], features["cls_index"], strict=True):
        assert ids[place] == tokenizer.cls_token_id


@pytest.mark.parametrize("side", ["right", "left"])
def test_labels_are_the_fewest_tokens_that_hold_the_answer(tokenizer, side):
    tokenizer.padding_side = side
    answers = []
    for number, context in enumerate(EXAMPLES["context"]):
        start = (7 * number) % max(1, len(context) - 4)
        start += len(context[start:]) - len(context[start:].lstrip())
        text = context[start : start + 4].rstrip()
        answers.append({"text": [text], "answer_start": [start]} if number != 4 else {"text": [], "answer_start": []})
    examples = {**EXAMPLES, "answers": answers}
    train = prepare_train_features(examples, tokenizer, 64, 16)
    features = prepare_validation_features(EXAMPLES, tokenizer, 64, 16)
    found = 0
    for row, name in enumerate(features["example_id"]):
        answer = answers[EXAMPLES["id"].index(name)]
        pairs = features["offset_mapping"][row].tolist()
        inside = [token for token, pair in enumerate(pairs) if pair[0] >= 0]
        label = train["start_positions"][row], train["end_positions"][row]
        nothing = features["cls_index"][row]
        start = answer["answer_start"][0] if answer["text"] else -1
        end = start + len(answer["text"][0]) if answer["text"] else -1
        if start < 0 or pairs[inside[0]][0] > start or pairs[inside[-1]][1] < end:
            assert label == (nothing, nothing)
            continue
        found += 1
        first = max(token for token in inside if pairs[token][0] <= start)
        last = min(token for token in inside if pairs[token][1] >= end)
        assert label == (first, last)
    assert found >= len(EXAMPLES["id"]) - 1


def test_a_context_is_tokenised_once(tokenizer):
    seen = []
    original = type(tokenizer).__call__

    class Counting(type(tokenizer)):
        def __call__(self, text, *args, **kwargs):
            seen.extend(text if isinstance(text, list) else [text])
            return original(self, text, *args, **kwargs)

    tokenizer.__class__ = Counting
    prepare_validation_features(EXAMPLES, tokenizer, 64, 16)
    assert sorted(text for text in seen if text in CONTEXTS) == sorted(CONTEXTS)


def test_a_question_that_leaves_no_room_is_cut(tokenizer):
    examples = {"id": [0], "question": ["国足今晚对阵谁" * 40], "context": [CONTEXTS[0]]}
    features = prepare_validation_features(examples, tokenizer, 64, 16)
    inside = features["offset_mapping"][..., 0] >= 0
    assert (inside.sum(axis=1)[:-1] > 16).all()
    # Every character of the context is still somewhere.
    covered = {place for pair in features["offset_mapping"][inside].tolist() for place in range(*pair)}
    assert covered == set(range(len(CONTEXTS[0])))
    # Here it is short enough not to be cut, unless that is asked for.
    asked = {"id": [0], "question": ["国足今晚对阵谁"], "context": [CONTEXTS[0] * 9]}
    whole = prepare_validation_features(asked, tokenizer, 64, 16)
    cut = prepare_validation_features(asked, tokenizer, 64, 16, max_question_length=3)
    room = [int((features["offset_mapping"][0, :, 0] >= 0).sum()) for features in (whole, cut)]
    assert room[1] - room[0] == len(tokenizer(asked["question"][0], add_special_tokens=False)["input_ids"]) - 3


def test_it_works_in_datasets_map(tokenizer):
    import datasets

    table = datasets.Dataset.from_dict({**EXAMPLES})
    mapped = table.map(
        prepare_validation_features,
        batched=True,
        num_proc=2,
        remove_columns=table.column_names,
        fn_kwargs={"tokenizer": tokenizer, "max_length": 64, "doc_stride": 16},
    )
    features = prepare_validation_features(EXAMPLES, tokenizer, 64, 16)
    assert mapped["example_id"][:] == features["example_id"]
    for name in ("input_ids", "attention_mask", "offset_mapping"):
        assert mapped[name][:] == features[name].tolist()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"context": ["", *EXAMPLES["context"][1:]]}, {}, "context of example 0 is empty"),
        ({"question": [*EXAMPLES["question"][:-1], " "]}, {}, "question of example 6 is empty"),
        ({"question": None}, {}, "no column 'question'"),
        ({"id": ["q"]}, {}, "equally long"),
        ({}, {"max_length": 16, "doc_stride": 16}, "leaves no room"),
        ({}, {"doc_stride": -1}, "doc_stride must be 0 or more"),
        ({}, {"max_question_length": 64, "max_length": 64}, "max_question_length must be between"),
        ({}, {"padding": "some"}, "padding must be"),
        ({}, {"max_length": 10**31}, "the model takes"),
    ],
)
def test_bad_input_is_named(tokenizer, change, options, message):
    examples = {name: values for name, values in {**EXAMPLES, **change}.items() if values is not None}
    with pytest.raises(ValueError, match=message):
        prepare_validation_features(examples, tokenizer, **{"max_length": 64, "doc_stride": 16, **options})


def test_kinds_are_checked(tokenizer):
    with pytest.raises(TypeError, match="must be a string"):
        prepare_validation_features({**EXAMPLES, "context": [None] * len(PAIRS)}, tokenizer, 64, 16)
    with pytest.raises(TypeError, match="character offsets"):
        prepare_validation_features(EXAMPLES, object(), 64, 16)
