"""Prompt templates: a plain string with slots, such as `"下面报道一则{label}新闻。{text}"`.

| slot | what goes there |
|---|---|
| `{label}` | the label word: as many masks as it has tokens |
| `{text}`, `{title}`, … | a column of the input; the end of its text is cut where the prompt gets too long |
| `{text:head}` | the same, cut at its head, so that the end of the text is kept; `{text:tail}` is the default |
| `{premise:max=200}` | at most 200 tokens of the text; `{premise:head,max=200}` both |
| `{question:whole}` | a text that is never cut |
| `{sep}` | what the tokenizer puts between two texts (`[SEP]`); `{sep:pair}` also begins the second segment |
| `{options}` | the labels listed: `体育、财经`; `{options:/}` with another separator |
| `{demos:2}` | two examples with labels; `{demos:2,nearest}` the nearest to the text, `{demos:2,seed=7}` others |
| `{soft:5}` | five trained tokens; `{soft:请判断}` as many as these words have, beginning as them |

`{{` and `}}` are braces. The string is parsed, never evaluated, and an error shows the place:

>>> Template("一条{label}新闻：{text").parts
Traceback (most recent call last):
    ...
ValueError: Unclosed slot in the template: write '}' after its name, or '{{' for a brace.
  一条{label}新闻：{text
  -----------------^
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .template_parser import parse
from .template_parts import Demonstrations, Literal, Options, Part, Separator, Slot, Soft

__all__ = ["Literal", "Slot", "Template"]


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Args:
        source (`str`):
            The template: exactly one `{label}`, at least one column. Slots of a name may be repeated, except
            `{label}` and `{demos}`.

    Raises:
        `ValueError`: the string is no template; the message shows where.
        `TypeError`: the source is no string.

    >>> template = Template("{question}？{label}，{answer}")
    >>> template.columns
    ('question', 'answer')
    >>> template.fill({"question": "在吗", "answer": "我在"}, "对")
    '在吗？对，我在'
    """

    source: str
    parts: tuple[Part, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise TypeError(f"A template is a string with slots, got {type(self.source).__name__}.")
        object.__setattr__(self, "parts", parse(self.source))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the input's columns, in the order of their first slot."""
        names = (part.name for part in self.parts if isinstance(part, Slot) and not part.is_label)
        return tuple(dict.fromkeys(names))

    @property
    def label_position(self) -> int:
        """Index of the label slot in `parts`."""
        return next(i for i, part in enumerate(self.parts) if isinstance(part, Slot) and part.is_label)

    @property
    def demonstrations(self) -> Demonstrations | None:
        """The slot of the demonstrations, if there is one."""
        return next((part for part in self.parts if isinstance(part, Demonstrations)), None)

    @property
    def has_soft_tokens(self) -> bool:
        """Whether a part of the template is trained."""
        return any(isinstance(part, Soft) for part in self.parts)

    @property
    def has_options(self) -> bool:
        """Whether the template lists the labels."""
        return any(isinstance(part, Options) for part in self.parts)

    def fill(
        self,
        values: Mapping[str, str],
        label: str,
        labels: Sequence[str] = (),
        demonstrations: Sequence[str] = (),
        separator: str = " ",
    ) -> str:
        """The prompt as one reads it, nothing cut.

        Args:
            values (`Mapping[str, str]`):
                The text of each column.
            label (`str`):
                What stands in the label slot.
            labels (`Sequence[str]`, *optional*):
                What `{options}` lists.
            demonstrations (`Sequence[str]`, *optional*):
                What stands at `{demos}`, one after another.
            separator (`str`, defaults to a space):
                What stands at `{sep}` and between demonstrations.
        """
        before, after = self.around_label(values, labels, demonstrations, separator)
        return before + label + after

    def around_label(
        self,
        values: Mapping[str, str],
        labels: Sequence[str] = (),
        demonstrations: Sequence[str] = (),
        separator: str = " ",
    ) -> tuple[str, str]:
        """What stands before the label and after it.

        Args:
            values (`Mapping[str, str]`):
                As of `fill`.
            labels (`Sequence[str]`, *optional*):
                As of `fill`.
            demonstrations (`Sequence[str]`, *optional*):
                As of `fill`.
            separator (`str`, defaults to a space):
                As of `fill`.

        >>> Template("{question}？{label}，{answer}").around_label({"question": "在吗", "answer": "我在"})
        ('在吗？', '，我在')
        """

        def shown(part: Part) -> str:
            match part:
                case Literal(text):
                    return text
                case Slot(name):
                    return values[name]
                case Separator():
                    return separator
                case Options():
                    return part.text(labels)
                case Demonstrations():
                    return separator.join(demonstrations)
                case Soft(text=text):
                    return text or ""

        place = self.label_position
        return "".join(map(shown, self.parts[:place])), "".join(map(shown, self.parts[place + 1 :]))

    def __str__(self) -> str:
        return self.source
