"""A masked language model that classifies by a prompt, for the stock Trainer.

The label of a text is as likely as its words at the masks of the prompt, and training lowers the cross-entropy over
the labels' scores (pattern-exploiting training, Schick & Schütze, EACL 2021, https://arxiv.org/abs/2001.07676,
section 3.1). Nothing is new in the network, so that there is nothing to learn from zero: the way to train on tens of
examples. With thousands of examples a new head does as well and reads shorter inputs.

    model = PromptForSequenceClassification.from_pretrained(name, config=PromptConfig(template=…, verbalizer=…))
    Trainer(model, arguments, data_collator=model.data_collator(), train_dataset=data).train()

The data has the columns that the template names and a label. What the model prefers before it has read anything is
subtracted from the scores where `model.calibrate(texts)` was called before training, which then need not undo it.

How it fails: too many or too large steps; with 16 examples a class a small model is done after some 200 steps.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from hf_nlpnotes.model_inputs import accepted_inputs, longest_input

from .collating import DataCollatorForPrompts, bind_templates
from .config import PROMPT_FILE, PromptConfig
from .predictions import predict_masks, without_dropout
from .scoring import centred_scores
from .second_look import second_look
from .soft_prompts import (
    SOFT_FILE,
    SOFT_INDEX,
    SoftPrompt,
    input_embeddings,
    load_tensors,
    prepended,
    save_tensors,
    with_embeddings,
)

_HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


class _ForwardWithColumns:
    """A `forward` whose signature, looked up on an instance, names the columns of its templates too.

    The Trainer drops columns that the signature of `model.forward` does not name. The class's own signature is the
    plain one.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def __get__(self, instance: PromptForSequenceClassification | None, owner: type) -> Callable[..., Any]:
        if instance is None:
            return self.function
        own = list(inspect.signature(self.function).parameters.values())[1:]
        model = inspect.signature(instance.masked_lm.forward).parameters
        taken = {"kwargs", *(one.name for one in own)}
        names = [
            name
            for name in dict.fromkeys([*model, *instance.prompt.columns, SOFT_INDEX])
            if name.isidentifier() and name not in taken
        ]
        bound: Any = functools.partial(self.function, instance)
        bound.__signature__ = inspect.Signature(
            [*own[:-1], *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in names), own[-1]]
        )
        return bound


