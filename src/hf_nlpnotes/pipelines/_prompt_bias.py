"""Calibration in the `zero-shot-prompt` pipeline: which texts a bias is measured on, and when it cannot be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hf_nlpnotes.prompting.calibration import label_prior_tensor, mean_bias, prior_bias
from hf_nlpnotes.prompting.template import Template
from hf_nlpnotes.prompting.template_parts import Slot

from ._prompt_samples import LabelSet, Sample


def has_contrast(options: Mapping[str, Any]) -> bool:
    """Whether scores are relative to what the model prefers anyway."""
    return options.get("calibration", "contextual") != "none" or options.get("bias") is not None


def needs_the_texts(options: Mapping[str, Any]) -> bool:
    """Whether the calibration is on the texts of the call, all of which are scored before the first is answered."""
    measured = options.get("bias") is None and options.get("calibration_texts") is None
    return measured and options.get("calibration", "contextual") in ("batch", "prior")


def check_comparable(samples: Sequence[Sample], options: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where texts are to be compared with each other and cannot be."""
    calibration = options.get("calibration", "contextual")
    if needs_the_texts(options) and len(samples) == 1:
        raise ValueError(
            f"calibration={calibration!r} compares texts with each other, and there is 1: give a list of texts,"
            " calibration_texts=[…] to compare with, or calibration='contextual'."
        )
    if len({sample.labels for sample in samples}) > 1:
        name = f"calibration={calibration!r}" if needs_the_texts(options) else "prior_weight"
        raise ValueError(
            f"{name} compares texts with each other, and these have different labels: give all texts the same labels,"
            " or use calibration='contextual' without prior_weight."
        )


def check_rerank(options: Mapping[str, Any]) -> None:
    """Raise a `ValueError` where the best labels cannot be looked at again: their scores are about nothing else."""
    for name, what in (
        ("multi_label", "judges each label by itself"),
        ("prior_weight", "weighs the scores of all labels"),
        ("hierarchy", "decides level by level"),
    ):
        if options.get(name):
            raise ValueError(
                f"rerank scores only the best labels anew, and {name}={options[name]!r} {what}: give one of the"
                " two; rerank=0 turns off a stored one."
            )


def check_causal(options: Mapping[str, Any]) -> None:
    """Raise a `ValueError` for an option that needs masks, where the model is causal."""
    if options.get("scoring", "parallel") != "parallel":
        raise ValueError(
            f"scoring={options['scoring']!r} is about several masks, and a causal model has none: it reads every word"
            " from left to right. Leave scoring out."
        )
    if options.get("rerank"):
        raise ValueError(
            f"rerank={options['rerank']!r} masks one token of a word at a time, and a causal model has no masks: leave"
            " it out."
        )


def check_label_is_last(templates: Sequence[Template]) -> None:
    """Raise a `ValueError` where a label is to be judged by itself, and its score is that of the text after it."""
    for template in templates:
        parts = template.parts[template.label_position + 1 :]
        if any(isinstance(part, Slot) for part in parts):
            raise ValueError(
                f"Under a causal model the template {template.source!r} scores the text that follows the label, which"
                " says how labels compare, and not whether one is right: put {label} last for multi_label=True or a"
                " single label, or give several labels."
            )


def measured_bias(scores: torch.Tensor, labels: LabelSet, options: Mapping[str, Any]) -> torch.Tensor:
    """The bias of some label names by their scores on a sample of texts, of shape (texts, nodes)."""
    if options.get("calibration", "contextual") != "prior":
        return mean_bias(scores)
    if len(labels.paths.nodes) != len(labels.labels):
        raise ValueError(
            "calibration='prior' takes how frequent each label is, and these labels have levels: use 'batch' or"
            " 'contextual'."
        )
    return prior_bias(scores, label_prior_tensor(options.get("label_prior"), labels.labels))


def given_bias(bias: Mapping[str, float], labels: LabelSet) -> torch.Tensor:
    """A bias that was measured before, of shape (nodes,)."""
    missing = [node for node in labels.paths.nodes if node not in bias]
    if missing:
        raise ValueError(
            f"The bias has no value for the label {missing[0]!r}, only for {list(bias)}: give one for every label, or"
            " choose a calibration, which measures it."
        )
    try:
        return torch.tensor([float(bias[node]) for node in labels.paths.nodes], dtype=torch.float64)
    except (TypeError, ValueError):
        raise TypeError(f"The bias is one number a label, got {dict(bias)}.") from None
