"""Answers exactly as the pipeline of transformers 4 gave them, for `compatibility="v4"`.

Its windows, its decoding (`select_starts_ends`), and how it put answers together: candidates are cut before invalid
ones are left out, words are those of the tokenizer, answers whose texts are the same but for case are one, with the
sum of their scores and the place of the first, and a single answer comes without its list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_nlpnotes.question_answering.pipeline_v4 import select_starts_ends

from ._qa_answers import Answer
from ._qa_inputs import Question
from ._qa_options import AnswerOptions
from ._qa_windows import ScoredWindows, WindowTable, padded_right


def v4_windows(tokenizer: Any, questions: Sequence[Question], *, max_length: int, doc_stride: int) -> WindowTable:
    """Lay windows as the tokenizer itself cuts pairs.

    Args:
        tokenizer: A fast one.
        questions: The questions.
        max_length: Tokens of a window.
        doc_stride: Tokens that neighbouring windows share.

    Returns:
        The windows; `details` has the `p_mask` of each, 0 where a token may be in an answer, and its `encoding` by the
        tokenizer, and which text of the pair is the `context`.

    Raises:
        ValueError: `doc_stride` is larger than a window, or a question leaves no room for its context.
    """
    if doc_stride > max_length:
        raise ValueError(f"doc_stride={doc_stride} is larger than a window of {max_length} tokens.")
    context_second = tokenizer.padding_side == "right"
    rows: dict[str, list[list[int]]] = {}
    p_mask: list[list[int]] = []
    encodings: list[Any] = []
    number: list[int] = []
    for place, one in enumerate(questions):
        _check_room(tokenizer, one, max_length, doc_stride)
        encoded = tokenizer(
            *((one.question, one.context) if context_second else (one.context, one.question)),
            truncation="only_second" if context_second else "only_first",
            max_length=max_length,
            stride=doc_stride,
            return_overflowing_tokens=True,
        )
        for window, ids in enumerate(encoded["input_ids"]):
            # Of a context that comes first, version 4 masked nothing.
            of_context = [owner == 1 or not context_second for owner in encoded.sequence_ids(window)]
            is_cls = [token == tokenizer.cls_token_id for token in ids]
            p_mask.append([int(not (inside or cls)) for inside, cls in zip(of_context, is_cls, strict=True)])
            encodings.append(encoded.encodings[window])
            number.append(place)
            for name in tokenizer.model_input_names:
                if name in encoded:
                    rows.setdefault(name, []).append(encoded[name][window])
    padded = tokenizer.pad(rows, padding="longest", return_tensors="np")
    columns = {name: np.asarray(values) for name, values in padded.items()}
    lengths = np.array([len(ids) for ids in p_mask])
    if tokenizer.padding_side == "left":
        columns = padded_right(columns, lengths)
    details = {"p_mask": p_mask, "encoding": encodings, "context": int(context_second)}
    return WindowTable(columns, lengths, np.array(number), details)


def _check_room(tokenizer: Any, one: Question, max_length: int, doc_stride: int) -> None:
    """Tell before the tokenizer does, which crashes."""
    sizes = [
        len(ids) for ids in tokenizer([one.question, one.context], add_special_tokens=False, verbose=False).input_ids
    ]
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True) - sizes[0]
    if sizes[1] > room and room <= doc_stride:
        raise ValueError(
            f"The question {one.question[:40]!r} of {sizes[0]} tokens leaves {max(room, 0)} tokens of a window of"
            f" {max_length} to the context, and windows share {doc_stride}: shorten it, or give another max_seq_len or"
            " doc_stride."
        )


class V4Candidates:
    """Collects what version 4 found in the windows of questions, and puts it together.

    Args:
        table: The windows of `v4_windows`.
        questions: The questions.
        options: Those of the call.
    """

    def __init__(self, table: WindowTable, questions: Sequence[Question], options: AnswerOptions) -> None:
        self.table = table
        self.questions = questions
        self.options = options
        self._logits: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, batch: ScoredWindows) -> None:
        """Keep the logits of a batch, without padding."""
        for place, row in enumerate(batch.rows.tolist()):
            size = int(self.table.lengths[row])
            self._logits[row] = batch.start_logits[place, :size], batch.end_logits[place, :size]

    def answers(self) -> list[Answer | list[Answer]]:
        """The answers of each question, from its windows in their order."""
        windows: list[list[int]] = [[] for _ in self.questions]
        for row, question in enumerate(self.table.question.tolist()):
            windows[question].append(row)
        return [self._of(one, rows) for one, rows in zip(self.questions, windows, strict=True)]

    def _of(self, question: Question, rows: Sequence[int]) -> Answer | list[Answer]:
        options, context = self.options, question.context
        top_k = options.top_k or 1
        null = 1e6
        answers: dict[str, Answer] = {}
        for row in rows:
            start, end = self._logits[row]
            starts, ends, scores, null = select_starts_ends(
                start[None],
                end[None],
                self.table.details["p_mask"][row],
                np.ones(len(start), dtype=np.int64),
                null,
                2 * top_k + 10 if options.align_to_words else top_k,
                options.handle_impossible_answer,
                options.answer_length,
            )
            encoding = self.table.details["encoding"][row]
            for first, last, score in zip(starts.tolist(), ends.tolist(), scores.tolist(), strict=True):
                begin, stop = _characters(encoding, first, last, self.table.details["context"], options.align_to_words)
                text = context[begin:stop]
                known = answers.setdefault(text.lower(), {"score": 0.0, "start": begin, "end": stop, "answer": text})
                known["score"] += score
        found = list(answers.values())
        if options.handle_impossible_answer:
            found.append({"score": null, "start": 0, "end": 0, "answer": ""})
        found = sorted(found, key=lambda answer: -answer["score"])[:top_k]
        return found[0] if len(found) == 1 else found


def _characters(encoding: Any, first: int, last: int, context: int, align_to_words: bool) -> tuple[int, int]:
    """Characters of a span of tokens, or of the words that they belong to where the tokenizer knows them."""
    if align_to_words:
        words = encoding.token_to_word(first), encoding.token_to_word(last)
        if None not in words:
            spans = [encoding.word_to_chars(word, context) for word in words]
            if None not in spans:
                return spans[0][0], spans[1][1]
    return encoding.offsets[first][0], encoding.offsets[last][1]
