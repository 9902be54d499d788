"""How the `zero-shot-prompt` pipeline reads texts under one template: by masks, or as a causal model does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from hf_nlpnotes.model_inputs import accepted_inputs
from hf_nlpnotes.prompting.causal_scoring import CausalPrompt, CausalPromptEncoder, causal_word_scores
from hf_nlpnotes.prompting.demonstrations import DemonstrationPool
from hf_nlpnotes.prompting.encoding import PromptEncoder
from hf_nlpnotes.prompting.scoring import mask_positions
from hf_nlpnotes.prompting.soft_prompts import SOFT_INDEX, SoftPrompt
from hf_nlpnotes.prompting.static_prior import StaticVectors
from hf_nlpnotes.prompting.template import Template
from hf_nlpnotes.prompting.template_parts import LABEL_SLOT
from hf_nlpnotes.prompting.verbalizer import Verbalizer, WordGroup, group_words
from hf_nlpnotes.prompting.word_scorer import WordScorer

from ._prompt_bias import has_contrast
from ._prompt_inputs import batches_by_length, padded
from ._prompt_samples import Sample

_WORDS = 32
"""Words of a text that a causal model reads at once."""


@dataclass(frozen=True)
class SoftTokens:
    """Trained vectors, and the number of the first one that stands in a template."""

    prompt: SoftPrompt
    first: int


class Reader(ABC):
    """One of the templates of a plan: encodes samples, and scores the words of labels in their place.

    Args:
        template (`Template`):
            The template.
        weight (`float`):
            Its share in the vote of all templates.
        demonstrations (`Sequence`, *optional*):
            Examples to choose from, for a template with `{demos:…}`.
        vectors (`Callable`):
            Makes the model's `StaticVectors`.

    Raises:
        `ValueError`: the template asks for demonstrations that are not given.
    """

    def __init__(
        self,
        template: Template,
        weight: float,
        demonstrations: Sequence[Any] | None,
        vectors: Callable[[], StaticVectors],
    ) -> None:
        self.template = template
        self.weight = weight
        self.pool = None
        if template.demonstrations is not None:
            if demonstrations is None:
                example = {**dict.fromkeys(template.columns, "…"), LABEL_SLOT: "…"}
                raise ValueError(
                    f"The template {template.source!r} shows demonstrations: give demonstrations=[{example}, …]."
                )
            self.pool = DemonstrationPool(demonstrations, template, vectors)

    @property
    def depends_on_labels(self) -> bool:
        """Whether the prompt of a text is another one with other labels."""
        return self.pool is not None or self.template.has_options

    def demonstrations(self, sample: Sample) -> list[tuple[Mapping[str, str], str]]:
        """Examples for a text, each with the word of its label."""
        if self.pool is None:
            return []
        chosen = self.pool.choose(sample.values, sample.labels.labels)
        return [(row, sample.labels.word_of(row[LABEL_SLOT])) for row in chosen]

    @abstractmethod
    def check(self, words: Verbalizer) -> None:
        """Raise a `ValueError` for a word that cannot be spelled, and a template without room for its own masks."""

    @abstractmethod
    def can_spell(self, word: str) -> bool:
        """Whether the vocabulary can."""

    @abstractmethod
    def encode(self, sample: Sample) -> Sequence[Any]:
        """The inputs of a sample."""

    @abstractmethod
    def word_scores(
        self,
        pipe: Any,
        samples: Sequence[Sample],
        verbalizer: Verbalizer,
        options: Mapping[str, Any],
        batch_size: int,
        asked: Sequence[Collection[int]] | None,
    ) -> torch.Tensor:
        """Scores of all words, or those asked for, float64 of shape (samples, words).

        Of a sample, words that are none of its own may be anything.
        """


class MaskReader(Reader):
    """Reads by masks, for a masked language model.

    Args:
        encoder (`PromptEncoder`):
            Of the template.
        weight, demonstrations, vectors:
            As for every reader.
        soft (`SoftTokens`, *optional*):
            The template's soft tokens.

    Raises:
        `ValueError`: the template has soft tokens that are not given.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        weight: float,
        demonstrations: Sequence[Any] | None,
        vectors: Callable[[], StaticVectors],
        soft: SoftTokens | None = None,
    ) -> None:
        if encoder.soft_tokens and soft is None:
            raise ValueError(
                f"The template {encoder.template.source!r} has soft tokens, whose vectors are trained; a masked"
                " language model by itself has none: train it with PromptForSequenceClassification, or write words"
                " instead."
            )
        super().__init__(encoder.template, weight, demonstrations, vectors)
        self.encoder = encoder
        self.soft = soft if encoder.soft_tokens else None
        # A word is looked up for every text where each text has its own labels.
        self.word = lru_cache(maxsize=1 << 12)(encoder.word_features)
        self.lengths = lru_cache(maxsize=1 << 10)(self._lengths)

    def check(self, words: Verbalizer) -> None:
        """Raise a `ValueError` for a word that cannot be spelled, and a template without room for its own masks."""
        lengths = self.lengths(words)
        if not self.depends_on_labels:
            self.encoder.encode(dict.fromkeys(self.template.columns, ""), lengths)

    def can_spell(self, word: str) -> bool:
        """Whether the vocabulary can."""
        return self.encoder.can_spell(word)

    def groups(self, verbalizer: Verbalizer) -> tuple[WordGroup, ...]:
        """The words by length."""
        return group_words(verbalizer, self.word)

    def _lengths(self, verbalizer: Verbalizer) -> list[int]:
        """How many tokens the words of a verbalizer have, each number once."""
        return sorted({len(self.word(word)["input_ids"]) for word in verbalizer.all_words})

    def encode(self, sample: Sample) -> list[dict[str, list[int]]]:
        """The inputs of a sample, one for each length of its words."""
        labels = sample.labels
        rows = self.encoder.encode(
            sample.values, self.lengths(labels.verbalizer), labels.labels, self.demonstrations(sample)
        )
        if self.soft is not None:
            for row in rows:
                row[SOFT_INDEX] = [i + self.soft.first if i >= 0 else -1 for i in row[SOFT_INDEX]]
        return rows

    def word_scores(
        self,
        pipe: Any,
        samples: Sequence[Sample],
        verbalizer: Verbalizer,
        options: Mapping[str, Any],
        batch_size: int,
        asked: Sequence[Collection[int]] | None,
    ) -> torch.Tensor:
        """Scores of all words, or those asked for, float64 of shape (samples, words)."""
        model, tokenizer = pipe.model, pipe.tokenizer
        rows: list[dict[str, list[int]]] = []
        owners: list[int] = []
        for i, sample in enumerate(samples):
            encodings = pipe.preprocess(sample, reader=self)
            rows += encodings
            owners += [i] * len(encodings)
        num_words = len(verbalizer.all_words)
        scorer = WordScorer(model, self.groups(verbalizer), num_words, options.get("scoring", "parallel"))
        # Without calibration only the order of a text's labels counts, and their distances.
        of_words = scorer.centred if has_contrast(options) else scorer.ranking
        padding = {
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": tokenizer.pad_token_type_id,
            SOFT_INDEX: -1,
        }
        scores = torch.zeros(len(samples), num_words, dtype=torch.float64)
        for batch in batches_by_length([len(row["input_ids"]) for row in rows], batch_size):
            words = None if asked is None else [asked[owners[i]] for i in batch]

            def score(inputs: dict[str, torch.Tensor], words: Any = words) -> torch.Tensor:
                positions, counts = mask_positions(inputs["label_mask"])
                accepted = accepted_inputs(model, inputs)
                if self.soft is None:
                    return of_words(accepted, positions, counts, words)
                with self.soft.prompt.to(model.device).in_place(model):
                    return of_words({**accepted, SOFT_INDEX: inputs[SOFT_INDEX]}, positions, counts, words)

            found = pipe.forward(padded([rows[i] for i in batch], padding), score=score)
            # The rows of one text are about words of different lengths: they add up.
            scores.index_add_(0, torch.tensor([owners[i] for i in batch]), pipe.postprocess(found))
        return scores


