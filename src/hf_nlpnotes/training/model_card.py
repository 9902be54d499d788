"""The card of a trained model, from what its Trainer measured.

    card = model_card(trainer, dataset="ChnSentiCorp", license="apache-2.0")
    card.save(f"{folder}/README.md")         # beside the model; or
    card.push_to_hub("user/name")            # model.push_to_hub("user/name") leaves a card that is there as it is

Every figure is one that the Trainer logged, or one given as `metrics`. Where nothing was measured, the card says so.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import EvalResult, ModelCard, ModelCardData

# Ending of a model class -> the hub's pipeline tag, which chooses the widget, and the pipeline that runs the model.
_TASKS = {
    "ForSequenceClassification": ("text-classification", "text-classification"),
    "ForTokenClassification": ("token-classification", "sequence-tagging"),
    "ForQuestionAnswering": ("question-answering", "question-answering"),
    "ForMaskedLM": ("fill-mask", "fill-mask"),
}
_SPEED = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "jit_compilation_time")
_ROWS = 12
"""Most rows of the table of evaluations: first, last, and evenly between."""


def model_card(
    trainer: Any,
    *,
    name: str | None = None,
    dataset: str | None = None,
    dataset_id: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    base_model: str | None = None,
    license: str | None = None,  # noqa: A002 -- the hub's word
    language: str | Sequence[str] = "zh",
    tags: Sequence[str] = (),
    about: str = "",
    limits: str = "",
) -> ModelCard:
    """Describe a trained model: task, data, metrics, base model, training.

    Args:
        trainer: A `Trainer` after `train()` or `evaluate()`. Its model may be wrapped by PEFT.
        name: Of the model, or of its repository (`"user/name"`). Default: the name of the output folder.
        dataset: What the data is called. Without it the metrics stand in the text and not in the hub's index of
            results, which wants it.
        dataset_id: Its name on the hub, where it is there.
        metrics: As `trainer.evaluate()` returns them, with or without `eval_` in front. Default: the last that were
            logged, or, with `load_best_model_at_end`, those of the step whose weights were loaded.
        base_model: Name on the hub of the model that was trained on. Default: the name that the model was loaded by,
            where that is no folder of this machine.
        license: Identifier of the licence, as the hub has it (`"apache-2.0"`).
        language: ISO 639 code or codes.
        tags: More of them, beside the model type and `hf_nlpnotes`.
        about: What the model is for, as Markdown.
        limits: What it is no good for, as Markdown.

    Returns:
        A card, not yet saved.

    Raises:
        TypeError: `trainer` has no model and no log, or a metric is no number.
    """
    if not all(hasattr(trainer, part) for part in ("model", "state", "args")):
        raise TypeError(f"model_card takes a Trainer, got a {type(trainer).__name__}")
    model = trainer.accelerator.unwrap_model(trainer.model)
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    inner = getattr(inner, "prompted", inner)
    name = name or Path(trainer.args.output_dir).name
    base = base_model or _hub_name(inner.config.name_or_path)
    step, measured = _measured(trainer, metrics)
    tag, task = next(
        (found for ending, found in _TASKS.items() if type(inner).__name__.endswith(ending)), (None, None)
    )
    data = ModelCardData(
        language=[language] if isinstance(language, str) else list(language),
        license=license,
        library_name="peft" if inner is not model else "transformers",
        pipeline_tag=tag,
        tags=list(dict.fromkeys([str(inner.config.model_type), "hf_nlpnotes", *tags])),
        base_model=base,
        datasets=None if dataset_id is None else [dataset_id],
        model_name=name.rpartition("/")[2],
        eval_results=_results(measured, tag, dataset, dataset_id) or None,
    )
    parts = [
        f"# {name.rpartition('/')[2]}",
        about,
        _origin(inner, model, base, dataset),
        "" if task is None or inner is not model else _use(task, name, inner),
        _evaluation(measured, step, trainer.state.global_step, dataset),
        _training(trainer),
        limits and f"## Limits\n\n{limits}",
    ]
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n")


def _hub_name(name: str | None) -> str | None:
    """A name that may be one of the hub; a folder's path is of no use to others, and may be private."""
    if not name or name.count("/") > 1 or name.startswith((".", "/", "~")) or "\\" in name or Path(name).exists():
        return None
    return name


