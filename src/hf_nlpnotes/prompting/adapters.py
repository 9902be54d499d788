"""Adapters for prompted models: LoRA, prompt tuning, p-tuning and prefix tuning, by PEFT.

PEFT has no task for a masked language model that is read at its masks. Virtual tokens (prompt tuning, p-tuning) stand
before all others and move the masks by their number; a prefix (prefix tuning) reaches the layers as keys and values
and moves nothing. Both are PEFT's own; here they are put where this project's models read them.

    model = PromptForSequenceClassification.from_pretrained(name, config=…)
    model = PeftModelForPrompts(model, LoraConfig(r=8))
    Trainer(model, arguments, data_collator=model.data_collator(), train_dataset=data).train()

When to use which: LoRA is the safe choice. The other three train a few thousand numbers and want step sizes of 1e-3
to 1e-1 and many steps; on models of less than some 100 million weights they stay behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftConfig, PeftModel, PeftType
from torch.nn.modules.module import _IncompatibleKeys
from transformers.utils.hub import cached_file

from .collating import DataCollatorForPrompts
from .config import PromptConfig
from .model import PromptForSequenceClassification
from .predictions import without_dropout
from .soft_prompts import SOFT_FILE, load_tensors, save_tensors

VIRTUAL_TOKENS = (PeftType.PROMPT_TUNING, PeftType.P_TUNING)
"""Methods with tokens before the prompt's."""

PROMPT_LEARNING = (*VIRTUAL_TOKENS, PeftType.PREFIX_TUNING)
"""Methods that leave the network as it is and add inputs."""


