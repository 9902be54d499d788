"""Candidates are the stock pipeline's; readings are those of pypinyin, which the app does not call itself."""

from html.parser import HTMLParser
from typing import Any

import pypinyin
import pytest
from transformers import AutoTokenizer

import hf_nlpnotes
from hf_nlpnotes.app import fill_masks, readings, ruby


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(hf_nlpnotes.EMBEDDED_MODEL)


@pytest.mark.parametrize(
    "text", ["他在银行工作，每天步行上班。", "重庆很重要", "音乐很快乐", "长大了长高", "Tom在2024年还书，还要去。"]
)
def test_each_character_has_the_reading_of_its_sentence(tokenizer: Any, text: str) -> None:
    # One entry a character: pypinyin leaves what it cannot read as it is, here split into characters.
    by_pypinyin = pypinyin.pinyin(text, style=pypinyin.Style.TONE, errors=lambda other: [""] * len(other))
    assert readings(tokenizer, text) == [reading for (reading,) in by_pypinyin]


def test_a_character_with_several_readings_has_the_right_one(tokenizer: Any) -> None:
    first, second = "银行", "步行"
    assert readings(tokenizer, first + second)[1::2] == ["háng", "xíng"]


def test_candidates_are_the_pipelines(filler: Any) -> None:
    found = fill_masks(filler, "今晚[MASK]战", 4)
    expected = filler("今晚[MASK]战", top_k=4)
    assert [(one.token, one.score) for one in found.candidates] == [
        (one["token_str"].removeprefix("##"), one["score"]) for one in expected
    ]
    assert {one.mask for one in found.candidates} == {1}
    assert found.text == f"今晚{found.candidates[0].token}战"


def test_several_masks(filler: Any) -> None:
    text = "[MASK]国足[MASK]战"
    found = fill_masks(filler, text, 3)
    expected = filler(text, top_k=3)
    assert [one.mask for one in found.candidates] == [1, 1, 1, 2, 2, 2]
    assert [one.token for one in found.candidates] == [
        one["token_str"].removeprefix("##") for row in expected for one in row
    ]
    best = [row[0]["token_str"].removeprefix("##") for row in expected]
    assert found.text == f"{best[0]}国足{best[1]}战"


class _Alone:
    """A pipeline that fills every mask with the same tokens."""

    def __init__(self, tokenizer: Any, filler: Any, tokens: list[str]) -> None:
        self.tokenizer, self.model, self.tokens = tokenizer, filler.model, tokens

    def __call__(self, text: str, top_k: int) -> list[dict[str, Any]]:
        return [{"token_str": token, "score": 0.5} for token in self.tokens[:top_k]]


def test_a_candidate_is_read_where_it_stands(tokenizer: Any, filler: Any) -> None:
    found = fill_masks(_Alone(tokenizer, filler, ["行", "##行", "x"]), "他在银[MASK]工作", 3)
    assert [(one.token, one.pinyin) for one in found.candidates] == [("行", "háng"), ("行", "háng"), ("x", "")]
    found = fill_masks(_Alone(tokenizer, filler, ["行"]), "他步[MASK]去", 1)
    assert found.candidates[0].pinyin == "xíng"
    assert found.characters == [("他", "tā"), ("步", "bù"), ("行", "xíng"), ("去", "qù")]
    # What follows counts too: 重 by itself is zhòng.
    assert fill_masks(_Alone(tokenizer, filler, ["重"]), "[MASK]庆", 1).candidates[0].pinyin == "chóng"


@pytest.mark.parametrize(
    ("text", "top_k", "message"),
    [
        ("", 5, "text is empty"),
        ("国足今晚出战", 5, "0 times"),
        ("[MASK]" * 9, 5, "9 times"),
        ("[MASK]" + "我" * 130, 5, "133 tokens, and the model takes up to 128"),
        ("[MASK]", 0, "from 1 to 20"),
        ("[MASK]", 2.5, "from 1 to 20"),
        ("[MASK]", None, "from 1 to 20"),
    ],
)
def test_what_is_refused(filler: Any, text: str, top_k: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fill_masks(filler, text, top_k)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_in_a_text_is_markup() -> None:
    parser = _Tags()
    parser.feed(ruby([("<", ""), ("b", ""), (">", ""), ("&", ""), ("行", "<i>")]))
    assert parser.tags == ["ruby", "rt"]
    assert parser.text == "<b>&行<i>"
