"""Configuration of a token classifier with a conditional random field."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub.dataclasses import strict

from hf_nlpnotes.models.around_encoder import AroundEncoderConfig

_PARTS = ("transitions", "start", "end")


@strict
class CrfConfig(AroundEncoderConfig):
    r"""Configuration of an encoder with a token classifier and a conditional random field on it.

    Args:
        text_config (`dict` or `PreTrainedConfig`, *optional*):
            Configuration of the encoder, of any `model_type` that `AutoModel` knows, a `layer_selection` among them;
            that of a `bert` by default.
        tagging_scheme (`str`, *optional*):
            In which scheme the labels write spans (`"IOB2"`, `"BIOES"`, …), for the pipeline.
        tagging_units (`str`, *optional*):
            What has a tag each, for the pipeline: `"words"`, `"characters"` or `"tokens"`.
        text_classes (`list[str]`, *optional*):
            Classes of whole texts, such as intents, that a second classifier on the first token tells. None: no such.
        constraints (*optional*):
            Which label may follow which: what `hf_nlpnotes.tagging.allowed_transitions` returns, as three boolean
            tables `(transitions, start, end)`. Kept as strings of 0 and 1, `{"transitions": ["110", …], "start":
            "110", "end": "111"}`, so that a saved model means the same wherever it is loaded. None: all are allowed.
        classifier_dropout (`float`, defaults to 0.1): Dropout before the classifier.
        crf_algorithm (`str`, defaults to `"auto"`):
            As `algorithm` of `hf_nlpnotes.layers.ConditionalRandomField`.

    Raises:
        ValueError: constraints that do not fit the number of labels, or a dropout outside of [0, 1).

    Example:

    ```python
    >>> from transformers import BertConfig
    >>> from hf_nlpnotes.models.crf import CrfConfig

    >>> encoder = BertConfig(hidden_size=32, num_attention_heads=2)
    >>> config = CrfConfig(text_config=encoder, num_labels=2, constraints=([[1, 0], [1, 1]], [1, 1], [1, 1]))
    >>> config.constraints["transitions"]
    ['10', '11']

    ```
    """

    model_type = "crf"

    tagging_scheme: str | None = None
    tagging_units: str | None = None
    text_classes: list[str] | None = None
    constraints: Any = None
    classifier_dropout: float | int = 0.1
    crf_algorithm: str = "auto"

    def __post_init__(self, **kwargs: Any) -> None:
        if not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"classifier_dropout must lie in [0, 1), got {self.classifier_dropout!r}")
        if self.text_classes is not None and len(set(self.text_classes)) < max(2, len(self.text_classes)):
            raise ValueError(f"text_classes must be at least two different classes, got {self.text_classes}")
        super().__post_init__(**kwargs)
        if self.constraints is not None:
            assert self.num_labels is not None  # the number of names in id2label, which always has some
            self.constraints = _as_strings(self.constraints, self.num_labels)

    @property
    def allowed_transitions(self) -> tuple[list[list[bool]], list[bool], list[bool]] | None:
        """The constraints as `ConditionalRandomField` takes them; None where there are none."""
        if self.constraints is None:
            return None
        transitions, start, end = (self.constraints[part] for part in _PARTS)
        return [_as_bools(row) for row in transitions], _as_bools(start), _as_bools(end)

    @property
    def feature_size(self) -> int:
        """Size of the vectors that the classifier reads."""
        return int(getattr(self.encoder, "feature_size", self.encoder.hidden_size))


def _as_strings(constraints: Any, num_labels: int) -> dict[str, Any]:
    """Constraints in the form that is saved, whatever form they came in."""
    if isinstance(constraints, Mapping):
        if set(constraints) != set(_PARTS):
            raise ValueError(f"constraints have the parts {sorted(constraints)}: expected {', '.join(_PARTS)}")
        constraints = [constraints[part] for part in _PARTS]
    if len(constraints) != len(_PARTS):
        raise ValueError(f"constraints must be three tables ({', '.join(_PARTS)}), got {len(constraints)}")
    transitions, start, end = constraints
    rows = [_as_string(row) for row in transitions]
    parts = {"transitions": rows, "start": _as_string(start), "end": _as_string(end)}
    if len(rows) != num_labels or any(len(row) != num_labels for row in [*rows, parts["start"], parts["end"]]):
        raise ValueError(
            f"the constraints are of {len(rows)} labels, and the model has {num_labels}: make them of all its labels,"
            " in the order of their ids"
        )
    return parts


def _as_string(row: Any) -> str:
    if isinstance(row, str):
        return row
    return "".join("1" if allowed else "0" for allowed in row)


def _as_bools(row: str) -> list[bool]:
    return [character == "1" for character in row]


__all__ = ["CrfConfig"]