def _plain(entry: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of one evaluation by their plain names, without times."""
    found = {}
    for key, value in entry.items():
        plain = str(key).removeprefix("eval_")
        if plain in ("epoch", "step") or plain.endswith(_SPEED):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"the metric {key!r} is {value!r}, expected a number")
        found[plain] = float(value)
    return found


def _evaluations(trainer: Any) -> list[Mapping[str, Any]]:
    return [entry for entry in trainer.state.log_history if any(key.startswith("eval_") for key in entry)]


def _logged(entry: Mapping[str, Any]) -> dict[str, float]:
    return _plain({key: value for key, value in entry.items() if key.startswith("eval_")})


def _measured(trainer: Any, given: Mapping[str, Any] | None) -> tuple[int | None, dict[str, float]]:
    """Metrics, and the step at which they were measured where that is known."""
    if given is not None:
        return None, _plain(given)
    entries, best = _evaluations(trainer), getattr(trainer.state, "best_global_step", None)
    if trainer.args.load_best_model_at_end and best:
        entries = [entry for entry in entries if entry.get("step") == best]
    if not entries:
        return None, {}
    step = entries[-1].get("step")
    # Several data sets are logged one after another, each in an entry of its own.
    same = [_logged(entry) for entry in entries if entry.get("step") == step]
    return step, {name: value for entry in same for name, value in entry.items()}


def _results(
    measured: Mapping[str, float], tag: str | None, dataset: str | None, dataset_id: str | None
) -> list[EvalResult]:
    if tag is None or dataset is None:
        return []
    return [
        EvalResult(
            task_type=tag,
            dataset_type=dataset_id or dataset,
            dataset_name=dataset,
            metric_type=name,
            metric_name=name,
            metric_value=value,
        )
        for name, value in measured.items()
        if math.isfinite(value)
    ]


def _origin(inner: Any, model: Any, base: str | None, dataset: str | None) -> str:
    folder = Path(inner.config.name_or_path or "").name
    of = f" trained on from [{base}](https://huggingface.co/{base})" if base else ""
    of = of or (f" trained on from a local folder, `{folder}`" if folder else " trained from new weights")
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    kind = f"`{type(inner).__name__}`" + (f" with an adapter, `{type(model).__name__}`," if model is not inner else "")
    return f"A {kind}{of}{f' on {dataset}' if dataset else ''}: {millions:.1f} M parameters."


def _use(task: str, name: str, inner: Any) -> str:
    task = "zero-shot-prompt" if hasattr(inner, "prompt") and hasattr(inner, "masked_lm") else task
    return f"""```python
import hf_nlpnotes
from transformers import pipeline

run = pipeline("{task}", model="{name}")
```"""


def _evaluation(measured: Mapping[str, float], step: int | None, last: int, dataset: str | None) -> str:
    if not measured:
        return "## Evaluation\n\nNone: nothing was measured."
    where = f" on the evaluation data of {dataset}" if dataset else " on the evaluation data"
    when = f", at step {step} of {last}" if step is not None else ""
    rows = [f"| {name} | {value:.4g} |" for name, value in measured.items()]
    return "\n".join([f"## Evaluation\n\nMeasured{where}{when}.\n", "| metric | value |", "|---|---|", *rows])


def _training(trainer: Any) -> str:
    args, state = trainer.args, trainer.state
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    try:
        examples = None if trainer.train_dataset is None else f"{len(trainer.train_dataset):,}"
    except TypeError:  # streamed
        examples = None
    facts = {
        "examples": examples,
        "steps": f"{state.global_step:,}",
        "epochs": None if state.epoch is None else f"{state.epoch:.4g}",
        "examples a step": f"{batch:,}",
        "learning rate": f"{args.learning_rate:g}, {getattr(args.lr_scheduler_type, 'value', args.lr_scheduler_type)}",
        "optimizer": str(getattr(args.optim, "value", args.optim)),
        "seed": str(args.seed),
        "versions": f"hf_nlpnotes {importlib.metadata.version('hf-nlpnotes')}, transformers"
        f" {transformers.__version__}, torch {torch.__version__}",
    }
    if not state.global_step:
        facts = {"versions": facts["versions"]}
    rows = [f"| {name} | {value} |" for name, value in facts.items() if value is not None]
    return "\n".join(["## Training\n", "| | |", "|---|---|", *rows, *_history(trainer)])


def _history(trainer: Any) -> list[str]:
    """A table of the evaluations during training, where there was more than one."""
    entries = [(entry.get("step"), _logged(entry)) for entry in _evaluations(trainer)]
    names = list(dict.fromkeys(name for _, values in entries for name in values))
    if len({step for step, _ in entries}) < 2:
        return []
    shown = sorted({round(i * (len(entries) - 1) / (_ROWS - 1)) for i in range(_ROWS)})
    rows = [
        f"| {step} | " + " | ".join(f"{values[name]:.4g}" if name in values else "" for name in names) + " |"
        for step, values in (entries[place] for place in shown)
    ]
    return ["", f"| step | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|", *rows]
