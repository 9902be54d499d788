"""The parts of a template: its own text, the columns of the input, and what the grammar adds.

`hf_nlpnotes.prompting.template` shows how each is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal as OneOf
from typing import TypeAlias

LABEL_SLOT = "label"
"""Name of the slot of the label word."""

Cut: TypeAlias = OneOf["tail", "head", "whole"]
"""Where a text that is too long loses its tokens: at its end, at its beginning, nowhere."""


@dataclass(frozen=True)
class Literal:
    """Text of the template itself.

    Attributes:
        text (`str`):
            As it stands in the template, braces no longer doubled.
    """

    text: str


@dataclass(frozen=True)
class SlotOptions:
    """How the text of a slot may be cut: at which end, and to how many tokens at most.

    Attributes:
        cut (`str`, defaults to `"tail"`):
            Where text is left out when the prompt is too long: at its `"tail"` or its `"head"`, or nowhere
            (`"whole"`).
        max_tokens (`int`, *optional*):
            Most tokens of the text. Default: no limit but the prompt's.
    """

    cut: Cut = "tail"
    max_tokens: int | None = None


@dataclass(frozen=True)
class Slot:
    """A place to fill: the label word, or a column of the input.

    Attributes:
        name (`str`):
            `label`, or the column's name.
        options (`SlotOptions`):
            How its text may be cut.
    """

    name: str
    options: SlotOptions = SlotOptions()

    @property
    def is_label(self) -> bool:
        """Whether the label word goes here."""
        return self.name == LABEL_SLOT


@dataclass(frozen=True)
class Separator:
    """What the tokenizer puts between two texts. With `pair`, what follows is the second of a pair of texts.

    Attributes:
        pair (`bool`, defaults to `False`):
            Whether a second segment begins here.
    """

    pair: bool = False


@dataclass(frozen=True)
class Options:
    """The labels listed, with `separator` between them; `None` chooses by their script.

    Attributes:
        separator (`str`, *optional*):
            What stands between two labels. Default: `, ` between labels in ASCII alone, else `、`.
    """

    separator: str | None = None

    def text(self, labels: Sequence[str]) -> str:
        """The list, sorted, so that the order in which the labels were given has no influence.

        Args:
            labels (`Sequence[str]`):
                The labels, in any order.

        >>> Options().text(["财经", "体育"]), Options().text(["sports", "arts"]), Options("/").text(["b", "a"])
        ('体育、财经', 'arts, sports', 'a/b')
        """
        separator = self.separator
        if separator is None:
            separator = ", " if all(label.isascii() for label in labels) else "、"
        return separator.join(sorted(labels))


@dataclass(frozen=True)
class Demonstrations:
    """`count` examples with their labels, each the template filled: sampled with `seed`, or `nearest` to the text.

    Attributes:
        count (`int`):
            How many.
        nearest (`bool`, defaults to `False`):
            Take those nearest to the text.
        seed (`int`, defaults to 0):
            Of the sample, where they are not the nearest.
    """

    count: int
    nearest: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Soft:
    """Trained tokens: `length` of them, or as many as the tokenizer makes of `text`, which they begin as.

    Attributes:
        length (`int`, *optional*):
            How many; given where `text` is not.
        text (`str`, *optional*):
            The words that they begin as.
    """

    length: int | None = None
    text: str | None = None


Part: TypeAlias = Literal | Slot | Separator | Options | Demonstrations | Soft
