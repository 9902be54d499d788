"""Tagged sentences, for the stock Trainer: a tagger with a CRF or without, its windows, precision, recall and F1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

from hf_nlpnotes.corpora import TaggedSentence
from hf_nlpnotes.models.crf import CrfForTokenClassification
from hf_nlpnotes.tagging import (
    TaggingMetrics,
    best_labels,
    detect_scheme,
    detect_scheme_in,
    prepare_tagging_features,
    scheme_labels,
    tagger_options,
)
from hf_nlpnotes.tagging.schemes import parse_tag

from .fine_tuning import Recipe


def sequence_tagging(
    model: str,
    train: Sequence[TaggedSentence],
    held_out: Sequence[TaggedSentence],
    *,
    crf: bool = True,
    max_length: int = 128,
    overlap: int = 32,
    **loading: Any,
) -> Recipe:
    """Prepare a model to learn tags.

    Args:
        model: folder or hub name of an encoder.
        train, held_out: as `hf_nlpnotes.corpora.read_tagged` gives them.
        crf: whether to put a CRF on the classifier, which learns which tags follow each other.
        max_length: tokens of a window; longer sentences are several windows.
        overlap: tokens that neighbouring windows share, which are evaluated twice.
        loading: for `from_pretrained`.

    Raises:
        ValueError: tags of no scheme, tags to evaluate on that the training sentences have not, or texts with
            classes and no CRF.
    """
    tokenizer = AutoTokenizer.from_pretrained(model, **loading)
    tagger = new_tagger(model, train, crf=crf, **loading)
    known = {tag for sentence in held_out for tag in sentence.tags} - set(tagger.config.label2id)
    if known:
        raise ValueError(f"the sentences to test on have tags that those to learn from have not: {sorted(known)}")
    scheme = tagger.config.tagging_scheme
    rows = [
        tagging_features(part, tokenizer, tagger.config, max_length=max_length, overlap=overlap)
        for part in (train, held_out)
    ]
    has_classes = bool(getattr(tagger.config, "text_classes", None))
    spans = TaggingMetrics(tagger.config.id2label, scheme=scheme, mode=None if scheme == "SINGLE" else "strict")

    def best(logits: Any, labels: Any) -> Any:
        tags = tagger.best_tags(logits, labels[0] if has_classes else labels) if crf else best_labels(logits)
        return (tags, logits[1].argmax(-1)) if has_classes else tags

    def metrics(prediction: Any) -> dict[str, float]:
        scores = spans(prediction)
        if has_classes:
            (_, found), (_, gold) = prediction.predictions, prediction.label_ids
            scores["text_class_accuracy"] = float((found == gold).mean())
        return scores

    return Recipe(
        model=tagger,
        tokenizer=tokenizer,
        train=rows[0],
        held_out=rows[1],
        collate=DataCollatorForTokenClassification(tokenizer),
        metrics=metrics,
        main_metric="accuracy" if scheme == "SINGLE" else "f1",
        sizes={"train": len(train), "held_out": len(held_out)},
        best_predictions=best,
        label_names=["labels", "text_classes"] if has_classes else None,
    )


def new_tagger(
    model: str, sentences: Sequence[TaggedSentence], *, crf: bool = True, units: str | None = None, **loading: Any
) -> Any:
    """Put a new head for the tags of `sentences` on an encoder.

    Args:
        model: folder or hub name of an encoder.
        sentences: to learn from; their tags keep one scheme.
        crf: whether to put a CRF on the classifier.
        units: what has a tag each, "characters" or "words", which the configuration keeps as `tagging_units`; None:
            words where most tokens have several characters.
        loading: for `from_pretrained`.

    Raises:
        ValueError: tags of no scheme, or texts with classes and no CRF.
    """
    scheme = detect_scheme_in(sentence.tags for sentence in sentences)
    tags = {tag for sentence in sentences for tag in sentence.tags}
    types = sorted({parse_tag(tag, scheme)[1] for tag in tags if tag != "O"})
    known = tagger_options(scheme_labels(types, scheme, outside="O" in tags), scheme)
    classes = sorted({sentence.text_class for sentence in sentences if sentence.text_class is not None})
    if units is None:
        lengths = [len(token) for sentence in sentences for token in sentence.tokens]
        units = "words" if sum(length > 1 for length in lengths) > len(lengths) / 2 else "characters"
    if crf:
        return CrfForTokenClassification.from_encoder(
            model, **known, tagging_units=units, text_classes=classes or None, dtype=torch.float32, **loading
        )
    if classes:
        raise ValueError("classes of texts are learnt beside the tags of a model with a CRF, and this one has none")
    tagger = AutoModelForTokenClassification.from_pretrained(
        model,
        id2label=known["id2label"],
        label2id=known["label2id"],
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
        **loading,
    )
    tagger.config.tagging_scheme, tagger.config.tagging_units = scheme, units
    return tagger


def tagging_features(
    sentences: Sequence[TaggedSentence],
    tokenizer: Any,
    config: Any,
    *,
    labelled: bool = True,
    max_length: int = 128,
    overlap: int = 32,
) -> Dataset:
    """Windows of sentences, a predicate marked as a segment.

    Args:
        sentences: the sentences, from `hf_nlpnotes.corpora`.
        tokenizer: the model's, a fast one.
        config: the model's configuration: `label2id`, `tagging_scheme` (else it is detected from the labels) and,
            where texts have classes, `text_classes`.
        labelled: whether to add the labels; what is only to be tagged needs none.
        max_length: tokens a window, special ones included.
        overlap: tokens that a window shares with the next.

    Returns:
        The columns of `prepare_tagging_features`, and `text_classes` where the configuration has them.

    Raises:
        ValueError: as of `prepare_tagging_features`, or a class that the configuration has not.
    """
    columns: dict[str, list[Any]] = {"tokens": [each.tokens for each in sentences]}
    if labelled:
        columns["tags"] = [each.tags for each in sentences]
    rows = prepare_tagging_features(
        columns,
        tokenizer,
        config.label2id,
        scheme=getattr(config, "tagging_scheme", None) or detect_scheme(list(config.label2id)),
        max_length=max_length,
        overlap=overlap,
        cut_spans="ignore",
    )
    for window, (number, units) in enumerate(zip(rows["example"], rows["word_units"], strict=True)):
        predicate = sentences[number].predicate
        if predicate is not None:
            rows["token_type_ids"][window] = [int(predicate[0] <= unit < predicate[1]) for unit in units]
    classes = getattr(config, "text_classes", None)
    if labelled and classes:
        new = {sentence.text_class for sentence in sentences} - set(classes)
        if new:
            raise ValueError(f"texts have the classes {sorted(map(str, new))}: expected some of {', '.join(classes)}")
        rows["text_classes"] = [classes.index(sentences[number].text_class) for number in rows["example"]]
    return Dataset.from_dict(rows)
