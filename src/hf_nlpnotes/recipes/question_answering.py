"""Questions on texts, for the stock Trainer: a model of spans, its windows, exact match and F1."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, DataCollatorWithPadding

from hf_nlpnotes.question_answering import SpanMetrics, prepare_evaluation_features, prepare_train_features

from .fine_tuning import Recipe

_USUAL_LENGTH = 384
"""Tokens of a window for SQuAD, since BERT."""


def question_answering(
    model: str,
    data: DatasetDict,
    *,
    metric: Any = None,
    max_length: int | None = None,
    doc_stride: int | None = None,
    max_answer_length: int = 50,
    empty_windows: float = 1.0,
    seed: int = 0,
    **loading: Any,
) -> Recipe:
    """Prepare a model to learn answers.

    Args:
        model: folder or hub name of an encoder.
        data: `train` and `validation`, as `hf_nlpnotes.corpora.read_questions` gives them.
        metric: one of `SpanMetrics`; None: `squad_v2` where some questions have no answer, else `cmrc2018`.
        max_length: tokens of a window: the question and a piece of the text; None: 384, or what the model takes where
            that is less.
        doc_stride: tokens that neighbouring windows share; None: a third of a window.
        max_answer_length: tokens of the longest answer.
        empty_windows: share of the windows without the answer to learn from, drawn by `seed`.
        seed: of that.
        loading: for `from_pretrained`.

    Raises:
        ValueError: as of `prepare_train_features` and `SpanMetrics`, or nothing to learn from.
    """
    tokenizer = AutoTokenizer.from_pretrained(model, **loading)
    answerer = AutoModelForQuestionAnswering.from_pretrained(model, dtype="float32", **loading)
    if max_length is None:
        takes = getattr(answerer.config, "max_position_embeddings", None) or _USUAL_LENGTH
        max_length = min(_USUAL_LENGTH, takes, tokenizer.model_max_length)
    doc_stride = max_length // 3 if doc_stride is None else doc_stride
    options = {"tokenizer": tokenizer, "max_length": max_length, "doc_stride": doc_stride, "padding": False}

    def windows(prepare: Any, rows: Dataset) -> Dataset:
        return rows.map(prepare, batched=True, remove_columns=rows.column_names, fn_kwargs=options)

    train = windows(prepare_train_features, data["train"])
    if empty_windows < 1:
        # Most windows of a long text do not have the answer: some of them teach as much as all.
        empty = np.array(train["end_positions"]) == 0
        train = train.select(np.flatnonzero(~empty | (np.random.default_rng(seed).random(len(train)) < empty_windows)))
    if not len(train):
        raise ValueError("no question to learn from has an answer in its text")
    held_out = windows(prepare_evaluation_features, data["validation"])
    if metric is None:
        metric = "cmrc2018" if all(answers["text"] for answers in data["train"]["answers"]) else "squad_v2"
    return Recipe(
        model=answerer,
        tokenizer=tokenizer,
        train=train,
        held_out=held_out,
        collate=DataCollatorWithPadding(tokenizer),
        metrics=SpanMetrics(data["validation"], held_out, metric, max_answer_length=max_answer_length),
        main_metric="f1",
        sizes={"train": len(data["train"]), "held_out": len(data["validation"])},
    )