class CausalReader(Reader):
    """Reads as a causal language model does: how likely the prompt is from the label on.

    Args:
        encoder (`CausalPromptEncoder`):
            Of the template.
        weight, demonstrations, vectors:
            As for every reader.
    """

    def __init__(
        self,
        encoder: CausalPromptEncoder,
        weight: float,
        demonstrations: Sequence[Any] | None,
        vectors: Callable[[], StaticVectors],
    ) -> None:
        if encoder.template.has_soft_tokens:
            raise ValueError(
                f"The template {encoder.template.source!r} has soft tokens, which are for masked language models:"
                " write words instead."
            )
        super().__init__(encoder.template, weight, demonstrations, vectors)
        self.encoder = encoder

    def check(self, words: Verbalizer) -> None:
        """Raise a `ValueError` for a word without tokens, and a template without room for its words."""
        if not self.depends_on_labels:
            self.encoder.encode(dict.fromkeys(self.template.columns, ""), words.all_words)

    def can_spell(self, word: str) -> bool:
        """Whether the vocabulary can."""
        unknown = self.encoder.tokenizer.unk_token_id
        return unknown is None or unknown not in self.encoder.tokenizer(word, add_special_tokens=False)["input_ids"]

    def encode(self, sample: Sample) -> list[CausalPrompt]:
        """The prompt of a sample with each of its words."""
        labels = sample.labels
        shown = [self.template.fill(row, word, labels.labels) for row, word in self.demonstrations(sample)]
        examples = ["".join(f"{one.strip()}\n\n" for one in shown)] if shown else []
        return self.encoder.encode(sample.values, labels.verbalizer.all_words, labels.labels, examples)

    def word_scores(
        self,
        pipe: Any,
        samples: Sequence[Sample],
        verbalizer: Verbalizer,
        options: Mapping[str, Any],
        batch_size: int,
        asked: Sequence[Collection[int]] | None,
    ) -> torch.Tensor:
        """Log-likelihoods, float64 of shape (samples, words): the words of one text share its forward passes."""
        place = {word: i for i, word in enumerate(verbalizer.all_words)}
        scores = torch.zeros(len(samples), len(place), dtype=torch.float64)

        def score(inputs: dict[str, Any]) -> torch.Tensor:
            return causal_word_scores(pipe.model, [inputs["prompts"]], max(batch_size, _WORDS)).log_likelihood

        for i, sample in enumerate(samples):
            found = pipe.forward({"prompts": pipe.preprocess(sample, reader=self)}, score=score)
            scores[i, [place[word] for word in sample.labels.verbalizer.all_words]] = pipe.postprocess(found)[0]
        return scores
