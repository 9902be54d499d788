"""Ways to classify that train no network: TF-IDF, frozen features, prompts, and their combinations.

Every way gives a `Prediction`. Logistic regression is scikit-learn's, with C by cross-validation on training texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _embedded_model_tasks import Example, Task
from scipy import sparse
from scipy.special import log_softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from transformers import AutoModelForMaskedLM, AutoTokenizer

from hf_nlpnotes.model_inputs import accepted_inputs, longest_input
from hf_nlpnotes.prompting import (
    PromptEncoder,
    Template,
    Verbalizer,
    WordGroup,
    group_words,
    mask_logits,
    mask_positions,
    ready_label_words,
    word_scores,
)

INVERSE_PENALTIES = (1.0, 10.0, 100.0)
"""Values of C that cross-validation chooses from."""

DENSE_WEIGHT = 0.5
"""Norm of the frozen features beside TF-IDF, whose norm is 1; chosen on the held-out texts of the few-shot tasks."""

MIXING_WEIGHTS = (0.25, 0.5, 1.0, 2.0)
"""Weights of a second opinion beside the first, to choose from on held-out texts."""


@dataclass(frozen=True)
class Prediction:
    """Log-probabilities of shape `(texts, labels)`, of the held-out texts and of the test texts."""

    dev: np.ndarray
    test: np.ndarray


def accuracy(scores: np.ndarray, examples: Sequence[Example]) -> float:
    """Share of the texts whose best label is the right one."""
    return float(np.mean(scores.argmax(axis=1) == np.array([label for _, label in examples])))


# ------------------------------------------------------------------------------------------------ logistic regression


def tfidf(task: Task) -> tuple[Any, Any, Any]:
    """TF-IDF of character 1-, 2- and 3-grams of the training, held-out and test texts, sparse, rows of norm 1."""
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    train = vectorizer.fit_transform(_texts(task.train))
    return train, vectorizer.transform(_texts(task.dev)), vectorizer.transform(_texts(task.test))


def unit_rows(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Features minus the training texts' mean (the first part's), each row divided by its norm."""
    centred = [part - parts[0].mean(axis=0) for part in parts]
    return [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in centred]


def beside(sparse_parts: Sequence[Any], dense_parts: Sequence[np.ndarray], weight: float = DENSE_WEIGHT) -> list[Any]:
    """Sparse and dense features of the same texts in one matrix, the dense ones times `weight`."""
    pairs = zip(sparse_parts, dense_parts, strict=True)
    return [sparse.hstack([left, weight * sparse.csr_matrix(right)]).tocsr() for left, right in pairs]


def logistic_regression(parts: Sequence[Any], labels: Sequence[int], seed: int) -> Prediction:
    """Learn from the first of three feature matrices; C is chosen by cross-validation on it.

    In at most 4 folds, and 2 of a thousand texts and more, to save time. By the log-loss: with 32 texts many values of
    C are right equally often.
    """
    folds = min(4 if len(labels) < 1000 else 2, *Counter(labels).values())
    regression: Any = LogisticRegression(max_iter=1000)
    if folds > 1:
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
        regression = GridSearchCV(regression, {"C": INVERSE_PENALTIES}, cv=splits, scoring="neg_log_loss")
    regression.fit(parts[0], np.array(labels))
    return Prediction(regression.predict_log_proba(parts[1]), regression.predict_log_proba(parts[2]))


# ------------------------------------------------------------------------------------------------- the frozen network


