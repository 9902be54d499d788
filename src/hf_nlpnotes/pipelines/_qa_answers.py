"""Answers to a question from the answers of its windows: merged, ranked, and with "no answer" among them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from hf_nlpnotes.question_answering.several_answers import apart

from ._qa_inputs import Question
from ._qa_options import AnswerOptions
from ._qa_search import Spans, WindowAnswers, WindowScores, best_spans
from ._qa_windows import ScoredWindows, WindowTable

Answer: TypeAlias = dict[str, Any]
"""`score`, `start`, `end`, `answer`; `context[start:end] == answer`."""


class SpanCandidates:
    """Collects the best answers of windows, and puts them together.

    Args:
        table: The windows of `context_windows`.
        questions: The questions.
        options: Those of the call.
    """

    def __init__(self, table: WindowTable, questions: Sequence[Question], options: AnswerOptions) -> None:
        self.table = table
        self.questions = questions
        self.options = options
        self._found: list[list[WindowAnswers]] = [[] for _ in questions]

    def add(self, batch: ScoredWindows) -> None:
        """Search a batch."""
        rows, width, details = batch.rows, batch.width, self.table.details
        starts, ends = details["starts"][rows, :width], details["ends"][rows, :width]
        cls_index = details["cls_index"][rows]
        scores = WindowScores(batch.start_logits, batch.end_logits, batch.span_logits, starts, ends, cls_index)
        found = best_spans(scores, wanted_spans(self.options), self.options.answer_length)
        for question, answers in zip(self.table.question[rows].tolist(), found, strict=True):
            self._found[question].append(answers)

    def answers(self) -> list[Answer | list[Answer]]:
        """The answer of each question; a list of answers where the options ask for several."""
        pairs = zip(self.questions, self._found, strict=True)
        ranked = [ranked_answers(one.context, windows, self.options) for one, windows in pairs]
        return list(ranked) if self.options.many else [answers[0] for answers in ranked]


def wanted_spans(options: AnswerOptions) -> int:
    """How many answers of each window are enough for the best of all."""
    if options.threshold is None:
        return options.top_k or 1
    # Scores of a window's answers add up to 1 at most.
    return math.floor(1 / options.threshold) if options.threshold > 1e-6 else 10**6


def ranked_answers(context: str, windows: Sequence[WindowAnswers], options: AnswerOptions) -> list[Answer]:
    """Rank the answers of a question.

    An answer that several windows have gets the best of its scores there. "No answer" gets the least of its scores:
    the windows without the answer are sure that they have none.

    Args:
        context: The text.
        windows: What was found in its windows.
        options: `top_k`, `threshold` and those of impossible answers.

    Returns:
        Answers, the best first; never none, except with `threshold`.
    """
    spans: Spans = {}
    for window in windows:
        for place, score in window.spans.items():
            spans[place] = max(score, spans.get(place, -math.inf))
    order: list[tuple[tuple[int, int], float]] = sorted(spans.items(), key=lambda item: (-item[1], item[0]))
    null = min(window.null for window in windows)
    is_impossible = options.handle_impossible_answer and _is_impossible(order, windows, null, options)
    if options.threshold is not None:
        if is_impossible:
            order = []
        least = math.log(options.threshold) if options.threshold > 0 else -math.inf
        order = _apart(item for item in order if item[1] >= least)
    elif is_impossible:
        order.insert(0, ((0, 0), null))
    elif options.handle_impossible_answer and options.null_score_diff_threshold is None:
        order.append(((0, 0), null))
        order.sort(key=lambda item: -item[1])
    limit = options.top_k if options.threshold is not None else options.top_k or 1
    return [
        {"score": math.exp(score), "start": start, "end": end, "answer": context[start:end]}
        for (start, end), score in order[:limit]
    ]


def _is_impossible(
    order: Sequence[tuple[tuple[int, int], float]],
    windows: Sequence[WindowAnswers],
    null: float,
    options: AnswerOptions,
) -> bool:
    """Whether "no answer" is the best one."""
    if not order:
        return True
    if options.null_score_diff_threshold is None:
        return null > order[0][1]
    # In logits, as thresholds are tuned: postprocessing compares the best window's answer with the least null score.
    null_logit = min(window.null + window.normalizer for window in windows)
    best_logit = max(score + window.normalizer for window in windows for score in [*window.spans.values(), -math.inf])
    return null_logit - best_logit > options.null_score_diff_threshold


def _apart(items: Iterable[tuple[tuple[int, int], float]]) -> list[tuple[tuple[int, int], float]]:
    """The best answers that do not overlap, of answers with the best first."""
    ranked = list(items)
    return [ranked[place] for place in apart(span for span, _ in ranked)]
