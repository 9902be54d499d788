"""Exact match and F1 of SQuAD 1.1 (Rajpurkar et al. 2016) and 2.0 (Rajpurkar et al. 2018), for answers in English.

Texts lose case, ASCII punctuation and the articles a, an, the. Exact match compares what is left, F1 the words that
both have, whatever their order. The figures are those of the official scripts to the last bit. Chinese has no blanks
between words, so that a whole answer is one word here: use `cmrc2018`.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .metric_inputs import Predictions, References, gold_answers, predicted_texts, running_sum
from .no_answer_thresholds import average_precision, best_threshold

_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def normalize_answer(text: str) -> str:
    """A text in lower case without ASCII punctuation, without articles, with single blanks.

    Example:
        >>> normalize_answer("The U.S.  dollar")
        'us dollar'
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def squad_v1_scores(answers: Sequence[str], prediction: str) -> tuple[int, float]:
    """Exact match and F1 of a prediction, each the best over the answers.

    Raises:
        ValueError: No answers.

    Example:
        >>> squad_v1_scores(["one two three", "one"], "two one four")
        (0, 0.6666666666666666)
    """
    if not answers:
        raise ValueError("SQuAD 1.1 has no questions without an answer, and answers is empty; see squad_v2")
    predicted = normalize_answer(prediction)
    gold = list(dict.fromkeys(map(normalize_answer, answers)))
    return int(predicted in gold), _best_f1(gold, predicted, of_nothing=0.0)


def squad_v2_scores(answers: Sequence[str], prediction: str) -> tuple[int, float]:
    """Exact match and F1 of a prediction, each the best over the answers; no answers, or none but articles: "".

    Example:
        >>> squad_v2_scores([], ""), squad_v2_scores([], "Paris")
        ((1, 1.0), (0, 0.0))
    """
    predicted = normalize_answer(prediction)
    gold = [text for text in dict.fromkeys(map(normalize_answer, answers)) if text] or [""]
    return int(predicted in gold), _best_f1(gold, predicted, of_nothing=1.0)


def squad_v1(predictions: Predictions, references: References, *, per_question: bool = False) -> dict[str, Any]:
    """Score predictions by the rules of SQuAD 1.1. A question without a prediction counts as wrong.

    Args:
        predictions: Texts by id: a dict, or a list of `{"id", "prediction_text"}`.
        references: A data set in SQuAD's layout, a list of `{"id", "answers"}`, or a dict from ids to lists of texts.
        per_question: Add `per_question`: id -> `(exact_match, f1)`, of the questions that have a prediction.

    Returns:
        `exact_match` and `f1` in per cent.

    Raises:
        TypeError, ValueError: Another form, no references, a question without answers, or no prediction of any.

    Example:
        >>> squad_v1({"1": "The Seine."}, {"1": ["Seine"], "2": ["Loire"]})
        {'exact_match': 50.0, 'f1': 50.0}
    """
    gold = gold_answers(references)
    texts = predicted_texts(predictions, gold)
    scores = [(key, squad_v1_scores(answers, texts[key])) for key, answers in gold if key in texts]
    result: dict[str, Any] = {
        "exact_match": 100.0 * running_sum(exact for _, (exact, _) in scores) / len(gold),
        "f1": 100.0 * running_sum(f1 for _, (_, f1) in scores) / len(gold),
    }
    return {**result, "per_question": dict(scores)} if per_question else result


