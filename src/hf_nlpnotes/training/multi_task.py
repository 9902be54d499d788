"""One encoder with the heads of several tasks, trained together (MT-DNN: Liu et al., ACL 2019, section 3).

    model = MultiTaskModel.from_encoder(
        name,
        {
            "sentiment": (AutoModelForSequenceClassification, {"num_labels": 2}),
            "ner": (AutoModelForTokenClassification, {"num_labels": 9}),
        },
    )
    data = MultiTaskDataset.for_trainer({"sentiment": reviews, "ner": sentences}, arguments)
    Trainer(model, arguments, model.data_collator(tokenizer), data).train()
    model.save_task("ner-folder", "ner", tokenizer)  # for AutoModelForTokenClassification and pipelines

The heads are the stock ones, which share the encoder's module. Each step of the stock Trainer trains one task (see
`multi_task_data`), and the other heads stay as they are: without gradient there is neither decay nor momentum.

How it fails: tasks that need different features cost one another; compare each with training alone. A small task
beside a large one is seen rarely (proportional) or overfitted (uniform): see `multi_task_sampling`.
"""

from __future__ import annotations

import copy
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from .checkpoints import whole_folder
from .multi_task_collator import MultiTaskCollator, default_collator
from .two_stage import carry_encoder, config_for_next_task, encoder_of, quiet_loading

TASKS_FILE = "multi_task.json"
_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
_LIKELY_CLASSES = tuple(
    f"AutoModelFor{kind}"
    for kind in ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM", "MultipleChoice")
)


