"""Templates: their parts, and errors that point at the place."""

import random
import unicodedata

import pytest

from hf_nlpnotes.prompting.template import Template
from hf_nlpnotes.prompting.template_parts import (
    Demonstrations,
    Literal,
    Options,
    Part,
    Separator,
    Slot,
    SlotOptions,
    Soft,
)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("{label}{text}", [Slot("label"), Slot("text")]),
        ("{label}：{text}", [Slot("label"), Literal("："), Slot("text")]),
        ("{{{label}}} {标题}", [Literal("{"), Slot("label"), Literal("} "), Slot("标题")]),
        ("{{text}}{label}{a}", [Literal("{text}"), Slot("label"), Slot("a")]),
        ("{a}{a}{label}", [Slot("a"), Slot("a"), Slot("label")]),
        ("}}{{{label}{review-text}", [Literal("}{"), Slot("label"), Slot("review-text")]),
        ("{label}{text:tail}", [Slot("label"), Slot("text")]),
        ("{label}{a:head}{b:whole}", [Slot("label"), Slot("a", SlotOptions("head")), Slot("b", SlotOptions("whole"))]),
        ("{label}{a:max=200}", [Slot("label"), Slot("a", SlotOptions("tail", 200))]),
        ("{label}{a:head, max=7}", [Slot("label"), Slot("a", SlotOptions("head", 7))]),
        ("{label}{a:max=7,tail}", [Slot("label"), Slot("a", SlotOptions("tail", 7))]),
        ("{label}{sep}{a}{sep}", [Slot("label"), Separator(), Slot("a"), Separator()]),
        ("{a}{sep:pair}{label}", [Slot("a"), Separator(pair=True), Slot("label")]),
        ("{options}{options:，}{a}{label}", [Options(), Options("，"), Slot("a"), Slot("label")]),
        ("{demos:2}{a}{label}", [Demonstrations(2), Slot("a"), Slot("label")]),
        ("{demos:3,nearest}{a}{label}", [Demonstrations(3, nearest=True), Slot("a"), Slot("label")]),
        ("{demos:3, seed=0}{a}{label}", [Demonstrations(3, seed=0), Slot("a"), Slot("label")]),
        ("{demos:3,seed=12}{a}{label}", [Demonstrations(3, seed=12), Slot("a"), Slot("label")]),
        ("{soft:5}{soft:请判断}{a}{label}", [Soft(length=5), Soft(text="请判断"), Slot("a"), Slot("label")]),
    ],
)
def test_parts(source: str, parts: list[Part]) -> None:
    assert list(Template(source).parts) == parts