def squad_v2(
    predictions: Predictions,
    references: References,
    no_answer_probabilities: Mapping[Any, float] | None = None,
    threshold: float = 1.0,
    *,
    per_question: bool = False,
) -> dict[str, Any]:
    """Score predictions by the rules of SQuAD 2.0, where "" is the prediction "no answer".

    Args:
        predictions: Texts by id: a dict, or a list of `{"id", "prediction_text"}`, the latter with or without a
            `no_answer_probability` in each.
        references: A data set in SQuAD's layout, a list of `{"id", "answers"}`, or a dict from ids to lists of texts.
        no_answer_probabilities: How sure the model is that a question has no answer, by id; any number that grows with
            it, such as a difference of scores.
        threshold: Questions with a larger one count as predicted to have no answer.
        per_question: Add `per_question`: id -> `(exact, f1)`, before the threshold is applied.

    Returns:
        `exact` and `f1` in per cent and `total`; the same of questions with an answer (`HasAns_…`) and without
        (`NoAns_…`) where there are such. With probabilities also `best_exact` and `best_f1`, what the best threshold
        would reach, `best_exact_thresh` and `best_f1_thresh`, and the areas under the curves of precision and recall
        over all thresholds, `pr_exact_ap`, `pr_f1_ap`, and `pr_oracle_ap` of perfect answers.

    Raises:
        TypeError, ValueError: Another form, no references, or a question without a prediction or a probability.

    Example:
        >>> scores = squad_v2({"1": "Seine", "2": "Loire"}, {"1": ["the Seine"], "2": []}, {"1": 0.1, "2": 0.7}, 0.5)
        >>> scores["exact"], scores["best_exact_thresh"], scores["NoAns_f1"]
        (100.0, 0.1, 100.0)
    """
    gold = dict(gold_answers(references))
    if not isinstance(predictions, Mapping | str):
        predictions = list(predictions)  # read twice
    texts = predicted_texts(predictions, list(gold.items()))
    if no_answer_probabilities is None:
        no_answer_probabilities = _probabilities_in(predictions)
    _complete("prediction; give '' for no answer", gold, texts)
    raw = {key: squad_v2_scores(answers, texts[key]) for key, answers in gold.items()}
    answerable = {key: bool(answers) for key, answers in gold.items()}
    final = raw
    if no_answer_probabilities is not None:
        _complete("probability of having no answer", gold, no_answer_probabilities)
        final = {
            key: (0 if answerable[key] else 1,) * 2 if no_answer_probabilities[key] > threshold else scores
            for key, scores in raw.items()
        }
    result = _means(final, list(gold), "")
    for prefix, wanted in (("HasAns_", True), ("NoAns_", False)):
        keys = [key for key in gold if answerable[key] is wanted]
        if keys:
            result |= _means(final, keys, prefix)
    if no_answer_probabilities is not None:
        probabilities = {key: no_answer_probabilities[key] for key in no_answer_probabilities if key in gold}
        result |= _over_thresholds(raw, probabilities, texts, answerable)
    return {**result, "per_question": raw} if per_question else result


def _best_f1(gold: Sequence[str], predicted: str, *, of_nothing: float) -> float:
    """The best F1 over the answers; `of_nothing` where both texts are empty."""
    words = predicted.split()
    counts = Counter(words)
    best = 0.0
    for answer in gold:
        if answer == predicted:
            return 1.0 if predicted else of_nothing
        answer_words = answer.split()
        shared = sum((counts & Counter(answer_words)).values())
        if shared:
            precision, recall = shared / len(words), shared / len(answer_words)
            best = max(best, (2 * precision * recall) / (precision + recall))
    return best


def _complete(what: str, gold: Mapping[Any, Any], given: Mapping[Any, Any]) -> None:
    missing = [key for key in gold if key not in given]
    if missing:
        raise ValueError(f"{len(missing)} of {len(gold)} questions have no {what}: {missing[:3]}")


def _probabilities_in(predictions: Predictions) -> dict[Any, float] | None:
    """The probabilities that a list of predictions brings along, if each of them does."""
    if isinstance(predictions, Mapping):
        return None
    rows = list(predictions)
    if not rows or not all("no_answer_probability" in row for row in rows):
        return None
    return {row["id"]: row["no_answer_probability"] for row in rows}


def _means(scores: Mapping[Any, tuple[float, float]], keys: Sequence[Any], prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}exact": 100.0 * running_sum(scores[key][0] for key in keys) / len(keys),
        f"{prefix}f1": 100.0 * running_sum(scores[key][1] for key in keys) / len(keys),
        f"{prefix}total": len(keys),
    }


def _over_thresholds(
    raw: Mapping[Any, tuple[float, float]],
    probabilities: Mapping[Any, float],
    texts: Mapping[Any, str],
    answerable: Mapping[Any, bool],
) -> dict[str, float]:
    """What the official script reports when it is given probabilities."""
    result: dict[str, float] = {}
    for name, place in (("exact", 0), ("f1", 1)):
        scores = {key: pair[place] for key, pair in raw.items()}
        best, at = best_threshold(scores, probabilities, texts, answerable)
        result |= {f"best_{name}": best, f"best_{name}_thresh": at}
        if any(answerable.values()):
            result[f"pr_{name}_ap"] = average_precision(scores, probabilities, answerable)
    if any(answerable.values()):
        perfect = {key: float(has) for key, has in answerable.items()}
        result["pr_oracle_ap"] = average_precision(perfect, probabilities, answerable)
    return result