class FrozenModel:
    """A masked language model that is only read: features of texts, and scores of label words in a prompt.

    Each text is read once for a kind of answer; later calls take what was kept.
    """

    def __init__(self, folder: str, batch_size: int = 64) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.max_length = longest_input(self.model, self.tokenizer)
        self.batch_size = batch_size
        self._kept: dict[tuple[Any, ...], np.ndarray] = {}

    def mean_features(self, texts: Sequence[str]) -> np.ndarray:
        """Means over a text's tokens of every layer, side by side, `(texts, (layers + 1) * hidden)`."""

        def read(missing: Sequence[str]) -> np.ndarray:
            return self._in_batches(encode(self.tokenizer, missing, self.max_length), self._means)

        return self._remember(("mean",), texts, read)

    def mask_features(self, texts: Sequence[str], template: str, word: str) -> np.ndarray:
        """Last layer at the masks of a prompt for a word of that length, `(texts, masks * hidden)`."""
        encoder = PromptEncoder(Template(template), self.tokenizer, self.max_length)
        masks = len(encoder.word_ids(word))

        def read(missing: Sequence[str]) -> np.ndarray:
            rows = [encoder.encode({"text": text}, [masks])[0] for text in missing]
            return self._in_batches(rows, self._at_masks)

        return self._remember(("mask", template, masks), texts, read)

    def label_scores(self, texts: Sequence[str], template: str, words: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Scores of the labels by their words in a prompt, not calibrated, `(texts, labels)`."""
        encoder = PromptEncoder(Template(template), self.tokenizer, self.max_length)
        verbalizer = Verbalizer.of(words)
        groups = group_words(verbalizer, encoder.word_ids)
        weights = verbalizer.weight_matrix().float()
        lengths = [group.num_masks for group in groups]

        def read(missing: Sequence[str]) -> np.ndarray:
            rows = [row for text in missing for row in encoder.encode({"text": text}, lengths)]
            scores = self._in_batches(rows, lambda batch: self._word_scores(batch, groups, len(weights)))
            return scores.reshape(len(missing), len(lengths), -1).sum(axis=1) @ weights.numpy()

        return self._remember(("labels", template, verbalizer), texts, read)

    def _means(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        trunk = self.model.base_model
        states = trunk(**accepted_inputs(trunk, batch), output_hidden_states=True).hidden_states
        return torch.cat([masked_mean(state.float(), batch["attention_mask"]) for state in states], dim=1)

    def _at_masks(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        positions, _ = mask_positions(batch.pop("label_mask"))
        trunk = self.model.base_model
        state = trunk(**accepted_inputs(trunk, batch)).last_hidden_state.float()
        return state.gather(1, positions[:, :, None].expand(-1, -1, state.shape[2])).flatten(1)

    def _word_scores(self, batch: dict[str, torch.Tensor], groups: Sequence[WordGroup], words: int) -> torch.Tensor:
        positions, counts = mask_positions(batch.pop("label_mask"))
        logits = mask_logits(self.model, accepted_inputs(self.model, batch), positions)
        return word_scores(logits, counts, groups, words).centred

    @torch.no_grad()
    def _in_batches(self, rows: Sequence[dict[str, list[int]]], read: Any) -> np.ndarray:
        found: dict[int, np.ndarray] = {}
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]["input_ids"]))
        for start in range(0, len(order), self.batch_size):
            part = order[start : start + self.batch_size]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                values = read(collate([rows[place] for place in part]))
            found.update(zip(part, values.float().numpy(), strict=True))
        return np.stack([found[place] for place in range(len(rows))])

    def _remember(self, key: tuple[Any, ...], texts: Sequence[str], read: Any) -> np.ndarray:
        missing = list(dict.fromkeys(text for text in texts if (*key, text) not in self._kept))
        if missing:
            self._kept.update(((*key, text), row) for text, row in zip(missing, read(missing), strict=True))
        return np.stack([self._kept[(*key, text)] for text in texts])


def encode(tokenizer: Any, texts: Sequence[str], max_length: int | None) -> list[dict[str, list[int]]]:
    """Inputs of each text, cut at its end."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)
    return [{name: encoded[name][place] for name in encoded} for place in range(len(texts))]


def collate(rows: Sequence[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
    """A batch, `(rows, length)`, padded at the end with 0: the padding token, its pinyin and its mask."""
    width = max(len(row["input_ids"]) for row in rows)
    return {name: torch.tensor([row[name] + [0] * (width - len(row[name])) for row in rows]) for name in rows[0]}


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens of `states` (batch, length, hidden) where `mask` (batch, length) is 1: (batch, hidden)."""
    weights = mask[:, :, None].to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


# --------------------------------------------------------------------------------------------------------------- ways


def tfidf_regression(task: Task, seed: int) -> Prediction:
    """TF-IDF and logistic regression: the ordinary way without a network."""
    return logistic_regression(tfidf(task), _labels(task.train), seed)


def mean_regression(model: FrozenModel, task: Task, seed: int) -> Prediction:
    """Frozen means of all layers and logistic regression."""
    return logistic_regression(_means(model, task), _labels(task.train), seed)


def mask_regression(model: FrozenModel, task: Task, seed: int) -> Prediction:
    """The frozen vectors at the prompt's masks and logistic regression."""
    parts = [
        model.mask_features(_texts(examples), task.templates[0], task.words[0])
        for examples in (task.train, task.dev, task.test)
    ]
    return logistic_regression(unit_rows(parts), _labels(task.train), seed)


def mean_tfidf_regression(model: FrozenModel, task: Task, seed: int) -> Prediction:
    """Frozen means and TF-IDF side by side in one logistic regression."""
    return logistic_regression(beside(tfidf(task), _means(model, task)), _labels(task.train), seed)


def calibrated_prompt(model: FrozenModel, task: Task) -> Prediction:
    """The prompt without training: ready label words, scores averaged over the templates.

    A label's mean score on the training texts is taken out: these are few, but as many of each label, and so the
    answer for a text depends on no other test text.
    """
    words = {
        label: spelled
        for label, ready in ready_label_words(task.labels).items()
        if (spelled := _spellable(model, task, ready) or [label])
    }
    train, dev, test = (
        np.mean([model.label_scores(_texts(part), template, words) for template in task.templates], axis=0)
        for part in (task.train, task.dev, task.test)
    )
    bias = train.mean(axis=0)
    return Prediction(log_softmax(dev - bias, axis=1), log_softmax(test - bias, axis=1))


def mix(first: Prediction, second: Prediction, weight: float) -> Prediction:
    """Product of two opinions: log p ∝ log p₁ / σ₁ + weight · log p₂ / σ₂.

    σ is the spread of an opinion's centred log-probabilities on the held-out texts: a way that is sure of itself does
    not count for more than one that is not.
    """
    dev, test = (np.zeros_like(first.dev), np.zeros_like(first.test))
    for prediction, share in ((first, 1.0), (second, weight)):
        spread = max(float(_centred(prediction.dev).std()), 1e-12)
        dev = dev + share * _centred(prediction.dev) / spread
        test = test + share * _centred(prediction.test) / spread
    return Prediction(log_softmax(dev, axis=1), log_softmax(test, axis=1))


def best_mix(
    firsts: Sequence[Prediction], seconds: Sequence[Prediction], held_out: Sequence[Sequence[Example]]
) -> tuple[float, list[Prediction]]:
    """The weight of `MIXING_WEIGHTS` that is best on the held-out texts of all seeds together, and the mixes.

    Args:
        firsts, seconds: predictions of two ways, one a seed.
        held_out: the held-out texts of each seed.
    """

    def mixes(weight: float) -> list[Prediction]:
        return [mix(first, second, weight) for first, second in zip(firsts, seconds, strict=True)]

    def held_out_accuracy(weight: float) -> float:
        pairs = zip(mixes(weight), held_out, strict=True)
        return float(np.mean([accuracy(prediction.dev, examples) for prediction, examples in pairs]))

    best = max(MIXING_WEIGHTS, key=held_out_accuracy)  # the first of several equal ones
    return best, mixes(best)


def _spellable(model: FrozenModel, task: Task, words: Iterable[str]) -> list[str]:
    encoder = PromptEncoder(Template(task.templates[0]), model.tokenizer, model.max_length)
    return [word for word in words if encoder.can_spell(word)]


def _means(model: FrozenModel, task: Task) -> list[np.ndarray]:
    return unit_rows([model.mean_features(_texts(part)) for part in (task.train, task.dev, task.test)])


def _centred(scores: np.ndarray) -> np.ndarray:
    return scores - scores.mean(axis=1, keepdims=True)


def _texts(examples: Sequence[Example]) -> list[str]:
    return [text for text, _ in examples]


def _labels(examples: Sequence[Example]) -> list[int]:
    return [label for _, label in examples]
