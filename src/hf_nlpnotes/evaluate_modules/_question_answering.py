"""What the modules of question answering share: the columns of predictions and references.

They are those of Hugging Face's own `squad` and `squad_v2`, so that one takes the other's place.
"""

from __future__ import annotations

from datasets import Features, Sequence, Value

INPUTS = """
Args:
    predictions: Dicts with `id` and `prediction_text`.
    references: Dicts with `id` and `answers`, which is `{"text": [...], "answer_start": [...]}`; the places of the
        answers do not count.
"""


def features(**of_a_prediction: str) -> Features:
    """The columns; `of_a_prediction` are further ones of a prediction, with their types."""
    more = {name: Value(kind) for name, kind in of_a_prediction.items()}
    answers = {"text": Sequence(Value("string")), "answer_start": Sequence(Value("int32"))}
    return Features(
        {
            "predictions": {"id": Value("string"), "prediction_text": Value("string"), **more},
            "references": {"id": Value("string"), "answers": answers},
        }
    )
