"""Encoding prompts: the stock tokenizer on the written-out prompt is the oracle."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast, RobertaTokenizer

from hf_nlpnotes.prompting import PromptEncoder, Template
from hf_nlpnotes.prompting.filled_prompt import Piece
from hf_nlpnotes.prompting.plain_text import PlainTextReader
from hf_nlpnotes.prompting.shortening import Shortened
from hf_nlpnotes.prompting.template_parts import SlotOptions

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


@pytest.fixture(scope="module")
def unigram() -> Any:
    """A SentencePiece tokenizer, to which Chinese without blanks is one word."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(  # type: ignore[call-arg]
        vocab_size=120, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.train_from_iterator(["国足今晚银行长，重庆还。great films", "国足 今晚，国足今晚 银行 行长！"] * 5, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


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
@pytest.mark.parametrize(
    "source", ["下面报道一则{label}新闻。{text}", "{text}。这是{label}", "{text:head}是{label}！"]
)
def test_template_and_masks_survive_any_text(tokenizer: Any, source: str, length: int) -> None:
    rng = random.Random(length)
    text = "".join(rng.choice("国足今晚出战对阵球队") for _ in range(length))
    room = 60
    encoder = PromptEncoder(Template(source), tokenizer, room)
    cut = encoder.encode({"text": text}, [1, 4])
    none = encoder.encode({"text": ""}, [1, 4])
    for count, short, empty in zip([1, 4], cut, none, strict=True):
        assert len(short["input_ids"]) <= room
        assert sum(short["label_mask"]) == count
        assert {len(values) for values in short.values()} == {len(short["input_ids"])}
        # What is added to the prompt without a text is one block of tokens.
        ids, template = short["input_ids"], empty["input_ids"]
        added = len(ids) - len(template)
        assert any(ids[:i] + ids[i + added :] == template for i in range(len(template) + 1))
    texts = [len(short["input_ids"]) - len(empty["input_ids"]) for short, empty in zip(cut, none, strict=True)]
    assert texts[0] == texts[1], "words of every length are asked about the same text"
    if length > 100:
        assert len(cut[1]["input_ids"]) == room


def spans_of(encoder: PromptEncoder, values: dict[str, str], **kwargs: Any) -> str:
    (encoding,) = encoder.encode(values, [1], **kwargs)
    return "".join(encoder.tokenizer.convert_ids_to_tokens(encoding["input_ids"])).replace("##", "")


def test_texts_are_cut_where_their_slots_say(bert: Any) -> None:
    text = "国足今晚出战对阵球队"
    for slot, shown in [
        ("{text}", "国足今晚出"),
        ("{text:tail}", "国足今晚出"),
        ("{text:head}", "战对阵球队"),
        ("{text:max=3}", "国足今"),
        ("{text:head,max=3}", "阵球队"),
        ("{text:max=200}", "国足今晚出"),
    ]:
        encoder = PromptEncoder(Template(slot + "：{label}"), bert, 9)
        assert spans_of(encoder, {"text": text}) == f"[CLS]{shown}：[MASK][SEP]"
    limited = PromptEncoder(Template("{text:head,max=3}：{label}"), bert)
    assert spans_of(limited, {"text": text}) == "[CLS]阵球队：[MASK][SEP]"
    beside = PromptEncoder(Template("{a:whole}：{label}，{b}"), bert, 12)
    assert spans_of(beside, {"a": "国足今晚", "b": "出战对阵球队"}) == "[CLS]国足今晚：[MASK]，出战对[SEP]"
    with pytest.raises(ValueError, match="the texts that it keeps whole and the label words take 15 tokens"):
        beside.encode({"a": text, "b": "出"}, [1])


PIECES = [
    *"国足今晚银行长重庆还，。！\n\tabAB12.,'\u3000😀ﬁ ",
    " ",
    " ",
    "，",
    "é",
    "e\u0301",
    "[MASK]",
    "great films",
    "a" * 120,
]
SHAPES = [
    "{text}，{label}",
    "{text:head}{label}。",
    "国 {label}a{text:tail,max=9}长{b:head}",
    "{b}{text:head,max=7}{label}",
]


@pytest.mark.parametrize("kind", ["bert", "chinesebert", "roberta", "unigram"])
@pytest.mark.parametrize("source", SHAPES)
def test_what_is_left_out_before_reading_changes_nothing(
    request: pytest.FixtureRequest, tiny_chinesebert_folder: Path, kind: str, source: str
) -> None:
    """The oracle is the same encoder, reading all of the text."""
    chinesebert = kind == "chinesebert"
    tokenizer = (
        AutoTokenizer.from_pretrained(tiny_chinesebert_folder) if chinesebert else request.getfixturevalue(kind)
    )
    encoder = PromptEncoder(Template(source), tokenizer, 30)
    whole = PromptEncoder(Template(source), tokenizer, 30)
    whole._shortened = lambda piece, *_: Shortened(piece.text)  # type: ignore[method-assign, assignment]
    rng = random.Random(source)
    shortened = 0
    for _ in range(50):
        pieces = rng.choices(PIECES, k=rng.choice([2, 5, 30, 1000]))
        text = ("".join(pieces) * rng.choice([1, 2, 40, 400]))[:6000]
        values = {"text": text, "b": text[::-1]}
        assert encoder.encode(values, [2]) == whole.encode(values, [2]), values
        shortened += encoder._shortened(Piece(text, 0), [SlotOptions()], 2).seam is not None
    assert shortened > 5


def test_most_of_a_long_text_is_not_read(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "国足今晚出战，great films today。" * 5000
    read = []
    original = PlainTextReader.read
    monkeypatch.setattr(PlainTextReader, "read", lambda self, t: read.append(len(t)) or original(self, t))
    encoder = PromptEncoder(Template("{text}：{label}"), tokenizer, 128)
    read.clear()
    encoder.encode({"text": text}, [1])
    assert sum(read) < 3000
    assert len(text) > 100_000


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


@pytest.mark.parametrize("text", ["国足今晚", "", "great films"])
def test_a_pair_is_what_the_tokenizer_makes_of_a_pair(tokenizer: Any, text: str) -> None:
    encoder = PromptEncoder(Template("{a}！{sep:pair}{label}。{b}"), tokenizer)
    (encoding,) = encoder.encode({"a": text, "b": text}, [2])
    expected = tokenizer(text + "！", tokenizer.mask_token * 2 + "。" + text)
    for name in expected:
        assert encoding[name] == expected[name], name


@pytest.mark.parametrize("text", ["国足今晚", "", "great films"])
def test_a_separator_is_that_of_the_tokenizer(tokenizer: Any, text: str) -> None:
    encoder = PromptEncoder(Template("{a}{sep}{label}。{sep}{a}"), tokenizer)
    (encoding,) = encoder.encode({"a": text}, [2])
    between = tokenizer.sep_token * (2 if "<s>" in tokenizer.get_vocab() else 1)
    expected = tokenizer(f"{text}{between}{tokenizer.mask_token * 2}。{between}{text}")
    for name in expected:
        assert encoding[name] == expected[name], name


def test_the_labels_are_listed(bert: Any) -> None:
    encoder = PromptEncoder(Template("{options}，{label}：{text}"), bert, 17)
    shown = spans_of(encoder, {"text": "国足今晚"}, labels=["体育", "财经", "教育"])
    assert shown == "[CLS]体育、教育、财经，[MASK]：国足今晚[SEP]"
    with pytest.raises(ValueError, match="take 20 tokens, more than the 17"):
        encoder.encode({"text": "国足今晚"}, [1], labels=["体育", "财经", "教育", "[MASK]"])


DEMOS = [({"text": "股票"}, "财经"), ({"text": "球队" * 9}, "体育")]


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{demos:2}{text}，{label}", "股票，财经[SEP]球队球队球队，体育[SEP]国足国足国足，[MASK]"),
        ("{text}，{label}{demos:2}", "国足国足国足，[MASK][SEP]股票，财经[SEP]球队球队球队，体育"),
        ("{demos:2}{sep}{text}，{label}", "股票，财经[SEP]球队球队球队，体育[SEP]国足国足国足，[MASK]"),
        ("{label}{demos:2}{text:head}", "[MASK][SEP]财经股票[SEP]体育球队球队球队[SEP]国足国足国足足"),
    ],
)
def test_demonstrations_are_the_template_filled(bert: Any, source: str, shown: str) -> None:
    """The longest texts are cut, the demonstrations' too, and never a label word or a separator."""
    encoder = PromptEncoder(Template(source), bert, len(shown.replace("[SEP]", "x").replace("[MASK]", "x")) + 2)
    found = spans_of(encoder, {"text": "国足" * 50 + "足"}, demonstrations=DEMOS)
    assert found == f"[CLS]{shown}[SEP]"
    without = spans_of(encoder, {"text": "国"})
    assert without.count("[SEP]") == (2 if "sep" in source else 1)


