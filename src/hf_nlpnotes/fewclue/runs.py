"""Running FewCLUE: a masked language model by a prompt as it is, and trained on each split with the stock Trainer.

Zero-shot is `pipeline("zero-shot-prompt")` with the task's prompt. Few-shot is `PromptForSequenceClassification` in
the same prompt with the first word of each label, its bias calibrated on the training texts, trained for a fixed
number of epochs from the same weights for every split and seed. Nothing is chosen on the texts that are tested on.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from hf_nlpnotes.prompting.config import PromptConfig
from hf_nlpnotes.prompting.encoding import PromptEncoder
from hf_nlpnotes.prompting.model import PromptForSequenceClassification

from .results import Run, TaskResult, accuracy, majority
from .tasks import FewClueTask

Advance = Callable[[int], Any]
"""Told how many texts have been read since the last call."""

_FEW_TEXTS = 100
_SMALL_BATCH, _LARGE_BATCH = 8, 32
_SAMPLE_SEED = 0
_WARM_UP = 0.1
_CHUNK = 8  # batches that are sorted by length together


@dataclass(frozen=True, kw_only=True)
class FewShotOptions:
    """How a prompt is trained.

    Args:
        epochs: passes over the training texts.
        learning_rate: the largest, after a tenth of the steps; it falls to 0 linearly. The default suits small
            models; base models want 1e-5 to 5e-5.
        batch_size: texts a step; `None`: 8 of fewer than 100 texts, 32 of more.
        max_length: most tokens of an input, if fewer than the model takes.
        use_cpu: leave accelerators alone.

    Raises:
        `ValueError`: a number that is not positive.
    """

    epochs: int = 20
    learning_rate: float = 2e-4
    batch_size: int | None = None
    max_length: int | None = None
    use_cpu: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "batch_size", "max_length"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value!r}.")

    def batch_for(self, texts: int) -> int:
        """Texts a step.

        Args:
            texts: how many there are to learn from.
        """
        return self.batch_size or (_SMALL_BATCH if texts < _FEW_TEXTS else _LARGE_BATCH)


def limited(task: FewClueTask, limit: int | None) -> FewClueTask:
    """The task with at most `limit` test texts, a fixed random sample in the order of the file.

    A sample, and not the first ones: test files may be sorted by label.
    """
    if limit is None or limit >= len(task.test):
        return task
    if limit < 1:
        raise ValueError(f"limit must be a positive whole number, got {limit!r}.")
    places = sorted(random.Random(_SAMPLE_SEED).sample(range(len(task.test)), limit))  # noqa: S311 (no secret)
    test = [task.test[place] for place in places]
    return FewClueTask(task.name, task.template, task.words, task.test_name, test, task.splits)


def texts_to_read(task: FewClueTask, zero: bool, seeds: int, epochs: int) -> int:
    """How many texts an evaluation reads, those of training once an epoch: what `advance` counts up to."""
    runs = [epochs * len(rows) + len(task.test) for rows in task.splits.values()]
    return zero * len(task.test) + seeds * sum(runs)


def spelled_words(task: FewClueTask, tokenizer: Any) -> dict[str, Any]:
    """The label words that the vocabulary can spell in the prompt.

    Raises:
        `ValueError`: it can spell none of a label's words.
    """
    encoder = PromptEncoder(PromptConfig(template=task.template).templates[0][0], tokenizer)
    kept: dict[str, Any] = {}
    for label, given in task.words.items():
        words = [given] if isinstance(given, str) else list(given)
        spelled = [word for word in words if encoder.can_spell(word)]
        if not spelled:
            raise ValueError(
                f"{task.name}: the vocabulary can spell no word of the label {label!r} ({', '.join(words)}): give it"
                " another one in a file of prompts."
            )
        kept[label] = {word: given[word] for word in spelled} if isinstance(given, Mapping) else spelled
    return kept


def zero_shot(
    classify: Any,
    task: FewClueTask,
    *,
    calibration: str = "contextual",
    batch_size: int = 32,
    max_length: int | None = None,
    advance: Advance = lambda _: None,
) -> float:
    """Accuracy of a `zero-shot-prompt` pipeline on a task.

    Args:
        classify:
            The pipeline.
        task (`FewClueTask`):
            The task.
        calibration (`str`, defaults to `"contextual"`):
            As of the pipeline.
        batch_size (`int`, defaults to 32):
            Texts at a time.
        max_length (`int`, *optional*):
            Most tokens of an input.
        advance (`Callable`, *optional*):
            Told of every text.
    """

    def texts() -> Iterator[dict[str, str]]:
        for row in task.test:
            yield {name: text for name, text in row.items() if name != "label"}
            advance(1)

    answers = classify(
        texts(),
        template=task.template,
        verbalizer=spelled_words(task, classify.tokenizer),
        calibration=calibration,
        max_length=max_length,
        batch_size=batch_size,
    )
    return accuracy([answer["label"] for answer in answers], _labels(task.test))


def few_shot(
    model: str,
    task: FewClueTask,
    split: str,
    seed: int = 0,
    options: FewShotOptions | None = None,
    *,
    batch_size: int = 32,
    advance: Advance = lambda _: None,
    **loading: Any,
) -> Run:
    """Train a model on a split of a task and test it.

    Args:
        model (`str`):
            Name or folder of a masked language model; it is loaded anew and not written.
        task (`FewClueTask`):
            The task.
        split (`str`):
            One of its `splits`.
        seed (`int`, defaults to 0):
            Of the order of the texts and of dropout.
        options (`FewShotOptions`, *optional*):
            How to train.
        batch_size (`int`, defaults to 32):
            Texts at a time in the test.
        advance (`Callable`, *optional*):
            Told of the texts of every step and of every batch of the test.
        **loading:
            For every `from_pretrained`: `revision`, `trust_remote_code`.

    Raises:
        `ValueError`: there is no such split, or the prompt does not suit the model.
    """
    options = options or FewShotOptions()
    if split not in task.splits:
        raise ValueError(f"{task.name} has no training split {split!r}; there are: {', '.join(task.splits)}.")
    rows = task.splits[split]
    set_seed(seed)
    prompted = prompted_model(model, task, options.max_length, **loading)
    prompted.calibrate(rows, batch_size)
    _train(prompted, rows, seed, options, advance)
    labels, predicted = prompted.prompt.labels, []
    for start in range(0, len(task.test), _CHUNK * batch_size):
        part = task.test[start : start + _CHUNK * batch_size]
        predicted += [labels[place] for place in prompted.predict(part, batch_size).argmax(dim=1).tolist()]
        advance(len(part))
    return Run(split, seed, len(rows), accuracy(predicted, _labels(task.test)))


def prompted_model(model: str, task: FewClueTask, max_length: int | None = None, **loading: Any) -> Any:
    """The model in the task's prompt with the first word of each label that its vocabulary can spell."""
    tokenizer = AutoTokenizer.from_pretrained(model, **loading)
    words = spelled_words(task, tokenizer)
    first = {label: next(iter(spelled)) for label, spelled in words.items()}
    config = PromptConfig(template=task.template, verbalizer=first, max_length=max_length)
    return PromptForSequenceClassification.from_pretrained(model, config=config, tokenizer=tokenizer, **loading)


