"""What the examples of sequence tagging share: options, training a tagger, its tags for sentences, F1 of spans."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

import hf_nlpnotes
from hf_nlpnotes.corpora import TaggedSentence
from hf_nlpnotes.recipes import new_tagger, tagging_features
from hf_nlpnotes.tagging import (
    Scores,
    TagDecoder,
    detect_scheme,
    merge_windows,
    precision_recall_f1,
    spans_to_tags,
    tags_to_spans,
)
from hf_nlpnotes.tagging.decoding import crf_of


@dataclass
class TaggingOptions:
    """Command-line options of every example of sequence tagging."""

    model: str = hf_nlpnotes.EMBEDDED_MODEL
    data: str | None = None
    test_data: str | None = None
    limit: int | None = None
    test_limit: int | None = None
    crf: bool = True
    epochs: float = 4
    learning_rate: float = 2e-4
    head_learning_rate: float = 5e-3
    batch_size: int = 16
    max_length: int = 128
    overlap: int = 32
    bf16: bool = False
    seed: int = 0
    output_dir: str | None = None


class Losses(TrainerCallback):
    """Prints the loss of each epoch."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """After each epoch."""
        if state.is_world_process_zero and "loss" in logs:
            print(f"epoch {state.epoch:<4.3g} loss {logs['loss']:.3f}", flush=True)


class Tagger:
    """A model with its tokenizer and Trainer."""

    def __init__(self, options: TaggingOptions, train: Sequence[TaggedSentence], *, units: str = "characters") -> None:
        """Load the model, with new labels unless there is nothing to train.

        Args:
            options: of the command line.
            train: sentences whose tags become the labels.
            units: what has a tag each in a text: "characters" or "words"; the pipeline reads it from the model.
        """
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        disable_progress_bars()
        set_seed(options.seed)
        self.options = options
        self.tokenizer = AutoTokenizer.from_pretrained(options.model)
        self.model = load(options, train, units)
        config = self.model.config
        self.labels = [config.id2label[number] for number in range(config.num_labels)]
        self.scheme = getattr(config, "tagging_scheme", None) or detect_scheme(self.labels)
        self.trainer = self._trainer(train)
        if options.epochs:
            self.trainer.train()
        # It would also reorder what is predicted, and give the predictions in that order.
        self.trainer.args.train_sampling_strategy = "random"

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints."""
        return self.trainer.is_world_process_zero()

    def _trainer(self, train: Sequence[TaggedSentence]) -> Trainer:
        options, model = self.options, self.model
        # New layers, the CRF's transitions among them, want larger steps than those that have been pretrained; and so
        # does the segment that marks predicates, which pretraining on single texts has never seen.
        marks = any(sentence.predicate for sentence in train)
        old = {
            name
            for name, _ in model.named_parameters()
            if name.startswith(f"{model.base_model_prefix}.") and not (marks and "token_type_embeddings" in name)
        }
        groups = [
            {"params": [p for name, p in model.named_parameters() if (name in old) == is_old], "lr": rate}
            for is_old, rate in ((True, options.learning_rate), (False, options.head_learning_rate))
        ]
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=options.epochs,
                warmup_steps=0.1,
                train_sampling_strategy="group_by_length",  # most of a batch would be padding
                save_strategy="no",
                logging_strategy="epoch",
                report_to="none",
                disable_tqdm=True,
                bf16=options.bf16,
                use_cpu=not torch.accelerator.is_available(),
                ddp_find_unused_parameters=False,
                seed=options.seed,
                dataloader_pin_memory=torch.cuda.is_available(),
                per_device_eval_batch_size=32,
            )
        arguments.per_device_train_batch_size = max(1, options.batch_size // arguments.world_size)
        trainer = Trainer(
            model,
            arguments,
            DataCollatorForTokenClassification(self.tokenizer),
            self.features(train, labelled=True) if options.epochs else None,
            optimizers=(torch.optim.AdamW(groups, weight_decay=0.01), None),
            callbacks=[Losses],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def features(self, sentences: Sequence[TaggedSentence], *, labelled: bool) -> Dataset:
        """Windows of sentences, a predicate marked as a segment."""
        lengths = {"max_length": self.options.max_length, "overlap": self.options.overlap}
        return tagging_features(sentences, self.tokenizer, self.model.config, labelled=labelled, **lengths)

    def scores(self, sentences: Sequence[TaggedSentence]) -> tuple[list[torch.Tensor], list[str | None]]:
        """Logits of each sentence, (tokens, labels), and the class of its text where the model tells one."""
        features = self.features(sentences, labelled=False)
        found = self.trainer.predict(features.remove_columns(["example", "word_units"])).predictions
        logits, text_logits = found if isinstance(found, tuple) else (found, None)
        windows: list[list[int]] = [[] for _ in sentences]
        for window, number in enumerate(features["example"]):
            windows[number].append(window)
        units = list(features["word_units"])
        tables = [
            merge_windows(
                [logits[window][: len(units[window])] for window in mine],
                [units[window] for window in mine],
                len(sentence.tokens),
            ).scores
            for mine, sentence in zip(windows, sentences, strict=True)
        ]
        classes: list[str | None] = [None] * len(sentences)
        if text_logits is not None:
            names: list[str] = self.model.config.text_classes
            classes = [names[text_logits[mine[0]].argmax()] for mine in windows]
        return [torch.from_numpy(table).float() for table in tables], classes

    def decode(self, logits: Sequence[torch.Tensor], *, constrained: bool = True) -> list[list[str]]:
        """Tags of each sentence: the CRF's best, or the best legal ones, or the best of each token by itself."""
        decoder = TagDecoder.of(self.labels, self.scheme, constrained=constrained, crf=crf_of(self.model))
        lengths = [len(table) for table in logits]
        with torch.no_grad():
            ids = decoder.decode(torch.cat(list(logits)), lengths)
        return [[self.labels[number] for number in row.tolist()] for row in ids.split(lengths)]

    def tag(self, sentences: Sequence[TaggedSentence]) -> list[list[str]]:
        """Tags of each sentence."""
        return self.decode(self.scores(sentences)[0])

    def save(self) -> None:
        """Keep the model with its tokenizer for `pipeline("sequence-tagging", model=…)`."""
        if self.options.output_dir:
            self.trainer.save_model(self.options.output_dir)
            if self.is_first:
                self.tokenizer.save_pretrained(self.options.output_dir)


def load(options: TaggingOptions, train: Sequence[TaggedSentence], units: str) -> Any:
    """A tagger for the tags of `train`; as it is where there is nothing to train."""
    if not options.epochs:
        return AutoModelForTokenClassification.from_pretrained(options.model, dtype=torch.float32)
    return new_tagger(options.model, train, crf=options.crf, units=units)


def as_iob2(tags: Sequence[str], scheme: str) -> list[str]:
    """The spans of tags in IOB2; tags that break the scheme are read as conlleval reads them."""
    return spans_to_tags(tags_to_spans(tags, scheme, illegal="repair"), len(tags), "IOB2")


def span_f1(sentences: Sequence[TaggedSentence], tags: Sequence[Sequence[str]], scheme: str) -> Scores:
    """Precision, recall and F1 of spans."""
    gold = [as_iob2(sentence.tags, scheme) for sentence in sentences]
    return precision_recall_f1(gold, [as_iob2(row, scheme) for row in tags], scheme="IOB2", mode="strict")
