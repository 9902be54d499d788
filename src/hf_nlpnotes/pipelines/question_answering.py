"""Extractive question answering as a pipeline: the task that transformers removed in version 5.3."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from hf_nlpnotes.model_inputs import accepted_inputs, longest_input

from ._qa_answers import Answer, SpanCandidates
from ._qa_inputs import Question, questions_of
from ._qa_options import AnswerOptions
from ._qa_search import character_places
from ._qa_v4 import V4Candidates, v4_windows
from ._qa_windows import WindowTable, chunks, context_windows, scored

_BAR_AFTER = 2.0
"""Seconds after which work is long."""


class ExtractiveQuestionAnsweringPipeline(Pipeline):
    """Answers to questions, as pieces of the texts they are asked about.

    Any model for question answering with start and end logits will do, with a fast tokenizer. A text that is longer
    than a window is read in windows that overlap. The best answers are found by an exact search.

    Args:
        model, tokenizer, device, batch_size, …:
            As in every pipeline. Batches are made of windows, of all questions of a call.
        top_k (`int`, defaults to 1):
            How many answers. Fewer are given only where the text has no more.
        threshold (`float`, *optional*):
            Give all answers with at least this score that do not overlap, and not just the best one; at most `top_k`
            if that is given.
        max_answer_len (`int`, defaults to 128):
            Tokens of the longest answer.
        doc_stride (`int`, *optional*):
            Tokens that neighbouring windows share. Default: 128, or a third of a window that is short.
        max_seq_len (`int`, *optional*):
            Tokens of a window, question included. Default: 384, or what the model takes.
        max_question_len (`int`, *optional*):
            Cut questions to this many tokens. Default: only where they would leave no room for the text.
        handle_impossible_answer (`bool`, defaults to `False`):
            Whether "no answer" is one: `{"score": …, "start": 0, "end": 0, "answer": ""}`.
        null_score_diff_threshold (`float`, *optional*):
            Give no answer where its logits exceed the best answer's by more than this, as found on development data.
            Default: scores are compared.
        align_to_words (`bool`, defaults to `True`):
            Whether answers begin and end with whole words. Chinese, Japanese, Korean, Thai and others have no words
            in this sense: their answers begin and end with any character.
        padding (`str`, defaults to `"longest"`):
            Of a batch; `"max_length"` pads all windows to `max_seq_len`.
        progress_bar (`bool`, *optional*):
            Show one. Default: after two seconds, on a terminal.
        compatibility (`"v4"`, *optional*):
            Answer exactly as version 4 did, with its faults: `max_answer_len` 15, answers with the same text added up
            to one, fewer than `top_k` answers, a single answer or question without its list.

    Raises:
        ValueError: a tokenizer that is not fast, or none.

    Every option may be given when the pipeline is made or in a call. A score is the probability of the answer's first
    token times that of its last, in the window that has it; of models that score pairs, it is that of the pair.

    ```python
    answer = pipeline("extractive-question-answering", model="MODEL")
    answer(question="谁写了《红楼梦》？", context="《红楼梦》是曹雪芹写的。")
    # {"score": 0.9, "start": 6, "end": 9, "answer": "曹雪芹"}
    ```
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True
    default_input_names: Any = "question,context"

    def __init__(self, model: Any, tokenizer: Any = None, *args: Any, **kwargs: Any) -> None:
        self._options = AnswerOptions()
        if tokenizer is None or not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                "Question answering needs a fast tokenizer, which knows the characters of its tokens, got"
                f" {tokenizer!r}."
            )
        model.eval()  # one that has just been trained would answer at random
        super().__init__(model, tokenizer, *args, **kwargs)
        self.tokenizer: Any

    def _sanitize_parameters(
        self, local_files_only: bool | None = None, **options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        self._options = self._options.updated(options)  # from the constructor; a call has its own way
        return {}, {}, {}

    def __call__(
        self,
        *args: Any,
        question: Any = None,
        context: Any = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        **options: Any,
    ) -> Any:
        """Answer one question or many.

        Args:
            *args: One mapping with `"question"` and `"context"`, other columns being ignored; or several, or a list,
                generator or data set of them. Or a question and a context.
            question, context: A text or a list of texts each. One text goes with all of a list.
            batch_size: Windows in a forward pass; does not change the answers.
            num_workers: Accepted, as in every pipeline; texts are read in this process.
            **options: Any option of the class.

        Returns:
            For a question `{"score", "start", "end", "answer"}`, where `context[start:end]` is the answer; a list of
            them, best first, with `threshold` or a `top_k` above 1. For a list of questions a list of that, whatever
            its length, and for a generator or data set an iterator.

        Raises:
            `ValueError`: see the message; it names the value and the way out.
            `TypeError`: a question or context that is no string, an option that does not exist, or a model without
                start and end logits.
        """
        chosen = self._options.updated(options)
        size = self._batch_size if batch_size is None else batch_size
        size = 1 if size is None else size
        if type(size) is not int or size < 1:
            raise ValueError(f"batch_size must be a positive whole number, got {size!r}.")
        kind, questions = questions_of(args, question, context)
        if kind == "stream":
            return self._answers(questions, kind, size, chosen)
        listed = list(questions)
        answers = list(self._answers(listed, kind, size, chosen))
        alone = kind == "single" or (chosen.compatibility == "v4" and len(answers) == 1)
        return answers[0] if alone else answers

    def _answers(
        self, questions: Iterable[Question], kind: str, batch_size: int, options: AnswerOptions
    ) -> Iterator[Any]:
        """Answers in the order of the questions."""
        found: dict[int, Any] = {}
        next_one = 0
        total = len(questions) if isinstance(questions, list) else None
        with _progress_bar(total, options) as bar:
            windows = done = 0
            for chunk in chunks(questions, kind, batch_size):
                asked = [one for _, one in chunk]
                table = self.preprocess(asked, options)
                windows, done = windows + len(table.lengths), done + len(chunk)
                if total is not None:
                    bar.total = windows + (total - done) * windows // done
                candidates = (V4Candidates if options.compatibility == "v4" else SpanCandidates)(table, asked, options)
                for batch in scored(table, self.forward, batch_size, full_width=options.padding == "max_length"):
                    candidates.add(batch)
                    bar.update(len(batch.rows))
                answers = self.postprocess(candidates)
                found.update(zip((number for number, _ in chunk), answers, strict=True))
                while next_one in found:
                    yield found.pop(next_one)
                    next_one += 1

    def preprocess(self, input_: list[Question], options: AnswerOptions) -> WindowTable:  # type: ignore[override]
        """The windows of questions."""
        length = options.window_length(longest_input(self.model, self.tokenizer))
        if options.compatibility == "v4":
            return v4_windows(self.tokenizer, input_, max_length=length, doc_stride=options.stride(length))
        return context_windows(
            self.tokenizer,
            input_,
            max_length=length,
            doc_stride=options.stride(length),
            max_question_length=options.max_question_len,
            padding="max_length" if options.padding == "max_length" else "longest",
            places=functools.partial(character_places, align_to_words=options.align_to_words),
        )

    def _forward(self, input_tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:  # type: ignore[override]
        model: Any = self.model
        output = model(**accepted_inputs(model, input_tensors), return_dict=True)
        if "start_logits" not in output or "end_logits" not in output:
            raise TypeError(
                f"{type(model).__name__} gives {list(output)}, and no start_logits and end_logits: expected a model"
                " that AutoModelForQuestionAnswering makes."
            )
        names = [name for name in ("start_logits", "end_logits", "span_logits") if name in output]
        return {name: output[name] for name in names}

    def postprocess(self, model_outputs: SpanCandidates | V4Candidates) -> list[Answer | list[Answer]]:  # type: ignore[override]
        """The answers of questions."""
        return model_outputs.answers()


class QuestionAnsweringPipeline(ExtractiveQuestionAnsweringPipeline):
    """The pipeline under the names that it had in version 4: `pipeline("question-answering")`, and this class.

    All is as in [`ExtractiveQuestionAnsweringPipeline`].
    """


def _progress_bar(total: int | None, options: AnswerOptions) -> Any:
    """A bar over windows; of a stream there is none, whose reader has one."""
    shown = options.progress_bar
    if shown is False or (shown is None and total is None) or not logging.is_progress_bar_enabled():
        return contextlib.nullcontext(_NoBar())
    from tqdm.auto import tqdm

    # Of no total, as long as windows are not laid yet. Disabled by None where there is no terminal.
    delay = 0.0 if shown else _BAR_AFTER
    return tqdm(desc="answer", unit="window", total=None, delay=delay, disable=None if shown is None else False)


class _NoBar:
    """In place of a progress bar."""

    total: int | None = None

    def update(self, number: int) -> None:
        """Count."""
