"""Scores of label words under a causal language model: how likely the filled prompt is.

A causal model has no masks. Every label word is written into the template, and what is compared is the log-likelihood
of the prompt from the label on,

    log P(w, after | before) = log P(w | before) + log P(after | before, w),

where `before` and `after` are the prompt around the label. With the label at the end this is the word's own
log-likelihood (Brown et al. 2020, https://arxiv.org/abs/2005.14165, section 2.4). With the text after the label it is
the channel model of Min et al. (ACL 2022, https://arxiv.org/abs/2108.04106): how well the label explains the text.
What stands before the label is read once a text, whatever the number of words.

Sums favour short words and means favour long ones; calibration (`domain`: Holtzman et al., EMNLP 2021) takes out
either preference, since it is the same for every text.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from .template import Template
from .template_parts import Slot

_LOGITS_AT_ONCE = 1 << 23
"""Most logits of a forward pass: 32 MB of float32."""


_STATES = ("conv_states", "recurrent_states")
"""What a layer of a cache keeps beside keys and values."""


@dataclass(frozen=True)
class CausalPrompt:
    """A filled prompt: its tokens, and which of them, `[start, end)`, spell the label word.

    Attributes:
        token_ids (`tuple[int, ...]`):
            The prompt.
        start (`int`):
            Place of the label word's first token.
        end (`int`):
            The place after its last.
    """

    token_ids: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class CausalScores:
    """What a causal model says about the words, for N texts and W words.

    Args:
        word (`torch.Tensor` of shape `(N, W)`):
            Log-probability of the word after what stands before it: a sum over its tokens. A space before the label
            belongs to it, where any of the words has merged with it (" sports" is one token, " 体育" has a space).
        after (`torch.Tensor` of shape `(N, W)`):
            Log-probability of what stands after the word; 0 where nothing does.
        lengths (`torch.Tensor` of shape `(N, W)`):
            Number of tokens that `word` is the sum of.
    """

    word: torch.Tensor
    after: torch.Tensor
    lengths: torch.Tensor

    @property
    def log_likelihood(self) -> torch.Tensor:
        """Log-likelihood of the prompt from the label on, of shape `(N, W)`."""
        return self.word + self.after

    @property
    def per_token(self) -> torch.Tensor:
        """The same with the mean over the word's tokens in place of their sum, as for masked models."""
        return self.word / self.lengths + self.after


