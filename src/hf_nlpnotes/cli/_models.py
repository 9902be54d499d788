"""Models as the commands load them: with the right head, without foreign code, and with errors that fit on a line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from hf_nlpnotes._trained_models import STANDING_ALONE, naming_the_model
from hf_nlpnotes._trained_models import head_of as head_of_model
from hf_nlpnotes._trained_models import load_trained as load_if_trained

_CONFIGS = ("config.json", *STANDING_ALONE)


def quiet_libraries() -> None:
    """Turn the libraries' own reports off."""
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity_error()  # the error itself says what its retries would


def loading_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `--revision` and `--trust-remote-code` say to every `from_pretrained`."""
    # False, not None: with None transformers would ask on standard input, where a command reads its text.
    return {"revision": args.revision, "trust_remote_code": args.trust_remote_code}


def device_of(args: argparse.Namespace) -> str | None:
    """The device that `--device` names; None for the first accelerator.

    Raises:
        ValueError: there is no such device here.
    """
    import torch

    device: str | None = args.device
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (AssertionError, RuntimeError) as error:  # torch's own for a device that it was not built for
            raise ValueError(f"there is no device {device!r} here; try cpu, or leave --device out ({error})") from None
    return device


def find_model(name: str | None) -> str:
    """The model's name, or the embedded model's folder for None.

    Raises:
        ValueError: a folder that holds no model, or a file.
    """
    import hf_nlpnotes

    hf_nlpnotes.register()  # the command starts without it
    quiet_libraries()
    if name is None:
        return hf_nlpnotes.EMBEDDED_MODEL
    path = Path(name)
    if path.is_file():
        raise ValueError(f"--model {name!r} is a file: name the folder that it lies in")
    if path.is_dir() and not any((path / config).is_file() for config in _CONFIGS):
        inside = sorted(child.name for child in path.iterdir() if (child / "config.json").is_file())
        hint = f"; its folder {inside[-1]!r} has one" if inside else ", as save_pretrained and `train` write it"
        raise ValueError(f"--model {name!r} is a folder without a model: expected one with config.json{hint}")
    return name


def make_pipeline(task: str, args: argparse.Namespace, **options: Any) -> Any:
    """A pipeline of a task on the model that the options name."""
    import transformers

    make: Any = transformers.pipeline  # its overloads know the stock tasks only
    name = find_model(args.model)
    source = {"model": name}
    folder = Path(name)
    if task == "zero-shot-prompt" and (folder / "prompt.json").is_file() and not (folder / "config.json").is_file():
        from hf_nlpnotes.prompting import PromptConfig

        # A prompt alone, which names its model, or beside an adapter, which does.
        named = PromptConfig.from_pretrained(name).model
        source = {"prompt": name, **({} if named is None else {"model": named})}
    with naming_the_model(name):
        return make(task, **source, **loading_options(args), **options)


def load(auto_class: str, args: argparse.Namespace) -> tuple[Any, Any]:
    """A model of an Auto class, by its name, and its tokenizer."""
    import transformers

    name, options = find_model(args.model), loading_options(args)
    with naming_the_model(name):
        model = getattr(transformers, auto_class).from_pretrained(name, **options)
        return model, transformers.AutoTokenizer.from_pretrained(name, **options)


def load_trained(head: str, args: argparse.Namespace, *, work: str, teacher: str) -> tuple[Any, Any]:
    """A model whose head has been trained, and its tokenizer.

    Args:
        head: what the head is for, as the Auto classes name it.
        args: the command's options.
        work: what the model must have learnt to do, for the message.
        teacher: the command that trains such a model.

    Raises:
        ValueError: the checkpoint has no weights for the head, which would give random results.
    """
    way_out = f"`hf-nlpnotes {teacher}` trains one"
    options = loading_options(args)
    return load_if_trained(head, find_model(args.model), work=work, way_out=way_out, **options)


def head_of(args: argparse.Namespace) -> str | None:
    """What a checkpoint's head is for: "MaskedLM", "SequenceClassification", …; "" without one, None if not told."""
    return head_of_model(find_model(args.model), **loading_options(args))


def stored_labels(args: argparse.Namespace) -> tuple[str, ...]:
    """The labels of the prompt that lies in a model's folder; none without a prompt, or of one without labels."""
    from hf_nlpnotes.prompting import PromptConfig

    name = find_model(args.model)
    return PromptConfig.from_pretrained(name).labels if PromptConfig.is_in(name) else ()