class PromptForSequenceClassification(PreTrainedModel):
    """Classifies texts by what a masked language model predicts at the masks of a prompt.

    Args:
        masked_lm (`PreTrainedModel`):
            What `AutoModelForMaskedLM` returns; it is trained in place.
        prompt (`PromptConfig`):
            Templates, label words, and the bias that is subtracted from the labels' scores.
        tokenizer:
            Its fast tokenizer.

    Saved as the folder of the masked language model, which `AutoModelForMaskedLM` loads as before, with its tokenizer
    and with `prompt.json`; soft tokens lie in `soft_prompt.safetensors`.

    Raises:
        `ValueError`: no label words, a word that the vocabulary cannot spell, or a model without a masked language
            modelling head.
    """

    base_model_prefix = "masked_lm"
    accepts_loss_kwargs = True
    main_input_name = "input_ids"
    word_weights: torch.Tensor  # (words, labels)
    label_bias: torch.Tensor  # (labels,)
    soft_prompt: SoftPrompt | None

    def __init__(self, masked_lm: Any, prompt: PromptConfig, tokenizer: Any) -> None:
        if not isinstance(masked_lm, PreTrainedModel) or masked_lm.get_output_embeddings() is None:
            raise ValueError(
                f"{type(masked_lm).__name__} has no language modelling head, and so nothing to say about label words:"
                " load the model with AutoModelForMaskedLM."
            )
        super().__init__(masked_lm.config)
        self.masked_lm = masked_lm
        self.prompt = prompt
        self.tokenizer = tokenizer
        self.num_labels = len(prompt.words.labels)
        self.longest_input = longest_input(masked_lm, tokenizer)
        self.templates = bind_templates(prompt, tokenizer, self.longest_input)
        weights = prompt.words.weight_matrix()
        self.register_buffer("word_weights", weights.float().to(masked_lm.device), persistent=False)
        self.register_buffer("label_bias", prompt.bias_tensor().float().to(masked_lm.device), persistent=False)
        self.soft_prompt = SoftPrompt.for_templates([one.template for one in self.templates], masked_lm, tokenizer)
        self._soft_tokens_are_loaded = False
        self._virtual_tokens: Callable[[int], Any] | None = None  # an adapter's, while it runs
        self.num_virtual_tokens = 0
        # What a model of transformers gets from `post_init`, which would also initialise the weights anew.
        tied = getattr(masked_lm, "all_tied_weights_keys", None) or {}
        self.all_tied_weights_keys = {f"masked_lm.{key}": f"masked_lm.{value}" for key, value in tied.items()}
        self._no_split_modules = masked_lm._no_split_modules
        self.supports_gradient_checkpointing = masked_lm.supports_gradient_checkpointing
        ignored = getattr(masked_lm, "_ddp_params_and_buffers_to_ignore", None) or []
        self._ddp_params_and_buffers_to_ignore = [f"masked_lm.{name}" for name in ignored]
        self.train(masked_lm.training)

    # ------------------------------------------------------------------------------------------------------- running

    @_ForwardWithColumns
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        mask_positions: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **inputs: Any,
    ) -> SequenceClassifierOutput:
        """Scores of the labels, and their cross-entropy.

        Args:
            input_ids, attention_mask and others of the masked language model:
                `(batch, rows, length)`, as `DataCollatorForPrompts` makes them.
            mask_positions (`torch.Tensor` of shape `(batch, rows, masks)`):
                Where the masks are, filled up with -1.
            soft_index (`torch.Tensor` of shape `(batch, rows, length)`):
                Numbers of the soft tokens, -1 elsewhere; for templates that have some.
            labels (`torch.Tensor` of shape `(batch,)`):
                Numbers of the labels, in the verbalizer's order.
            num_items_in_batch (`int` or `torch.Tensor`):
                Examples in the whole batch, of which this may be a part: the loss is then the sum over them divided
                by this number. Without it the loss is their mean.

        Returns:
            `SequenceClassifierOutput` with `logits` of shape `(batch, labels)`, float32.

        Raises:
            `ValueError`: the inputs are not prompts, or longer than the model takes.
        """
        if input_ids is None or mask_positions is None or input_ids.dim() != 3:
            raise ValueError(
                "PromptForSequenceClassification reads prompts of shape (batch, rows, length) with mask_positions:"
                " make batches with model.data_collator()."
            )
        given = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
        tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        logits = self._label_scores(tensors, mask_positions)
        loss = None
        if labels is not None:
            reduction = "mean" if num_items_in_batch is None else "sum"
            loss = nn.functional.cross_entropy(logits, labels.to(logits.device), reduction=reduction)
            if num_items_in_batch is not None:
                loss = loss / torch.as_tensor(num_items_in_batch, device=loss.device)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _label_scores(self, tensors: Mapping[str, torch.Tensor], mask_positions: torch.Tensor) -> torch.Tensor:
        batch, rows = mask_positions.shape[:2]
        expected = sum(len(one.groups) for one in self.templates)
        if rows != expected:
            raise ValueError(
                f"The batch has {rows} rows an example, and the prompt {expected}: make batches with the prompt of"
                " this model, by model.data_collator()."
            )
        positions = mask_positions.flatten(0, 1)  # (batch · rows, masks)
        counts = (positions >= 0).sum(dim=1)
        with self._inputs({name: value.flatten(0, 1) for name, value in tensors.items()}) as (inputs, shift):
            predictions = predict_masks(self.masked_lm, inputs, positions.clamp(min=0) + shift)
        order = torch.arange(batch * rows, device=positions.device).view(batch, rows)
        scores, first = torch.zeros_like(self.label_bias), 0
        for one in self.templates:
            own = order[:, first : first + len(one.groups)].flatten()  # rows of this template
            chosen = predictions.select(own, positions.shape[1])
            words = centred_scores(chosen, counts[own], one.groups, len(self.word_weights))
            labels = words.to(self.word_weights.dtype) @ self.word_weights  # (batch · groups, labels)
            scores = scores + one.weight * labels.view(batch, len(one.groups), -1).sum(dim=1)
            first += len(one.groups)
        return scores - self.label_bias

    @contextmanager
    def _inputs(self, tensors: dict[str, torch.Tensor]) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
        """Inputs of the masked language model, and how far its positions have moved."""
        model = self.masked_lm
        soft_index = tensors.get(SOFT_INDEX)
        inputs = accepted_inputs(model, tensors)
        virtual = None if self._virtual_tokens is None else self._virtual_tokens(len(tensors["input_ids"]))
        self._check_length(tensors["input_ids"].shape[1])
        if self.soft_prompt is not None and soft_index is not None:
            embeddings = self.soft_prompt(input_embeddings(model, inputs), soft_index)
            inputs = with_embeddings(model, inputs, embeddings)
        if isinstance(virtual, torch.Tensor):
            if "inputs_embeds" not in inputs:
                inputs = with_embeddings(model, inputs, input_embeddings(model, inputs))
            yield prepended(inputs, virtual), virtual.shape[1]
            return
        if virtual is None:
            yield inputs, 0
            return
        # Keys and values of a prefix: the masks stay where they are, and the attention mask grows. They join the
        # inputs at the model's door, since whoever runs it may run it on a part of the batch first.
        handle = model.register_forward_pre_hook(self._add_prefix, with_kwargs=True)
        try:
            yield inputs, 0
        finally:
            handle.remove()

    def _add_prefix(self, _module: nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        assert self._virtual_tokens is not None
        mask = inputs["attention_mask"]
        prefix = mask.new_ones(len(mask), self.num_virtual_tokens)
        return args, {
            **inputs,
            "attention_mask": torch.cat([prefix, mask], dim=1),
            "past_key_values": self._virtual_tokens(len(mask)),
        }

    def _check_length(self, length: int) -> None:
        limit = self.longest_input
        if limit is not None and length + self.num_virtual_tokens > limit:
            virtual = f" and {self.num_virtual_tokens} virtual ones" if self.num_virtual_tokens else ""
            raise ValueError(
                f"The prompts have {length} tokens{virtual}, and the model takes {limit}: make batches with"
                f" model.data_collator(), or with max_length={limit - self.num_virtual_tokens}."
            )

    def data_collator(self, max_length: int | None = None) -> DataCollatorForPrompts:
        """The collator for this model: its prompt and tokenizer, and texts cut to what it takes.

        Args:
            max_length (`int`, *optional*):
                Most tokens of an input, if fewer.
        """
        room = None if self.longest_input is None else self.longest_input - self.num_virtual_tokens
        lengths = [length for length in (room, max_length) if length is not None]
        return DataCollatorForPrompts(self.prompt, self.tokenizer, min(lengths, default=None))

    @torch.no_grad()
    def predict(self, examples: Sequence[Mapping[str, Any]], batch_size: int = 32) -> torch.Tensor:
        """Scores of the labels for examples, with dropout off, and with the prompt's `rerank`.

        Args:
            examples (`Sequence[Mapping[str, Any]]`):
                The columns that the templates name; others are left alone.
            batch_size (`int`, defaults to 32):
                Examples at a time, of like length.

        Returns:
            `torch.Tensor` of shape `(examples, labels)`, float32 on the CPU; a softmax gives probabilities.

        Raises:
            `ValueError`: a batch size below 1, or a missing column.
        """
        return self._predict(examples, batch_size, self.prompt.rerank)

    def _predict(self, examples: Sequence[Mapping[str, Any]], batch_size: int, rerank: int | None) -> torch.Tensor:
        if batch_size < 1:
            raise ValueError(f"batch_size must be a positive whole number, got {batch_size!r}.")
        collator = self.data_collator()
        encoded = [collator.encode(example) for example in examples]
        with without_dropout(self):
            scores = self._first_look(collator, encoded, batch_size)
            if rerank is None or not encoded:
                return scores
            return second_look(self, collator, encoded, scores, rerank, batch_size)

    def _first_look(self, collator: DataCollatorForPrompts, encoded: Sequence[Any], batch_size: int) -> torch.Tensor:
        """Scores as in training, of shape (examples, labels)."""
        order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]["input_ids"][0]))
        scores = torch.zeros(len(encoded), self.num_labels)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = collator([encoded[place] for place in places])
            output = self(**{name: value.to(self.device) for name, value in batch.items()})
            scores[places] = output.logits.cpu()
        return scores

    @torch.no_grad()
    def calibrate(self, examples: Sequence[Mapping[str, Any]], batch_size: int = 32) -> torch.Tensor:
        """Set the label bias to the labels' mean score on examples, whose labels are not looked at.

        Batch calibration (see `hf_nlpnotes.prompting.calibration`), once, on examples that are about as many of each
        label, such as few-shot training examples before training. The bias is stored in `prompt.json`.

        Args:
            examples (`Sequence[Mapping[str, Any]]`):
                The columns that the templates name.
            batch_size (`int`, defaults to 32):
                Examples at a time.

        Returns:
            The bias, of shape `(labels,)`.

        Raises:
            `ValueError`: there is no example, or a batch size below 1.
        """
        if not examples:
            raise ValueError("There is no example to calibrate on: give some texts, about as many of each label.")
        scores = self._predict(examples, batch_size, rerank=None)
        bias = self.label_bias + scores.mean(dim=0).to(self.label_bias)
        self.set_bias(self.prompt.replace(bias=bias.tolist()))
        return self.label_bias.clone()

    def set_bias(self, prompt: PromptConfig) -> None:
        """Take the label bias from a prompt with the same labels.

        Args:
            prompt (`PromptConfig`):
                The prompt.

        Raises:
            `ValueError`: it has other labels.
        """
        if prompt.labels != self.prompt.labels:
            raise ValueError(f"The prompt has the labels {list(prompt.labels)}, the model {list(self.prompt.labels)}.")
        self.prompt = self.prompt.replace(bias=prompt.bias)
        self.label_bias.copy_(prompt.bias_tensor())

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # Weights and bias of the labels stay float32 where the network goes to 16 bits: scores are, and the bias is
        # saved.
        exact = {name: self._buffers[name] for name in ("word_weights", "label_bias")}
        super()._apply(fn, recurse)
        for name, value in exact.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype != value.dtype:
                self._buffers[name] = value.to(moved.device)
        return self

    # -------------------------------------------------------------------------------------------- saving and loading

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: PromptConfig | None = None,
        tokenizer: Any = None,
        is_trainable: bool = True,
        **kwargs: Any,
    ) -> Any:
        """Load a prompt with its model, tokenizer, soft tokens and adapter.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`):
                A folder or repository: one that `save_pretrained` wrote; one with `prompt.json` alone, which names
                its model; or, with `config`, that of any masked language model.
            config (`PromptConfig`, *optional*):
                The prompt, instead of the stored one.
            tokenizer (*optional*):
                The tokenizer, instead of the stored one.
            is_trainable (`bool`, defaults to `True`):
                Whether an adapter is to be trained further.
            **kwargs:
                As of `AutoModelForMaskedLM.from_pretrained`, but that `dtype` is float32 unless it is given: training
                weights of 16 bits fails where nothing keeps a copy of 32. `dtype="auto"` takes them as they are
                stored.

        Returns:
            A `PromptForSequenceClassification`, in eval mode; where the folder has an adapter, the
            `PeftModelForPrompts` around it.

        Raises:
            `OSError`: no `prompt.json` and no `config`, or no model.
            `ValueError`: the folder has neither weights nor the name of a model.
            `TypeError`: `config` is no `PromptConfig`.
        """
        if config is not None and not isinstance(config, PromptConfig):
            raise TypeError(
                f"config is a PromptConfig, got {type(config).__name__}: options of the masked language model are"
                " given by name, such as hidden_dropout_prob=0.0."
            )
        name = str(pretrained_model_name_or_path)
        hub = {option: kwargs[option] for option in _HUB_OPTIONS if option in kwargs}
        config = PromptConfig.from_pretrained(name, **hub) if config is None else config
        adapter = find_adapter_config_file(name, **hub)
        source, revision = _model_of(name, config, adapter, hub)
        # Where a folder or repository names another one, its revision and subfolder are not those of the other.
        there = {} if source == name else {"revision": revision, "subfolder": ""}
        options = {"dtype": torch.float32, **kwargs, **there}
        masked_lm = AutoModelForMaskedLM.from_pretrained(source, **options)
        if tokenizer is None:
            own = source == name or _found(name, "tokenizer_config.json", hub)
            place = hub if own else {**hub, **there}
            code = {key: value for key, value in kwargs.items() if key == "trust_remote_code"}
            tokenizer = AutoTokenizer.from_pretrained(name if own else source, **place, **code)
        model = cls(masked_lm, config, tokenizer)
        if model.soft_prompt is not None and (path := _found(name, SOFT_FILE, hub)) and adapter is None:
            load_tensors(path, model.soft_prompt.state_dict(keep_vars=True))
            model._soft_tokens_are_loaded = True
        model.eval()
        if adapter is None:
            return model
        from .adapters import PeftModelForPrompts  # needs peft, which is not required

        return PeftModelForPrompts.from_pretrained(model, name, is_trainable=is_trainable, **hub)

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Save the masked language model, its tokenizer and the prompt into a folder.

        Args:
            save_directory (`str` or `os.PathLike`):
                The folder.
            is_main_process, state_dict, max_shard_size, variant, …:
                As of `PreTrainedModel.save_pretrained`.
            push_to_hub (`bool`, defaults to `False`):
                Upload the folder afterwards.
        """
        names = {"repo_id", "commit_message", "private", "create_pr", "revision", "tags"}
        upload = {name: kwargs.pop(name) for name in names & set(kwargs)}
        inner = None if state_dict is None else _without_prefix(state_dict, "masked_lm.")
        self.masked_lm.save_pretrained(save_directory, is_main_process=is_main_process, state_dict=inner, **kwargs)
        if is_main_process:
            self.save_prompt(save_directory, state_dict)
            self.tokenizer.save_pretrained(save_directory)
        if push_to_hub and is_main_process:
            self.push_to_hub(upload.pop("repo_id", Path(save_directory).name), **upload)

    def save_prompt(
        self,
        save_directory: str | os.PathLike[str],
        state_dict: Mapping[str, torch.Tensor] | None = None,
        model: str | None = None,
    ) -> None:
        """Save only `prompt.json` and the soft tokens; `model` names the masked language model that it is for.

        Args:
            save_directory (`str` or `os.PathLike`):
                The folder, made where there is none.
            state_dict (`Mapping[str, torch.Tensor]`, *optional*):
                Weights to save instead of the model's own.
            model (`str`, *optional*):
                Name or folder of the masked language model.
        """
        if self.soft_prompt is not None:
            Path(save_directory).mkdir(parents=True, exist_ok=True)
            tensors = {} if state_dict is None else _without_prefix(state_dict, "soft_prompt.")
            save_tensors(tensors or self.soft_prompt.state_dict(), save_directory)
        self.stored_prompt().replace(model=model).save_pretrained(save_directory)

    def stored_prompt(self) -> PromptConfig:
        """The prompt as it is saved: with this model's own bias in the place of a calibration."""
        return self.prompt.replace(bias=self.label_bias.tolist(), calibration=None, model=None)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights by this model's own names, or by those of the masked language model, as it is saved.

        Raises:
            `ValueError`: soft tokens are missing among the weights, as when the Trainer resumes, which reads the
                masked language model's file alone.
            `RuntimeError`: weights are missing or unexpected, and `strict` is set.
        """
        own = self.state_dict()
        if not set(own).isdisjoint(state_dict):
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        if self.soft_prompt is not None and not (self._soft_tokens_are_loaded and self._has_weights(state_dict)):
            raise ValueError(
                f"The soft tokens of a checkpoint lie in its {SOFT_FILE}, which only from_pretrained reads: make the"
                " model with PromptForSequenceClassification.from_pretrained(CHECKPOINT), then resume from it."
            )
        result = self.masked_lm.load_state_dict(state_dict, strict=False, assign=assign)
        tied = set(getattr(self.masked_lm, "all_tied_weights_keys", None) or {})
        missing = [key for key in result.missing_keys if key not in tied]
        if strict and (missing or result.unexpected_keys):
            raise RuntimeError(f"Missing weights: {missing}; unexpected weights: {result.unexpected_keys}.")
        result.missing_keys[:] = missing
        return result

    def _has_weights(self, state_dict: Mapping[str, torch.Tensor]) -> bool:
        own = self.masked_lm.state_dict()
        return all(
            name in own and own[name].shape == value.shape and torch.equal(own[name].cpu(), value.to(own[name]).cpu())
            for name, value in state_dict.items()
        )

    # ------------------------------------------------------------------------------------ what transformers asks for

    def get_input_embeddings(self) -> nn.Module:
        """The masked language model's."""
        return self.masked_lm.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The masked language model's."""
        return self.masked_lm.get_output_embeddings()

    def tie_weights(self, *args: Any, **kwargs: Any) -> Any:
        """As of the masked language model."""
        return self.masked_lm.tie_weights(*args, **kwargs)

    def can_generate(self) -> bool:  # type: ignore[override]
        """It classifies."""
        return False

    def _check_and_adjust_attn_implementation(self, attn_implementation: Any, *_: Any, **__: Any) -> Any:
        return attn_implementation  # the masked language model, whose configuration this is, has seen to it

    def _check_and_adjust_experts_implementation(self, experts_implementation: Any, *_: Any, **__: Any) -> Any:
        return experts_implementation


def _model_of(name: str, config: PromptConfig, adapter: str | None, hub: Mapping[str, Any]) -> tuple[str, str | None]:
    """The name of the masked language model that a folder or repository is about, and its revision if it says one."""
    if adapter is not None:
        from peft import PeftConfig

        stored = PeftConfig.from_pretrained(name, **hub)
        base = stored.base_model_name_or_path
        if not base and not config.model:
            raise ValueError(
                f'The adapter of {name} does not say which model it is for: add "model" to its {PROMPT_FILE}.'
            )
        return (config.model, None) if config.model else (str(base), stored.revision)
    if _found(name, CONFIG_NAME, hub):
        return name, hub.get("revision")
    if config.model:
        return config.model, None
    raise ValueError(
        f'{name} has no weights, and its {PROMPT_FILE} does not name a model: add "model", such as'
        ' "model": "hfl/chinese-roberta-wwm-ext".'
    )


def _found(name: str, file: str, hub: Mapping[str, Any]) -> str | None:
    """The path of a file of a folder or repository, or `None`."""
    return cached_file(
        name,
        file,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **hub,
    )


def _without_prefix(state_dict: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