class PeftModelForPrompts(PeftModel):
    """A `PromptForSequenceClassification` whose network is frozen but for an adapter; soft tokens stay trained.

    Args:
        model (`PromptForSequenceClassification`):
            The prompted model.
        peft_config (`peft.PeftConfig`):
            The adapter: `LoraConfig` and its kin, `PromptTuningConfig`, `PromptEncoderConfig` or
            `PrefixTuningConfig`; `task_type` is not needed.
        adapter_name (`str`, defaults to `"default"`):
            Its name.
        **kwargs:
            As of `PeftModel`.

    Saved as PEFT saves adapters, beside `prompt.json`, the tokenizer and the soft tokens;
    `PromptForSequenceClassification.from_pretrained` loads the folder. The names of an adapter's weights are those
    for the masked language model itself, so that `AutoModelForMaskedLM` loads a LoRA folder too.

    Raises:
        `ValueError`: a method that has not been made to work with prompts, or a model that it cannot be added to.
        `TypeError`: `model` is no prompted model.
    """

    prompted: PromptForSequenceClassification

    def __init__(
        self,
        model: PromptForSequenceClassification,
        peft_config: Any,
        adapter_name: str = "default",
        **kwargs: Any,
    ) -> None:
        if not isinstance(model, PromptForSequenceClassification):
            raise TypeError(
                f"PeftModelForPrompts takes a PromptForSequenceClassification, got {type(model).__name__}."
            )
        _check(model, peft_config)
        super().__init__(model.masked_lm, peft_config, adapter_name, **kwargs)
        # Not as a submodule, which would give each weight a second name.
        object.__setattr__(self, "prompted", model)
        self.soft_prompt = model.soft_prompt
        ignored = getattr(model.masked_lm, "_ddp_params_and_buffers_to_ignore", None) or []
        inside = "base_model." if peft_config.is_prompt_learning else "base_model.model."
        self._ddp_params_and_buffers_to_ignore = [inside + name for name in ignored]
        self.train(model.training)
        if peft_config.is_prompt_learning:
            for parameter in model.masked_lm.parameters():
                parameter.requires_grad = False
            model.num_virtual_tokens = peft_config.num_virtual_tokens
            model.data_collator()  # no room left for the template: told now
            self._check_effect()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As of `PromptForSequenceClassification`."""
        with self._running():
            return self.prompted(*args, **kwargs)

    def predict(self, examples: Sequence[Mapping[str, Any]], batch_size: int = 32) -> torch.Tensor:
        """As of `PromptForSequenceClassification`.

        Args:
            examples (`Sequence[Mapping[str, Any]]`):
                As there.
            batch_size (`int`, defaults to 32):
                Examples a forward pass.
        """
        with self._evaluating():
            return self.prompted.predict(examples, batch_size)

    def calibrate(self, examples: Sequence[Mapping[str, Any]], batch_size: int = 32) -> torch.Tensor:
        """As of `PromptForSequenceClassification`.

        Args:
            examples (`Sequence[Mapping[str, Any]]`):
                As there.
            batch_size (`int`, defaults to 32):
                Examples a forward pass.
        """
        with self._evaluating():
            return self.prompted.calibrate(examples, batch_size)

    def data_collator(self, max_length: int | None = None) -> DataCollatorForPrompts:
        """As of `PromptForSequenceClassification`; leaves room for virtual tokens.

        Args:
            max_length (`int`, *optional*):
                As there.
        """
        return self.prompted.data_collator(max_length)

    def get_base_model(self) -> Any:
        """The prompted model, whose `forward` says what the Trainer is to keep of a data set."""
        return self.__dict__["prompted"] if "prompted" in self.__dict__ else super().get_base_model()

    def train(self, mode: bool = True) -> PeftModelForPrompts:
        """As of every module."""
        super().train(mode)
        if "prompted" in self.__dict__:
            self.prompted.train(mode)
        return self

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Run without the adapter inside the `with` block."""
        if not self.active_peft_config.is_prompt_learning:
            with super().disable_adapter():
                yield
            return
        disabled = self._adapters_disabled
        self._adapters_disabled = True
        try:
            yield
        finally:
            self._adapters_disabled = disabled

    @contextmanager
    def _running(self) -> Iterator[None]:
        """The prompted model takes virtual tokens from here."""
        if not self.active_peft_config.is_prompt_learning:
            with self._enable_peft_forward_hooks():
                yield
            return
        model = self.prompted
        outside, model._virtual_tokens = model._virtual_tokens, None if self._adapters_disabled else self.get_prompt
        try:
            yield
        finally:
            model._virtual_tokens = outside

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        with without_dropout(self), self._running():
            yield

    def _apply(self, fn: Any, recurse: bool = True) -> PeftModelForPrompts:
        super()._apply(fn, recurse)
        if "prompted" in self.__dict__:
            self.prompted._apply(fn, recurse=False)  # its own buffers; the rest are submodules of both
        return self

    @torch.no_grad()
    def _check_effect(self) -> None:
        """Raise where a model ignores keys and values that it is given."""
        example = dict.fromkeys(self.prompted.prompt.columns, "")
        try:
            found = self.predict([example])
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(_refusal(self.prompted, self.peft_type)) from error
        with self.disable_adapter():
            if torch.equal(found, self.predict([example])):
                raise ValueError(_refusal(self.prompted, self.peft_type))

    # -------------------------------------------------------------------------------------------- saving and loading

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], *, is_main_process: bool = True, **kwargs: Any
    ) -> None:
        """Save the adapter as PEFT does, and beside it the prompt, the tokenizer and what else is trained.

        Arguments as of `peft.PeftModel.save_pretrained`.
        """
        super().save_pretrained(str(save_directory), is_main_process=is_main_process, **kwargs)
        if not is_main_process:
            return
        # Which model the adapter is for is in PEFT's own file.
        self.prompted.save_prompt(save_directory)
        tensors = {**self._soft_tensors(), **self._encoder_tensors()}
        if tensors:
            save_tensors(tensors, save_directory)
        self.prompted.tokenizer.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        model: PromptForSequenceClassification,
        model_id: str | os.PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> PeftModelForPrompts:
        """Load an adapter onto a prompted model; `PromptForSequenceClassification.from_pretrained` calls it.

        Arguments as of `peft.PeftModel.from_pretrained`.
        """
        if config is None:
            config = PeftConfig.from_pretrained(str(model_id), **kwargs)
        config.inference_mode = not is_trainable
        loaded = cls(model, config, adapter_name)
        loaded.load_adapter(model_id, adapter_name, is_trainable=is_trainable, **kwargs)
        loaded.eval()
        return loaded

    def load_adapter(  # type: ignore[override]
        self, model_id: str | os.PathLike[str], adapter_name: str, is_trainable: bool = False, **kwargs: Any
    ) -> Any:
        """Load the weights of an adapter, of soft tokens and the label bias.

        Arguments as of `peft.PeftModel.load_adapter`.

        Raises:
            `ValueError`: the adapter is to be trained further, and its folder lacks the soft tokens.
        """
        kwargs.setdefault("torch_device", str(self.prompted.device))
        hub = {name: value for name, value in kwargs.items() if name != "torch_device"}
        inside = {} if self.active_peft_config.inference_mode else self._encoder_tensors()
        if inside:
            # PEFT stores what the network gave, which tells nothing about the network itself.
            result: Any = _IncompatibleKeys([], [])
        else:
            result = super().load_adapter(str(model_id), adapter_name, is_trainable=is_trainable, **kwargs)
        expected = {**self._soft_tensors(), **inside}
        if expected:
            path = cached_file(str(model_id), SOFT_FILE, _raise_exceptions_for_missing_entries=not inside, **hub)
            if path is None:
                raise ValueError(
                    f"{model_id} has no {SOFT_FILE}, which is needed to train its adapter further: load it with"
                    " is_trainable=False."
                )
            load_tensors(path, expected)
        self.prompted.set_bias(PromptConfig.from_pretrained(model_id, **hub))
        return result

    def _soft_tensors(self) -> dict[str, torch.Tensor]:
        return {} if self.soft_prompt is None else dict(self.soft_prompt.state_dict(keep_vars=True))

    def _encoder_tensors(self) -> dict[str, torch.Tensor]:
        """What PEFT leaves out of an adapter: the network that makes the virtual tokens, needed to train them on."""
        if not self.active_peft_config.is_prompt_learning:
            return {}
        state = self.prompt_encoder[self.active_adapter].state_dict(keep_vars=True)
        return {} if set(state) == {"embedding.weight"} else {f"prompt_encoder.{k}": v for k, v in state.items()}


def _check(model: PromptForSequenceClassification, config: Any) -> None:
    if config.is_adaption_prompt or (config.is_prompt_learning and config.peft_type not in PROMPT_LEARNING):
        raise ValueError(
            f"{config.peft_type.value} has not been made to work with prompts: take LoRA, PROMPT_TUNING, P_TUNING or"
            " PREFIX_TUNING."
        )
    if config.is_prompt_learning and model.prompt.rerank is not None:
        raise ValueError(
            f"{config.peft_type.value} adds tokens that a second look at the best labels does not read: take LoRA, or"
            f" leave rerank={model.prompt.rerank} out of the prompt."
        )
    if config.peft_type in VIRTUAL_TOKENS and config.token_dim is None:
        # Some models embed in fewer dimensions than they think in (ALBERT, ELECTRA).
        table: Any = model.get_input_embeddings()
        config.token_dim = table.weight.shape[1]


def _refusal(model: PromptForSequenceClassification, peft_type: Any) -> str:
    return (
        f"{type(model.masked_lm).__name__} does not read what {getattr(peft_type, 'value', peft_type)} adds: take"
        " LoRA."
    )
