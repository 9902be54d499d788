"""The `zero-shot-prompt` pipeline: text classification by filling a prompt, with no training data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import GeneratorType
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers.pipelines.base import ChunkPipeline

from hf_nlpnotes.prompting import (
    CALIBRATIONS,
    CONTENT_FREE_TEXTS,
    PromptEncoder,
    Template,
    Verbalizer,
    WordGroup,
    accepted_inputs,
    group_words,
    label_prior_tensor,
    longest_input,
    mask_logits,
    mask_positions,
    mean_bias,
    prior_bias,
    ready_label_words,
    word_scores,
)

DEFAULT_TEMPLATE = "{label}：{text}"
"""Suits topics and opinions alike; a template in the words of the task may do better."""

_KEPT_PLANS = 8
"""How many sets of options a pipeline remembers, so that calls in a loop do not tokenize the label words again."""


@dataclass(frozen=True)
class _Plan:
    """All that a call needs to know: options, checked and bound to the tokenizer."""

    encoder: PromptEncoder
    verbalizer: Verbalizer
    groups: tuple[WordGroup, ...]
    weights: torch.Tensor
    calibration: str

    @property
    def lengths(self) -> list[int]:
        return [group.num_masks for group in self.groups]


class ZeroShotPromptPipeline(ChunkPipeline):
    """Classification by a prompt: the label whose words the masked language model expects most is the answer.

    The text is put into a template with masks where the label word goes, `[MASK][MASK]：国足今晚出战`, and every label
    is scored by the log-probability of its words there, however many tokens they have. Called with `candidate_labels`
    it answers as the stock `zero-shot-classification` does, at the cost of one forward pass a text and word length
    instead of one a label.

    Args:
        model, tokenizer, device, batch_size, …:
            As in every pipeline; a masked language model and its fast tokenizer.
        template (`str` or `Template`, defaults to `DEFAULT_TEMPLATE`):
            The prompt, with one `{label}` and the columns of the input: `"{text}这是{label}评。"`.
        verbalizer (`Mapping`, `Sequence[str]`, `Verbalizer` or `"ready"`, *optional*):
            The words of each label: `{"体育": ["体育", "足球"], "财经": "财经"}`, or with weights
            `{"体育": {"体育": 2, "足球": 1}}`. A label without words is its own word. `"ready"` takes the words of
            `hf_nlpnotes.prompting.READY_LABEL_WORDS` for the labels it knows, those that the vocabulary can spell.
        candidate_labels (`str` or `Sequence[str]`, *optional*):
            The labels, as a list or separated by commas.
        calibration (`str`, defaults to `"contextual"`):
            `"none"`, `"contextual"`, `"domain"`, `"batch"` or `"prior"`: see `hf_nlpnotes.prompting.calibration`.
        calibration_texts (`Sequence`, *optional*):
            Texts to calibrate on: content-free ones for `contextual` and `domain`, an unlabelled sample for `batch`
            and `prior` (default: the inputs of the call, all of them, whatever the batch size).
        label_prior (`Mapping[str, float]` or `Sequence[float]`, *optional*):
            For `prior`: how frequent the labels are. Default: equally.
        max_length (`int`, *optional*):
            Most tokens of an input. Default: what the model takes. Texts are cut at their end, templates never.
        top_k (`int`, *optional*):
            Return the best labels only.

    Every option may be given when the pipeline is made or in a call.

    ```python
    classify = pipeline("zero-shot-prompt")
    classify("国足今晚出战世预赛", candidate_labels=["体育", "财经"])
    # {"sequence": "国足今晚出战世预赛", "labels": ["体育", "财经"], "scores": [0.9, 0.1]}
    ```
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._options: dict[str, Any] = {}
        self._plans: dict[Any, _Plan] = {}
        self._ready: dict[str, Any] = {}  # the last answer of `_ready_words`
        super().__init__(*args, **kwargs)
        self.tokenizer: Any
        if self.tokenizer is None:
            raise ValueError("zero-shot-prompt needs a tokenizer: pass tokenizer=…, or the model as a name or folder.")
        _refuse_unconverted(self.model)
        self._encoder(self._options)  # a wrong template is told now, not at the first text
        if self._labels(self._options) is not None:
            self._plan(self._options)

    def _sanitize_parameters(
        self,
        plan: _Plan | None = None,
        answer: Mapping[str, Any] | None = None,
        local_files_only: bool | None = None,
        **options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if plan is None:  # from the constructor
            self._options = _checked_options(options)
            return {}, {}, {}
        return {"plan": plan}, {"plan": plan}, {"plan": plan, **(answer or {})}

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Classify one text or many.

        Args:
            inputs (`str`, `Mapping[str, str]`, or a list, generator or data set of them):
                The text, or the columns that the template names.
            candidate_labels (`str` or `Sequence[str]`, *optional*):
                The labels; also as the second positional argument. Without it the verbalizer's labels are used.
            num_workers, batch_size (`int`, *optional*):
                As in every pipeline; neither changes the answers.
            **kwargs:
                Any option of the class.

        Returns:
            One answer for one text, a list for a list, an iterator for a generator or data set. With
            `candidate_labels` an answer is `{"sequence", "labels", "scores"}`, best first. With the labels of a
            verbalizer it is what `text-classification` gives: `{"label", "score"}`, the single best one wrapped in a
            list for a single string, and a list of the best with `top_k`.

        Raises:
            `ValueError`: see the message; it names the value and the way out.
            `TypeError`: a text that is no string.
        """
        if len(args) == 1 and "candidate_labels" not in kwargs:
            kwargs["candidate_labels"] = args[0]
        elif args:
            raise ValueError(f"Unable to understand the extra arguments {args}: options are given by name.")
        loading: dict[str, Any] = {name: kwargs.pop(name) for name in ("num_workers", "batch_size") if name in kwargs}
        options = {**self._options, **_checked_options(kwargs)}
        plan = self._plan(options)
        inputs = _as_pipeline_input(inputs)
        answer: dict[str, Any] = {
            "top_k": options.get("top_k"),
            "zero_shot": options.get("candidate_labels") is not None,
        }
        texts = options.get("calibration_texts")

        if isinstance(inputs, list) and not inputs:
            return []
        if plan.calibration in ("batch", "prior") and texts is None:
            return self._calibrated_on_inputs(inputs, plan, options, answer, loading)
        if plan.calibration != "none":
            if texts is None:
                texts = CONTENT_FREE_TEXTS if plan.calibration == "contextual" else ("",)
            filled = [dict.fromkeys(plan.encoder.template.columns, t) if isinstance(t, str) else t for t in texts]
            answer["bias"] = self._bias(self._label_scores(filled, plan, loading), plan, options)
        return self._wrapped(inputs, super().__call__(inputs, plan=plan, answer=answer, **loading), answer)

    def preprocess(self, input_: Any, plan: _Plan) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Encode a text once for each length of label words."""
        values = _column_values(input_, plan.encoder.template)
        encodings = plan.encoder.encode(values, plan.lengths)
        for i, encoding in enumerate(encodings):
            tensors = {name: torch.tensor([row]) for name, row in encoding.items()}
            yield {**tensors, "sequence": input_, "is_last": i == len(encodings) - 1}

    def _forward(self, model_inputs: dict[str, Any], plan: _Plan) -> dict[str, Any]:  # type: ignore[override]
        tensors = {name: value for name, value in model_inputs.items() if isinstance(value, torch.Tensor)}
        # Padding goes to the right even if the tokenizer's goes to the left, where it would move the positions that a
        # text is read at, and with them its score, by the length of its neighbours in the batch.
        order = torch.argsort(1 - tensors["attention_mask"], dim=1, stable=True)
        tensors = {name: value.gather(1, order) for name, value in tensors.items()}
        positions, counts = mask_positions(tensors["label_mask"])
        logits = mask_logits(self.model, accepted_inputs(self.model, tensors), positions)
        scores = word_scores(logits, counts, plan.groups, len(plan.weights))
        return {
            "scores": scores.log_probs if plan.calibration == "none" else scores.centred,  # (batch, words)
            "sequence": model_inputs["sequence"],
            "is_last": model_inputs["is_last"],
        }

    def postprocess(  # type: ignore[override]
        self,
        model_outputs: list[dict[str, Any]],
        plan: _Plan,
        bias: torch.Tensor | None = None,
        zero_shot: bool = True,
        top_k: int | None = None,
        raw: bool = False,
    ) -> Any:
        """Add up the lengths of a text, weigh the words, take out the bias and sort."""
        words = torch.stack([output["scores"][0] for output in model_outputs]).double().sum(dim=0)
        scores = words @ plan.weights  # (labels,)
        if raw:
            return scores
        return _answer(model_outputs[0]["sequence"], scores, plan, bias, zero_shot, top_k)

    def _encoder(self, options: Mapping[str, Any]) -> PromptEncoder:
        limit = longest_input(self.model, self.tokenizer)
        asked = options.get("max_length")
        lengths = [length for length in (limit, asked) if length is not None]
        template = options.get("template", DEFAULT_TEMPLATE)
        template = template if isinstance(template, Template) else Template(template)
        return PromptEncoder(template, self.tokenizer, min(lengths, default=None))

    def _labels(self, options: Mapping[str, Any]) -> Verbalizer | None:
        """The labels and words to use; `None` where the options name no label."""
        labels, verbalizer = options.get("candidate_labels"), options.get("verbalizer")
        if verbalizer == "ready":
            return None if labels is None else Verbalizer.of(self._ready_words(labels, self._encoder(options)))
        if verbalizer is None:
            return None if labels is None else Verbalizer.of(labels)
        verbalizer = Verbalizer.of(verbalizer)
        return verbalizer if labels is None else verbalizer.select(labels)

    def _ready_words(self, labels: Sequence[str], encoder: PromptEncoder) -> Mapping[str, Any]:
        """The ready words that the vocabulary can spell; where it can spell none, the label itself."""
        Verbalizer.of(labels)  # a repeated label would be lost in the mapping
        key = (encoder.template.source, tuple(labels), len(self.tokenizer))
        if self._ready.get("key") != key:
            words = {
                label: [word for word in words if encoder.can_spell(word)] or label
                for label, words in ready_label_words(labels).items()
            }
            self._ready = {"key": key, "words": words}
        return self._ready["words"]

    def _plan(self, options: Mapping[str, Any]) -> _Plan:
        verbalizer = self._labels(options)
        if verbalizer is None:
            raise ValueError(
                "No labels: give candidate_labels=['体育', '财经'], or a verbalizer with the words of each label."
            )
        encoder = self._encoder(options)
        calibration = options.get("calibration", "contextual")
        key = (encoder.template.source, encoder.max_length, verbalizer, calibration, len(self.tokenizer))
        if key not in self._plans:
            groups = group_words(verbalizer, encoder.word_ids)
            plan = _Plan(encoder, verbalizer, groups, verbalizer.weight_matrix(), calibration)
            # A template that leaves no room for its own masks is told before any text.
            encoder.encode(dict.fromkeys(encoder.template.columns, ""), plan.lengths)
            while len(self._plans) >= _KEPT_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = plan
        return self._plans[key]

    def _label_scores(self, texts: Any, plan: _Plan, loading: Mapping[str, Any]) -> torch.Tensor:
        """Scores of the labels, not calibrated, of shape (texts, labels)."""
        return torch.stack(list(super().__call__(texts, plan=plan, answer={"raw": True}, **loading)))

    def _bias(self, scores: torch.Tensor, plan: _Plan, options: Mapping[str, Any]) -> torch.Tensor:
        if plan.calibration != "prior":
            return mean_bias(scores)
        return prior_bias(scores, label_prior_tensor(options.get("label_prior"), plan.verbalizer.labels))

    def _calibrated_on_inputs(
        self,
        inputs: Any,
        plan: _Plan,
        options: Mapping[str, Any],
        answer: Mapping[str, Any],
        loading: Mapping[str, Any],
    ) -> Any:
        """Batch and prior calibration: every text is scored before the first is answered."""
        many = isinstance(inputs, (list, GeneratorType, Dataset))
        texts = list(_iterate(inputs)) if many else [inputs]
        if len(texts) < 2:
            raise ValueError(
                f"calibration={plan.calibration!r} compares texts with each other, and there is {len(texts)}: give a"
                " list of texts, calibration_texts=[…] to compare with, or calibration='contextual'."
            )
        scores = self._label_scores(texts, plan, loading)
        bias = self._bias(scores, plan, options)
        answers = [_answer(text, row, plan, bias, **answer) for text, row in zip(texts, scores, strict=True)]
        return answers if isinstance(inputs, list) else iter(answers)

    @staticmethod
    def _wrapped(inputs: Any, answers: Any, answer: Mapping[str, Any]) -> Any:
        # As text-classification does: a single string gives a list even for the single best label.
        single = isinstance(inputs, str) and not answer["zero_shot"] and answer["top_k"] is None
        return [answers] if single else answers


def _refuse_unconverted(model: Any) -> None:
    """Raise where the Auto classes made a plain BERT of an official ChineseBERT, whose folder says it is one."""
    names = getattr(model.config, "architectures", None) or []
    if model.config.model_type == "bert" and any(name.startswith("Glyce") for name in names):
        raise ValueError(
            f"{model.name_or_path} is a ChineseBERT in the official layout, loaded as a plain BERT without its pinyin"
            " and glyphs. Convert it (`hf-nlpnotes convert-chinesebert SRC DST`), or load it with"
            " ChineseBertForMaskedLM and ChineseBertTokenizer and pass model=…, tokenizer=…."
        )


def _answer(
    sequence: Any, scores: torch.Tensor, plan: _Plan, bias: torch.Tensor | None, zero_shot: bool, top_k: int | None
) -> Any:
    if bias is not None:
        scores = scores - bias
    shares, order = scores.softmax(dim=0).sort(descending=True, stable=True)
    labels = [plan.verbalizer.labels[i] for i in order.tolist()]
    if zero_shot:
        return {"sequence": sequence, "labels": labels[:top_k], "scores": shares.tolist()[:top_k]}
    best = [{"label": label, "score": score} for label, score in zip(labels, shares.tolist(), strict=True)]
    return best[0] if top_k is None else best[:top_k]


_OPTIONS = (
    "candidate_labels",
    "template",
    "verbalizer",
    "calibration",
    "calibration_texts",
    "label_prior",
    "max_length",
    "top_k",
)


def _checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given (`None` means: not given), each of the right kind."""
    unknown = [name for name in options if name not in _OPTIONS]
    if unknown:
        raise TypeError(f"zero-shot-prompt has no option {unknown[0]!r}; there are: {', '.join(_OPTIONS)}.")
    given = {name: value for name, value in options.items() if value is not None}
    if "candidate_labels" in given:
        given["candidate_labels"] = _label_list(given["candidate_labels"])
    calibration = given.get("calibration", "none")
    if calibration not in CALIBRATIONS:
        raise ValueError(f"calibration must be one of {', '.join(CALIBRATIONS)}, got {calibration!r}.")
    if isinstance(given.get("verbalizer"), str) and given["verbalizer"] != "ready":
        raise ValueError(f"A verbalizer is 'ready' or a mapping from labels to words, got {given['verbalizer']!r}.")
    texts = given.get("calibration_texts", [""])
    if isinstance(texts, (str, Mapping)) or not isinstance(texts, Sequence) or not texts:
        raise ValueError(f"calibration_texts is a list of texts, at least one, got {texts!r}.")
    for name in ("max_length", "top_k"):
        value = given.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}.")
    return given


def _label_list(labels: Any) -> list[str]:
    if isinstance(labels, str):
        labels = [label.strip() for label in labels.replace("，", ",").split(",") if label.strip()]
    if isinstance(labels, (Mapping, bytes)) or not isinstance(labels, Sequence):
        raise TypeError(f"candidate_labels is a list of labels, or labels separated by commas, got {labels!r}.")
    return list(labels)


def _as_pipeline_input(inputs: Any) -> Any:
    """Inputs in one of the kinds that `Pipeline` tells apart: one text, list, generator or data set."""
    if isinstance(inputs, (str, Mapping, list, GeneratorType, Dataset)):
        return inputs
    if isinstance(inputs, bytes) or not isinstance(inputs, Iterable):
        raise TypeError(
            "The input is a text, a mapping from columns to texts, or a list, generator or data set of them, got"
            f" {type(inputs).__name__}: {inputs!r}."
        )
    if isinstance(inputs, Sequence):
        return list(inputs)
    return (item for item in inputs)


def _iterate(inputs: Any) -> Iterator[Any]:
    """The items of a list, generator or data set; a map-style data set has a length and no iterator."""
    if isinstance(inputs, Dataset) and not isinstance(inputs, Iterable):
        return (inputs[i] for i in range(len(inputs)))  # type: ignore[arg-type]
    return iter(inputs)


def _column_values(item: Any, template: Template) -> dict[str, str]:
    """The text of each of the template's columns."""
    columns = template.columns
    if isinstance(item, str):
        if len(columns) > 1:
            raise ValueError(
                f"The template {template.source!r} has the columns {list(columns)}, and the input is one text,"
                f" {item[:40]!r}: give a mapping with a text for each column."
            )
        return {columns[0]: item}
    if not isinstance(item, Mapping):
        raise TypeError(
            f"A text is a string or a mapping from columns to strings, got {type(item).__name__}: {item!r}."
        )
    missing = [column for column in columns if column not in item]
    if missing:
        raise ValueError(
            f"The template {template.source!r} has the slot {missing[0]!r}, and the input has only the columns"
            f" {list(item)}: rename the slot or the column."
        )
    for column in columns:
        if not isinstance(item[column], str):
            raise TypeError(f"The column {column!r} holds {item[column]!r}, expected a string.")
    return {column: item[column] for column in columns}
