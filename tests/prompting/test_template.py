import random

import pytest

from hf_nlpnotes.prompting.template import Literal, Slot, Template


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("{label}{text}", [Slot("label"), Slot("text")]),
        ("{label}：{text}", [Slot("label"), Literal("："), Slot("text")]),
        ("{{{label}}} {标题}", [Literal("{"), Slot("label"), Literal("} "), Slot("标题")]),
        ("{{text}}{label}{a}", [Literal("{text}"), Slot("label"), Slot("a")]),
        ("{a}{a}{label}", [Slot("a"), Slot("a"), Slot("label")]),
        ("}}{{{label}{review-text}", [Literal("}{"), Slot("label"), Slot("review-text")]),
    ],
)
def test_parts(source: str, parts: list[Literal | Slot]) -> None:
    assert list(Template(source).parts) == parts


@pytest.mark.parametrize(
    ("source", "what", "column"),
    [
        ("一则{label}新闻{text", "Unclosed slot", 15),
        ("{label}{text}{label}", "A second '{label}'", 13),
        ("{label}}{text}", "A lone '}'", 7),
        ("{label}{}", "A slot without a name", 8),
        ("{label}{ text}", "Spaces around the slot name ' text'", 8),
        ("{label}{te{text}", "A brace inside a slot", 10),
        ("{label}{text:tail}", "Unknown option 'tail' of the slot 'text'", 13),
        ("{label}{text:}", "Unknown option '' of the slot 'text'", 13),
        ("{mask}{text}", "'mask' is reserved: the masks stand where '{label}' is", 1),
        ("{label}{soft:5}{text}", "'soft' is reserved", 8),
        ("第一行\n{label}{text", "Unclosed slot", 7),
    ],
)
def test_an_error_points_at_the_place(source: str, what: str, column: int) -> None:
    with pytest.raises(ValueError, match="template") as caught:
        Template(source)
    message, line, arrow = str(caught.value).split("\n")
    assert what in message.replace(" in the template", "")
    assert line in [f"  {part}" for part in source.split("\n")]
    assert arrow == "  " + "-" * column + "^"


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
