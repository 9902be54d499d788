"""Scores of many words on many texts, as one matrix: what the searches and refinements of label words work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_nlpnotes.model_inputs import accepted_inputs, longest_input

from .encoding import PromptEncoder
from .predictions import without_dropout
from .scoring import WordScores, mask_positions
from .template import Template
from .verbalizer import Verbalizer, group_words
from .word_scorer import WordScorer


def score_texts(
    model: Any,
    tokenizer: Any,
    template: Template | str,
    texts: Sequence[str | Mapping[str, str]],
    words: Sequence[str],
    batch_size: int = 32,
    max_length: int | None = None,
) -> WordScores:
    """Ask a masked language model how well each word fills the prompt of each text.

    Args:
        model (`nn.Module`):
            A masked language model of transformers.
        tokenizer:
            Its fast tokenizer.
        template (`Template` or `str`):
            The prompt, without soft tokens.
        texts (`Sequence[str]` or `Sequence[Mapping[str, str]]`):
            N texts; mappings for templates with several columns.
        words (`Sequence[str]`):
            W distinct words, of any length in tokens.
        batch_size (`int`, defaults to 32):
            Prompts of a forward pass; prompts of about equal length go together.
        max_length (`int`, *optional*):
            Most tokens of a prompt. Default: what the model takes.

    Returns:
        `WordScores` of shape `(N, W)`, on the CPU.

    Raises:
        `ValueError`: a word twice or not spelled by the vocabulary, a template with soft tokens, a missing column, a
            batch size below 1.
        `TypeError`: a text that is neither a string nor a mapping of strings.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be a positive whole number, got {batch_size!r}.")
    template = template if isinstance(template, Template) else Template(template)
    limits = [limit for limit in (max_length, longest_input(model, tokenizer)) if limit is not None]
    encoder = PromptEncoder(template, tokenizer, min(limits, default=None))
    groups = group_words(Verbalizer.of(list(words)), encoder.word_ids)
    lengths = [group.num_masks for group in groups]
    rows = [
        (place, encoding)
        for place, text in enumerate(texts)
        for encoding in encoder.encode(column_values(text, template), lengths)
    ]
    if any(any(index >= 0 for index in encoding.get("soft_index", ())) for _, encoding in rows):
        raise ValueError(f"The template {template.source!r} has soft tokens, which need training first: write words.")
    rows.sort(key=lambda row: len(row[1]["input_ids"]))  # stable

    scorer = WordScorer(model, groups, len(words))
    shape = (len(texts), len(words))
    log_probs, centred = torch.zeros(shape), torch.zeros(shape)
    with torch.no_grad(), without_dropout(model):
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            inputs = _padded([encoding for _, encoding in part], tokenizer, model.device)
            positions, counts = mask_positions(inputs["label_mask"])
            scores = scorer(accepted_inputs(model, inputs), positions, counts)
            places = torch.tensor([place for place, _ in part])
            # Words of other lengths than a row's are 0: the rows of a text add up.
            log_probs.index_add_(0, places, scores.log_probs.cpu().float())
            centred.index_add_(0, places, scores.centred.cpu().float())
    return WordScores(log_probs, centred)


def column_values(text: Any, template: Template) -> dict[str, str]:
    """The columns that a template asks for: a string stands for all of them.

    Raises:
        `ValueError`: a column is missing.
        `TypeError`: a value that is no string.
    """
    if isinstance(text, str):
        return dict.fromkeys(template.columns, text)
    if not isinstance(text, Mapping):
        raise TypeError(f"A text is a string or a mapping from columns to strings, got {text!r}.")
    values = {}
    for column in template.columns:
        if column not in text:
            raise ValueError(f"The text {dict(text)!r} has no column {column!r}, which the template names.")
        if not isinstance(text[column], str):
            raise TypeError(f"The column {column!r} holds {text[column]!r}, expected a string.")
        values[column] = text[column]
    return values


def targets_of(labels: Sequence[str], verbalizer_labels: Sequence[str]) -> torch.Tensor:
    """Numbers of the examples' labels, of shape `(N,)`.

    Raises:
        `ValueError`: an example's label is unknown, or a label has no example.
    """
    number = {label: i for i, label in enumerate(verbalizer_labels)}
    unknown = [label for label in labels if label not in number]
    if unknown:
        raise ValueError(f"The label {unknown[0]!r} of an example is none of {list(number)}.")
    missing = [label for label in number if label not in set(labels)]
    if missing:
        raise ValueError(f"The label {missing[0]!r} has no example: give at least one of each of {list(number)}.")
    return torch.tensor([number[label] for label in labels])


def _padded(encodings: Sequence[Mapping[str, Any]], tokenizer: Any, device: Any) -> dict[str, torch.Tensor]:
    """A batch, padded on the right, where padding moves no position."""
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    longest = max(len(encoding["input_ids"]) for encoding in encodings)
    return {
        name: torch.tensor(
            [[*row[name], *[fill.get(name, 0)] * (longest - len(row[name]))] for row in encodings], device=device
        )
        for name in encodings[0]
    }