def result_of(task: FewClueTask, zero: float | None = None, runs: Sequence[Run] = ()) -> TaskResult:
    """The measurements of a task, with the majority beside them.

    Args:
        task: which the labels of the majority are of.
        zero: accuracy without training, if it was measured.
        runs: trainings and their tests, if there were any.
    """
    most = majority(_labels(task.test))
    return TaskResult(task.name, len(task.words), task.test_name, len(task.test), most, zero, tuple(runs))


def _train(
    prompted: Any, rows: Sequence[Mapping[str, str]], seed: int, options: FewShotOptions, advance: Advance
) -> None:
    batch_size = options.batch_for(len(rows))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,  # nothing is written there
            num_train_epochs=options.epochs,
            per_device_train_batch_size=batch_size,
            learning_rate=options.learning_rate,
            warmup_steps=_WARM_UP,
            seed=seed,
            use_cpu=options.use_cpu,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        progress = _Progress(advance, options.epochs * len(rows))
        collator, data = prompted.data_collator(), list(rows)
        trainer: Any = Trainer(prompted, arguments, collator, data, callbacks=[progress])
        trainer.remove_callback(PrinterCallback)  # it prints to stdout, which is the caller's
        trainer.train()
    prompted.eval()


class _Progress(TrainerCallback):
    """Spreads the texts of a training over its steps."""

    def __init__(self, advance: Advance, texts: int) -> None:
        self.advance = advance
        self.texts = texts
        self.told = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Tell of the texts that the step has read."""
        read = self.texts * state.global_step // state.max_steps
        self.advance(read - self.told)
        self.told = read


def _labels(rows: Sequence[Mapping[str, str]]) -> list[str]:
    return [row["label"] for row in rows]
