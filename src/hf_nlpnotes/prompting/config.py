"""`prompt.json`: what turns a masked language model into a classifier, in one readable file beside its weights.

The weights stay what they are, and `AutoModelForMaskedLM` loads the folder as before. A folder that holds nothing but
this file is valid too, where it names its model:

    {
      "template": "{text}总之是{label}。",
      "verbalizer": {"好评": ["好", "不错"], "差评": "差"},
      "calibration": "contextual",
      "model": "hfl/chinese-roberta-wwm-ext"
    }
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import PushToHubMixin
from transformers.utils.hub import cached_file

from .calibration import CALIBRATIONS, label_prior_tensor
from .template import Template
from .template_parts import LABEL_SLOT
from .verbalizer import Verbalizer
from .word_scorer import SCORINGS

PROMPT_FILE = "prompt.json"
"""Name of the file in a model's folder."""


@dataclass(frozen=True, kw_only=True)
class PromptConfig(PushToHubMixin):
    """A prompt with all its options. Only the template is required; what is `None` is not stored and has no say.

    Args:
        template (`str`, `Sequence[str]` or `Mapping[str, float]`):
            The prompt, several that vote, or several with weights.
        verbalizer (`Mapping`, `Sequence[str]` or `Verbalizer`, *optional*):
            The words of each label: a word, a list, or words with weights. The order of the labels is that of the
            numbers in a data set's label column. `None`: the labels come with each call of the pipeline.
        demonstrations (`Sequence[Mapping[str, Any]]`, *optional*):
            Labelled examples for `{demos:…}` in a template, such as the training examples: the columns, and `"label"`
            with a label's name or number. Other columns are not kept.
        calibration (`str`, *optional*):
            One of `hf_nlpnotes.prompting.CALIBRATIONS`.
        calibration_texts (`Sequence`, *optional*):
            Texts to calibrate on, or mappings from columns to texts.
        label_prior (`Mapping[str, float]` or `Sequence[float]`, *optional*):
            How frequent the labels are.
        prior_weight (`float`, *optional*):
            Weight of the static similarity of text and label words beside the network's scores; 0 is without.
        scoring (`str`, *optional*):
            How words of several tokens are scored, one of `hf_nlpnotes.prompting.SCORINGS`. Training and `predict`
            read all tokens of a word at once; the pipeline does as this says.
        rerank (`int`, *optional*):
            How many of the best labels to look at again, see `hf_nlpnotes.prompting.reranking`. Training and its
            evaluation do not; the pipeline and `PromptForSequenceClassification.predict` do.
        max_length (`int`, *optional*):
            Most tokens of an input.
        bias (`Mapping[str, float]` or `Sequence[float]`, *optional*):
            A stored calibration: what is subtracted from each label's score, where scores are `WordScores.centred`
            weighted over the label's words. A trained model leaves its own here.
        model (`str`, *optional*):
            Name or folder of the masked language model, for a folder that has no weights of its own. A relative path
            is read from the working directory, as everywhere in transformers.

    Raises:
        `ValueError`: a value that cannot be used, by itself or beside the others; the message names it and the way
            out.
        `TypeError`: a value of the wrong kind.

    >>> config = PromptConfig(template="{text}总之是{label}。", verbalizer={"好评": ["好", "不错"], "差评": "差"})
    >>> config.labels
    ('好评', '差评')
    """

    template: Any
    verbalizer: Any = None
    demonstrations: Any = None
    calibration: str | None = None
    calibration_texts: Any = None
    label_prior: Any = None
    prior_weight: float | None = None
    scoring: str | None = None
    rerank: int | None = None
    max_length: int | None = None
    bias: Any = None
    model: str | None = None

    def __post_init__(self) -> None:
        self._set("template", _templates(self.template))
        if self.verbalizer is not None:
            self._set("verbalizer", _words(self.verbalizer))
        if self.demonstrations is not None:
            self._set("demonstrations", _demonstrations(self.demonstrations, self.columns, self.labels))
        if self.calibration is not None and self.calibration not in CALIBRATIONS:
            raise ValueError(f"calibration must be one of {', '.join(CALIBRATIONS)}, got {self.calibration!r}.")
        if self.calibration_texts is not None:
            self._set("calibration_texts", checked_calibration_texts(self.calibration_texts))
        for name in ("label_prior", "bias"):
            if getattr(self, name) is not None:
                self._set(name, self._by_label(name))
        if self.label_prior is not None:
            label_prior_tensor(self.label_prior, self.labels)  # positive, or an error
        if self.prior_weight is not None:
            _check_number("prior_weight", self.prior_weight)
        if self.scoring is not None and self.scoring not in SCORINGS:
            raise ValueError(f"scoring must be one of {', '.join(SCORINGS)}, got {self.scoring!r}.")
        model: Any = self.model  # a file may hold anything
        if model is not None and not (isinstance(model, str) and model.strip()):
            raise ValueError(f"model must be a name, got {model!r}: leave it out where there is none.")
        for name in ("rerank", "max_length"):
            _check_count(name, getattr(self, name))

    @property
    def templates(self) -> tuple[tuple[Template, float], ...]:
        """The templates, parsed, with weights of sum 1."""
        source = self.template
        weights = {source: 1.0} if isinstance(source, str) else dict.fromkeys(source, 1.0)
        weights = dict(source) if isinstance(source, dict) else weights
        return tuple((Template(one), weight / sum(weights.values())) for one, weight in weights.items())

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that the templates name."""
        return tuple(dict.fromkeys(column for template, _ in self.templates for column in template.columns))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of their numbers; none without a verbalizer."""
        return tuple(self.verbalizer or ())

    @property
    def words(self) -> Verbalizer:
        """The verbalizer.

        Raises:
            `ValueError`: none is stored.
        """
        if self.verbalizer is None:
            raise ValueError(
                "This prompt has no verbalizer, and so no labels: give one with the words of each label, such as"
                " PromptConfig(template=…, verbalizer={'好评': '好', '差评': '差'})."
            )
        return Verbalizer.of(self.verbalizer)

    def bias_tensor(self) -> torch.Tensor:
        """The stored bias, float64 of shape `(labels,)`; 0 where none is stored."""
        return torch.tensor([(self.bias or {}).get(label, 0.0) for label in self.labels], dtype=torch.float64)

    def replace(self, **changes: Any) -> PromptConfig:
        """A copy with other values, checked anew.

        Args:
            **changes (`Any`):
                Options of the class.
        """
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """What `prompt.json` holds: every value that is not `None`, in plain JSON types."""
        return {name: value for name, value in self._values().items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], origin: str = "The prompt") -> PromptConfig:
        """The inverse of `to_dict`; `origin` is what error messages call the source.

        Args:
            values (`Mapping[str, Any]`):
                Options of the class, by their names.
            origin (`str`, defaults to `"The prompt"`):
                What error messages call the source.

        Raises:
            `ValueError`: an unknown key, no template, or a value that the class refuses.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = [key for key in values if key not in names]
        if unknown:
            raise ValueError(
                f"{origin} has the unknown key {unknown[0]!r}; there are: {', '.join(names)}. Correct the spelling, or"
                " use the version of hf_nlpnotes that wrote it."
            )
        if "template" not in values:
            raise ValueError(f'{origin} has no template: add "template": "{{label}}：{{text}}", or your own.')
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{origin}: {error}") from error

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any
    ) -> tuple[str]:
        """Write `prompt.json` into a folder, whole or not at all; other files of the folder stay as they are.

        Args:
            save_directory (`str` or `os.PathLike`):
                The folder, made where it is missing.
            push_to_hub (`bool`, defaults to `False`):
                Upload it afterwards; `repo_id` and the other arguments are those of `push_to_hub`.

        Returns:
            The path of the file.
        """
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / PROMPT_FILE
        part = folder / f".{PROMPT_FILE}.{os.getpid()}"
        try:
            part.write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", folder.name), **kwargs)
        return (str(path),)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> PromptConfig:
        """Read the `prompt.json` of a folder or of a repository of the hub.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                The folder or the repository's name.
            **kwargs:
                `revision`, `token`, `cache_dir`, `subfolder`, `local_files_only`, …, as in every `from_pretrained`.

        Raises:
            `OSError`: there is no such file.
            `ValueError`: the file is no JSON, or holds what the class refuses.
        """
        found = cached_file(pretrained_model_name_or_path, PROMPT_FILE, **kwargs)
        assert found is not None  # it raises by itself
        path = Path(found)
        try:
            values = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte order mark
        except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or thousands of brackets
            raise ValueError(f"{path} cannot be read as JSON: {error}. Repair it, or save the prompt anew.") from error
        if not isinstance(values, dict):
            raise ValueError(
                f"{path} holds a {type(values).__name__}, expected one JSON object: save the prompt anew."
            )
        return cls.from_dict(values, origin=str(path))

    @staticmethod
    def is_in(folder: str | os.PathLike[str]) -> bool:
        """Whether a local folder has a `prompt.json`.

        Args:
            folder (`str` or `os.PathLike`):
                The folder; a name on the hub has none.
        """
        return (Path(folder) / PROMPT_FILE).is_file()

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _by_label(self, name: str) -> dict[str, float]:
        """One number a label, by the label's name."""
        value, labels = getattr(self, name), self.labels
        if not labels:
            raise ValueError(f"{name} has one number for each label, and there are no labels: give a verbalizer too.")
        if isinstance(value, torch.Tensor):
            value = value.tolist()
        if isinstance(value, Mapping):
            if set(value) != set(labels):
                raise ValueError(f"{name} names the labels {list(value)}, and the verbalizer has {list(labels)}.")
            numbers = {label: value[label] for label in labels}
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if len(value) != len(labels):
                raise ValueError(f"{name} has {len(value)} numbers for the {len(labels)} labels {list(labels)}.")
            numbers = dict(zip(labels, value, strict=True))
        else:
            raise TypeError(f"{name} is a list of numbers or a mapping from labels to numbers, got {value!r}.")
        for label, number in numbers.items():
            _check_number(f"{name} of the label {label!r}", number, negative=True)
        return {label: float(number) for label, number in numbers.items()}


