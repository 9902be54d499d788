"""The models behind the page: each loaded when it is first needed, and once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hf_nlpnotes
from hf_nlpnotes._trained_models import head_of, load_trained, naming_the_model

from ._bounds import bounded

_MOST_NAMED = 2
"""Models kept that a reader named in the page, of each kind; those of the options stay."""


@dataclass(frozen=True)
class AppOptions:
    """Which models an app has.

    Attributes:
        model: Folder or hub name of the masked language model; None for the embedded one.
        tagger: That of a model trained to tag; None for none.
        reader: That of a model trained to answer questions; None for none.
        device: Where to run: "cpu", "cuda:0", …; None for the first accelerator.
        choose_models: Whether the page lets its reader name a tagger and a reader. Whoever reaches such a page makes
            this machine load any folder and download any model, so that it is for one's own machine.
    """

    model: str | None = None
    tagger: str | None = None
    reader: str | None = None
    device: str | None = None
    choose_models: bool = False


class Models:
    """The models of an app. Safe to call from several threads.

    Args:
        options: Their names.
    """

    def __init__(self, options: AppOptions) -> None:
        hf_nlpnotes.register()  # harmless where it is done
        self.options = options
        self._lock = threading.RLock()
        self._loaded: dict[str, Any] = {}
        self._named: dict[str, OrderedDict[str, Any]] = {"tagger": OrderedDict(), "reader": OrderedDict()}

    @property
    def name(self) -> str:
        """What the masked language model is called."""
        return Path(self.options.model or hf_nlpnotes.EMBEDDED_MODEL).name

    def classifier(self) -> Any:
        """The pipeline `zero-shot-prompt`."""
        return self._once(
            "classifier",
            lambda: _pipeline(
                "zero-shot-prompt", self._model_name(), device=self.options.device, trust_remote_code=False
            ),
        )

    def filler(self) -> Any:
        """The pipeline `fill-mask`, of the classifier's model."""
        pipe = self.classifier()
        return self._once(
            "filler",
            lambda: _pipeline("fill-mask", pipe.model, tokenizer=pipe.tokenizer, device=pipe.device),
        )

    def attention(self) -> tuple[Any, Any]:
        """The classifier's model and tokenizer."""
        pipe = self.classifier()
        return pipe.model, pipe.tokenizer

    def tagger(self, name: str | None = None) -> Any:
        """The pipeline `sequence-tagging` of a named model, else of the options'; None where there is neither.

        Args:
            name: Folder or name on the hub; None: that of the options.

        Raises:
            ValueError: The model was not trained to tag, or the page may not name models.
            OSError: It cannot be loaded.
        """
        return self._named_or_own("tagger", self.options.tagger, name, _tagging_pipeline)

    def reader(self, name: str | None = None) -> Any:
        """The pipeline `extractive-question-answering`, likewise.

        Args:
            name: As of `tagger`.

        Raises:
            ValueError: The model was not trained to answer questions, or the page may not name models.
            OSError: It cannot be loaded.
        """
        return self._named_or_own("reader", self.options.reader, name, _reading_pipeline)

    def _model_name(self) -> str:
        return self.options.model or hf_nlpnotes.EMBEDDED_MODEL

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = make()
            return self._loaded[key]

    def _named_or_own(
        self, kind: str, own: str | None, name: str | None, make: Callable[[str, str | None], Any]
    ) -> Any:
        named = bounded("model", name, needed=False)
        if not named or named == own:
            return None if own is None else self._once(kind, lambda: make(own, self.options.device))
        if not self.options.choose_models:
            raise ValueError("This page names its own models: start one of your own with hf-nlpnotes app.")
        with self._lock:
            kept = self._named[kind]
            if named not in kept:
                kept[named] = make(named, self.options.device)
            kept.move_to_end(named)
            while len(kept) > _MOST_NAMED:
                kept.popitem(last=False)
            return kept[named]


def check_models(options: AppOptions) -> None:
    """Look whether the models are there, before anything is served: their configurations are read, nothing is loaded.

    Args:
        options: The models' names.

    Raises:
        OSError: One of them is not there.
    """
    hf_nlpnotes.register()
    for name in filter(None, (options.model, options.tagger, options.reader)):
        head_of(name, trust_remote_code=False)


def _pipeline(task: str, model: Any, **options: Any) -> Any:
    import transformers

    make: Any = transformers.pipeline  # its overloads know the stock tasks only
    with naming_the_model(model):
        return make(task, model=model, **options)


def _tagging_pipeline(name: str, device: str | None) -> Any:
    return _trained("sequence-tagging", name, device, "TokenClassification", "tag", "train tag")


def _reading_pipeline(name: str, device: str | None) -> Any:
    return _trained(
        "extractive-question-answering", name, device, "QuestionAnswering", "answer questions", "train answer"
    )


def _trained(task: str, name: str, device: str | None, head: str, work: str, teacher: str) -> Any:
    # Said outright: a thread has no terminal at which to be asked whether a model's own code may run.
    way_out, options = f"`hf-nlpnotes {teacher}` trains one", {"trust_remote_code": False}
    model, tokenizer = load_trained(head, name, work=work, way_out=way_out, **options)
    return _pipeline(task, model, tokenizer=tokenizer, device=device)