@pytest.mark.parametrize(
    ("source", "what", "at"),
    [
        ("一则{label}新闻{text", "Unclosed slot", "{text"),
        ("{label}{text}{label}", "A second '{label}'", "{label}"),
        ("{label}}{text}", "A lone '}'", "}{text}"),
        ("{label}{}", "A slot without a name", "}"),
        ("{label}{ text}", "Spaces around the slot name ' text'", " text}"),
        ("{label}{te{text}", "A brace inside a slot", "{text}"),
        ("{label}{text:front}", "Unknown option 'front' of the slot 'text'", "front}"),
        ("{label}{text:}", "Unknown option '' of the slot 'text'", "}"),
        ("{label}{text:tail,}", "Unknown option '' of the slot 'text'", "}"),
        ("{label}{文：tail}", "A full-width colon in a slot", "：tail}"),
        ("{label}{text:tail,head}", "The option 'head' beside 'tail'", "head}"),
        ("{label}{text:max=3,whole}", "'whole' beside 'max'", "max=3,whole}"),
        ("{label}{text:max=0}", "'0' instead of a number of tokens", "0}"),
        ("{label}{text:max=}", "'' instead of a number of tokens", "}"),
        ("{label}{text:tail,max=1.5}", "'1.5' instead of a number of tokens", "1.5}"),
        ("{label}{text:max=3,max=4}", "Unknown option 'max=4'", "max=4}"),
        ("{label:tail}{text}", "Unknown option 'tail' of the slot 'label'", "tail}{text}"),
        ("{mask}{text}", "'mask' is reserved: the masks stand where '{label}' is", "mask}{text}"),
        ("{label}{soft}{text}", "'soft' without tokens", "}{text}"),
        ("{label}{soft: }{text}", "'soft' without tokens", " }{text}"),
        ("{label}{soft:0}{text}", "'0' instead of the number of soft tokens", "0}{text}"),
        ("{label}{sep:two}{text}", "Unknown option 'two' of the slot 'sep'", "two}{text}"),
        ("{a}{sep:pair}{b}{sep:pair}{label}", "A second '{sep:pair}'", "{sep:pair}{label}"),
        ("{options:}{text}{label}", "No separator after 'options:'", "}{text}{label}"),
        ("{demos}{text}{label}", "'demos' without a number", "}{text}{label}"),
        ("{demos:0}{text}{label}", "'0' instead of the number of demonstrations", "0}{text}{label}"),
        ("{demos:nearest}{text}{label}", "'nearest' instead of the number", "nearest}{text}{label}"),
        ("{demos:2,best}{text}{label}", "Unknown option 'best' of the slot 'demos'", "best}{text}{label}"),
        (
            "{demos:2,seed=1,nearest}{text}{label}",
            "Unknown option 'nearest' of the slot 'demos'",
            "nearest}{text}{label}",
        ),
        ("{demos:2,seed=x}{text}{label}", "'x' instead of a seed", "x}{text}{label}"),
        ("{demos:2}{text}{label}{demos:1}", "A second '{demos}'", "{demos:1}"),
        ("第一行\n{label}{text", "Unclosed slot", "{text"),
    ],
)
def test_an_error_points_at_the_place(source: str, what: str, at: str) -> None:
    with pytest.raises(ValueError, match="template") as caught:
        Template(source)
    message, line, arrow = str(caught.value).split("\n")
    assert what in message.replace(" in the template", "")
    assert source.endswith(line.removeprefix("  ")) or f"{line.removeprefix('  ')}\n" in source
    before = line.removesuffix(at)
    assert before != line
    columns = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in before)
    assert arrow == "  " + "-" * (columns - 2) + "^"


@pytest.mark.parametrize(
    ("source", "what"), [("{text}", "No '{label}'"), ("{label}！", "No slot for the text"), ("", "No '{label}'")]
)
def test_what_is_missing_is_named(source: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Template(source)


def test_a_template_is_a_string() -> None:
    with pytest.raises(TypeError, match="got NoneType"):
        Template(None)  # type: ignore[arg-type]


def test_nothing_is_evaluated() -> None:
    template = Template("{__class__.__init__}{label[0]}{label}{text!r}")
    assert template.columns == ("__class__.__init__", "label[0]", "text!r")


def test_filling_is_what_python_formatting_gives() -> None:
    """For templates that `str.format` understands, it is the oracle."""
    rng = random.Random(0)
    pieces = ["{{", "}}", "新闻", "a b", "{text}", "{标题}", "：", "\n"]
    for _ in range(500):
        chosen = [rng.choice(pieces) for _ in range(rng.randint(0, 6))]
        chosen.insert(rng.randint(0, len(chosen)), "{label}")
        chosen.insert(rng.randint(0, len(chosen)), "{text}")
        source = "".join(chosen)
        values = {"text": "{label}", "标题": "国足{{"}
        assert Template(source).fill(values, "体育") == source.format(**values, label="体育")


def test_filling_shows_what_the_grammar_adds() -> None:
    template = Template("{demos:2}{sep}{soft:请看}{soft:3}{text:head}是{label}（{options}）")
    shown = template.fill({"text": "国足"}, "体育", ["财经", "体育"], ["一", "二"], separator="|")
    assert shown == "一|二|请看国足是体育（体育、财经）"


def test_the_order_of_the_labels_does_not_matter() -> None:
    assert Options().text(["财经", "体育"]) == Options().text(["体育", "财经"])


def test_questions_about_a_template() -> None:
    template = Template("{demos:2}{soft:5}{a:max=3}{b}{label}{options}")
    assert template.columns == ("a", "b")
    assert template.demonstrations == Demonstrations(2)
    assert template.has_soft_tokens
    assert template.has_options
    plain = Template("{a}{label}")
    assert (plain.demonstrations, plain.has_soft_tokens, plain.has_options) == (None, False, False)