class CausalPromptEncoder:
    """Fills a template for a causal language model.

    The tokenizer reads the whole filled prompt, so that a word has the tokens that it has in running text. Special
    tokens in a text stay text.

    Args:
        template (`Template`):
            The template.
        tokenizer:
            A fast tokenizer (one that gives offsets).
        max_length (`int`, *optional*):
            Most tokens of a prompt. A longer text is cut, by the same amount for every word; a template never is.
            `None`: texts are never cut.

    Raises:
        `ValueError`: the tokenizer has no offsets.
    """

    def __init__(self, template: Template, tokenizer: Any, max_length: int | None = None) -> None:
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} gives no character offsets, which prompts need: use a fast tokenizer."
            )
        self.template = template
        self.tokenizer = tokenizer
        self.max_length = max_length

    def encode(
        self,
        values: Mapping[str, str],
        words: Sequence[str],
        labels: Sequence[str] = (),
        demonstrations: Sequence[str] = (),
    ) -> list[CausalPrompt]:
        """The prompt of one text with each of the words.

        Args:
            values (`Mapping[str, str]`):
                The text of each column.
            words (`Sequence[str]`):
                Label words, at least one.
            labels (`Sequence[str]`, *optional*):
                What stands at `{options}` of the template.
            demonstrations (`Sequence[str]`, *optional*):
                What stands at `{demos}`.

        Raises:
            `ValueError`: the prompt is too long without any text, or nothing stands before the label and the tokenizer
            has no token to begin with.
        """
        values = dict(values)
        # A text of any length is cut with one word first, so that it is read in full once and not once a word.
        for some in (words[:1], words):
            while True:
                prompts = [self._encode(values, word, labels, demonstrations) for word in some]
                excess = max(len(prompt.token_ids) for prompt in prompts) - (self.max_length or 0)
                if self.max_length is None or excess <= 0:
                    break
                self._shorten(values, excess)
        return prompts

    def _encode(
        self, values: Mapping[str, str], word: str, labels: Sequence[str], demonstrations: Sequence[str]
    ) -> CausalPrompt:
        before, after = self.template.around_label(values, labels, demonstrations)
        encoded = self._tokenize(before + word + after, add_special_tokens=True)
        ids, start, end = list(encoded["input_ids"]), len(before), len(before) + len(word)
        own = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if a < end and b > start]
        if not own:
            raise ValueError(f"The label word {word!r} has no tokens of its own: choose another word for this label.")
        if own[0] == 0:
            # The first token of a text has no probability: there must be one before it.
            begin = self.tokenizer.bos_token_id
            begin = self.tokenizer.eos_token_id if begin is None else begin
            if begin is None:
                raise ValueError(
                    f"Nothing stands before the label in the template {self.template.source!r}, and"
                    f" {type(self.tokenizer).__name__} has no token to begin with: write something before the label."
                )
            ids, own = [begin, *ids], [i + 1 for i in own]
        return CausalPrompt(tuple(ids), own[0], own[-1] + 1)

    def _tokenize(self, text: str, *, add_special_tokens: bool) -> Any:
        return self.tokenizer(
            text,
            add_special_tokens=add_special_tokens,
            split_special_tokens=True,
            return_offsets_mapping=True,
            verbose=False,
        )

    def _shorten(self, values: dict[str, str], excess: int) -> None:
        """Take about `excess` tokens from the longest text that may be cut, at least one."""
        cuts = {p.name: p.options.cut for p in self.template.parts if isinstance(p, Slot) and not p.is_label}
        offsets = {
            name: self._tokenize(values[name], add_special_tokens=False)["offset_mapping"]
            for name, cut in cuts.items()
            if cut != "whole" and values[name]
        }
        if not offsets:
            raise ValueError(
                f"The template {self.template.source!r} and the label words take {excess} tokens more than the"
                f" {self.max_length} that the model reads: shorten them, or raise max_length."
            )
        name = max(offsets, key=lambda column: len(offsets[column]))
        times = sum(isinstance(part, Slot) and part.name == name for part in self.template.parts)
        keep = max(len(offsets[name]) - math.ceil(excess / times), 0)
        text = values[name]
        if cuts[name] == "head":
            begin = offsets[name][-keep][0] if keep else len(text)
            values[name] = text[max(begin, 1) :]
        else:
            values[name] = text[: min(offsets[name][keep - 1][1] if keep else 0, len(text) - 1)]


def is_causal(model: Any) -> bool:
    """Whether a model predicts the next token and has no masks: it generates, and is of no masked architecture.

    Args:
        model (`PreTrainedModel`):
            The model, also with adapters of PEFT around it.
    """
    inner = _without_adapters(model)
    return (
        isinstance(inner, PreTrainedModel)
        and inner.can_generate()
        and not inner.config.is_encoder_decoder
        and not fills_masks(inner)
    )


def fills_masks(model: Any) -> bool:
    """Whether a model is of an architecture that `AutoModelForMaskedLM` has, or derived from one.

    Args:
        model (`PreTrainedModel`):
            The model, also with adapters of PEFT around it.
    """
    masked = set(MODEL_FOR_MASKED_LM_MAPPING_NAMES.values())
    return any(parent.__name__ in masked for parent in type(_without_adapters(model)).__mro__)