class MultiTaskModel(PreTrainedModel):
    """Stock models of several tasks around one encoder, for the stock Trainer.

    The encoder has the name that it has in the stock models (`bert`, …) and the rest of a stock model is
    `heads.<task>`. A saved folder is that of the encoder, which `AutoModel` and any `AutoModelFor…` load with a new
    head, with the heads' weights beside it and the tasks in `multi_task.json`.

    Args:
        models: stock models by the names of their tasks, of one architecture and size. All then use the encoder of the
            first that has every part the others' have (a pooler); their own encoders are let go.
        loss_weights: factors of the tasks' losses in training; 1 where none is given.

    The loss of a batch in training is the head's mean, times the weight; where the Trainer gives the number of labels
    in the whole step, of which the batch is a part, it is scaled to a sum over that number, so that neither
    accumulation nor the number of processes changes the gradient. In evaluation the weight is left out.

    Raises:
        ValueError: no task, a name that cannot be one, encoders that differ, a model without an encoder inside or
            that no `AutoModelFor…` class knows.
        TypeError: a model that is none of transformers.
    """

    accepts_loss_kwargs = True
    main_input_name = "input_ids"

    def __init__(self, models: Mapping[str, Any], loss_weights: Mapping[str, float] | None = None) -> None:
        _check_models(models)
        weights = {} if loss_weights is None else dict(loss_weights)
        _check_names(weights, models, "loss_weights")
        prefix, encoder = _shared_encoder(models)
        config = config_for_next_task(encoder.config, {})
        if hasattr(encoder.config, "lineage"):
            config.lineage = encoder.config.lineage
        super().__init__(config)
        self.base_model_prefix = prefix
        self.add_module(prefix, encoder)
        self.heads = nn.ModuleDict({task: _without_encoder(model, encoder) for task, model in models.items()})
        self.auto_classes = {task: _auto_class(model) for task, model in models.items()}
        self.loss_weights = {task: float(weights.get(task, 1.0)) for task in models}
        self.current_task: str | None = None
        """The task of the last batch."""
        # What `post_init` sets, which would also initialise the weights anew.
        self.all_tied_weights_keys = dict(self._tied_weights())
        self._no_split_modules = encoder._no_split_modules
        self.supports_gradient_checkpointing = encoder.supports_gradient_checkpointing
        self._ddp_params_and_buffers_to_ignore = sorted(self._ignored_by_ddp())
        self.train(encoder.training)

    @classmethod
    def from_encoder(
        cls,
        source: Any,
        tasks: Mapping[str, tuple[Any, Mapping[str, Any]]],
        loss_weights: Mapping[str, float] | None = None,
        **changes: Any,
    ) -> MultiTaskModel:
        """New heads on the encoder of a trained model.

        Args:
            source: folder or hub name of a model with whatever head, or a model; as of `carry_encoder`.
            tasks: by its name, each task's `AutoModelFor…` class and what its configuration has of its own
                (`num_labels`, `id2label`, `problem_type`, …).
            loss_weights: factors of the tasks' losses.
            **changes: of the configuration of all (`hidden_dropout_prob=0.0`).
        """
        encoder, _ = carry_encoder(source, AutoModel)  # read once; each task copies it
        models = {
            task: carry_encoder(encoder, target, **{**changes, **own})[0] for task, (target, own) in tasks.items()
        }
        lineage = encoder.config.lineage
        for model in models.values():
            model.config.lineage = copy.deepcopy(lineage)  # one stage, though it was carried twice
        return cls(models, loss_weights)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.heads)

    @property
    def encoder(self) -> Any:
        """The shared encoder."""
        return getattr(self, self.base_model_prefix)

    def task_head(self, task: str) -> Any:
        """The stock model of a task without its encoder, which it runs nevertheless.

        Args:
            task: its name.
        """
        return self.heads[task]

    # ------------------------------------------------------------------------------------------------------- running

    def forward(
        self,
        task: str | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **inputs: Any,
    ) -> Any:
        """Run the head of a task.

        Args:
            task: name of the task of the whole batch.
            labels: as the head takes them; for questions `(batch, 2)`, the first and the last token of the answer.
            num_items_in_batch: labels that are not -100 in the whole step, of which this batch may be a part.
            **inputs: of the head.

        Returns:
            What the head returns.

        Raises:
            ValueError: no task, or one that is not there.
        """
        if task is None or task not in self.heads:
            raise ValueError(
                f"task is one of {list(self.tasks)}, got {task!r}: batches are made by model.data_collator(tokenizer)"
                " from a MultiTaskDataset, or name the task themselves."
            )
        self.current_task = task
        head = self.task_head(task)
        if labels is not None:
            if takes_positions(head):
                inputs = {**inputs, "start_positions": labels[:, 0], "end_positions": labels[:, 1]}
            else:
                inputs = {**inputs, "labels": labels}
        output = head(**inputs, return_dict=True)
        if labels is not None:
            output["loss"] = self._scaled(output, task, labels, num_items_in_batch)
        return output

    def _scaled(
        self, output: Any, task: str, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        loss: torch.Tensor = output["loss"]
        items = labels.ne(-100).sum()
        if not items:
            # The mean of nothing is nan. The head is used all the same, as on the other processes.
            scores = [value for name, value in output.items() if name != "loss" and isinstance(value, torch.Tensor)]
            unused = torch.stack([value.sum() for value in scores if value.is_floating_point()]).sum() * 0
            loss = unused.to(loss.dtype)
        elif num_items_in_batch is not None:
            loss = loss * items / torch.as_tensor(num_items_in_batch, device=items.device)
        return loss * self.loss_weights[task] if self.training else loss

    def data_collator(
        self, tokenizer: Any, collators: Mapping[str, Callable[[list[Any]], Any]] | None = None
    ) -> MultiTaskCollator:
        """The collator of batches of one task: the stock collator of its kind, on the columns that its head takes.

        Args:
            tokenizer: what the stock collators pad with; saved with each checkpoint.
            collators: others for some tasks, such as one that masks tokens.
        """
        own = {} if collators is None else dict(collators)
        _check_names(own, self.heads, "collators")
        made = {task: own.get(task) or default_collator(self.auto_classes[task], tokenizer) for task in self.tasks}
        encoder = _parameters(self.encoder)
        columns = {
            task: _parameters(head) | encoder | set(tokenizer.model_input_names) for task, head in self.heads.items()
        }
        return MultiTaskCollator(
            made, {task: frozenset(names) for task, names in columns.items()}, tokenizer=tokenizer
        )

    def task_metrics(
        self, functions: Mapping[str, Callable[..., dict[str, float]]]
    ) -> Callable[..., dict[str, float]]:
        """The Trainer's `compute_metrics`, out of one function a task; a task without one has its loss alone.

        The Trainer evaluates the data sets of a dictionary one after the other and does not say which: the model does,
        by the task of the last batch.

        Args:
            functions: `compute_metrics` functions by the names of their tasks.
        """
        _check_names(functions, self.heads, "functions")

        def compute(prediction: Any, **options: Any) -> dict[str, float]:
            function = functions.get(str(self.current_task))
            return {} if function is None else function(prediction, **options)

        return compute

    # -------------------------------------------------------------------------------------------- saving and loading

    def task_model(self, task: str) -> Any:
        """The stock model of a task, which shares its weights with this one: for `pipeline(model=…)` and the like.

        Args:
            task: its name.
        """
        _check_names([task], self.heads, "task")
        head = self.task_head(task)
        model = copy.copy(head)
        model.__dict__.pop(self.base_model_prefix)
        model._modules = {self.base_model_prefix: self.encoder, **head._modules}
        return model.train(self.training)

    def save_task(self, folder: str | os.PathLike[str], task: str, tokenizer: Any = None) -> None:
        """Save the stock model of a task, as if it had been trained alone; the folder is whole or not there.

        Args:
            folder: replaced as a whole where it is there.
            task: name of the task.
            tokenizer: saved into the folder, which a pipeline needs.
        """
        model = self.task_model(task)
        with torch.device("meta"):
            own = type(model)(copy.deepcopy(model.config)).state_dict()
        # The shared encoder may have a part that this task has no use for (a pooler).
        weights = {name: tensor for name, tensor in model.state_dict().items() if name in own}
        with whole_folder(folder) as made:
            model.save_pretrained(made, state_dict=weights)
            if tokenizer is not None:
                tokenizer.save_pretrained(made)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save encoder, heads and tasks as one folder, which `MultiTaskModel.from_pretrained` loads.

        Args:
            save_directory: the folder.
            is_main_process, state_dict, max_shard_size, …: as of `PreTrainedModel.save_pretrained`.
            push_to_hub: upload the folder afterwards.
        """
        upload = {name: kwargs.pop(name) for name in ("repo_id", "commit_message", "private") if name in kwargs}
        super().save_pretrained(save_directory, is_main_process=is_main_process, state_dict=state_dict, **kwargs)
        if is_main_process:
            folder = Path(save_directory)
            self.config.architectures = [type(self.encoder).__name__]
            self.config.save_pretrained(folder)
            tasks = {
                task: {
                    "auto_class": self.auto_classes[task],
                    "architecture": type(head).__name__,
                    "loss_weight": self.loss_weights[task],
                    "config": json.loads(head.config.to_json_string(use_diff=False)),
                }
                for task in self.tasks
                for head in (self.task_head(task),)
            }
            made = folder / f".{TASKS_FILE}.{os.getpid()}"
            try:
                made.write_text(json.dumps({"tasks": tasks}, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
                os.replace(made, folder / TASKS_FILE)
            finally:
                made.unlink(missing_ok=True)
        if push_to_hub and is_main_process:
            self.push_to_hub(upload.pop("repo_id", Path(save_directory).name), **upload)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> MultiTaskModel:
        """Load a folder or a hub repository that `save_pretrained` wrote; the model is in eval mode.

        Args:
            pretrained_model_name_or_path: folder or hub name.
            **kwargs: `dtype`, and where to look (`revision`, `token`, `local_files_only`, …).

        Raises:
            OSError: no `multi_task.json`, or no weights.
            ValueError: weights of a task are missing.
        """
        name = str(pretrained_model_name_or_path)
        hub = {option: kwargs.pop(option) for option in _HUB_OPTIONS if option in kwargs}
        tasks = json.loads(Path(str(cached_file(name, TASKS_FILE, **hub))).read_text(encoding="utf-8"))["tasks"]
        weights = _weights(name, hub)
        models = {}
        for task, stored in tasks.items():
            own = {f"heads.{task}.": "", **{f"heads.{other}.": None for other in tasks if other != task}}
            config = AutoConfig.for_model(**stored["config"])
            model_class = _class_of(stored["auto_class"], config, stored["architecture"])
            with quiet_loading():  # the pooler of another task
                model, info = model_class.from_pretrained(
                    None, config=config, state_dict=_renamed(weights, own), output_loading_info=True, **kwargs
                )
            if info["missing_keys"]:
                raise ValueError(f"{name} has no {', '.join(sorted(info['missing_keys']))} for the task {task!r}.")
            model.config.name_or_path = name
            models[task] = model
        return cls(models, {task: stored["loss_weight"] for task, stored in tasks.items()}).eval()

    # ------------------------------------------------------------------------------------ what transformers asks for

    def get_input_embeddings(self) -> nn.Module:
        """The encoder's."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Set the encoder's."""
        self.encoder.set_input_embeddings(value)

    def can_generate(self) -> bool:  # type: ignore[override]
        """It has heads of other kinds."""
        return False

    def tie_weights(self, *args: Any, **kwargs: Any) -> None:
        """Tie what each head ties to the encoder."""
        for task in self.tasks:
            self.task_model(task).tie_weights()

    def _check_and_adjust_attn_implementation(self, attn_implementation: Any, *_: Any, **__: Any) -> Any:
        return attn_implementation  # the encoder, whose configuration this is, has seen to it

    def _check_and_adjust_experts_implementation(self, experts_implementation: Any, *_: Any, **__: Any) -> Any:
        return experts_implementation

    def _tied_weights(self) -> Iterable[tuple[str, str]]:
        names = {id(tensor): name for name, tensor in self.named_parameters()}  # the first name of each
        for name, tensor in self.named_parameters(remove_duplicate=False):
            if names[id(tensor)] != name:
                yield name, names[id(tensor)]

    def _ignored_by_ddp(self) -> set[str]:
        inside = f"{self.base_model_prefix}."
        return {
            name if name.startswith(inside) else f"heads.{task}.{name}"
            for task, head in self.heads.items()
            for name in getattr(head, "_ddp_params_and_buffers_to_ignore", None) or []
        }


def takes_positions(head: Any) -> bool:
    """Whether a head learns from an answer's first and last token, and not from `labels`."""
    names = _parameters(head)
    return "start_positions" in names and "labels" not in names


def _parameters(model: Any) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _check_names(given: Iterable[str], tasks: Iterable[str], what: str) -> None:
    unknown = [name for name in given if name not in set(tasks)]
    if unknown:
        raise ValueError(f"{what} names {', '.join(map(repr, unknown))}: expected tasks among {list(tasks)}.")


def _check_models(models: Mapping[str, Any]) -> None:
    if not models:
        raise ValueError("models is empty: expected stock models by the names of their tasks.")
    for task, model in models.items():
        if not isinstance(model, PreTrainedModel):
            raise TypeError(f"The model of {task!r} is a {type(model).__name__}: expected a model of transformers.")
        if not re.fullmatch(r"[^\s./\\]+", task) or hasattr(nn.ModuleDict(), task):
            raise ValueError(
                f"{task!r} cannot name a task: a word without dots, slashes and blanks, no method's name."
            )
        encoder = model.base_model
        if encoder is model or encoder_of(model) is not encoder:
            raise ValueError(
                f"{type(model).__name__} of {task!r} is not one head around one encoder: load it with AutoModelFor…."
            )


def _shared_encoder(models: Mapping[str, Any]) -> tuple[str, Any]:
    """The encoder that has all that the others have."""
    shapes = {
        task: {name: tensor.shape for name, tensor in model.base_model.state_dict().items()}
        for task, model in models.items()
    }
    every = {one for own in shapes.values() for one in own.items()}
    kinds = {(type(model.base_model), model.base_model_prefix) for model in models.values()}
    whole = [task for task, own in shapes.items() if set(own.items()) == every]
    if len(kinds) > 1 or not whole:
        names = ", ".join(f"{task}: {type(model).__name__}" for task, model in models.items())
        raise ValueError(f"The tasks' encoders differ in class or size ({names}): load all from one model.")
    model = models[whole[0]]
    return model.base_model_prefix, model.base_model


def _without_encoder(model: Any, encoder: Any) -> Any:
    """The model, which runs the shared encoder but does not count it among its modules: each weight has one name."""
    prefix = model.base_model_prefix
    setattr(model, prefix, encoder)
    model.tie_weights()  # what was tied to its own encoder
    del model._modules[prefix]
    model.__dict__[prefix] = encoder
    return model


def _auto_class(model: Any) -> str:
    others = sorted(name for name in dir(modeling_auto) if name.startswith("AutoModelFor"))
    for name in dict.fromkeys([*_LIKELY_CLASSES, *others]):
        if type(model) in _classes_of(name, model.config):
            return name
    raise ValueError(
        f"No AutoModelFor… class knows {type(model).__name__}, which could not be loaded again: register it, as in"
        f" AutoModelForSequenceClassification.register({type(model.config).__name__}, {type(model).__name__})."
    )


def _classes_of(auto_class: str, config: Any) -> tuple[Any, ...]:
    mapping = getattr(modeling_auto, auto_class)._model_mapping
    found = mapping.get(type(config), ())
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def _class_of(auto_class: str, config: Any, architecture: str) -> Any:
    for found in _classes_of(auto_class, config):
        if found.__name__ == architecture:
            return found
    raise ValueError(f"{auto_class} has no {architecture}: import the package that registers it.")


def _weights(name: str, hub: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    options = {**hub, "_raise_exceptions_for_missing_entries": False}
    index = cached_file(name, SAFE_WEIGHTS_INDEX_NAME, **options)
    if index is None:
        return load_file(str(cached_file(name, SAFE_WEIGHTS_NAME, **hub)))
    files, _ = get_checkpoint_shard_files(name, index, **hub)
    return {key: tensor for file in files for key, tensor in load_file(file).items()}


def _renamed(weights: Mapping[str, torch.Tensor], prefixes: Mapping[str, str | None]) -> dict[str, torch.Tensor]:
    """Weights with other beginnings of their names; None drops them."""
    result = {}
    for name, tensor in weights.items():
        prefix = next((one for one in prefixes if name.startswith(one)), "")
        if (replacement := prefixes.get(prefix, "")) is not None:
            result[replacement + name.removeprefix(prefix)] = tensor
    return result
