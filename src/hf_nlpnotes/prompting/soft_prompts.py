"""Soft tokens: vectors in the place of a template's words, trained like weights.

A soft token has no entry in the vocabulary. Where the template has one, the model's input embedding is replaced by a
row of a parameter, before positions and token types are added (P-tuning, Liu et al. 2021,
https://arxiv.org/abs/2103.10385; OptiPrompt, Zhong et al., NAACL 2021, https://arxiv.org/abs/2104.05240). Rows that
begin as words are initialised with the embeddings of these words (ChineseBERT: fused with pinyin and glyph), so that
the untrained soft prompt is the written one; the others begin as vocabulary entries drawn at random (Lester et al.,
EMNLP 2021, https://arxiv.org/abs/2104.08691, section 3.2).

When to use it: with the network frozen or nearly so, when there are more than a few examples. With a handful, a
written template and full training do better on small models, and soft tokens want a step size a hundred times that
of the network.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .template import Template
from .template_parts import Soft

SOFT_FILE = "soft_prompt.safetensors"
"""Name of the file of the soft tokens, beside `prompt.json`."""

SOFT_INDEX = "soft_index"
"""Name of the input that numbers the soft tokens: -1 elsewhere."""


def input_embeddings(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What a model makes of its tokens before positions are added, and takes as `inputs_embeds`.

    Args:
        model:
            A masked language model. One with `get_fused_embeddings(input_ids, pinyin_ids)` is asked for these: its
            tokens have more to them than a row of a table.
        inputs (`Mapping[str, torch.Tensor]`):
            `input_ids` of shape (batch, length) and, for such a model, `pinyin_ids`.

    Returns:
        `torch.Tensor` of shape (batch, length, embedding size).
    """
    fuse = getattr(model.base_model, "get_fused_embeddings", None)
    if fuse is not None:
        embeddings: torch.Tensor = fuse(inputs["input_ids"], inputs.get("pinyin_ids"))
    else:
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
    return embeddings


def with_embeddings(
    model: Any, inputs: Mapping[str, torch.Tensor], embeddings: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The inputs with `inputs_embeds` in the place of the tokens.

    Raises:
        `ValueError`: the model takes no `inputs_embeds`.
    """
    if "inputs_embeds" not in inspect.signature(model.forward).parameters:
        raise ValueError(
            f"{type(model).__name__} takes no inputs_embeds, and so no soft or virtual tokens: use a template without"
            " soft tokens, and LoRA for an adapter."
        )
    kept = {name: value for name, value in inputs.items() if name not in ("input_ids", "pinyin_ids")}
    return {**kept, "inputs_embeds": embeddings}


def prepended(inputs: Mapping[str, torch.Tensor], tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs with virtual tokens before all others.

    Args:
        inputs (`Mapping[str, torch.Tensor]`):
            `inputs_embeds` of shape (batch, length, size), and `attention_mask`, `token_type_ids` and others of shape
            (batch, length).
        tokens (`torch.Tensor` of shape `(batch, count, size)`):
            The virtual tokens. They are attended to and belong to the first segment.
    """
    batch, count = tokens.shape[:2]
    longer = {}
    for name, value in inputs.items():
        if name == "inputs_embeds":
            longer[name] = torch.cat([tokens.to(value.dtype), value], dim=1)
        else:
            longer[name] = torch.cat([value.new_full((batch, count), int(name == "attention_mask")), value], dim=1)
    return longer


class SoftPrompt(nn.Module):
    """The soft tokens of one or several templates.

    Args:
        vectors (`torch.Tensor` of shape `(tokens, embedding size)`):
            What they begin as.
    """

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.soft_tokens = nn.Parameter(vectors.detach().clone())

    @classmethod
    def for_templates(cls, templates: Sequence[Template], model: Any, tokenizer: Any) -> SoftPrompt | None:
        """The soft tokens that templates name, numbered in their order, or `None` where there are none.

        Args:
            templates (`Sequence[Template]`):
                The templates.
            model:
                The masked language model that embeds their initial words.
            tokenizer:
                Its tokenizer.
        """
        parts = [part for template in templates for part in template.parts if isinstance(part, Soft)]
        if not parts:
            return None
        table = model.get_input_embeddings().weight
        vectors = []
        with torch.no_grad():
            for part in parts:
                if part.text is None:
                    ids = torch.randint(len(table), (1, part.length or 0)).to(table.device)
                    vectors.append(input_embeddings(model, {"input_ids": ids, **_no_pinyin(model, ids)})[0])
                else:
                    # As `PromptEncoder` reads them: "[SEP]" is three pieces of text.
                    encoded = tokenizer(
                        part.text, add_special_tokens=False, split_special_tokens=True, return_tensors="pt"
                    )
                    inputs = {name: value.to(table.device) for name, value in encoded.items()}
                    vectors.append(input_embeddings(model, inputs)[0])
        return cls(torch.cat(vectors))

    def forward(self, embeddings: torch.Tensor, soft_index: torch.Tensor) -> torch.Tensor:
        """Put the soft tokens in their places.

        Args:
            embeddings (`torch.Tensor` of shape `(batch, length, size)`):
                Embeddings of all tokens.
            soft_index (`torch.Tensor` of shape `(batch, length)`):
                The number of the soft token, -1 where there is none.
        """
        soft = self.soft_tokens.to(embeddings.dtype)[soft_index.clamp(min=0)]
        return torch.where(soft_index[:, :, None] >= 0, soft, embeddings)

    @contextmanager
    def in_place(self, model: Any) -> Iterator[None]:
        """Inside the `with` block the model, called by this thread, reads `soft_index` beside its inputs.

        Args:
            model (`nn.Module`):
                The language model that the prompts are for.
        """
        owner = threading.get_ident()

        def embed(_module: nn.Module, args: Any, inputs: dict[str, Any]) -> Any:
            if SOFT_INDEX not in inputs or threading.get_ident() != owner:
                return None
            tokens = {name: value for name, value in inputs.items() if name != SOFT_INDEX}
            return args, with_embeddings(model, tokens, self(input_embeddings(model, tokens), inputs[SOFT_INDEX]))

        handle = model.register_forward_pre_hook(embed, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def save_tensors(tensors: Mapping[str, torch.Tensor], folder: str | os.PathLike[str]) -> None:
    """Write `soft_prompt.safetensors` into a folder, whole or not at all."""
    path = Path(folder) / SOFT_FILE
    part = path.with_name(f".{SOFT_FILE}.{os.getpid()}")
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, part, {"format": "pt"})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_tensors(path: str | os.PathLike[str], expected: Mapping[str, torch.Tensor]) -> None:
    """Read tensors of a file into those of the same names, in place.

    Raises:
        `ValueError`: one is missing or has another shape: the file belongs to another template, model or adapter; or
            the file is damaged.
    """
    try:
        found = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): save the prompt anew.") from error
    for name, tensor in expected.items():
        shape = tuple(found[name].shape) if name in found else None
        if shape != tuple(tensor.shape):
            raise ValueError(
                f"{path} holds {name!r} {'not at all' if shape is None else f'with shape {shape}'}, and the prompt"
                f" needs it with shape {tuple(tensor.shape)}: use the prompt.json and the model that it was saved"
                " with; an adapter that PEFT itself has saved can only be loaded with is_trainable=False."
            )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(found[name])


def _no_pinyin(model: Any, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"pinyin_ids": torch.zeros_like(ids)} if hasattr(model.base_model, "get_fused_embeddings") else {}