def test_a_demonstration_adds_no_mask_either(bert: Any) -> None:
    encoder = PromptEncoder(Template("{demos:1}{text}{label}"), bert)
    (encoding,) = encoder.encode({"text": "国"}, [1], demonstrations=[({"text": "[MASK]{label}[SEP]"}, "[MASK]")])
    assert encoding["input_ids"].count(bert.mask_token_id) == 1
    assert encoding["input_ids"].count(bert.sep_token_id) == 2


def test_soft_tokens_have_numbers(tokenizer: Any) -> None:
    encoder = PromptEncoder(Template("{soft:3}{text}{soft:great}，{label}{soft:1}"), tokenizer, 40)
    begin = tokenizer("great", add_special_tokens=False)["input_ids"]
    if tokenizer.unk_token_id in begin:
        pytest.fail("the test's word is in every vocabulary")
    assert encoder.soft_tokens == (None, None, None, *begin, None)
    for text in ("国足", "国足" * 90):
        (encoding,) = encoder.encode({"text": text}, [2])
        index = encoding["soft_index"]
        assert [k for k in index if k >= 0] == list(range(4 + len(begin)))
        assert len(index) == len(encoding["input_ids"]) <= 40
        placeholders = {i for i, k in zip(encoding["input_ids"], index, strict=True) if k >= 0}
        assert placeholders == {tokenizer.unk_token_id}
        assert [index[1], index[-2]] == [0, 3 + len(begin)]
        # Without them it is the prompt that was cut where it breaks.
        assert sum(encoding["label_mask"]) == 2
    plain = PromptEncoder(Template("{text}，{label}"), tokenizer).encode({"text": "国足"}, [2])[0]
    assert "soft_index" not in plain
    (soft,) = encoder.encode({"text": "国足"}, [2])
    assert [i for i, k in zip(soft["input_ids"], soft["soft_index"], strict=True) if k < 0] == plain["input_ids"]


def test_soft_tokens_that_cannot_be_spelled_are_an_error(bert: Any) -> None:
    with pytest.raises(ValueError, match="cannot spell '鼯鼠', which soft tokens"):
        PromptEncoder(Template("{soft:鼯鼠}{text}{label}"), bert)