def _without_adapters(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def causal_word_scores(
    model: nn.Module, prompts: Sequence[Sequence[CausalPrompt]], max_rows: int = 32
) -> CausalScores:
    """Scores of the same W words for each of N texts.

    Args:
        model (`nn.Module`):
            A causal language model of transformers.
        prompts (`Sequence[Sequence[CausalPrompt]]`):
            For each text its prompt with each of the words, from `CausalPromptEncoder.encode`.
        max_rows (`int`, defaults to 32):
            Most words a forward pass.
    """
    rows = [_text_scores(model, of_text, max_rows) for of_text in prompts]
    word, after, lengths = (torch.stack(column) for column in zip(*rows, strict=True))
    return CausalScores(word, after, lengths)


def _text_scores(
    model: nn.Module, prompts: Sequence[CausalPrompt], max_rows: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`word`, `after` and `lengths` of one text, each of shape (W,)."""
    # What all prompts begin with, up to the first token of any word: words may share their first tokens, and a word
    # may have merged with the character before it.
    columns = zip(*(prompt.token_ids for prompt in prompts), strict=False)
    shared = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
    shared = min(shared, *(prompt.start for prompt in prompts), *(len(prompt.token_ids) - 1 for prompt in prompts))
    prefix = prompts[0].token_ids[:shared]
    rest = [prompt.token_ids[shared:] for prompt in prompts]
    log_probs = continuation_log_probs(model, prefix, rest, max_rows)
    ends = [prompt.end - shared for prompt in prompts]
    word = torch.stack([values[:end].sum() for values, end in zip(log_probs, ends, strict=True)])
    after = torch.stack([values[end:].sum() for values, end in zip(log_probs, ends, strict=True)])
    return word, after, torch.tensor(ends, device=word.device)


def continuation_log_probs(
    model: Any, prefix: Sequence[int], continuations: Sequence[Sequence[int]], max_rows: int = 32
) -> list[torch.Tensor]:
    """Log-probability of every token of each continuation of a prefix, which is read once.

    Where the model keeps more than a cache of keys and values (Mamba, Qwen3-Next, …), the prefix is read again with
    every continuation: its states cannot go on with several tokens at once in every architecture.

    Args:
        model:
            A causal language model of transformers.
        prefix (`Sequence[int]`):
            At least one token.
        continuations (`Sequence[Sequence[int]]`):
            At least one token each.
        max_rows (`int`, defaults to 32):
            Most continuations a forward pass.

    Returns:
        One tensor a continuation, of its length; float32 (float64 if the model is).

    Raises:
        `ValueError`: no prefix, or an empty continuation.
    """
    if not prefix or not all(continuations):
        raise ValueError("A continuation has at least one token, after a prefix of at least one.")
    cache, tail = _read_prefix(model, prefix)
    device = model.get_input_embeddings().weight.device
    size = max(1, _LOGITS_AT_ONCE // (model.config.get_text_config().vocab_size * max(map(len, continuations))))
    size = min(size, max_rows)
    results = []
    for at in range(0, len(continuations), size):
        chunk = continuations[at : at + size]
        width = max(map(len, chunk))
        # Predictions for a token come from the one before it, so the last one need not be read.
        rows = [[*tail, *tokens[:-1]] for tokens in chunk]
        padded = [row + [0] * (len(tail) + width - 1 - len(row)) for row in rows]
        inputs: dict[str, Any] = {"input_ids": torch.tensor(padded, device=device)}
        past = len(prefix) - len(tail)
        seen = [[1] * (past + len(row)) + [0] * (len(tail) + width - 1 - len(row)) for row in rows]
        inputs["attention_mask"] = torch.tensor(seen, device=device)
        if cache is not None:
            own = copy.deepcopy(cache)  # the model writes into it
            own.batch_repeat_interleave(len(chunk))
            inputs |= {"past_key_values": own, "use_cache": True}
        logits = model(**inputs).logits[:, len(tail) - 1 :]  # (rows, width, vocabulary)
        log_probs = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32).log_softmax(dim=-1)
        for row, tokens in zip(log_probs, chunk, strict=True):
            targets = torch.tensor(tokens, device=device)
            results.append(row[: len(tokens)].gather(1, targets[:, None]).squeeze(1))
    return results


def _read_prefix(model: Any, prefix: Sequence[int]) -> tuple[Cache | None, list[int]]:
    """The cache of all tokens but the last, and what is left to read; without a cache that is everything."""
    if len(prefix) == 1:
        return None, list(prefix)
    names = inspect.signature(model.forward).parameters
    device = model.get_input_embeddings().weight.device
    if "past_key_values" not in names:
        return None, list(prefix)
    only_last = {"logits_to_keep": 1} if "logits_to_keep" in names else {}
    ids = torch.tensor([list(prefix[:-1])], device=device)
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=True, **only_last)
    cache = getattr(output, "past_key_values", None)
    if not isinstance(cache, Cache) or any(hasattr(layer, name) for layer in cache.layers for name in _STATES):
        return None, list(prefix)
    return cache, [prefix[-1]]
