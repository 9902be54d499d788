"""Where the `zero-shot-prompt` pipeline takes its model, tokenizer and prompt from."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.utils import CONFIG_NAME
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from hf_nlpnotes.prompting.config import PROMPT_FILE, PromptConfig
from hf_nlpnotes.prompting.encoding import PromptEncoder
from hf_nlpnotes.prompting.model import PromptForSequenceClassification
from hf_nlpnotes.prompting.soft_prompts import SOFT_FILE, SoftPrompt, load_tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A model with its tokenizer, and the prompt that belongs to it, if there is one, with its soft tokens."""

    model: Any
    tokenizer: Any
    prompt: PromptConfig | None
    soft_prompt: SoftPrompt | None


class PromptedModel(AutoModelForMaskedLM):
    """What `pipeline()` loads a name with: the model remembers the revision, which its `prompt.json` must be of too.

    transformers 5.17 has it in `config._commit_hash`, 5.18 no longer.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As of `AutoModelForMaskedLM`, or of `AutoModelForCausalLM` where there is no masked one of its kind."""
        model = _language_model(pretrained_model_name_or_path, *args, **kwargs)
        model.hub_revision = kwargs.get("revision")
        return model


def source_of(model: Any, tokenizer: Any, prompt: str | PromptConfig | None, task: str, dtype: Any = None) -> Source:
    """Find what was not given.

    Args:
        model:
            A masked or causal language model; or a `PromptForSequenceClassification`, which brings its tokenizer and
            prompt.
        tokenizer (*optional*):
            Default: that of the model's folder.
        prompt (`str` or `PromptConfig`, *optional*):
            A prompt, or a folder or repository that has one. Default: the `prompt.json` in the model's folder.
        task (`str`):
            Name of the pipeline: its default model makes place for the one that the prompt is for.
        dtype (*optional*):
            Of a model that is loaded here.

    Raises:
        `ValueError`: there is no tokenizer, or the prompt is for another model.
        `OSError`: a folder or file that is not there.
    """
    trained = getattr(model, "prompted", model)  # within an adapter
    if isinstance(trained, PromptForSequenceClassification):
        if trained.num_virtual_tokens:
            raise ValueError(
                f"The model has {trained.num_virtual_tokens} virtual tokens of an adapter, which the pipeline does not"
                " read: call its predict(examples), or train LoRA instead."
            )
        model, tokenizer = trained.masked_lm, trained.tokenizer if tokenizer is None else tokenizer
        if prompt is None:
            return Source(model, tokenizer, trained.stored_prompt(), trained.soft_prompt)
    folder = prompt if isinstance(prompt, str) else None
    found = PromptConfig.from_pretrained(prompt) if isinstance(prompt, str) else prompt
    if found is None:
        found = stored_prompt(getattr(model, "name_or_path", ""), _revision_of(model))
    else:
        own = _model_named(found, folder) if _is_default(model, task) else None
        if own is not None and not _is_same(own, model.name_or_path):
            logger.warning("The prompt is for the model %s, which is loaded in place of the default.", own)
            options = {} if dtype is None else {"dtype": dtype}
            model, tokenizer = _language_model(own, **options), AutoTokenizer.from_pretrained(own)
        _check_model(found, model)
    if tokenizer is None:
        if not getattr(model, "name_or_path", ""):
            raise ValueError("zero-shot-prompt needs a tokenizer: pass tokenizer=…, or the model as a name or folder.")
        tokenizer = AutoTokenizer.from_pretrained(model.name_or_path)
    revision = _revision_of(model) if prompt is None else None
    origin = getattr(model, "name_or_path", "") if prompt is None else folder
    soft = None if found is None or not origin else _soft_prompt(found, origin, revision, model, tokenizer)
    return Source(model, tokenizer, found, soft)


def stored_prompt(name: str, revision: str | None = None) -> PromptConfig | None:
    """The `prompt.json` of a model's folder or repository; `None` where there is none, or no network to ask."""
    if not name:
        return None
    if Path(name).is_dir():
        return PromptConfig.from_pretrained(name) if PromptConfig.is_in(name) else None
    try:
        found = _found(name, PROMPT_FILE, revision)
    except OSError as error:
        # A folder that is no longer there, whose model has been loaded: its name may be that of no repository.
        if isinstance(error.__cause__, (HFValidationError, RepositoryNotFoundError)):
            return None
        raise
    return None if found is None else PromptConfig.from_pretrained(Path(found).parent)


def _found(name: str, file: str, revision: str | None = None) -> str | None:
    """The path of a file of a folder or repository; `None` where there is none, or no network to ask."""
    path: str | None = cached_file(
        name,
        file,
        revision=revision,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return path


def _soft_prompt(prompt: PromptConfig, folder: str, revision: str | None, model: Any, tokenizer: Any) -> Any:
    """The trained soft tokens beside a prompt; `None` where it has none, or none are there."""
    if not any(template.has_soft_tokens for template, _ in prompt.templates):
        return None
    path = _found(folder, SOFT_FILE, revision)
    if path is None:
        return None
    count = sum(len(PromptEncoder(template, tokenizer).soft_tokens) for template, _ in prompt.templates)
    table = model.get_input_embeddings().weight
    soft = SoftPrompt(table.new_zeros(count, table.shape[1]))
    load_tensors(path, soft.state_dict(keep_vars=True))
    return soft


def _revision_of(model: Any) -> str | None:
    """The revision of the repository that a model is of, as far as it knows."""
    return getattr(model, "hub_revision", None) or getattr(model.config, "_commit_hash", None)


def _language_model(name: Any, *args: Any, **options: Any) -> Any:
    """A masked language model, or a causal one where there is no masked one of its kind."""
    try:
        return AutoModelForMaskedLM.from_pretrained(name, *args, **options)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        return AutoModelForCausalLM.from_pretrained(name, *args, **options)


def _is_default(model: Any, task: str) -> bool:
    """Whether this is the model that `pipeline()` takes where none is given."""
    default = PIPELINE_REGISTRY.supported_tasks.get(task, {}).get("default", {}).get("model", (None,))
    return default[0] is not None and getattr(model, "name_or_path", None) == default[0]


def _model_named(prompt: PromptConfig, folder: str | None) -> str | None:
    """The model that a prompt is for: the one it names, else the weights or the adapter beside it."""
    if folder is not None and find_adapter_config_file(folder) is not None:
        return folder
    if prompt.model is not None:
        return prompt.model
    return folder if folder is not None and _found(folder, CONFIG_NAME) is not None else None


def _is_same(one: str, other: str) -> bool:
    """Whether two names are of one model; folders may be written in different ways."""
    return one == other or (Path(one).is_dir() and Path(other).is_dir() and Path(one).samefile(other))


def _check_model(prompt: PromptConfig, model: Any) -> None:
    """Raise where a prompt names another model: its words and bias are about that one."""
    if prompt.model is not None and not _is_same(prompt.model, model.name_or_path):
        raise ValueError(
            f"The prompt is for the model {prompt.model!r}, and the pipeline has {model.name_or_path!r}: pass"
            f" model={prompt.model!r}, or the prompt as PromptConfig.from_pretrained(…).replace(model=None)."
        )
