"""Options of the `zero-shot-prompt` pipeline: which there are, of what kind, and which of several callers wins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from hf_nlpnotes.prompting.calibration import CALIBRATIONS
from hf_nlpnotes.prompting.config import PromptConfig, checked_calibration_texts
from hf_nlpnotes.prompting.word_scorer import SCORINGS

OPTIONS = (
    "candidate_labels",
    "labels_column",
    "multi_label",
    "hierarchy",
    "template",
    "demonstrations",
    "verbalizer",
    "calibration",
    "calibration_texts",
    "label_prior",
    "bias",
    "prior_weight",
    "scoring",
    "rerank",
    "max_length",
    "top_k",
)

_BIAS_DEPENDS_ON = (
    "template",
    "demonstrations",
    "verbalizer",
    "calibration",
    "calibration_texts",
    "label_prior",
    "scoring",
)
"""A stored bias is that of one prompt: it goes when one of these is given anew."""


_Check: TypeAlias = tuple[Callable[[Any], bool], str]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_COUNT: _Check = (lambda value: type(value) is int and value > 0, "must be a positive whole number")
_EXPECTED: dict[str, _Check] = {
    "labels_column": (lambda value: isinstance(value, str), "is the name of a column"),
    "multi_label": (lambda value: isinstance(value, bool), "is True or False"),
    "hierarchy": (
        lambda value: isinstance(value, str) and value != "",
        "is what stands between the levels of a label, such as '/'",
    ),
    "demonstrations": (_is_list, "is a list of examples, at least one"),
    "verbalizer": (
        lambda value: not isinstance(value, str) or value == "ready",
        "is 'ready' or a mapping from labels to words",
    ),
    "calibration": (lambda value: value in CALIBRATIONS, f"must be one of {', '.join(CALIBRATIONS)}"),
    "bias": (lambda value: isinstance(value, Mapping), "is a mapping from labels to numbers"),
    "prior_weight": (lambda value: _is_number(value) and value >= 0, "must be a number from 0 on"),
    "scoring": (lambda value: value in SCORINGS, f"must be one of {', '.join(SCORINGS)}"),
    "rerank": (lambda value: type(value) is int and value >= 0, "must be a positive whole number, or 0 for none"),
    "max_length": _COUNT,
    "top_k": _COUNT,
}


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `first`, where `second` does not say otherwise."""
    kept = dict(first)
    if any(name in second for name in _BIAS_DEPENDS_ON):
        kept.pop("bias", None)
    if "candidate_labels" in second:
        kept.pop("labels_column", None)
    if "labels_column" in second:
        kept.pop("candidate_labels", None)
    return {**kept, **second}


def checked(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, each of the right kind. `None` means: not given; for `top_k` it means: all.

    Raises:
        `ValueError`, `TypeError`: the message names the option, its value and what is expected.
    """
    unknown = [name for name in options if name not in OPTIONS]
    if unknown:
        raise TypeError(f"zero-shot-prompt has no option {unknown[0]!r}; there are: {', '.join(OPTIONS)}.")
    given = {name: value for name, value in options.items() if value is not None or name == "top_k"}
    if "candidate_labels" in given:
        given["candidate_labels"] = _labels(given["candidate_labels"])
        if "labels_column" in given:
            raise ValueError("candidate_labels and labels_column both say which labels there are: give one of them.")
    if "calibration_texts" in given:
        given["calibration_texts"] = checked_calibration_texts(given["calibration_texts"])
    for name, value in given.items():
        if name in _EXPECTED and value is not None:
            is_right, expected = _EXPECTED[name]
            if not is_right(value):
                raise ValueError(f"{name} {expected}, got {value!r}.")
    return given


def are_per_text(labels: Any) -> bool:
    """Whether there is a list of labels for each text, rather than one list for all."""
    return bool(labels) and not isinstance(labels[0], str)


def _labels(labels: Any) -> list[Any]:
    """Labels for all texts, or a list of labels for each."""
    if isinstance(labels, str):
        return [label.strip() for label in labels.replace("，", ",").split(",") if label.strip()]
    if isinstance(labels, (Mapping, bytes)) or not isinstance(labels, Sequence):
        raise TypeError(f"candidate_labels is a list of labels, or labels separated by commas, got {labels!r}.")
    labels = list(labels)
    single = [isinstance(label, str) for label in labels]
    if any(single) and not all(single):
        raise TypeError(f"candidate_labels is a list of strings, or a list of such lists, got a mixture: {labels!r}.")
    return labels if all(single) else [_labels(own) for own in labels]


def options_of(prompt: PromptConfig) -> dict[str, Any]:
    """A stored prompt as options; `model` is for whoever loads one."""
    values = {name: value for name, value in prompt.to_dict().items() if name != "model"}
    return checked(values)


def prompt_of(options: Mapping[str, Any], default_template: str) -> tuple[PromptConfig | None, list[str]]:
    """The inverse of `options_of`: options as a prompt to store, and the names of those that cannot be.

    There is no prompt where no option can be stored. Numbers of labels need labels, and the words that are found for
    the labels of a call (`"ready"`) are no words yet.
    """
    known = {field.name for field in dataclasses.fields(PromptConfig)}
    needs_labels = {"bias", "label_prior"}
    has_words = options.get("verbalizer", "ready") != "ready"
    kept = {
        name: value
        for name, value in options.items()
        if name in known and (has_words or name not in {"verbalizer", *needs_labels})
    }
    if kept.get("rerank") == 0:  # turns off a stored one, and none is stored
        del kept["rerank"]
    left_out = [name for name in options if name not in kept and not (name == "rerank" and options[name] == 0)]
    return (PromptConfig(**{"template": default_template, **kept}) if kept else None), left_out
