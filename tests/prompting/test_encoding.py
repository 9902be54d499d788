"""Encoding prompts: the stock tokenizer on the written-out prompt is the oracle."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizer, RobertaTokenizer

from hf_nlpnotes.prompting import PromptEncoder, Template

TEMPLATE = Template("下面报道一则{label}新闻。{text}")
WORDS = "国足今晚出战，对阵 abc! x1 足球 NBA"


@pytest.fixture(scope="module")
def bert(tiny_chinesebert_folder: Path) -> Any:
    return BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"))


@pytest.fixture(scope="module")
def roberta() -> Any:
    """A byte-level tokenizer that writes a space into the word after it."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(  # type: ignore[call-arg]
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.train_from_iterator(["it was a great movie. great films, terrible acting, not great at all"] * 5, trainer)
    model = json.loads(inner.to_str())["model"]
    # As in the released tokenizers: the mask takes the space before it.
    mask = AddedToken("<mask>", lstrip=True, normalized=False, special=True)
    return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], mask_token=mask)


@pytest.fixture(scope="module", params=["bert", "chinesebert", "roberta"])
def tokenizer(request: pytest.FixtureRequest, tiny_chinesebert_folder: Path) -> Any:
    if request.param == "chinesebert":
        return AutoTokenizer.from_pretrained(tiny_chinesebert_folder)
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
    "source", [TEMPLATE.source, "{text}，{label}", "{label}！{text}", "A {label} movie: {text} {text}"]
)
@pytest.mark.parametrize("text", ["", WORDS, "银行行长", " 重庆", "好。"])
def test_a_prompt_is_what_the_tokenizer_makes_of_it(tokenizer: Any, source: str, text: str) -> None:
    template = Template(source)
    encodings = PromptEncoder(template, tokenizer).encode({"text": text}, [1, 3])
    for count, encoding in zip([1, 3], encodings, strict=True):
        expected = tokenizer(template.fill({"text": text}, tokenizer.mask_token * count))
        for name in expected:
            assert encoding[name] == expected[name], name
        masks = [int(i == tokenizer.mask_token_id) for i in expected["input_ids"]]
        assert encoding["label_mask"] == masks


@pytest.mark.parametrize(
    "text",
    ["[MASK]", "<mask> <s></s>", "[CLS][SEP] [PAD]", "{label}{text}", "我[MASK][MASK]你[SEP]", "{", "<unk>[UNK]"],
)
def test_a_text_adds_no_mask_and_no_special_token(tokenizer: Any, text: str) -> None:
    (encoding,) = PromptEncoder(TEMPLATE, tokenizer).encode({"text": text}, [2])
    ids = encoding["input_ids"]
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id, tokenizer.pad_token_id}
    assert [i for i in ids if i in special] == [
        tokenizer.cls_token_id,
        tokenizer.mask_token_id,
        tokenizer.mask_token_id,
        tokenizer.sep_token_id,
    ]
    # It is still there, as text.
    assert len(ids) > len(PromptEncoder(TEMPLATE, tokenizer).encode({"text": ""}, [2])[0]["input_ids"])


@pytest.mark.parametrize("length", [0, 1, 20, 21, 22, 500, 100_000])
@pytest.mark.parametrize("source", ["下面报道一则{label}新闻。{text}", "{text}。这是{label}"])
def test_template_and_masks_survive_any_text(tokenizer: Any, source: str, length: int) -> None:
    template = Template(source)
    rng = random.Random(length)
    text = "".join(rng.choice("国足今晚出战对阵球队") for _ in range(length))
    whole = PromptEncoder(template, tokenizer).encode({"text": text}, [1, 4])
    room = 60
    cut = PromptEncoder(template, tokenizer, room).encode({"text": text}, [1, 4])
    kept = []
    for count, long, short in zip([1, 4], whole, cut, strict=True):
        assert len(short["input_ids"]) <= room
        assert sum(short["label_mask"]) == count
        assert {len(values) for values in short.values()} == {len(short["input_ids"])}
        tokens_of_text = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        kept.append(tokens_of_text - (len(long["input_ids"]) - len(short["input_ids"])))
        # What is left out is one block, the end of the text.
        one, other = long["input_ids"], short["input_ids"]
        starts = [i for i in range(len(other) + 1) if one[:i] + one[len(one) - len(other) + i :] == other]
        assert starts
        assert one == other or 0 < starts[0] < len(other)
    assert kept[0] == kept[1], "words of every length are asked about the same text"
    if length > 100:
        assert len(cut[1]["input_ids"]) == room


def test_the_longest_of_several_texts_is_cut_first(bert: Any) -> None:
    template = Template("{question}？{label}，{answer}")
    encoder = PromptEncoder(template, bert, 20)
    (encoding,) = encoder.encode({"question": "国足今晚", "answer": "出战" * 50}, [2])
    tokens = bert.convert_ids_to_tokens(encoding["input_ids"])
    assert "".join(tokens) == "[CLS]国足今晚？[MASK][MASK]，" + "出战" * 5 + "[SEP]"


def test_a_word_is_read_in_its_place(roberta: Any) -> None:
    def pieces(source: str, word: str) -> list[str]:
        return roberta.convert_ids_to_tokens(PromptEncoder(Template(source), roberta).word_ids(word))

    assert "".join(pieces("it was {label}. {text}", "great")) == "Ġgreat"
    assert "".join(pieces("{label} movie: {text}", "great")) == "great"
    assert "".join(pieces("“{label}” {text}", "great")) == "great"
    assert "".join(pieces("it was not{label}ly. {text}", "great")) == "great"


def test_words_of_any_length_are_spelled(bert: Any) -> None:
    encoder = PromptEncoder(TEMPLATE, bert)
    for word in ["体", "体育", "房产市场", "国足今晚出战对阵球队体育财经科技", "nba足球"]:
        assert "".join(bert.convert_ids_to_tokens(encoder.word_ids(word))).replace("##", "") == word


@pytest.mark.parametrize(
    ("word", "what"), [("", "empty"), (" ", "empty"), ("鼯鼠", "鼯鼠"), ("体鼯", r"\['体', '\[UNK\]'\]")]
)
def test_a_word_that_cannot_be_predicted_is_named(bert: Any, word: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        PromptEncoder(TEMPLATE, bert).word_ids(word)


def test_a_template_that_does_not_fit_is_an_error(bert: Any) -> None:
    encoder = PromptEncoder(TEMPLATE, bert, 12)
    with pytest.raises(ValueError, match="take 13 tokens, more than the 12"):
        encoder.encode({"text": ""}, [2])
    assert len(encoder.encode({"text": "国足"}, [1])[0]["input_ids"]) == 12


def test_a_tokenizer_without_masks_is_an_error(tiny_chinesebert_folder: Path) -> None:
    tokenizer = BertTokenizer(vocab=str(tiny_chinesebert_folder / "vocab.txt"))
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="BertTokenizer has no mask token"):
        PromptEncoder(TEMPLATE, tokenizer)


def test_a_mask_written_into_the_template_is_an_error(bert: Any) -> None:
    with pytest.raises(ValueError, match=r"contains '\[MASK\]'.*write '\{label\}'"):
        PromptEncoder(Template("这是[MASK]：{label}{text}"), bert)
