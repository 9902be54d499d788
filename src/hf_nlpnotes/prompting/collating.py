"""Batches of prompts: from the columns of a data set to what `PromptForSequenceClassification` reads.

Every text is read once for each template and each length of label words, its *rows*. They stand side by side in a
batch, `(texts, rows, length)`, as the choices of a multiple-choice model do, so that the first dimension is the
number of examples wherever the Trainer counts, splits or gathers.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .config import PromptConfig
from .demonstrations import DemonstrationPool
from .encoding import PromptEncoder
from .soft_prompts import SOFT_INDEX
from .template import Template
from .template_parts import LABEL_SLOT
from .verbalizer import Verbalizer, WordGroup, group_words

LABEL_COLUMNS = ("labels", "label", "label_ids")
"""Columns that may hold the label, the first that is there."""


@dataclass(frozen=True)
class BoundTemplate:
    """A template bound to a tokenizer: how texts are encoded, and the label words by their length there.

    Args:
        template: the template.
        weight: its share of the label scores.
        encoder: encodes texts.
        groups: the label words, one group a row.
        words: the label words; `{options}` lists the labels, and a demonstration shows its label's main word.
        pool: examples to choose demonstrations from, for a template that has some.
    """

    template: Template
    weight: float
    encoder: PromptEncoder
    groups: tuple[WordGroup, ...]
    words: Verbalizer
    pool: DemonstrationPool | None = None

    def encode(self, values: Mapping[str, str]) -> list[dict[str, list[int]]]:
        """The rows of one example, one a group."""
        labels = self.words.labels
        chosen = [] if self.pool is None else self.pool.choose(values, labels)
        shown = [(row, self.words.main_word(labels.index(row[LABEL_SLOT]))) for row in chosen]
        return self.encoder.encode(values, [group.num_masks for group in self.groups], labels, shown)


def bind_templates(config: PromptConfig, tokenizer: Any, max_length: int | None = None) -> tuple[BoundTemplate, ...]:
    """Bind the templates and label words of a prompt to a tokenizer.

    Args:
        config (`PromptConfig`):
            The prompt; it needs a verbalizer.
        tokenizer:
            A fast tokenizer with a mask token.
        max_length (`int`, *optional*):
            Most tokens of an input; that of the prompt and of the tokenizer hold besides.

    Raises:
        `ValueError`: no verbalizer, a word that the vocabulary cannot spell, a template that leaves no room for its
            masks, or one with demonstrations of which there are none, or that are chosen by the model's vectors.
    """
    known = tokenizer.model_max_length if tokenizer.model_max_length < 1_000_000 else None  # "no limit" is 1e30
    limit = min((length for length in (max_length, config.max_length, known) if length is not None), default=None)
    bound = []
    for template, weight in config.templates:
        pool = None if template.demonstrations is None else _pool(config, template)
        encoder = PromptEncoder(template, tokenizer, limit)
        groups = group_words(config.words, encoder.word_features)
        one = BoundTemplate(template, weight, encoder, groups, config.words, pool)
        one.encode(dict.fromkeys(template.columns, ""))  # too long by itself: told before any text
        bound.append(one)
    return tuple(bound)


def _pool(config: PromptConfig, template: Template) -> DemonstrationPool:
    """The examples that a template shows."""
    slot = template.demonstrations
    if slot is not None and slot.nearest:
        raise ValueError(
            f"The template {template.source!r} asks for the nearest demonstrations, by vectors that training changes:"
            " leave 'nearest' out, or use the zero-shot-prompt pipeline."
        )
    if config.demonstrations is None:
        raise ValueError(
            f"The template {template.source!r} shows demonstrations: give the prompt some, such as the training"
            " examples, PromptConfig(…, demonstrations=[{'text': …, 'label': …}, …])."
        )
    return DemonstrationPool(config.demonstrations, template)


@dataclass
class DataCollatorForPrompts:
    """Makes batches for `PromptForSequenceClassification` from raw columns and a label, or from encoded examples.

    `model.data_collator()` makes one with the lengths that the model takes.

    Args:
        config (`PromptConfig`):
            The prompt. Its templates name the columns; a label is one of `label`, `labels` and `label_ids`, a number
            or a label's name. Examples without labels make batches without.
        tokenizer:
            A fast tokenizer with a mask token.
        max_length (`int`, *optional*):
            Most tokens of an input; that of the prompt and of the tokenizer hold besides.
        pad_to_multiple_of (`int`, *optional*):
            Pad lengths to a multiple of this.

    Calling it with a list of N examples gives `input_ids`, `attention_mask` and the tokenizer's other inputs of shape
    (N, rows, length), `mask_positions` of shape (N, rows, masks) filled up with -1, `labels` of shape (N,) and, for
    templates with soft tokens, `soft_index` of shape (N, rows, length).

    Raises:
        `ValueError`: a missing column, a label that there is none of, or examples with and without labels; the
            message names it and the way out.
        `TypeError`: a text that is no string, or a label that is neither a number nor a name.
    """

    config: PromptConfig
    tokenizer: Any
    max_length: int | None = None
    pad_to_multiple_of: int | None = None
    _templates: tuple[BoundTemplate, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.config, PromptConfig):
            raise TypeError(f"DataCollatorForPrompts takes a PromptConfig, got {type(self.config).__name__}.")
        self._templates = bind_templates(self.config, self.tokenizer, self.max_length)

    def encode(self, example: Mapping[str, Any]) -> dict[str, list[list[int]]]:
        """Encode one example without its label, as `data.map(collator.encode)` does ahead of training.

        Args:
            example (`Mapping[str, Any]`):
                The columns that the templates name; others are passed over.

        Returns:
            Each model input as one list of integers a row, and `mask_positions`.
        """
        columns = self._columns(example)
        rows: list[dict[str, list[int]]] = []
        first_soft = 0
        for template in self._templates:
            encoded = template.encode(columns)
            for row in encoded:
                if SOFT_INDEX in row:
                    row[SOFT_INDEX] = [i + first_soft if i >= 0 else -1 for i in row[SOFT_INDEX]]
            # Soft tokens are numbered within a template; those of the next one come after.
            first_soft += len(template.encoder.soft_tokens)
            rows += encoded
        if first_soft:
            for row in rows:
                row.setdefault(SOFT_INDEX, [-1] * len(row["input_ids"]))
        positions = [[place for place, is_mask in enumerate(row.pop("label_mask")) if is_mask] for row in rows]
        return {**{name: [row[name] for row in rows] for name in rows[0]}, "mask_positions": positions}

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch."""
        encoded = [example if "mask_positions" in example else self.encode(example) for example in examples]
        names = [name for name in encoded[0] if name not in (*LABEL_COLUMNS, *self.config.columns)]
        names = [name for name in names if name in self._filling() or name == "mask_positions"]
        batch = {name: self._padded(name, [example[name] for example in encoded]) for name in names}
        labels = [_label(example) for example in examples]
        if any(label is not None for label in labels):
            batch["labels"] = torch.tensor([self._number(label) for label in labels])
        return batch

    def _padded(self, name: str, values: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
        """Lists of rows as one tensor, (examples, rows, width), filled up at the end."""
        width = max(len(row) for rows in values for row in rows)
        if name != "mask_positions" and self.pad_to_multiple_of:
            width += -width % self.pad_to_multiple_of
        filling = -1 if name == "mask_positions" else self._filling()[name]
        return torch.tensor([[[*row, *[filling] * (width - len(row))] for row in rows] for rows in values])

    def _filling(self) -> dict[str, int]:
        """What each input is padded with; an attention mask of 0 hides all of it."""
        names = dict.fromkeys([*self.tokenizer.model_input_names, "attention_mask"], 0)
        padding = self.tokenizer.pad_token_id
        return {
            **names,
            "input_ids": 0 if padding is None else padding,
            "token_type_ids": self.tokenizer.pad_token_type_id,
            SOFT_INDEX: -1,
        }

    def _columns(self, example: Mapping[str, Any]) -> dict[str, str]:
        for column in self.config.columns:
            if column not in example:
                raise ValueError(
                    f"The template has the slot {column!r}, and the example only the columns {list(example)}. Rename"
                    " the slot or the column. If the data has it, something has dropped it: give the Trainer a"
                    " PromptForSequenceClassification, which keeps the columns of its templates, or"
                    " remove_unused_columns=False."
                )
            if not isinstance(example[column], str):
                raise TypeError(f"The column {column!r} holds {example[column]!r}, expected a string.")
        return {column: example[column] for column in self.config.columns}

    def _number(self, label: Any) -> int:
        """The number of a label that is given as a number or by name."""
        labels = self.config.labels
        if label is None:
            raise ValueError("Some examples of the batch have a label and some have none: give all of them one.")
        if isinstance(label, str):
            if label not in labels:
                raise ValueError(f"The label {label!r} is none of the verbalizer's {list(labels)}.")
            return labels.index(label)
        try:
            number = operator.index(label)
        except TypeError:
            raise TypeError(f"A label is a whole number or a name, got {label!r}.") from None
        if not 0 <= number < len(labels):
            raise ValueError(
                f"The label {number} is out of range: the verbalizer has {len(labels)} labels, numbered from 0 in its"
                f" order: {list(labels)}."
            )
        return number


def _label(example: Mapping[str, Any]) -> Any:
    return next((example[name] for name in LABEL_COLUMNS if example.get(name) is not None), None)