def _templates(value: Any) -> str | list[str] | dict[str, float]:
    """The templates in JSON's types, each parsed once to be sure of it."""
    if isinstance(value, (str, Template)):
        return Template(str(value)).source
    if isinstance(value, Mapping):
        for source, weight in value.items():
            _check_number(f"The weight of the template {str(source)!r}", weight)
            if not weight > 0:
                raise ValueError(f"The weight of the template {str(source)!r} must be positive, got {weight!r}.")
        weighted = {_parsed(source): float(weight) for source, weight in value.items()}
        if weighted:
            return weighted
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        sources = [_parsed(source) for source in value]
        repeated = [source for source in sources if sources.count(source) > 1]
        if repeated:
            raise ValueError(f"The template {repeated[0]!r} is given twice: give it a weight, {{template: weight}}.")
        if sources:
            return sources
    else:
        raise TypeError(f"template is a string, a list of strings or {{string: weight}}, got {value!r}.")
    raise ValueError("There is no template: give at least one, such as '{label}：{text}'.")


def _parsed(source: Any) -> str:
    return (source if isinstance(source, Template) else Template(source)).source


def _words(given: Any) -> dict[str, Any]:
    """A verbalizer's words in JSON's types, as they were given: a word, a list, or words with weights."""
    verbalizer = Verbalizer.of(given)  # checks it
    if isinstance(given, Mapping):
        return {
            label: words if isinstance(words, str) else dict(words) if isinstance(words, Mapping) else list(words)
            for label, words in given.items()
        }
    table = zip(verbalizer.labels, verbalizer.words, verbalizer.weights, strict=True)
    return {
        label: dict(zip(words, weights, strict=True))
        if len(set(weights)) > 1
        else list(words)
        if words[1:]
        else words[0]
        for label, words, weights in table
    }


