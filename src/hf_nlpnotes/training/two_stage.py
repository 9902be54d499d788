"""Two-stage fine-tuning: an intermediate task, then the target task on the same encoder.

Supplementary training on an intermediate task with plenty of labels helps a target task with few, above all where the
two are alike (STILTs: Phang et al. 2018, https://arxiv.org/abs/1811.01088; when it helps: Pruksachatkun et al., ACL
2020, https://arxiv.org/abs/2005.00628). Only the encoder goes from one stage to the next:

    model, report = carry_encoder("stage-1", AutoModelForTokenClassification, num_labels=9)

`from_pretrained` would also keep the old classifier wherever its shape happens to fit: two labels of sentiment become
two labels of something else, silently. Here the head is always new, what was carried is reported, and the stages are
listed in `config.lineage`, which `save_pretrained` keeps.

How it fails: an intermediate task far from the target, or trained for too long, costs what pretraining gave; compare
with plain fine-tuning on the same seeds.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.utils import logging
from transformers.utils.peft_utils import find_adapter_config_file

logger = logging.get_logger(__name__)

# What a configuration says of the old task; the new one begins with the class's defaults.
_TASK_OPTIONS = ("architectures", "id2label", "label2id", "num_labels", "problem_type", "lineage")


@dataclass(frozen=True)
class CarryReport:
    """What `carry_encoder` did with each tensor.

    Attributes:
        carried: names in the new model whose values are the source's.
        initialised: names in the new model that are freshly initialised: its head, and parts of the encoder that the
            source had not (a pooler).
        dropped: names in the source that the new model has not, its old head above all.
    """

    carried: tuple[str, ...]
    initialised: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        rows = [f"{len(self.carried)} tensors carried"]
        rows.append(f"newly initialised: {', '.join(self.initialised) or 'none'}")
        rows.append(f"dropped: {', '.join(self.dropped) or 'none'}")
        return "\n".join(rows)


@dataclass(frozen=True)
class _Source:
    encoder: PreTrainedModel
    name: str
    architecture: str
    fresh: frozenset[str]  # tensors of the encoder that the source had not
    head: tuple[str, ...]


def carry_encoder(
    source: str | os.PathLike[str] | PreTrainedModel | Any,
    target: Any,
    *,
    dtype: torch.dtype | None = None,
    note: str | None = None,
    **changes: Any,
) -> tuple[Any, CarryReport]:
    """Make a model for the next task: the encoder of a trained model, and a new head.

    The head is what `target.from_config(config)` initialises under the present random state, so that `set_seed` before
    the call decides it. The pooler of BERT and its like belongs to the encoder and is carried.

    Args:
        source: folder or hub name of a model, with whatever head (a classifier, a masked LM after continued
            pretraining, a prompt, several tasks); or such a model itself. A `PeftModel` is merged on a copy.
        target: `AutoModelForSequenceClassification` or the like, or a model class for the source's configuration.
        dtype: of the new model. Default: the source's, or float32 where that has 16 bits, too few to train.
        note: a line on the stage that is behind, kept in the lineage ("20,000 hotel reviews").
        **changes: of the configuration: `num_labels`, `id2label`, `hidden_dropout_prob`, …. What it said of the old
            task (labels, `problem_type`) is forgotten.

    Returns:
        The model in eval mode, on the source's device, and the report.

    Raises:
        ValueError: an adapter that is not merged; no tensor fits, or one has another shape; an unknown option.
        TypeError: `source` is no model, or `target` no class for its configuration.
        OSError: no such folder or repository.
    """
    found = _source_of(source)
    if dtype is None:
        dtype = torch.promote_types(found.encoder.dtype, torch.float32)
    config = config_for_next_task(found.encoder.config, changes)
    config.dtype = dtype
    model = _fresh(target, config).to(found.encoder.device)
    base = encoder_of(model)
    report = _carry(found, model, base)
    model.tie_weights()
    stage = {"source": found.name, "architecture": found.architecture, "tensors": len(report.carried)}
    earlier = getattr(found.encoder.config, "lineage", None) or []
    model.config.lineage = [*copy.deepcopy(earlier), stage if note is None else {**stage, "note": note}]
    model.config.name_or_path = found.name
    logger.info("From %s (%s): %s", found.name, found.architecture, report)
    return model.eval(), report


def encoder_of(model: Any) -> Any:
    """The encoder inside a model of transformers, however many heads are around it; the model itself without one.

    Args:
        model: a model of transformers, with or without a head.
    """
    while model.base_model is not model:
        model = model.base_model
    return model


def record_lineage(folder: str | os.PathLike[str]) -> Path:
    """Name the model of the last stage as `base_model` in the card of a saved model.

    The card (`README.md`) is made where there is none; what else it says stays.

    Args:
        folder: what `save_pretrained` wrote.

    Returns:
        The path of the card.

    Raises:
        ValueError: the folder's configuration has no lineage.
    """
    from huggingface_hub.repocard import metadata_load, metadata_save

    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lineage = config.get("lineage")
    if not lineage:
        raise ValueError(f"{folder / 'config.json'} has no lineage: it is there for models made by carry_encoder.")
    card = folder / "README.md"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / card.name
        if card.exists():
            made.write_bytes(card.read_bytes())
        else:
            stages = [f"- {stage['source']} ({stage['architecture']})" for stage in lineage]
            made.write_text("\n".join(["# Lineage", "", *stages, ""]), encoding="utf-8")
        metadata = (metadata_load(made) or {}) if card.exists() else {"library_name": "transformers"}
        metadata_save(made, {**metadata, "base_model": lineage[-1]["source"], "base_model_relation": "finetune"})
        os.replace(made, card)
    return card


def _fresh(target: Any, config: Any) -> Any:
    if hasattr(target, "_model_mapping"):
        return target.from_config(config)
    if not (isinstance(target, type) and issubclass(target, PreTrainedModel)):
        raise TypeError(f"target is an AutoModelFor… class or a model class of transformers, got {target!r}.")
    expected = getattr(target, "config_class", None)
    if expected is not None and not isinstance(config, expected):
        raise TypeError(
            f"{target.__name__} is made from {expected.__name__}, and the source's configuration is"
            f" {type(config).__name__}: take an AutoModelFor… class as target."
        )
    return target._from_config(config)


def config_for_next_task(config: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a configuration that has forgotten its task, with these options.

    Raises:
        ValueError: an option that the configuration has not.
    """
    unknown = [name for name in changes if not hasattr(config, name) and name not in _TASK_OPTIONS]
    if unknown:
        raise ValueError(f"{type(config).__name__} has no option {', '.join(unknown)}.")
    if "id2label" in changes and "label2id" not in changes:
        label2id = {label: int(number) for number, label in changes["id2label"].items()}
        changes = {**changes, "label2id": label2id}
    options = {name: value for name, value in config.to_dict().items() if name not in _TASK_OPTIONS}
    result = type(config).from_dict({**options, **changes})
    if "attn_implementation" not in changes:
        result._attn_implementation = config._attn_implementation
    return result


