"""Exact match and F1 of CMRC 2018 (Cui et al. 2019), for Chinese answers; DRCD is scored the same way.

Both texts lose case and punctuation. Exact match compares what is left; F1 measures the longest run of words that both
have, where every Han character is a word and what stands between Han characters is cut into English words. The figures
are those of the official script, version 6, to the last bit, and need neither NLTK nor its data.

What the script does and one might not expect: only U+4E00 to U+9FA5 are Han characters, so that 〇 and 㐀 are letters
of English words; of the marks that it lists, the ellipsis of two characters is never found, and ASCII commas, brackets
and quotes stay; an answer of punctuation alone can match exactly with an F1 of 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .english_words import words
from .metric_inputs import Predictions, References, gold_answers, predicted_texts, running_sum

_MARKS = dict.fromkeys(map(ord, "-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』"))
_HAN_OR_RUN = re.compile(r"[\u4e00-\u9fa5]|[^\u4e00-\u9fa5]+")
_ALL_HAN = re.compile(r"[\u4e00-\u9fa5]*")


def bare_text(text: str) -> str:
    """A text in lower case, without blanks around it and without punctuation: what exact match compares.

    Example:
        >>> bare_text("《NBA》， 总决赛。")
        'nba 总决赛'
    """
    return text.lower().strip().translate(_MARKS)


def mixed_words(text: str) -> Sequence[str]:
    """The words of a text as F1 counts them: Han characters, and English words between them.

    Example:
        >>> list(mixed_words("1998年，NBA总决赛"))
        ['1998', '年', 'nba', '总', '决', '赛']
    """
    return _split(bare_text(text))


def cmrc2018_scores(answers: Sequence[str], prediction: str) -> tuple[float, int]:
    """F1 and exact match of a prediction, each the best over the answers.

    Raises:
        ValueError: No answers.

    Example:
        >>> cmrc2018_scores(["北京", "北京市"], "北京市。")
        (1.0, 1)
    """
    if not answers:
        raise ValueError("CMRC 2018 has no questions without an answer, and answers is empty; see squad_v2")
    bare = bare_text(prediction)
    predicted = _split(bare)
    best, exact = 0.0, 0
    for answer in dict.fromkeys(map(bare_text, answers)):
        exact |= answer == bare
        gold = predicted if answer == bare else _split(answer)
        best = max(best, _overlap(gold, predicted))
    return best, exact


def cmrc2018(predictions: Predictions, references: References, *, per_question: bool = False) -> dict[str, Any]:
    """Score predictions by the rules of CMRC 2018.

    A question without a prediction counts as wrong and is counted in `skip`.

    Args:
        predictions: Texts by id: a dict, or a list of `{"id", "prediction_text"}`.
        references: A data set in SQuAD's layout or in that of CMRC 2018, a list of `{"id", "answers"}`, or a dict from
            ids to lists of answers.
        per_question: Add `per_question`: id -> `(f1, em)`, of the questions that have a prediction.

    Returns:
        `f1` and `em` in per cent, `average` of the two, `total` questions, and `skip` of them without a prediction.

    Raises:
        TypeError, ValueError: Another form, no references, a question without answers, or no prediction of any.

    Example:
        >>> cmrc2018({"1": "北京市"}, {"1": ["北京"], "2": ["上海"]})
        {'f1': 40.0, 'em': 0.0, 'average': 20.0, 'total': 2, 'skip': 1}
    """
    gold = gold_answers(references)
    texts = predicted_texts(predictions, gold)
    scores = [(key, cmrc2018_scores(answers, texts[key])) for key, answers in gold if key in texts]
    f1 = 100.0 * running_sum(score for _, (score, _) in scores) / len(gold)
    em = 100.0 * running_sum(score for _, (_, score) in scores) / len(gold)
    result = {"f1": f1, "em": em, "average": (em + f1) * 0.5, "total": len(gold), "skip": len(gold) - len(scores)}
    return {**result, "per_question": dict(scores)} if per_question else result


def drcd(predictions: Predictions, references: References, *, per_question: bool = False) -> dict[str, Any]:
    """Score predictions on DRCD (Shao et al. 2018): as `cmrc2018`, whose script is what DRCD is reported with.

    Args:
        predictions: As of `cmrc2018`.
        references: As of `cmrc2018`.
        per_question: As of `cmrc2018`.
    """
    return cmrc2018(predictions, references, per_question=per_question)


def _split(bare: str) -> Sequence[str]:
    """Words of a text that has lost its punctuation; a text of Han characters is its own list of words."""
    if _ALL_HAN.fullmatch(bare):
        return bare
    found: list[str] = []
    for piece in _HAN_OR_RUN.findall(bare):
        if len(piece) == 1 and "\u4e00" <= piece <= "\u9fa5":
            found.append(piece)
        else:
            found.extend(words(piece))
    return found


def _overlap(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """F1 of the longest run of words that both have; 0 where they have none."""
    length = _longest_common_run(gold, predicted)
    if not length:
        return 0.0
    precision, recall = length / len(predicted), length / len(gold)
    return (2 * precision * recall) / (precision + recall)


def _longest_common_run(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest run of words that stands in both.

    Each word becomes one character, so that "does this run stand in the other text" is one search in a string.
    """
    if not (isinstance(one, str) and isinstance(other, str)):
        letters: dict[str, int] = {}
        one, other = ("".join([chr(letters.setdefault(w, len(letters))) for w in text]) for text in (one, other))
    best = 0
    for start in range(len(one)):
        while start + best < len(one) and one[start : start + best + 1] in other:
            best += 1
    return best