def _demonstrations(rows: Any, columns: Sequence[str], labels: Sequence[str]) -> list[dict[str, str]]:
    """Examples with the templates' columns and the name of their label."""
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise TypeError(f"demonstrations is a list of examples, got {rows!r}.")
    kept = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"Demonstration number {number} is a mapping from columns to texts, got {row!r}.")
        missing = [name for name in (*columns, LABEL_SLOT) if name not in row]
        if missing:
            raise ValueError(f"Demonstration number {number} has no {missing[0]!r}, only the columns {list(row)}.")
        values = {name: row[name] for name in (*columns, LABEL_SLOT)}
        label = values[LABEL_SLOT]
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(labels):
            values[LABEL_SLOT] = label = labels[label]
        if labels and label not in labels:
            raise ValueError(
                f"Demonstration number {number} has the label {label!r}, which is none of {list(labels)}, nor the"
                " number of one."
            )
        for name, value in values.items():
            if not isinstance(value, str):
                raise TypeError(f"Demonstration number {number} has {value!r} as its {name!r}, expected a string.")
        kept.append(values)
    if not kept:
        raise ValueError("demonstrations is a list of examples, at least one, got none.")
    return kept


def checked_calibration_texts(texts: Any) -> list[Any]:
    """Texts to calibrate on, each a string or a mapping from columns to strings.

    Raises:
        `ValueError`: no list, or an empty one.
        `TypeError`: a text that is neither.
    """
    if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Sequence) or not texts:
        raise ValueError(f"calibration_texts is a list of texts, at least one, got {texts!r}.")
    for text in texts:
        values = list(text.values()) if isinstance(text, Mapping) else [text]
        if not all(isinstance(value, str) for value in values):
            raise TypeError(f"calibration_texts holds {text!r}, expected a string or a mapping from columns to them.")
    return [dict(text) if isinstance(text, Mapping) else text for text in texts]


def _check_count(name: str, value: Any) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name} must be a positive whole number, got {value!r}.")


def _check_number(name: str, value: Any, negative: bool = False) -> None:
    """A finite number, not below 0 unless `negative`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not math.isfinite(value) or (value < 0 and not negative):
        raise ValueError(f"{name} must be a finite number{'' if negative else ', at least 0'}, got {value!r}.")
