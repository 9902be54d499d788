"""Sentences with tags as a model's inputs and labels: the function for `Dataset.map`.

    features = dataset.map(
        partial(prepare_tagging_features, tokenizer=tokenizer, label2id=config.label2id),
        batched=True,
        remove_columns=dataset.column_names,
    )

A sentence longer than the model becomes several windows that overlap; none of it is cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from .alignment import Subwords, align_word_tags, word_units
from .schemes import Scheme, allowed_transitions, detect_scheme
from .tag_codes import IGNORE_INDEX


def prepare_tagging_features(
    examples: Mapping[str, Sequence[Any]],
    tokenizer: PreTrainedTokenizerBase,
    label2id: Mapping[str, int],
    *,
    scheme: str | Scheme | None = None,
    words_column: str = "tokens",
    tags_column: str = "tags",
    subwords: Subwords = "first",
    max_length: int | None = None,
    overlap: int = 32,
    cut_spans: Literal["keep", "ignore"] = "keep",
) -> dict[str, list[Any]]:
    """Encode a batch of tagged sentences.

    Args:
        examples: columns: words (characters, for Chinese) and one tag a word; without a column of tags, for
            prediction, there are no labels.
        tokenizer: a fast tokenizer.
        label2id: tag -> id, as in the model's config.
        scheme: the tagging scheme; None: told from `label2id`.
        words_column: name of the column of words.
        tags_column: name of the column of tags.
        subwords: which sub-words of a word are labelled, see `align_word_tags`.
        max_length: tokens of a window, special tokens included; None: as many as the tokenizer says, 512 at most.
        overlap: tokens that two neighbouring windows share.
        cut_spans: labels of a span that the edge of a window cuts: "keep" leaves them, so that a window may begin
            with an `I`; "ignore" makes them -100, as a CRF with constraints needs, for which such a window is
            impossible. A neighbouring window has the whole span where it is no longer than `overlap`.

    Returns:
        Columns with one row a window: the tokenizer's, `labels` (-100 where there are none), `example` (the row of
        `examples`) and `word_units` (the word that each token stands for, -1 for none), which `merge_windows` takes.

    Raises:
        ValueError: an empty sentence, other numbers of words and tags, a tag without an id, illegal tags, a slow
            tokenizer, an overlap that leaves no room.
    """
    if cut_spans not in ("keep", "ignore"):
        raise ValueError(f"cut_spans must be 'keep' or 'ignore', got {cut_spans!r}")
    if not tokenizer.is_fast:
        raise ValueError(f"{type(tokenizer).__name__} is a slow tokenizer: alignment needs the offsets of a fast one")
    length = max_length or min(tokenizer.model_max_length, 512)
    room = length - tokenizer.num_special_tokens_to_add()
    if not 0 <= overlap < room:
        raise ValueError(f"overlap is {overlap}: expected 0 to {room - 1}, windows have room for {room} tokens")
    table = scheme or detect_scheme(label2id)
    sentences = examples[words_column]
    tagged = examples.get(tags_column)
    for number, words in enumerate(sentences):
        if isinstance(words, str) or not len(words):
            what = "a string" if isinstance(words, str) else "empty"
            raise ValueError(f"sentence {number} is {what}: expected a list of at least one word")
    encoded = tokenizer(
        [list(words) for words in sentences],
        is_split_into_words=True,
        truncation=True,
        max_length=length,
        stride=overlap,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    rows = list(encoded.pop("overflow_to_sample_mapping"))
    offsets = encoded.pop("offset_mapping")
    result: dict[str, list[Any]] = {**encoded, "example": rows, "word_units": []}
    starts, ends = set(label2id), set(label2id)
    if tagged is not None:
        result["labels"] = []
        if cut_spans == "ignore":
            allowed = allowed_transitions(list(label2id), table, require_outside=False)
            starts = {label for label, may in zip(label2id, allowed.start, strict=True) if may}
            ends = {label for label, may in zip(label2id, allowed.end, strict=True) if may}
    for window, row in enumerate(rows):
        words, word_ids = sentences[row], encoded.word_ids(window)
        result["word_units"].append(word_units(word_ids, offsets[window], subwords, words=words))
        if tagged is not None:
            try:
                tags = align_word_tags(word_ids, offsets[window], words, tagged[row], table, subwords=subwords)
            except ValueError as error:
                raise ValueError(f"sentence {row}: {error}") from None
            labels = [IGNORE_INDEX if tag is None else _id(tag, label2id) for tag in tags]
            for place in [*_until(tags, starts), *(len(tags) - 1 - back for back in _until(tags[::-1], ends))]:
                labels[place] = IGNORE_INDEX
            result["labels"].append(labels)
    return result


def _until(tags: Sequence[str | None], wanted: Collection[str]) -> Iterable[int]:
    """Places before the first tag that is one of those wanted."""
    return (place for place, _ in takewhile(lambda pair: pair[1] is None or pair[1] not in wanted, enumerate(tags)))


def _id(tag: str, label2id: Mapping[str, int]) -> int:
    if tag not in label2id:
        raise ValueError(f"tag {tag!r} is not among the model's labels: {', '.join(label2id)}")
    return label2id[tag]