def _carry(found: _Source, model: Any, base: Any) -> CarryReport:
    source, expected = found.encoder.state_dict(), base.state_dict()
    common = [name for name in source if name in expected and name not in found.fresh]
    if not common:
        raise ValueError(
            f"No tensor of {found.name} is one of {type(base).__name__}: expected the weights of a"
            f" {base.config.model_type} model."
        )
    other = [name for name in common if source[name].shape != expected[name].shape]
    if other:
        shapes = "; ".join(f"{one}: {tuple(source[one].shape)} and {tuple(expected[one].shape)}" for one in other)
        raise ValueError(f"The source and the new model differ in shape ({shapes}): leave these options unchanged.")
    result = base.load_state_dict({name: source[name] for name in common}, strict=False)
    assert not result.unexpected_keys
    in_base = {id(tensor): name for name, tensor in base.state_dict(keep_vars=True).items()}
    kept = set(common)
    carried: list[str] = []
    initialised: list[str] = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        # A tied weight is one tensor with two names, and stands under the encoder's.
        (carried if in_base.get(id(tensor)) in kept else initialised).append(name)
    missing = sorted(set(expected) - set(common))
    if missing:
        logger.warning("%s has no %s: newly initialised in the encoder.", found.name, ", ".join(missing))
    gone = [name for name in source if name not in expected and name not in found.fresh]
    return CarryReport(tuple(carried), tuple(initialised), (*gone, *found.head))


def _source_of(source: Any) -> _Source:
    if isinstance(source, (str, os.PathLike)):
        return _source_in_folder(str(source))
    if hasattr(source, "peft_config") and hasattr(source, "get_base_model"):
        source = _merged(source)
    if not isinstance(source, PreTrainedModel):
        raise TypeError(f"source is a folder, a hub name or a model of transformers, got {type(source).__name__}.")
    if getattr(source, "_hf_peft_config_loaded", False):
        raise ValueError(f"{type(source).__name__} has an adapter inside: merge it into the weights first.")
    encoder = encoder_of(source)
    inside = {id(tensor) for tensor in encoder.state_dict(keep_vars=True).values()}
    head = tuple(name for name, tensor in source.state_dict(keep_vars=True).items() if id(tensor) not in inside)
    name = source.config.name_or_path or type(source).__name__
    return _Source(encoder, _public_name(name), type(source).__name__, frozenset(), head)


def _source_in_folder(name: str) -> _Source:
    if find_adapter_config_file(name) is not None:
        raise ValueError(
            f"{name} holds an adapter: load it with AutoPeftModelFor…, or PeftModel.from_pretrained(base, {name!r}),"
            " and give the model itself, which is merged here."
        )
    # What is missing there is initialised twice, here and as a part of the new model: only the latter counts, and the
    # caller's random numbers stay in place for it.
    with torch.random.fork_rng(), quiet_loading():
        encoder, info = AutoModel.from_pretrained(name, dtype="auto", output_loading_info=True)
    fresh = frozenset(info["missing_keys"])
    architectures = getattr(encoder.config, "architectures", None) or [type(encoder).__name__]
    return _Source(encoder, _public_name(name), architectures[0], fresh, tuple(sorted(info["unexpected_keys"])))


def _merged(model: Any) -> Any:
    if any(config.is_prompt_learning for config in model.peft_config.values()):
        raise ValueError(
            "Virtual tokens and prefixes cannot be merged into an encoder, whose weights they leave as they were:"
            " give the base model, model.get_base_model()."
        )
    return copy.deepcopy(model).merge_and_unload()


def _public_name(name: str) -> str:
    """A hub name as it is, a folder without the path to it, which says nothing on another machine."""
    return Path(name).resolve().name if Path(name).is_dir() else name


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Load without transformers' report of unexpected weights, where they are expected."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
