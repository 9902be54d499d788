"""Scores of labels in a call of the `zero-shot-prompt` pipeline: of the words, without their bias, and reranked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hf_nlpnotes.prompting.calibration import CONTENT_FREE_TEXTS
from hf_nlpnotes.prompting.reranking import best, rerank
from hf_nlpnotes.prompting.static_prior import combine, static_similarity
from hf_nlpnotes.prompting.weight_state import weight_state
from hf_nlpnotes.prompting.word_scorer import PSEUDO_LOG_LIKELIHOOD

from ._prompt_bias import check_comparable, check_rerank, given_bias, has_contrast, measured_bias, needs_the_texts
from ._prompt_inputs import chunks
from ._prompt_plan import Plan
from ._prompt_samples import LabelSet, Sample, united

_CHUNK = 32
"""Batches that are read ahead and sorted by length."""


_KEPT_BIASES = 1024
"""Measured biases that a plan remembers."""

BIAS_OPTIONS = ("calibration", "calibration_texts", "label_prior", "scoring")
"""Options that a measured bias depends on, beside those that make the plan."""


@dataclass(frozen=True)
class LabelScorer:
    """Scores the labels of texts.

    Args:
        pipe (`Pipeline`):
            Runs the model.
        plan (`Plan`):
            Templates and labels.
        options (`Mapping[str, Any]`):
            Options of the call.
        batch_size (`int`):
            Prompts a forward pass.
    """

    pipe: Any
    plan: Plan
    options: Mapping[str, Any]
    batch_size: int

    def __call__(self, samples: Iterator[Sample]) -> Iterator[tuple[Sample, torch.Tensor]]:
        """Each text with the scores of its label names, of shape (nodes,), one chunk of texts after another."""
        return self._reranked(samples) if self.options.get("rerank") else self._calibrated(samples)

    def _reranked(self, samples: Iterator[Sample]) -> Iterator[tuple[Sample, torch.Tensor]]:
        """`_calibrated`, with the best labels by the pseudo-log-likelihood of their words."""
        check_rerank(self.options)
        first = self._calibrated(samples)
        # A given bias is that of the first look.
        options = {name: value for name, value in self.options.items() if name != "bias"}
        again = replace(self, options={**options, "scoring": PSEUDO_LOG_LIKELIHOOD})
        compares = needs_the_texts(again.options)
        if compares:
            everything = list(first)
            check_comparable([sample for sample, _ in everything], again.options)
            first = iter(everything)
        biases: dict[LabelSet, torch.Tensor] = {}
        size = len(everything) if compares else self._ahead
        for chunk in chunks(first, max(size, 1)):
            texts = [sample for sample, _ in chunk]
            if len(biases) > _KEPT_BIASES:  # an endless stream may have ever new labels
                biases = {}
            chosen = [best(scores[None], options["rerank"])[0] for _, scores in chunk]
            second = again._scores(texts, None if compares else chosen)
            if compares:
                biases = {texts[0].labels: measured_bias(torch.stack(second), texts[0].labels, again.options)}
            elif new := [one for one in dict.fromkeys(sample.labels for sample in texts) if one not in biases]:
                biases.update(again._biases(new))
            for (sample, scores), own, mask in zip(chunk, second, chosen, strict=True):
                yield sample, rerank(scores[None], (own - biases[sample.labels])[None], mask[None])[0]

    @property
    def _ahead(self) -> int:
        """Texts of a chunk; one by one without batches: a text of a slow generator is answered before the next."""
        return 1 if self.batch_size == 1 else self.batch_size * _CHUNK

    def _calibrated(self, samples: Iterator[Sample]) -> Iterator[tuple[Sample, torch.Tensor]]:
        """Each text with the scores of its label names, of shape (nodes,), without the model's preferences."""
        options = self.options
        weight = options.get("prior_weight", 0)
        if options.get("multi_label", False) and not has_contrast(options):
            raise ValueError(
                "multi_label=True compares each label with texts that say nothing about it, and calibration='none' has"
                " no such texts: choose calibration='contextual', or 'batch' with a list of texts."
            )
        if options.get("multi_label", False) and weight:
            raise ValueError(
                "multi_label=True judges each label by itself, and prior_weight weighs the labels of a text against"
                f" each other: leave out prior_weight={weight}."
            )
        compares = needs_the_texts(options)
        if compares or weight:
            everything = list(samples)
            check_comparable(everything, options)
            samples = iter(everything)
        biases: dict[LabelSet, torch.Tensor] = {}
        collected: list[tuple[Sample, torch.Tensor]] = []
        for chunk in chunks(samples, self._ahead):
            scores = self._scores(chunk)
            if compares or weight:
                collected += zip(chunk, scores, strict=True)
                continue
            if len(biases) > _KEPT_BIASES:  # an endless stream may have ever new labels
                biases = {}
            new = [one for one in dict.fromkeys(sample.labels for sample in chunk) if one not in biases]
            if new:
                biases.update(self._biases(new))
            yield from ((sample, own - biases[sample.labels]) for sample, own in zip(chunk, scores, strict=True))
        if not collected:
            return
        labels = collected[0][0].labels
        matrix = torch.stack([own for _, own in collected])  # (texts, nodes)
        if compares:
            matrix = matrix - measured_bias(matrix, labels, options)
        else:
            matrix = matrix - self._biases([labels])[labels]
        if weight:
            texts = ["\n".join(sample.values.values()) for sample, _ in collected]
            prior = static_similarity(self.pipe.model, self.pipe.tokenizer, texts, labels.verbalizer)
            matrix = combine(matrix, prior, weight)
        yield from zip((sample for sample, _ in collected), matrix, strict=True)

    def _biases(self, sets: Sequence[LabelSet]) -> dict[LabelSet, torch.Tensor]:
        """What the model prefers among the names of each label set, each of shape (nodes,).

        Measured once and kept with the plan, as long as the weights stay what they are.
        """
        options = self.options
        if options.get("bias") is not None:
            return {one: given_bias(options["bias"], one) for one in sets}
        if options.get("calibration") == "none":
            return {one: torch.zeros(len(one.paths.nodes), dtype=torch.float64) for one in sets}
        kept, depends_on = self.plan.biases, repr([options.get(name) for name in BIAS_OPTIONS])
        modules = [one for one in (self.pipe.model, self.pipe.soft_prompt) if one is not None]
        state = None if self.pipe.model.training else weight_state(*modules)  # with dropout no two are equal
        biases = {}
        for one in sets:
            known = kept.get((one, depends_on))
            if known is not None and known[0] == state is not None:
                biases[one] = known[1]
        new = [one for one in sets if one not in biases]
        for one, bias in self._measured(new).items() if new else ():
            biases[one] = bias
            kept.pop((one, depends_on), None)
            while len(kept) >= _KEPT_BIASES:
                del kept[next(iter(kept))]
            kept[one, depends_on] = (state, bias)
        return biases

    def _measured(self, sets: Sequence[LabelSet]) -> dict[LabelSet, torch.Tensor]:
        """The biases on the texts of the calibration."""
        calibration, texts = self.options.get("calibration", "contextual"), self.options.get("calibration_texts")
        if texts is None:
            texts = CONTENT_FREE_TEXTS if calibration == "contextual" else ("",)
        filled = [_filled(text, self.plan) for text in texts]

        def scores(labels: LabelSet) -> torch.Tensor:
            return torch.stack(self._scores([Sample("", values, labels) for values in filled]))

        if len(sets) == 1 or self.plan.depends_on_labels:
            return {one: measured_bias(scores(one), one, self.options) for one in sets}
        # The prompts are the same for all sets: they are read once for all words.
        words = united(sets).all_words
        place = {word: i for i, word in enumerate(words)}
        read = scores(self.plan.word_set(words))  # (texts, words)
        own = {one: read[:, [place[word] for word in one.verbalizer.all_words]] @ one.weights for one in sets}
        return {one: measured_bias(scored, one, self.options) for one, scored in own.items()}

    def _scores(self, samples: Sequence[Sample], chosen: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Scores of the names of each sample's labels, each float64 of shape (nodes,), not calibrated.

        Of each sample, those that are not `chosen`, bool of shape (nodes,), may be anything.
        """
        sets = dict.fromkeys(sample.labels for sample in samples)
        verbalizer = united(sets)
        place = {word: i for i, word in enumerate(verbalizer.all_words)}
        places = {one: [place[word] for word in one.verbalizer.all_words] for one in sets}
        asked: list[set[int]] | None = None
        if chosen is not None:
            asked = [
                {
                    places[sample.labels][i]
                    for i in sample.labels.weights[:, own].any(dim=1).nonzero().flatten().tolist()
                }
                for sample, own in zip(samples, chosen, strict=True)
            ]
        total: list[torch.Tensor] = [torch.zeros(())] * len(samples)
        for reader in self.plan.readers:
            words = reader.word_scores(self.pipe, samples, verbalizer, self.options, self.batch_size, asked)
            for i, sample in enumerate(samples):
                own = words[i, places[sample.labels]] @ sample.labels.weights
                total[i] = total[i] + reader.weight * own
        return total


def _filled(text: Any, plan: Plan) -> dict[str, str]:
    """A text for calibration, in every column; it may be empty."""
    if isinstance(text, str):
        return dict.fromkeys(plan.columns, text)
    missing = [column for column in plan.columns if column not in text]
    if missing:
        raise ValueError(
            f"The template {plan.source!r} has the slot {missing[0]!r}, and a text of calibration_texts has only the"
            f" columns {list(text)}: give a string for all slots, or a mapping with a text for each."
        )
    return {column: text[column] for column in plan.columns}
